"""Files that are whole or absent, the thread that writes them, one run per folder, and what other programs read."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import open_clip
import pytest
import torch
from helpers import tiny_checkpoint
from tiny_run import MODEL, tiny_config
from worlds import one

import clipeval
from clipeval.errors import ModelError, StoreError, UsageError
from clipeval_train import checkpoint
from clipeval_train.checkpoint import Saver
from clipeval_train.config import PretrainConfig
from clipeval_train.loop import pretrain


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run with a running average: (configuration, its last checkpoint's path)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = tiny_config(tmp_path_factory.mktemp("run") / "run", samples=96, warmup=0, ema=0.5)
        return config, pretrain(config)


def content(samples, **more):
    return {"state_dict": {"w": torch.full((3,), float(samples))}, "metadata": {"samples_seen": samples}, **more}


def place(out, samples):
    return tiny_config(out).path(samples)


def names(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_a_checkpoint_is_plain_and_loads_in_open_clip(trained):
    config, path = trained
    saved = torch.load(path, weights_only=True)
    assert {key: saved[key] for key in ("format", "arch", "model_cfg", "resume")} == {
        "format": "clipeval-train-1",
        "arch": "custom",
        "model_cfg": MODEL,
        "resume": None,
    }
    metadata = saved["metadata"]
    expected = {"source": "digits", "source_family": "digits", "unique_samples": 1442, "samples_seen": 96, "seed": 0}
    assert metadata.items() >= expected.items()
    assert PretrainConfig.model_validate(metadata["config"]) == config.on("cpu")
    model = open_clip.CLIP(**saved["model_cfg"])
    model.load_state_dict(saved["state_dict"], strict=True)
    assert all(weight.dtype == torch.float32 for weight in saved["state_dict"].values())
    assert (Path(config.out) / "latest").read_text() == "checkpoints/samples_000000000096.pt\n"


def encode(model):
    model.eval()
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a digit seven"])
    with torch.no_grad():
        return torch.cat([model.encode_image(torch.ones(1, 3, 16, 16)), model.encode_text(tokens)])


def test_architecture_and_file_load_in_open_clip(trained, tmp_path, monkeypatch):
    _, path = trained
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    (tmp_path / "tiny-of-this-test.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(tmp_path / "tiny-of-this-test.json")
    theirs = open_clip.create_model("tiny-of-this-test", pretrained=str(path))
    mine = open_clip.CLIP(**MODEL)
    mine.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert torch.equal(encode(theirs), encode(mine))


@pytest.mark.parametrize("ema", [False, True])
def test_an_export_loads_in_open_clip_and_clipeval_with_its_metadata(trained, tmp_path, ema):
    config, path = trained
    checkpoint.export(path, tmp_path / "export", ema)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/export")
    saved = torch.load(path, weights_only=True)
    mine = open_clip.CLIP(**MODEL)
    mine.load_state_dict(saved["ema" if ema else "state_dict"])
    assert torch.equal(encode(model), encode(mine))
    assert tuple(preprocess.transforms[-1].mean) == open_clip.OPENAI_DATASET_MEAN
    assert open_clip.get_tokenizer(f"local-dir:{tmp_path}/export")(["x"]).shape == (1, 12)
    if not ema:
        models = [f"local-dir:{tmp_path}/export", config.out]
        table = clipeval.run(models, "digits", "classification", out=tmp_path / "results", workers=0)
        values = table[table["metric"] == "acc1"]
        assert values["value"].nunique() == 1
        assert values["samples_seen"].tolist() == [96, 96]
        assert values["source"].tolist() == ["digits", "digits"]


def test_costs_reach_the_table(trained, tmp_path):
    saved = torch.load(trained[1], weights_only=True)
    saved["metadata"] |= {"gpu_hours": 1.5, "energy_kwh": 0.25}
    torch.save(saved, tmp_path / "x.pt")
    table = clipeval.run(str(tmp_path / "x.pt"), "digits", "classification", out=tmp_path / "results", workers=0)
    assert table[["gpu_hours", "energy_kwh"]].drop_duplicates().to_numpy().tolist() == [[1.5, 0.25]]


def test_an_export_of_an_average_that_is_not_there(tmp_path):
    checkpoint.save(place(tmp_path, 5), content(5, model_cfg=MODEL))
    with pytest.raises(UsageError, match="holds no running average"):
        checkpoint.export(checkpoint.newest(tmp_path), tmp_path / "x", ema=True)
    for name in ("none.pt", "n" * 300):
        with pytest.raises(UsageError, match="no checkpoint of clipeval-train is there"):
            checkpoint.find(tmp_path / name)


def test_the_average_of_another_run_under_the_same_name_is_made_anew(tmp_path):
    for value in (1.0, 2.0):
        path = place(tmp_path, 5)
        checkpoint.save(path, content(5, model_cfg=MODEL) | {"ema": {"w": torch.full((3,), value)}})
        target = checkpoint.averaged(path, tmp_path, one())
        assert torch.load(target)["state_dict"]["w"].tolist() == [value] * 3
        os.utime(target, ns=(0, 0))


def test_only_the_newest_stay(tmp_path):
    with Saver(keep=2) as saver:
        for samples in (10, 20, 30, 1000):
            saver.save(place(tmp_path, samples), content(samples))
    assert names(tmp_path) == ["samples_000000000030.pt", "samples_000000001000.pt"]
    assert checkpoint.newest(tmp_path).name == "samples_000000001000.pt"


def test_training_goes_on_while_the_thread_writes_what_was_there(tmp_path, monkeypatch):
    go, save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda *args: go.wait(20) and save(*args))
    values = content(7)
    with Saver() as saver:
        saver.save(place(tmp_path, 7), values)
        values["state_dict"]["w"] += 1  # the next step
        assert checkpoint.newest(tmp_path) is None
        go.set()
    assert torch.load(checkpoint.newest(tmp_path))["state_dict"]["w"].tolist() == [7, 7, 7]


def test_an_error_of_the_thread_surfaces_in_the_next_save_or_at_the_end(tmp_path, monkeypatch):
    def full(content, path):
        raise RuntimeError("PytorchStreamWriter failed writing file: no space left")

    monkeypatch.setattr(torch, "save", full)
    with Saver() as saver:
        saver.save(place(tmp_path, 1), content(1))
        with pytest.raises(StoreError, match="no space left"):
            saver.save(place(tmp_path, 2), content(2))
    with pytest.raises(StoreError, match="no space left"), Saver() as saver:
        saver.save(place(tmp_path, 1), content(1))
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    checkpoint.save(place(tmp_path, 1), content(1))
    big = content(2) | {"state_dict": {"w": torch.zeros(500_000)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            checkpoint.save(place(tmp_path, 2), big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.newest(tmp_path).name == names(tmp_path)[0] == "samples_000000000001.pt"


def test_what_a_killed_process_left_half_done_is_cleared_away(tmp_path):
    checkpoint.save(place(tmp_path, 32), content(32))
    (tmp_path / ".log.jsonl.999.tmp").write_text("")
    (tmp_path / "checkpoints/.samples_000000000064.pt.999.tmp").write_bytes(b"half")
    shutil.copy(checkpoint.newest(tmp_path), place(tmp_path, 64))  # killed before the pointer moved
    with checkpoint.claimed(tmp_path):
        assert names(tmp_path) == ["samples_000000000032.pt", "samples_000000000064.pt"]
    assert not list(tmp_path.glob(".log*"))


def test_a_command_that_is_refused_deletes_no_checkpoint_and_neither_does_one_that_goes_back(tmp_path):
    """The pointer is set back by hand, or by a backup: later files stay until the run comes to them again."""
    config = tiny_config(tmp_path, save_every=64)
    pretrain(config)
    before = names(tmp_path)
    (tmp_path / "latest").write_text("checkpoints/samples_000000000128.pt\n")
    with pytest.raises(UsageError, match="holds a run with lr"):
        pretrain(config.model_copy(update={"lr": 0.5}))
    assert names(tmp_path) == before
    with checkpoint.claimed(tmp_path):
        checkpoint.save(place(tmp_path, 192), content(192), keep=2)
    assert names(tmp_path) == [name for name in before if name != "samples_000000000064.pt"]


def test_two_runs_do_not_share_a_folder(trained):
    config, _ = trained
    failures = []

    def second():
        try:
            pretrain(config)
        except UsageError as error:
            failures.append(str(error))

    with checkpoint.claimed(Path(config.out)):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another run is writing here" in failures[0]


def test_a_kill_between_file_and_pointer_goes_on_from_the_older_one(tmp_path, monkeypatch):
    class Kill(BaseException):
        pass

    config = tiny_config(tmp_path / "killed", save_every=128)
    write_text, calls = checkpoint.write_text, []

    def dies_in_the_second(path, text):
        calls.append(path)
        if len(calls) == 2:
            raise Kill
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_text", dies_in_the_second)
        with pytest.raises(Kill):
            pretrain(config)
    assert len(names(tmp_path / "killed")) == 2
    assert checkpoint.newest(tmp_path / "killed").name == "samples_000000000128.pt"
    whole, resumed = (torch.load(pretrain(run))["state_dict"] for run in (tiny_config(tmp_path / "whole"), config))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_an_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        pretrain(tiny_config(tmp_path / "file"))


def test_foreign_and_broken_files_behind_the_pointer(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "latest").write_text("checkpoints/x.pt\n")
    torch.save({"state_dict": {}}, tmp_path / "checkpoints/x.pt")
    with pytest.raises(ModelError, match="not a checkpoint of clipeval-train"):
        pretrain(tiny_config(tmp_path))
    (tmp_path / "checkpoints/x.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ModelError, match="not readable as a checkpoint"):
        pretrain(tiny_config(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 10_000, b"x" * 300, b"a\0b"])
def test_a_pointer_that_is_none(tmp_path, content):
    (tmp_path / "latest").write_bytes(content)
    with pytest.raises((StoreError, UsageError)):
        checkpoint.find(tmp_path)
    with pytest.raises((StoreError, ModelError)):
        pretrain(tiny_config(tmp_path))


@pytest.mark.parametrize("tensors", [None, [1], {}, {"x": 3}, {3: torch.ones(1)}])
def test_an_export_of_what_holds_no_weights(tmp_path, tensors):
    path = tiny_checkpoint(tmp_path / "t.pt")
    torch.save(torch.load(path) | {"state_dict": tensors}, path)
    with pytest.raises(ModelError, match="holds no model weights"):
        checkpoint.export(path, tmp_path / "out")


def test_saving_in_the_background_takes_little_of_a_step(tmp_path, monkeypatch):
    """A disk of 0.3 s per file: three saves without waiting in between take as long as the writes before the last."""
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (time.sleep(0.3), save(*args)))
    with Saver() as saver:
        began = time.monotonic()
        saver.save(place(tmp_path, 1), content(1))
        assert time.monotonic() - began < 0.2
