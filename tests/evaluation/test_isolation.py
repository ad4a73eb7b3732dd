"""Whatever one checkpoint or data set raises, its own cells fail with a reason, and the others are measured."""

from __future__ import annotations

import json
import os

import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval import console, datasets, models
from clipeval.evaluation import workbench
from clipeval.tasks import zeroshot_classification


@pytest.fixture
def zoo(tmp_path):
    for name in ("good", "odd"):
        tiny_checkpoint(tmp_path / f"{name}.pt", seed=len(name))
        image_folder(tmp_path / name / "colours", per_class={"train": 2, "test": 2})
    (tmp_path / "b.yaml").write_text(
        json.dumps({"datasets": {name: f"folder:{tmp_path}/{name}/colours" for name in ("good", "odd")}})
    )
    return tmp_path


@pytest.fixture
def run(zoo, command):
    """Both checkpoints on both data sets: (exit code, statuses by checkpoint and data set, stderr)."""

    def call(*words):
        names = ["-m", zoo / "odd.pt", "-m", zoo / "good.pt", "-d", "odd", "-d", "good"]
        common = ["-c", zoo / "b.yaml", "-t", "classification", "-o", zoo / "out", "--workers", "0"]
        code, out, err = command("clipeval", "run", *names, *common, *words)
        if "--plan" in words:
            return code, out, err
        frame = clipeval.read_results(zoo / "out")
        return code, {(row.model.split("/")[-1], row.dataset): row.status for row in frame.itertuples()}, err

    return call


def fails(real, *odd):
    """``real``, but for arguments of which one names something odd."""

    def call(*arguments, **keywords):
        if any(word in repr(arguments) for word in odd):
            raise RuntimeError("nobody thought of this")
        return real(*arguments, **keywords)

    return call


PLACES = [
    (datasets, "open_dataset", ("odd/colours",), "dataset"),
    (models, "open_checkpoint", ("odd.pt",), "model"),
    (models, "load", ("odd.pt",), "model"),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[1])
def test_the_others_are_measured_and_the_bug_is_not_hidden(zoo, run, monkeypatch, place):
    module, name, odd, of = place
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fails(getattr(module, name), *odd))
        code, found, err = run()
    for (model, dataset), status in found.items():
        broken = model == "odd.pt" if of == "model" else dataset == "odd"
        assert status == ("failed" if broken else "ok"), (model, dataset)
    assert len(found) == 4
    assert code == 70
    assert err.count("errors.log") >= 1
    assert "Traceback" not in err
    log = (zoo / "out/errors.log").read_text()
    assert log.count("Traceback") == 1
    assert "nobody thought of this" in log
    assert log.rstrip().endswith("(2 cells)")
    code, found, _ = run()
    assert code == 0
    assert set(found.values()) == {"ok"}


def test_a_plan_says_so_too(zoo, run, monkeypatch):
    monkeypatch.setattr(datasets, "open_dataset", fails(datasets.open_dataset, "odd/colours"))
    code, out, err = run("--plan", "--json")
    assert code == 70
    assert [cell["state"] for cell in json.loads(out)] == ["failed", "to do", "failed", "to do"]
    assert "nobody thought of this" in err
    assert not (zoo / "out").exists()


def test_texts_of_one_data_set_that_no_tokenizer_takes(zoo, run, monkeypatch):
    real = zeroshot_classification.texts

    def texts(dataset):
        return [*real(dataset), 7] if dataset.name == "odd" else real(dataset)

    monkeypatch.setattr(zeroshot_classification, "texts", texts)
    code, found, _ = run()
    assert code == 70
    assert found == {
        (model, dataset): "failed" if dataset == "odd" else "ok"
        for model in ("odd.pt", "good.pt")
        for dataset in ("odd", "good")
    }


def test_outcomes_that_cannot_be_written(zoo, run, monkeypatch):
    from clipeval.results import samples

    real = samples.write

    def write(out, cell, columns):
        if any("red" in str(name) for name in columns["id"]) and len(seen) == 0:
            seen.append(cell)
            raise TypeError("cannot convert")
        return real(out, cell, columns)

    seen: list[str] = []
    monkeypatch.setattr(samples, "write", write)
    code, found, _ = run()
    assert code == 70
    assert sorted(found.values()) == ["failed", "ok", "ok", "ok"]


def test_names_of_files_that_are_no_text(zoo, run):
    folder = zoo / "odd/colours/test/red"
    (folder / "000.png").rename(folder / os.fsdecode(b"\xff\xfe.png"))
    _, found, _ = run()
    assert {status for (_, dataset), status in found.items() if dataset == "good"} == {"ok"}


@pytest.mark.skipif(not hasattr(console, "printable"), reason="the terminal is told such names as they are")
def test_a_checkpoint_whose_name_is_no_text(zoo, command):
    name = (zoo / "odd.pt").rename(zoo / os.fsdecode(b"\xff.pt"))
    words = ["-m", name, "-m", zoo / "good.pt", "-d", f"folder:{zoo}/good/colours", "-t", "classification"]
    code, _, _ = command("clipeval", "run", *words, "-o", zoo / "out", "--workers", "0")
    assert code in (0, 3, 70)
    frame = clipeval.read_results(zoo / "out")
    assert set(frame[frame.model == str(zoo / "good.pt")].status) == {"ok"}
    assert len(frame.model.unique()) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples_seen", "many"),
        ("samples_seen", [1]),
        ("samples_seen", 10**400),
        ("samples_seen", float("inf")),
        ("samples_seen_from", ["card"]),
        ("gpu_hours", "x"),
        ("source", {"a": 1}),
        ("init", ["x"]),
    ],
)
def test_odd_facts_in_a_checkpoint(zoo, run, name, value):
    tiny_checkpoint(zoo / "odd.pt", **{name: value})
    code, found, _ = run()
    assert code in (3, 70)
    assert {status for (model, _), status in found.items() if model == "good.pt"} == {"ok"}
    assert {status for (model, _), status in found.items() if model == "odd.pt"} == {"failed"}


def test_memory_is_no_bug(zoo, run, monkeypatch):
    def full(*arguments, **keywords):
        raise MemoryError

    monkeypatch.setattr(workbench.images, "embed", full)
    monkeypatch.setattr("clipeval.embeddings.inputs.images.embed", full)
    code, found, err = run()
    assert code == 3
    assert set(found.values()) == {"failed"}
    assert "ran out of memory" in err


def test_half_the_data_sets_of_a_probe(zoo, command):
    """A training split that cannot be opened takes only the tasks that train with it."""
    caption_shards(zoo / "pairs")
    (zoo / "good/colours/train/red/000.png").unlink()
    for path in (zoo / "good/colours/train").glob("*/*.png"):
        path.unlink()
    words = ["-m", zoo / "good.pt", "-d", f"folder:{zoo}/good/colours", "-t", "classification", "-t", "probe"]
    code, _, _ = command("clipeval", "run", *words, "-o", zoo / "out", "--workers", "0")
    assert code == 3
    frame = clipeval.read_results(zoo / "out")
    assert set(frame[frame.task == "zeroshot_classification"].status) == {"ok"}
    assert set(frame[frame.task == "linear_probe"].status) == {"failed"}
