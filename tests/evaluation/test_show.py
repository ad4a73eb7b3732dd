"""The tables of a run on the terminal."""

from __future__ import annotations

import re

import pytest

from clipeval.errors import ModelError
from clipeval.evaluation.show import failures, print_results


def row(dataset, metric, task="zeroshot_classification"):
    interval = {"ci_low": 0.1, "ci_high": 0.9, "n": 5, "status": "ok", "gmacs": 1.0, "samples_seen": 1e9}
    return {"model": "m", "dataset": dataset, "task": task, "metric": metric, "value": 0.5, **interval}


class Cell:
    def __init__(self, dataset):
        self.dataset, self.model = dataset, type("Model", (), {"name": "m"})
        self.main_metric = "acc1"


def test_data_sets_without_a_metric_in_common_have_tables_of_their_own(tmp_path, capsys):
    """Faces have ten metrics that no other set has: one table of all would be too wide to read."""
    rows = [row("pets", "acc1"), row("faces", "acc_race_avg"), row("fmow", "acc1"), row("fmow", "acc_worst_region"),
            row("voc", "mean_average_precision"), row("utk", "acc_race_avg"), row("utk", "acc_age_wg")]  # fmt: skip
    print_results(rows, [Cell(name) for name in ("pets", "faces", "fmow", "voc", "utk")], tmp_path)
    tables = capsys.readouterr().out.split("Zero-shot classification in %")[1:]
    names = [
        [name for name in ("pets", "faces", "fmow", "voc", "utk") if re.search(rf" {name}\b", table)]
        for table in tables
    ]
    assert names == [["pets", "fmow"], ["faces", "utk"], ["voc"]]


PUBLIC = {"model": "ViT-H-14,laion2b_s32b_b79k", "arch": "ViT-H-14", "source": "LAION-2B", "samples_seen": 34.7e9}
MINE = {"model": "runs/zoo/mine", "samples_seen": 64e3}


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_display_names_stand_for_the_specs_at_every_width(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [row(name, "acc1") | who for who in (PUBLIC, MINE) for name in ("pets", "fmow")]
    cells = [Cell(name) for name in ("pets", "fmow")]
    for cell, who in zip(cells, (PUBLIC, MINE), strict=True):
        cell.model = type("Model", (), {"name": who["model"]})
    print_results(rows, cells, tmp_path)
    out = capsys.readouterr().out
    assert "ViT-H-14 · LAION-2B · 34.7B" in out
    assert "checkpoints in runs/zoo/" in " ".join(out.split())
    assert re.search(r" mine\b", out)
    assert "laion2b_s32b_b79k" not in out
    assert out.count("50.0") == 4
    assert "…" not in out


def test_a_limited_run_is_told_where_no_column_can_leave(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_results([row("pets", "acc1") | {"status": "limited"}], [Cell("pets")], tmp_path)
    assert "pets (limited)" in capsys.readouterr().out


class Failed:
    def __init__(self, dataset, state="failed"):
        self.dataset, self.state, self.label = dataset, state, f"m · {dataset} · task"
        self.model = type("Model", (), {"name": "m"})


def test_reasons_that_differ_in_names_are_told_together():
    def reason(k):
        return ModelError(f"'test/{k}.tar' of 'org/wds_{k}' is not readable: 3{k} bytes")

    sets = ["one", "two", "three", "four", "five"]
    few = list(failures([(Failed(name), reason(name)) for name in sets[:3]]))
    assert few == [f"not measured: m · {k} · task: 'test/{k}.tar' of 'org/wds_{k}' is not readable: 3{k} bytes"
                   for k in sets[:3]]  # fmt: skip
    other = (Failed("six"), ModelError("no memory"))
    many = list(failures([*((Failed(name), reason(name)) for name in sets), other]))
    assert many == [
        "not measured: m on 5 data sets (one, two, three and 2 more): "
        "'test/….tar' of 'org/wds_…' is not readable: 3… bytes",
        "not measured: m · six · task: no memory",
    ]


def test_what_was_said_to_be_missing_at_first_is_not_explained_again():
    [line] = failures([(Failed(f"d{k}", "missing"), ModelError(f"'d{k}' is not here")) for k in range(40)])
    assert line == "not measured: m on 40 data sets (d0, d1, d2 and 37 more): missing, as said above"
