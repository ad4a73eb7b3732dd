"""Runs of several processes each, on one machine."""

from __future__ import annotations

import json

import pytest
from tiny_ladder import ladder, plan_file, tower
from tiny_run import assert_weights_close

from clipeval.errors import UsageError
from clipeval_train import checkpoint
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.jobs import train
from clipeval_train.ladder.processes import Slot, together

GRID = {"model": ["xs", "s"], "source": ["a"], "samples": [64, 128]}
MODELS = {"xs": tower(4), "s": {"model": tower(8), "processes": 2}}
PLACES = ("runs", "alone")


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_what_processes_are_told_of_each_other():
    assert together([Slot(1, "4")]) == [Slot(1, "4")]
    first, second = together([Slot(3, "4"), Slot(3, "6")])
    assert (first.gpu, second.gpu, first.threads) == ("4,6", "4,6", 3)
    told, other = dict(first.environment), dict(second.environment)
    assert (told["RANK"], told["LOCAL_RANK"], told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("0", "0", "2", "2")
    assert (other["RANK"], other["LOCAL_RANK"]) == ("1", "1")
    assert told["MASTER_PORT"] == other["MASTER_PORT"]
    assert [slot.gpu for slot in together([Slot(1, None)] * 2)] == [None, None]


def test_two_processes_train_what_one_does(tmp_path, capsys):
    """Both learn the same up to rounding, and the log says which of them had two."""
    plan = plan_file(tmp_path, grid=GRID, models=MODELS)
    assert run_ladder(Request(plan, jobs=2)) == 0
    alone = {"xs": tower(4), "s": tower(8)}
    request = Request(plan_file(tmp_path, grid=GRID, models=alone), (f"out={tmp_path / 'alone'}",), jobs=2)
    assert run_ladder(request) == 0
    for run in ladder(tmp_path, grid=GRID, models=MODELS).runs:
        found, expected = (checkpoint.load(checkpoint.newest(tmp_path / where / run.name)) for where in PLACES)
        losses = [[line["loss"] for line in log_of(tmp_path / where / run.name)] for where in PLACES]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        # a step moves each by up to 1e-2
        assert_weights_close(found["state_dict"], expected["state_dict"], atol=1e-3 * (run.processes - 1))
    assert "[4/4]" in capsys.readouterr().err


def test_one_process_that_fails_ends_the_run_and_says_why(tmp_path, capsys):
    """33 pairs cannot be parted between two, and each of them says so."""
    defaults = {"batch_size": 33, "lr": 1e-2}
    plan = plan_file(tmp_path, grid=GRID | {"samples": [99]}, models=MODELS, defaults=defaults)
    assert run_ladder(Request(plan, jobs=2, as_json=True)) == 3
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert rows["xs-a-99"]["state"] == "finished"
    assert "batch_size: 33 cannot be divided by 2 processes" in rows["s-a-99"]["reason"]


def test_room(tmp_path):
    runs = ladder(tmp_path, grid=GRID, models=MODELS).runs
    with pytest.raises(UsageError, match=r"s-a-64 takes 2 together, and 1 at most .* Give --jobs 2, or fewer"):
        train(runs, [Slot(1, None)])
    with pytest.raises(UsageError, match=r"Give a machine with more GPUs"):
        train(runs, [Slot(1, "0")])
    with pytest.raises(UsageError, match=r"--jobs: 3 processes would share 2 GPUs.* Give --jobs 2\."):
        train(runs, [Slot(1, "0"), Slot(1, "1"), Slot(1, "0")])
