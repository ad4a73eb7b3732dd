"""The table is tidy, typed, the same in both files, and independent of the order of work."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from clipeval import read_results
from clipeval.errors import UsageError
from clipeval.results import samples, table
from clipeval.results.ledger import Ledger
from clipeval.results.reading import read_tables
from clipeval.results.schema import COLUMNS, to_frame


def row(model="m", dataset="d", value=0.123456789012345678, status="ok", **more):
    return {
        "model": model,
        "dataset": dataset,
        "split": "test",
        "task": "zeroshot_classification",
        "seed": 0,
        "metric": "acc1",
        "value": value,
        "n": 3,
        "status": status,
        **more,
    }


def test_files_hold_the_same_unrounded_rows(tmp_path):
    frame = table.write(
        tmp_path, [row(), row(dataset='é, "x"\n', shots=16, value=float("nan"), status="failed", error="why")]
    )
    parquet, csv = read_results(tmp_path), read_results(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(parquet, frame)
    pd.testing.assert_frame_equal(csv, frame)
    assert list(parquet.columns) == list(COLUMNS)
    assert parquet["value"][0] == 0.123456789012345678


def test_a_folder_whose_name_is_not_utf8_holds_tables(tmp_path):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    samples.write(out, "cell", {"id": np.array(["a", "b"]), "correct": np.array([True, False])})
    table.write_frame(out, to_frame([row()]))
    assert (
        read_results(out)["value"].tolist() == read_results(out / "results.csv")["value"].tolist() == [row()["value"]]
    )
    assert samples.read(out, "cell")["correct"].tolist() == [True, False]
    assert read_tables([str(out)])["results_file"].tolist() == [str(tmp_path / "caf\\xe9")]


def test_order_of_work_does_not_show(tmp_path):
    cells = {
        str(i): [row(model=f"m{i % 3}", dataset=f"d{i % 2}", shots=[None, 2, 10][i % 3], seed=i)] for i in range(9)
    }
    frames = []
    for order in (sorted(cells), sorted(cells, reverse=True)):
        ledger = Ledger(tmp_path / order[0])
        for cell in order:
            ledger.add_cell(cell, cells[cell])
        frames.append(to_frame(table.current_rows(ledger)))
    pd.testing.assert_frame_equal(*frames)
    assert len(frames[0]) == 9


def test_a_failure_stands_unless_the_very_same_was_measured(tmp_path):
    ledger = Ledger(tmp_path)

    def values():
        found = [r["value"] for r in table.current_rows(ledger)]
        assert [r["value"] for r in table.current_rows(Ledger(tmp_path))] == pytest.approx(found, nan_ok=True)
        return found

    failed = row(value=float("nan"), status="failed")
    ledger.add_cell("1", [row(value=0.1)])
    ledger.add_cell("1", [failed])
    assert values() == [0.1], "the same weights, data and prompts: a fault of the machine"
    ledger.add_cell("2", [failed])
    assert np.isnan(values()).all(), "other weights, data or prompts: the old value is not theirs"
    ledger.add_cell("1", [row(value=0.1)])
    assert values() == [0.1], "back again"
    ledger.add_cell("2", [row(value=0.2)])
    assert values() == [0.2]
    ledger.add_cell("1", [row(value=0.1)])
    assert values() == [0.1], "the newest line counts, whatever stood there before"


def test_facts_are_joined_and_the_newest_win(tmp_path):
    ledger = Ledger(tmp_path)
    old = {"source": "old", "gmacs": 1.0, "samples_seen": 5.0}
    ledger.add_cell("1", [row(checkpoint_sha256="a", **old)])  # as an earlier clipeval wrote it
    ledger.add_cell("2", [row(checkpoint_sha256="a", dataset="e")])
    ledger.add_cell("3", [row(checkpoint_sha256="b", dataset="f")])
    facts = {"model": "m", "checkpoint_sha256": "a", "source": "new", "gmacs": float("nan"), "arch": ""}
    size = ledger.path.stat().st_size
    for known in (ledger, Ledger(tmp_path)):
        assert [r["source"] for r in table.current_rows(known)] == ["old", "old", ""]
    ledger.add_checkpoint(facts)
    ledger.add_checkpoint(facts)
    assert ledger.path.read_bytes()[size:].count(b"\n") == 1
    for known in (ledger, Ledger(tmp_path)):
        rows = table.current_rows(known)
        assert [r["source"] for r in rows] == ["new", "new", ""]
        assert np.isnan([r["gmacs"] for r in rows]).all(), "what is not known any more is not known"


def test_a_users_csv_with_few_columns_reads(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("model,dataset,metric,value,my_column\na,x,acc1,0.5,7\n")
    frame = read_results(path)
    assert frame["value"].tolist() == [0.5]
    assert frame["my_column"].tolist() == [7]
    assert frame["source"].isna().all()


@pytest.mark.parametrize("name", ["nothing", "nothing.csv", "nothing.parquet"])
def test_no_table_says_how_to_make_one(tmp_path, name):
    with pytest.raises(UsageError, match="clipeval run"):
        read_results(tmp_path / name)


def test_broken_table_is_a_usage_error(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="not a readable results table"):
        read_results(tmp_path / "x.parquet")


def test_numbers_survive_numpy_types():
    frame = to_frame([row(n=np.int64(4), value=np.float32(0.5))])
    assert frame["n"][0] == 4
