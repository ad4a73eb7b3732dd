"""What a run and a plan do once per checkpoint, per data set or per cell, and never more often."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers import image_folder, tiny_checkpoint

import clipeval
from clipeval import config, models
from clipeval.evaluation import plan, run, show
from clipeval.evaluation.request import Options, Request
from clipeval.evaluation.shelf import Shelf
from clipeval.results import interim, table
from clipeval.results.ledger import Ledger


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints and two data sets."""
    for seed in range(3):
        tiny_checkpoint(tmp_path / f"m{seed}.pt", seed)
    for classes, name in ((3, "a"), (4, "b")):
        image_folder(tmp_path / name, classes=classes, per_class={"train": 2, "test": 3})
    return tmp_path


def request(folder: Path, checkpoints: int, sets: int) -> Request:
    words = [str(folder / f"m{number}.pt") for number in range(checkpoints)]
    data = [f"folder:{folder}/{name}" for name in "ab"[:sets]]
    options = Options(out=folder / "out", workers=0)
    return Request(
        config=config.load(None), options=options, models=words, datasets=data, tasks=["classification", "knn"]
    )


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each of the steps that cost something is made; they are made all the same."""
    counted: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def counting(*given, **named):
            counted[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(owner, name, counting)

    count(table, "current_rows")
    count(Shelf, "identity")
    count(plan.datasets, "capabilities")
    count(models, "open_checkpoint")
    count(Ledger, "described")
    count(Ledger, "_keep")
    return counted


def test_a_plan_asks_each_data_set_and_each_checkpoint_once(folder, calls):
    """Cells: 3 x 2 x 2. A row is looked at once, whatever the number of cells."""
    run.execute(request(folder, 3, 2), quiet=True)
    for checkpoints, sets in ((1, 1), (3, 1), (3, 2)):
        calls.clear()
        cells, bugs = run.dry_run(request(folder, checkpoints, sets))
        assert (len(cells), bugs) == (2 * checkpoints * sets, [])
        assert {cell["state"] for cell in cells} == {"done"}
        assert len({cell["cell"] for cell in cells}) == len(cells)
        rows = sum(len(record.rows) for record in Ledger(folder / "out").records)
        lines = (folder / "out" / "ledger.jsonl").read_text().count("\n")
        assert calls["open_checkpoint"] == checkpoints
        assert calls["identity"] == 2 * sets, "of each task on each data set, not of each checkpoint"
        assert calls["capabilities"] <= 2 * sets
        assert calls["described"] <= rows
        assert calls["_keep"] <= 2 * lines, "by the plan, and by the lines above"
        assert calls["current_rows"] == 0


def test_the_table_is_there_after_every_checkpoint(folder, monkeypatch):
    """While the next one is loaded: whole files, with the rows of those before it, which a report can be made of."""
    seen: list[tuple[int, int]] = []
    load = models.load

    def loading(*given, **named):
        files = [folder / "out" / name for name in ("results.parquet", "results.csv")]
        if all(file.exists() for file in files):
            frame = pq.read_table(files[0]).to_pandas()
            pd.testing.assert_frame_equal(clipeval.read_results(folder / "out"), clipeval.read_results(files[0]))
            seen.append((frame["model"].nunique(), len(pd.read_csv(files[1])) - len(frame)))
        else:
            seen.append((0, 0))
        return load(*given, **named)

    monkeypatch.setattr(models, "load", loading)
    monkeypatch.setattr(interim, "_LARGEST_SHARE", 1.0)
    final = run.execute(request(folder, 3, 2), quiet=True)
    assert seen == [(0, 0), (1, 0), (2, 0)]
    assert {row["model"] for row in final.rows} == {str(folder / f"m{number}.pt") for number in range(3)}
    assert clipeval.report(folder / "out", folder / "page").is_file()


def test_tables_take_a_small_share_of_the_run(tmp_path, monkeypatch):
    """A clock that only measuring (1 s a time) and writing (3 s a time) move."""
    now, written = [0.0], []

    def write(*_):
        now[0] += 3
        written.append(now[0])

    monkeypatch.setattr(interim.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(interim.table, "write", write)
    tables = interim.Interim(tmp_path, Ledger(tmp_path))
    for _ in range(3_000):
        now[0] += 1
        tables.update()
    assert written[0] == 4, "the first checkpoint is shown at once"
    assert 0.015 < 3 * len(written) / now[0] <= 0.02 + 3 / now[0]


def test_a_killed_run_leaves_tables_that_are_read(folder):
    """As after a kill between the two files, and after one before either: the ledger says what is missing."""
    run.execute(request(folder, 1, 1), quiet=True)
    before = (folder / "out" / "results.parquet").read_bytes()
    run.execute(request(folder, 2, 1), quiet=True)
    whole = clipeval.read_results(folder / "out")
    (folder / "out" / "results.parquet").write_bytes(before)
    pd.testing.assert_frame_equal(clipeval.read_results(folder / "out"), whole)
    (folder / "out" / "results.parquet").unlink()
    (folder / "out" / "results.csv").unlink()
    pd.testing.assert_frame_equal(clipeval.read_results(folder / "out"), whole)


def test_the_standing_record_is_known_as_lines_come(tmp_path):
    """A second implementation, over the whole list, after every line."""
    ledger = Ledger(tmp_path)
    named = {"model": "m", "dataset": "d", "task": "t", "metric": "acc1"}
    for cell, status in (("1", "failed"), ("1", "ok"), ("1", "failed"), ("2", "failed"), ("2", "ok"), ("1", "skipped")):
        ledger.add_cell(cell, [named | {"status": status, "value": 0.5}])
        expected = ledger.records[0]
        for record in ledger.records[1:]:
            if not (record.failed and not expected.failed and record.cell == expected.cell):
                expected = record
        assert list(ledger.standing.values()) == [expected]
        assert list(Ledger(tmp_path).standing.values()) == [expected]
    assert json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[-1])["cell"] == "1"


def test_a_plan_says_what_is_to_come(tmp_path, capsys, monkeypatch):
    """By hand: 151,277,313 parameters of four bytes; 50,000 pixels of 224 x 224 x 3 bytes, once for two checkpoints."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    words = ["ViT-B-32,laion2b_s34b_b79k", "ViT-B-32-quickgelu,openai", str(tmp_path / "mine.pt")]
    tiny_checkpoint(tmp_path / "mine.pt")
    for offline in (False, True):
        options = Options(out=tmp_path / "out", workers=0, offline=offline)
        cells, _ = run.dry_run(
            Request(config=config.load(None), options=options, models=words, datasets=["imagenet1k"])
        )
        assert {cell["state"] for cell in cells} == {"missing"}
        assert {cell["to_download"] for cell in cells} == {not offline}
        assert [cell["weights_bytes"] for cell in cells] == [605_109_252, 605_109_252, 0]
        assert [cell["images"] for cell in cells] == [50_000] * 3
        assert [cell["pixels_bytes"] for cell in cells] == [7_526_400_000, 7_526_400_000, 50_000 * 32 * 32 * 3]
        show.print_plan(cells)
        said = capsys.readouterr().out
        if offline:
            assert "3 cells: 3 missing" in said
            assert "to download" not in said
        else:
            assert "3 cells: 3 to download" in said
            assert "to download: about 1.2 GB of weights for 2 checkpoints; and data" in said
            assert "disk: up to 7.7 GB of pixels in " in said
