"""Every test has a cache folder of its own, one thread, and no way to a hub."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # set by the readline library in processes without a terminal
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
from loopback_hub import Hub


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A fresh cache folder per test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIPEVAL_CACHE", str(folder))
    return folder


@pytest.fixture
def command(capsys, monkeypatch):
    """Run ``clipeval`` or ``clipeval-train`` in this process: its words in, (exit code, stdout, stderr) out."""
    from clipeval import cli, exits
    from clipeval_train import cli as trainer

    monkeypatch.setattr(exits, "_leave", sys.exit)  # after an interrupt this process goes on

    programs = {"clipeval": cli.main, "clipeval-train": trainer.main}

    def call(*words):
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        capsys.readouterr()
        on_interrupt = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            programs[words[0]]()
        signal.signal(signal.SIGINT, on_interrupt)
        captured = capsys.readouterr()
        assert stop.value.code == 70 or "Traceback" not in captured.err, captured.err  # 70: a bug, on purpose
        return stop.value.code, captured.out, captured.err

    return call


@pytest.fixture
def hub(tmp_path):
    """A Hugging Face hub on the loopback, with caches of its own for the programs that talk to it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    with Hub(folder) as served:
        yield served
