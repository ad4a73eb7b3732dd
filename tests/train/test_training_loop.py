"""Whole runs: exact samples, resume bit for bit, kills, broken losses, and what a checkpoint holds."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import torch
from tiny_run import MODEL, tiny_config

from clipeval.errors import DataError, MeasureError, ModelError, StoreError, UsageError
from clipeval_train import checkpoint, loop
from clipeval_train.config import PretrainConfig
from clipeval_train.loop import MAX_LOGIT_SCALE, Trainer, pretrain
from clipeval_train.model import resolve


def read(path):
    return torch.load(path, weights_only=True)


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: (configuration, its last checkpoint's path)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = tiny_config(tmp_path_factory.mktemp("run") / "whole")
        return config, pretrain(config)


class Kill(BaseException):
    """Stands for the end of the process."""


def killed_after(monkeypatch, steps):
    done = Trainer.step
    count = iter(range(steps))

    def step(self, *args):
        if next(count, None) is None:
            raise Kill
        return done(self, *args)

    monkeypatch.setattr(Trainer, "step", step)


def test_samples_are_exact_and_the_last_batch_is_cut(tmp_path, monkeypatch):
    sizes = []
    done = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, *args: sizes.append(len(args[0])) or done(self, *args))
    path = pretrain(tiny_config(tmp_path))
    assert sizes == [32] * 13 + [7]
    assert path == tmp_path / "checkpoints/samples_000000000423.pt"
    assert read(path)["metadata"]["samples_seen"] == 423
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["samples"] == 423
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_checkpoint_is_plain_and_loads_in_open_clip(finished):
    config, path = finished
    content = read(path)
    assert {key: content[key] for key in ("format", "arch", "model_cfg", "resume")} == {
        "format": "clipeval-train-1",
        "arch": "custom",
        "model_cfg": MODEL,
        "resume": None,
    }
    metadata = content["metadata"]
    expected = {"source": "digits", "source_family": "digits", "unique_samples": 1442, "samples_seen": 423, "seed": 0}
    assert metadata.items() >= expected.items()
    assert PretrainConfig.model_validate(metadata["config"]) == config
    model = open_clip.CLIP(**content["model_cfg"])
    model.load_state_dict(content["state_dict"], strict=True)
    assert all(weight.dtype == torch.float32 for weight in content["state_dict"].values())
    assert (Path(config.out) / "latest").read_text() == "checkpoints/samples_000000000423.pt\n"


def test_two_runs_are_equal_and_another_seed_is_not(finished, tmp_path):
    weights = read(finished[1])["state_dict"]
    assert_equal_weights(weights, read(pretrain(tiny_config(tmp_path / "a")))["state_dict"])
    other = read(pretrain(tiny_config(tmp_path / "b", seed=1)))["state_dict"]
    assert not torch.equal(weights["text_projection"], other["text_projection"])


def test_a_finished_run_is_left_alone(finished, capsys):
    config, path = finished
    before = path.stat().st_mtime_ns
    assert pretrain(config) == path
    assert path.stat().st_mtime_ns == before
    assert "already finished" in capsys.readouterr().err


@pytest.mark.parametrize(("save_every", "steps"), [(100, 6), (32, 1), (64, 13)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(finished, tmp_path, monkeypatch, save_every, steps):
    config = tiny_config(tmp_path, save_every=save_every)
    with monkeypatch.context() as patch:
        killed_after(patch, steps)
        with pytest.raises(Kill):
            pretrain(config)
    torch.rand(5)  # the process that resumes has another random state
    path = pretrain(config)
    assert_equal_weights(read(path)["state_dict"], read(finished[1])["state_dict"])
    logged = [json.loads(line)["samples"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == sorted(set(logged))
    assert logged[-1] == 423


def test_checkpoints_come_at_the_first_batch_end_past_each_multiple(tmp_path):
    pretrain(tiny_config(tmp_path, save_every=100))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"samples_{n:012d}.pt" for n in (128, 224, 320, 416, 423)]
    assert read(tmp_path / "checkpoints" / names[0])["resume"] is not None


def test_a_kill_while_saving_leaves_the_older_checkpoint(finished, tmp_path, monkeypatch):
    config = tiny_config(tmp_path, save_every=128)
    save, calls = torch.save, []

    def dies_in_the_second(content, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half a file")
            raise Kill
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dies_in_the_second)
        with pytest.raises(Kill):
            pretrain(config)
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoints/samples_000000000128.pt"
    assert list((tmp_path / "checkpoints").glob("*.pt")) == [checkpoint.newest(tmp_path)]
    assert_equal_weights(read(pretrain(config))["state_dict"], read(finished[1])["state_dict"])


def test_a_kill_between_file_and_pointer_goes_on_from_the_older_one(finished, tmp_path, monkeypatch):
    config = tiny_config(tmp_path, save_every=128)
    point, calls = checkpoint._point, []

    def dies_in_the_second(target, path):
        calls.append(path)
        if len(calls) == 2:
            raise Kill
        point(target, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_point", dies_in_the_second)
        with pytest.raises(Kill):
            pretrain(config)
    assert len(list((tmp_path / "checkpoints").glob("*.pt"))) == 2
    assert checkpoint.load(checkpoint.newest(tmp_path))["metadata"]["samples_seen"] == 128
    assert_equal_weights(read(pretrain(config))["state_dict"], read(finished[1])["state_dict"])


def test_sigkill_and_the_same_command(finished, tmp_path):
    out = tmp_path / "run"
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from tiny_run import tiny_config;"
        "from clipeval_train import loop; step = loop.Trainer.step;"
        "loop.Trainer.step = lambda *a: (time.sleep(0.1), step(*a))[1];"
        "loop.pretrain(tiny_config(Path(sys.argv[1]), save_every=64))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(out), str(Path(__file__).parent)])
    deadline = time.monotonic() + 60
    while not (out / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    path = pretrain(tiny_config(out, save_every=64))
    assert_equal_weights(read(path)["state_dict"], read(finished[1])["state_dict"])


def test_other_settings_do_not_continue_a_run(finished):
    config, _ = finished
    with pytest.raises(UsageError, match=r"holds a run with lr: 0.01, and this one says 0.02. Give another `out`"):
        pretrain(config.model_copy(update={"lr": 0.02}))
    with pytest.raises(UsageError, match=r"holds a run with samples: 423, and this one says 500"):
        pretrain(config.model_copy(update={"samples": 500}))


def test_changed_data_does_not_continue_a_run(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, save_every=64)
    with monkeypatch.context() as patch:
        killed_after(patch, 3)
        with pytest.raises(Kill):
            pretrain(config)
    load = loop.Corpus.__init__
    monkeypatch.setattr(
        loop.Corpus, "__init__", lambda self, *a: (load(self, *a), setattr(self, "fingerprint", "x"))[0]
    )
    with pytest.raises(DataError, match="the data has changed since this run began"):
        pretrain(config)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    loss = loop.info_nce
    count = iter(range(5))
    broken = lambda *args: loss(*args) * (math.nan if next(count, None) is None else 1)  # noqa: E731
    monkeypatch.setattr(loop, "info_nce", broken)
    with pytest.raises(MeasureError, match=r"the loss is nan after 160 samples. Lower lr"):
        pretrain(tiny_config(tmp_path, save_every=64))
    assert checkpoint.load(checkpoint.newest(tmp_path))["metadata"]["samples_seen"] == 128


def test_the_logit_scale_stays_in_its_range_and_leaves_the_bound_again(tmp_path):
    config = tiny_config(tmp_path)
    trainer = Trainer(config, resolve(config.model, "tiny"))
    images, tokens = torch.randn(8, 3, 16, 16), torch.randint(1, 999, (8, 12))
    bounds = set()
    for direction in (-1.0, 1.0):  # the optimizer's gradient is forced, as if the data pulled that way
        hook = trainer._clip.logit_scale.register_hook(lambda gradient, d=direction: torch.full_like(gradient, d))
        for _ in range(60):
            trainer.step(images, tokens, lr=1.0)
            assert 0 <= trainer._clip.logit_scale.item() <= MAX_LOGIT_SCALE + 1e-6
            bounds.add(round(trainer._clip.logit_scale.item(), 4))
        hook.remove()
    assert {0.0, round(MAX_LOGIT_SCALE, 4)} <= bounds


def test_bf16_trains_fp32_weights(finished, tmp_path):
    weights = read(pretrain(tiny_config(tmp_path, precision="bf16")))["state_dict"]
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    exact = read(finished[1])["state_dict"]
    assert not torch.equal(weights["text_projection"], exact["text_projection"])
    assert torch.nn.functional.cosine_similarity(
        weights["text_projection"].flatten(), exact["text_projection"].flatten(), dim=0
    ) == pytest.approx(1, abs=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_fp16_needs_a_gpu(tmp_path):
    with pytest.raises(UsageError, match="precision: fp16 needs a CUDA device"):
        pretrain(tiny_config(tmp_path, precision="fp16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, "model: open_clip cannot build 'custom'"),
        ({"vocab_size": 100}, "model.text_cfg.vocab_size: 100, but CLIP's encoding has 49408 tokens"),
    ],
)
def test_impossible_models_are_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        pretrain(tiny_config(tmp_path, model=MODEL | {"text_cfg": MODEL["text_cfg"] | change}))


def test_an_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot read"):
        pretrain(tiny_config(tmp_path / "file"))


def test_a_full_disk_keeps_the_older_checkpoint(finished, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(torch, "save", torch.save)
    content = read(finished[1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            checkpoint.save(tmp_path, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.newest(tmp_path) is None
    assert not list((tmp_path / "checkpoints").iterdir())


def test_foreign_and_broken_files_behind_the_pointer(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "latest").write_text("checkpoints/x.pt\n")
    torch.save({"state_dict": {}}, tmp_path / "checkpoints/x.pt")
    with pytest.raises(ModelError, match="not a checkpoint of clipeval-train"):
        pretrain(tiny_config(tmp_path))
    (tmp_path / "checkpoints/x.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ModelError, match="not readable as a checkpoint"):
        pretrain(tiny_config(tmp_path))
