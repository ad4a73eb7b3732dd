"""Runs on a real Ray of this machine: the table is the one a local run gives, whatever dies on the way."""

from __future__ import annotations

import textwrap
import threading
import time

import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.errors import DataError, MeasureError, ModelError, UsageError
from clipeval.evaluation.workbench import Measured
from clipeval.results.schema import TIMING_COLUMNS

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

_KILLER = textwrap.dedent(
    """
    import os, signal, sys

    def watch(event, arguments):
        if event != "open" or not isinstance(arguments[0], str) or not arguments[0].endswith(".pt"):
            return
        with open(os.environ["DEATHS"]) as file:
            deaths = dict(line.split() for line in file)
        name = os.path.basename(arguments[0])
        left = int(deaths.get(name, 0))
        if left:
            deaths[name] = left - 1
            with open(os.environ["DEATHS"], "w") as file:
                file.writelines(f"{key} {value}\\n" for key, value in deaths.items())
            if name == "toy-c.pt":
                raise MemoryError
            os.kill(os.getpid(), signal.SIGKILL)

    if "DEATHS" in os.environ and "default_worker" in " ".join(sys.orig_argv):
        sys.addaudithook(watch)
    """
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    for seed, source in enumerate(["toy-a", "toy-b", "toy-c"]):
        tiny_checkpoint(root / "run" / "checkpoints" / f"{source}.pt", seed, source=source)
    image_folder(root / "colours")
    (root / "colours" / "test" / "red" / "notes.heic").write_text("for a remark that every table has to have")
    caption_shards(root / "pairs", images=41)
    tasks = ["classification", "retrieval", "probe"]
    return [str(root / "run/checkpoints/*.pt")], [f"folder:{root}/colours", f"wds:{root}/pairs"], tasks


def table(words, out, **more) -> pd.DataFrame:
    return clipeval.run(*words, out=out, shots=[None, 2], batch_size=2, **more).drop(columns=list(TIMING_COLUMNS))


@pytest.fixture(scope="module")
def reference(words, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("reference-cache")))
        return table(words, tmp_path_factory.mktemp("reference"), workers=0)


@pytest.fixture
def deaths(tmp_path, monkeypatch):
    """``deaths(name=k)``: the next k workers that open ``name.pt`` are killed with SIGKILL; of toy-c, out of memory."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))

    def plan(**counts: int):
        (tmp_path / "deaths").write_text("".join(f"{name}.pt {count}\n" for name, count in counts.items()))
        return tmp_path / "deaths"

    return plan


@pytest.mark.parametrize("workers", [1, 4])
def test_the_table_does_not_depend_on_the_workers(words, reference, tmp_path, workers):
    assert reference.notes.str.contains("1 files are not read because of their suffix").any()
    found = table(words, tmp_path, executor="ray", workers=workers)
    pd.testing.assert_frame_equal(found, reference)


def test_killed_workers_cost_nothing_and_a_deadly_checkpoint_only_its_own_rows(words, reference, tmp_path, deaths):
    left = deaths(**{"toy-a": 2, "toy-b": 100, "toy-c": 1})
    found = table(words, tmp_path / "out", executor="ray", workers=2)
    assert {"toy-a.pt 0", "toy-c.pt 0"} <= set(left.read_text().splitlines())
    deadly = found.model.str.endswith("toy-b.pt") & (found.status != "skipped")
    assert set(found[deadly].status) == {"failed"}
    assert found[deadly].error.str.contains("3 workers died at .*toy-b.pt, the last one at").all()
    kept = reference[~reference.model.str.endswith("toy-b.pt")]
    others = found[~found.model.str.endswith("toy-b.pt")]
    pd.testing.assert_frame_equal(others.reset_index(drop=True), kept.reset_index(drop=True), check_dtype=False)
    deaths()
    pd.testing.assert_frame_equal(table(words, tmp_path / "out", workers=0), reference)


def test_a_lost_node(words, reference, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    try:

        def lose() -> None:
            ledger = tmp_path / "ledger.jsonl"
            while not ledger.exists() or '"status": "ok"' not in ledger.read_text():
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        found = table(words, tmp_path, executor="ray", ray_address=cluster.address)
        thread.join()
    finally:
        cluster.shutdown()
    pd.testing.assert_frame_equal(found, reference)


def test_what_cannot_be_joined(words, tmp_path, monkeypatch):
    with pytest.raises(MeasureError, match=r"--ray-address 127\.0\.0\.1:1: cannot join this Ray cluster"):
        table(words, tmp_path, executor="ray", ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match="only --executor ray joins a cluster"):
        table(words, tmp_path, ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match="choose local or ray"):
        table(words, tmp_path, executor="dask")


def test_a_data_set_that_a_worker_sees_otherwise_fails_alone(words, tmp_path, monkeypatch):
    """The texts of all data sets are encoded in one unit: a wrong data set must not take the others with it."""
    from dataclasses import replace

    from clipeval import config
    from clipeval.evaluation import plan
    from clipeval.evaluation.ray import RayWorker
    from clipeval.evaluation.request import Options, Request
    from clipeval.evaluation.schedule import Unit
    from clipeval.results.ledger import Ledger

    models, sets, _ = words
    options = Options(out=tmp_path, device="cpu", batch_size=2, workers=0, executor="ray", offline=True)
    tasks = ["classification", "retrieval", "probe"]
    request = Request(config=config.load(None), options=options, models=models, datasets=sets, tasks=tasks)
    built = plan.build(request, Ledger(tmp_path))
    cells = [cell for cell in built.cells if cell.state == "to do" and cell.model.name.endswith("toy-a.pt")]
    for number, cell in enumerate(cells):
        if cell.task.name == "linear_probe":
            cells[number] = replace(cell, data=replace(cell.data, train="other"))
        elif cell.dataset == "colours":
            cells[number] = replace(cell, data=replace(cell.data, fingerprint="other"))
    monkeypatch.chdir(tmp_path)
    worker = RayWorker(options, str(tmp_path), own_threads=True)
    cells = tuple(cells)
    assert worker.work(Unit("texts", cells)) is None
    answers = {(cell.dataset, cell.task.short): worker.work(Unit("cell", (cell,))) for cell in cells}
    for other in (answers["colours", "classification"], answers["colours", "probe"]):
        assert isinstance(other, DataError)
        assert "sees other samples than the machine that planned the run" in str(other)
    assert isinstance(answers["pairs", "retrieval"], Measured)


def test_a_checkpoint_that_a_worker_sees_otherwise_is_not_measured(words, tmp_path, monkeypatch):
    from dataclasses import replace

    from clipeval import config
    from clipeval.evaluation import plan
    from clipeval.evaluation.ray import RayWorker
    from clipeval.evaluation.request import Options, Request
    from clipeval.evaluation.schedule import Unit
    from clipeval.results.ledger import Ledger

    models, sets, _ = words
    options = Options(out=tmp_path, device="cpu", batch_size=2, workers=0, executor="ray", offline=True)
    request = Request(config=config.load(None), options=options, models=models, datasets=sets[:1])
    cell = plan.build(request, Ledger(tmp_path)).cells[0]
    monkeypatch.chdir(tmp_path)
    cell = replace(cell, checkpoint=replace(cell.checkpoint, weights="0" * 64))
    worker = RayWorker(options, str(tmp_path), own_threads=True)
    for kind in ("texts", "cell"):
        answer = worker.work(Unit(kind, (cell,)))
        assert isinstance(answer, ModelError)
        assert "has changed during the run: weights" in str(answer)
