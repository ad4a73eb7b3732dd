"""What a worker answers where its machine has other files than the one that planned, and what it gives to others."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

from clipeval import config
from clipeval.embeddings import sharing
from clipeval.errors import ModelError
from clipeval.evaluation import environment, plan
from clipeval.evaluation.crew import Machine
from clipeval.evaluation.failures import Elsewhere, InternalError
from clipeval.evaluation.ray import reason_of
from clipeval.evaluation.request import Options, Request
from clipeval.evaluation.schedule import SLICE_BATCHES, Unit, slices
from clipeval.evaluation.workbench import Measured
from clipeval.evaluation.worker import Worker
from clipeval.models import encoder
from clipeval.results import provenance
from clipeval.results.ledger import Ledger

BATCH = 2


@pytest.fixture
def cells(tmp_path):
    tiny_checkpoint(tmp_path / "a.pt")
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 6})
    caption_shards(tmp_path / "pairs", images=11)
    sets = [f"folder:{tmp_path}/colours", f"wds:{tmp_path}/pairs"]
    options = Options(out=tmp_path, device="cpu", batch_size=BATCH, workers=0, executor="ray", offline=True)
    tasks = ["classification", "retrieval", "probe"]
    request = Request(
        config=config.load(None), options=options, models=[f"{tmp_path}/a.pt"], datasets=sets, tasks=tasks
    )
    return [cell for cell in plan.build(request, Ledger(tmp_path)).cells if cell.state == "to do"]


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """``worker()``: a new one that has started."""
    monkeypatch.chdir(tmp_path)

    def start(**options):
        found = Worker()
        settings = {"device": "cpu", "batch_size": BATCH, "workers": 0, "executor": "ray", "offline": True} | options
        assert isinstance(found.start(Options(out=tmp_path, **settings), str(tmp_path / "not here")), Machine)
        return found

    return start


def test_a_data_set_that_a_worker_sees_otherwise_fails_alone(cells, worker):
    """The texts of all data sets are encoded in one unit: a wrong data set must not take the others with it."""
    for number, cell in enumerate(cells):
        if cell.task.name == "linear_probe":
            cells[number] = replace(cell, data=replace(cell.data, train="other"))
        elif cell.dataset == "colours":
            cells[number] = replace(cell, data=replace(cell.data, fingerprint="other"))
    here = worker()
    assert here.work(Unit("texts", tuple(cells)))[0] is None
    answers = {(cell.dataset, cell.task.short): here.work(Unit("cell", (cell,)))[0] for cell in cells}
    for other in (answers["colours", "classification"], answers["colours", "probe"]):
        assert isinstance(other, Elsewhere)
        assert other.what == ("data set", "colours")
        assert "sees other samples than the machine that planned the run" in str(other)
    assert isinstance(answers["pairs", "retrieval"], Measured)


def test_a_checkpoint_that_a_worker_sees_otherwise_or_not_at_all_is_not_measured(cells, worker, tmp_path):
    other = replace(cells[0], checkpoint=replace(cells[0].checkpoint, weights="0" * 64))
    here = worker()
    for kind in ("texts", "images", "cell"):
        answer, piece = here.work(Unit(kind, (other,), 0, 4), keep=True)
        assert isinstance(answer, Elsewhere)
        assert answer.what == ("checkpoint", cells[0].model.name)
        assert "has changed during the run: weights" in str(answer)
        assert piece is None
    (tmp_path / "a.pt").unlink()
    answer, _ = here.work(Unit("cell", (cells[0],)))
    assert isinstance(answer, Elsewhere)
    assert f"{tmp_path}/a.pt' does not exist" in str(answer)


def test_what_breaks_later_is_no_lack_of_the_machine(cells, worker, monkeypatch):
    def broken(*_):
        raise ValueError("nobody thought of this")

    here = worker()
    here.work(Unit("texts", tuple(cells)))
    monkeypatch.setattr(encoder.OpenClipEncoder, "encode_images", broken)
    answer, _ = here.work(Unit("cell", (cells[0],)))
    assert isinstance(answer, InternalError)
    assert "nobody thought of this" in answer.trace


def test_embeddings_of_a_machine_with_another_cache_are_used(cells, worker, tmp_path, monkeypatch):
    """What the first machine has made is neither decoded nor encoded on the second; lacking, it is made there."""
    sizes = {"colours": 37, "pairs": 11}
    units = [Unit("texts", tuple(cells)), *slices(cells, sizes, BATCH)]
    assert len(units) == 3
    assert units[1].stop == SLICE_BATCHES * BATCH
    first = worker()
    made = [first.work(unit, keep=True) for unit in units]
    assert [answer for answer, _ in made] == [None] * 3
    assert first.work(units[1])[1] is None, "nobody needs it"
    (cell,) = (cell for cell in cells if cell.task.short == "classification")
    expected, _ = first.work(Unit("cell", (cell,)))

    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "second"))
    by_itself, _ = worker().work(Unit("cell", (cell,)))
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "third"))

    def never(*_):
        raise AssertionError("it was made elsewhere")

    monkeypatch.setattr("clipeval.embeddings.pixels.loaded", never)
    monkeypatch.setattr("clipeval.embeddings.texts.embed", never)
    monkeypatch.setattr("clipeval.embeddings.inputs.embed", never)
    given, _ = worker().work(Unit("cell", (cell,)), [piece for _, piece in made])
    for found in (by_itself, given):
        assert isinstance(found, Measured)
        assert found.result.metrics == expected.result.metrics
        assert set(found.result.samples) == set(expected.result.samples)
        for name, values in expected.result.samples.items():
            assert np.array_equal(found.result.samples[name], values), name


def test_a_device_that_is_not_there(tmp_path):
    answer = Worker().start(Options(out=tmp_path, executor="ray", device="cuda"), str(tmp_path))
    assert "--device cuda: this machine has no such GPU" in str(answer)


def test_a_worker_says_what_decides_its_values(tmp_path):
    answer = Worker().start(Options(out=tmp_path, executor="ray", device="cpu"), str(tmp_path))
    assert answer.packages == provenance.packages()
    root = Path(provenance.__file__).parents[2]
    tracked = subprocess.run(
        ["git", "ls-files", "clipeval", "clipeval_train"], cwd=root, capture_output=True, text=True
    )
    deciding = {name for name in tracked.stdout.split() if name.endswith((".py", ".json", ".csv"))}
    assert deciding > {"clipeval/tasks/linear_probe.py", "clipeval_train/finetune/task.py"}
    assert deciding <= set(answer.sources)


def test_who_shares_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "one"))
    program = "import sys; from clipeval.embeddings import sharing; print(sharing.mark('run'))"
    others = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    marks = {sharing.mark("run"), *(other.communicate()[0].strip() for other in others)}
    assert len(marks) == 1
    assert sharing.mark("another run") not in marks
    folder = tmp_path / "one" / "meetings"
    assert sorted(path.name for path in folder.iterdir()) == ["another run", "run"]
    os.utime(folder / "run", (0, 0))
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "two"))
    assert sharing.mark("run") not in marks
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "one"))
    assert sharing.mark("run") not in marks, "of a week ago"
    monkeypatch.setenv("CLIPEVAL_STORE", "memory://bucket/x/")
    assert sharing.mark("run") == "memory://bucket/x"


def test_what_is_handed_over(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in {"HF_TOKEN": "t", "AWS_PROFILE": "p", "HOME": "/home/x", "CLIPEVAL_CACHE": "c"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment.handed_over()
    assert {name: found.get(name) for name in ("HF_TOKEN", "AWS_PROFILE", "HOME", "OMP_NUM_THREADS")} == {
        "HF_TOKEN": "t",
        "AWS_PROFILE": "p",
        "HOME": None,
        "OMP_NUM_THREADS": "3",
    }
    assert found["CLIPEVAL_CACHE"] == str(tmp_path / "c")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub")  # so that it is taken away afterwards
    environment.take_over({"HF_ENDPOINT": "http://mirror"})
    assert os.environ["HF_ENDPOINT"] == "http://mirror"
    assert "OMP_NUM_THREADS" not in os.environ, "Ray's own"


def test_the_environment_is_there_before_a_library_reads_it():
    """huggingface_hub reads HF_ENDPOINT and HF_HOME when it is imported."""
    program = "import clipeval.evaluation.actor, sys; print({'huggingface_hub', 'torch', 'fsspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_errors_of_ray_in_a_line():
    class FromTask(Exception):
        cause = ModelError("the file is broken.\nAdvice")

    assert reason_of(FromTask("ray::work() (pid=1)\n  File ...")) == "ModelError: the file is broken."
    long = "\x1b[36mray::A\x1b[39m (pid=3, ip=10.0.0.1)\nTraceback (most recent call last):\n  File 'x', line 3\n"
    assert reason_of(RuntimeError(f"{long}ModuleNotFoundError: No module named 'clipeval'")) == (
        "ModuleNotFoundError: No module named 'clipeval'"
    )
    assert reason_of(RuntimeError("The actor died unexpectedly.\n\tclass_name: A")) == "The actor died unexpectedly."
    assert reason_of(RuntimeError()) == "RuntimeError"
