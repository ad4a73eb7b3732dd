"""The outcomes of every sample as one DataFrame."""

from __future__ import annotations

import pytest
from folders import NEW, folder, row, scored

import clipeval


def test_outcomes_of_all_cells_or_of_one(tmp_path):
    first = folder(tmp_path / "one", scored([1, 0, 1]), scored([1, 1, 0], model="n", **NEW), row(dataset="e"))
    second = folder(tmp_path / "two", scored([0, 0], ids=["x", "y"], dataset="e", shots=5, task="linear_probe"))
    found = clipeval.read_samples([first, second])
    assert list(found) == ["model", "dataset", "task", "shots", "seed", "id", "correct"]
    assert found[["model", "dataset", "id", "correct"]].values.tolist() == [
        *(["m", "d", f"s{i}", hit] for i, hit in enumerate([True, False, True])),
        *(["n", "d", f"s{i}", hit] for i, hit in enumerate([True, True, False])),
        *(["m", "e", name, False] for name in "xy"),
    ]
    one = clipeval.read_samples(first, model="n", dataset="d", task="classification")
    assert one["correct"].tolist() == [True, True, False]
    table = clipeval.read_results(first)
    assert table.set_index(["model", "dataset"])["value"]["n", "d"] == one["correct"].mean()
    assert len(clipeval.read_samples(first / "results.parquet", model="n")) == 3


def test_what_is_not_there_is_named(tmp_path):
    here = folder(tmp_path / "one", scored([1, 0, 1]), row(dataset="e"))
    with pytest.raises(clipeval.UsageError, match=r"no dataset 'dd'\. Did you mean 'd'\? It has d, e\."):
        clipeval.read_samples(here, dataset="dd")
    with pytest.raises(clipeval.StoreError, match="no per-sample outcomes of these are kept"):
        clipeval.read_samples(here, dataset="e")
    with pytest.raises(clipeval.StoreError, match="no per-sample outcomes"):
        clipeval.read_samples("open_clip")
