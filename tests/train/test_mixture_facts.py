"""The shares of several sources: from a run's weights to its checkpoint, and to columns of the results table."""

from __future__ import annotations

import pytest
from tiny_run import tiny_config

from clipeval import config as configuration
from clipeval import models
from clipeval.models.checkpoint import opened
from clipeval.results.ledger import Ledger
from clipeval.results.reading import read_results
from clipeval.results.schema import to_frame
from clipeval.results.table import current_rows, write
from clipeval_train import checkpoint
from clipeval_train.loop import pretrain


def info_of(path):
    (spec,) = models.resolve([str(path)], configuration.load())
    return opened(spec, offline=True).info


def test_from_weights_to_the_table(tmp_path):
    icons = [
        {"source": "material", "shards": "builtin:icons/material", "weight": 3},
        {"source": "others", "shards": "builtin:icons/phosphor", "weight": 0.5},
        {"source": "others", "shards": "builtin:icons/remix", "weight": 0.5},
    ]
    path = pretrain(tiny_config(tmp_path / "mixed", data=icons, samples=64, warmup=8))
    facts = checkpoint.load(path)["metadata"]
    assert facts["mixture"] == pytest.approx({"material": 0.75, "others": 0.25})
    assert facts["source"] == "material+others"
    mixed = info_of(path)
    assert mixed.mixture == '{"material": 0.75, "others": 0.25}'
    alone = info_of(pretrain(tiny_config(tmp_path / "alone", samples=64, warmup=8)))
    assert alone.mixture == ""

    ledger = Ledger(tmp_path / "out")
    for number, info in enumerate((mixed, alone)):
        value = {"metric": "acc1", "value": 0.5, "status": "ok", "dataset": "d", "task": "zeroshot_classification"}
        row = {"model": info.model, "checkpoint_sha256": info.checkpoint_sha256, **value}
        ledger.add_cell(f"cell{number}", [row])
        ledger.add_checkpoint(vars(info))
    write(tmp_path / "out", current_rows(Ledger(tmp_path / "out")))
    for table in (read_results(tmp_path / "out"), read_results(tmp_path / "out" / "results.csv")):
        by_model = table.set_index("model")
        assert by_model.loc[mixed.model, ["mix.material", "mix.others"]].tolist() == [0.75, 0.25]
        assert by_model.loc[alone.model, ["mix.material", "mix.others"]].isna().all()
        assert "mixture" not in table


def test_what_is_no_mixture_has_no_columns():
    rows = [{"model": "m", "mixture": text} for text in ("", None, "[1]", '{"a": 2}', '{"a": "x"}', "{", "[" * 10**5)]
    assert not [name for name in to_frame(rows) if name.startswith("mix.")]
    assert to_frame([{"mixture": '{"a": 0.5, "b": 0.5}'}, {"mixture": '{"c": 1, "a": 0}'}])["mix.b"].tolist() == [
        0.5,
        0.0,
    ]
