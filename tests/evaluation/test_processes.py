"""Workers on this machine without Ray: the table is the one a local run gives, whatever ends whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pandas as pd
import pytest
from helpers import image_folder, tiny_checkpoint
from waiting import until

import clipeval
from clipeval import machine
from clipeval.errors import MeasureError, UsageError
from clipeval.evaluation.processes import Processes
from clipeval.evaluation.request import Options
from clipeval.results.schema import TIMING_COLUMNS


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    for seed, name in enumerate(["a", "b"]):
        tiny_checkpoint(root / f"{name}.pt", seed)
    image_folder(root / "colours", per_class={"train": 9, "test": 9})
    models = [str(root / "a.pt"), str(root / "b.pt")]
    return models, [f"folder:{root}/colours", "digits"], ["classification", "probe"]


def table(words, out, **more) -> pd.DataFrame:
    return clipeval.run(*words, out=out, limit=45, shots=[2], batch_size=2, **more)


def without_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=list(TIMING_COLUMNS))


@pytest.fixture(scope="module")
def reference(words, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("reference-cache")))
        return without_times(table(words, tmp_path_factory.mktemp("reference"), workers=0))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_table_does_not_depend_on_the_workers(words, reference, tmp_path, workers, capsys):
    found = table(words, tmp_path, executor="processes", workers=workers)
    pd.testing.assert_frame_equal(without_times(found), reference)
    if workers == 1:
        again = table(words, tmp_path, executor="processes", workers=workers, rerun="always")
        pd.testing.assert_frame_equal(without_times(again), reference)
        assert (again.started_at.dropna() >= found.started_at.dropna().max()).all(), "all were measured again"


class Run:
    """The command in a process of its own; ``left`` are the processes that it has started."""

    def __init__(self, words, out: Path) -> None:
        self._mark = f"MARK={uuid.uuid4().hex}"
        flags = [
            word for flag, values in zip(("-m", "-d", "-t"), words, strict=True) for v in values for word in (flag, v)
        ]
        command = [sys.executable, "-m", "clipeval", "run", *flags, "-o", str(out), "--batch-size", "2", "--shots", "2"]
        command += ["--limit", "45", "--executor", "processes", "--workers", "2", "--json"]
        environment = os.environ | dict([self._mark.split("=")])
        self._log, self._json = out.with_suffix(".log"), out.with_suffix(".json")
        with self._log.open("w") as log, self._json.open("w") as document:
            self.process = subprocess.Popen(command, stdout=document, stderr=log, env=environment)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for_a_value(self, out: Path) -> None:
        ledger = out / "ledger.jsonl"
        until(
            lambda: ledger.exists() and '"status": "limited"' in ledger.read_text(),
            said=lambda: self.said,
            process=self.process,
        )

    def left(self) -> list[int]:
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                ours = self._mark.encode() in environ.read_bytes().split(b"\0")
                state = (environ.parent / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if ours and state != "Z":
                found.append(int(environ.parent.name))
        return found

    def require_nothing_left(self) -> None:
        until(lambda: not self.left(), 10, self.left)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_command(words, reference, tmp_path, kind):
    out = tmp_path / "out"
    run = Run(words, out)
    run.wait_for_a_value(out)
    assert len(run.left()) >= 3
    for pid in run.left() if kind == signal.SIGTERM else [run.process.pid]:  # Slurm tells all of them
        os.kill(pid, kind)
    code = run.process.wait(timeout=30)
    run.require_nothing_left()
    assert code == (-9 if kind == signal.SIGKILL else 130)
    assert "Traceback" not in run.said
    if kind != signal.SIGKILL:
        assert (out / "results.parquet").exists()
    found = table(words, out, workers=0)
    pd.testing.assert_frame_equal(without_times(found), reference)


def test_a_worker_that_cannot_start(words, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'evaluation.child' in ' '.join(sys.orig_argv): sys.exit(7)"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(MeasureError, match="this machine cannot run workers: it ended with exit code"):
        table(words, tmp_path / "out", executor="processes", workers=2)


@pytest.fixture
def gpus(monkeypatch):
    """``gpus("0", "1")``: a machine with these; only the hardware is stood in for."""

    def have(*names: str) -> None:
        monkeypatch.setattr(machine, "gpus", lambda: list(names))
        monkeypatch.setattr(machine, "resolve_device", lambda name: "cuda" if name == "auto" else name)

    return have


def test_several_gpus_are_all_used_unless_one_is_chosen(gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 13)
    gpus("0", "2", "GPU-f00")
    options = Options(out=tmp_path)
    assert (options.executor, options.device) == ("processes", "cuda")
    crew = Processes(options)
    assert crew._places == ["0", "2", "GPU-f00"]
    assert crew._options.decoders == 13 // 3 - 1
    assert Processes(Options(out=tmp_path, workers=12))._options.decoders == 4, "of all decoders a third"
    assert crew.summary(["this machine"] * 3) == "3 workers on 3 GPUs"
    assert Options(out=tmp_path, device="cuda:1").executor == "local"
    assert Options(out=tmp_path, device="cpu").executor == "local"
    assert Options(out=tmp_path, executor="local").executor == "local"
    alone = Options(out=tmp_path, keep_weights=False)
    assert (alone.executor, alone.uses_one_gpu_of_several) == ("local", True)
    assert not options.uses_one_gpu_of_several
    gpus("0")
    assert Options(out=tmp_path).executor == "local"
    assert Processes(Options(out=tmp_path, executor="processes"))._places == ["0"]


def test_what_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--keep-weights no: the workers of --executor processes share"):
        Options(out=tmp_path, executor="processes", keep_weights=False)
    with pytest.raises(UsageError, match="--device cuda:1: --executor processes has a GPU for each worker"):
        Options(out=tmp_path, executor="processes", device="cuda:1")
    with pytest.raises(UsageError, match="--precision fp16 needs a CUDA GPU"):
        Options(out=tmp_path, executor="processes", device="cpu", precision="fp16")


def test_the_names_of_gpus(monkeypatch):
    import torch

    monkeypatch.setattr(machine, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-f00")
    assert machine.gpus() == ["3", "GPU-f00"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert machine.gpus() == []
