"""Runs at a constant rate share their way: what is branched off where, what it costs, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_ladder import ladder, plan_file, tower

from clipeval_train import checkpoint
from clipeval_train.config import parse_pretrain
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.plan import cost_of
from clipeval_train.ladder.runs import FINISHED, NEW, STARTED, state
from clipeval_train.ladder.throughput import Throughput
from clipeval_train.ladder.waiting import Waiting, left_to_do
from clipeval_train.loop import pretrain

SHAPE = {"batch_size": 32, "lr": 1e-2, "warmup": 40, "schedule": "constant"}
DEFAULTS = SHAPE | {"cooldown": 0.2}
GRID = {"model": ["xs"], "source": ["a"], "samples": [160, 320, 423]}


def branched(folder, **changes):
    return ladder(folder, **{"grid": GRID, "defaults": DEFAULTS} | changes)


def test_where_branches_leave_the_trunk(tmp_path):
    """160 - 32 = 128; 320 - 64 = 256; 423 - 85 = 338, and the last end of a batch before is 320."""
    runs = branched(tmp_path).runs
    found = [(run.name, run.after, run.seen_before, run.config.samples, run.config.cooldown) for run in runs]
    assert found == [
        ("xs-a-trunk-128", "", 0, 128, 0),
        ("xs-a-trunk-256", "xs-a-trunk-128", 128, 256, 0),
        ("xs-a-trunk-320", "xs-a-trunk-256", 256, 320, 0),
        ("xs-a-160", "xs-a-trunk-128", 128, 160, 32),
        ("xs-a-320", "xs-a-trunk-256", 256, 320, 64),
        ("xs-a-423", "xs-a-trunk-320", 320, 423, 85),
    ]
    out = tmp_path / "runs"
    for run in runs:
        parent = out / ".ladder" if run.is_trunk else out
        assert run.config.out == str(parent / run.name)
        assert run.is_trunk == ("trunk" in run.name)
        if run.after:
            file = f"checkpoints/samples_{run.seen_before:012d}.pt"
            assert run.config.start_from == str(out / ".ladder" / run.after / file)
        assert parse_pretrain(run.document, "") == run.config


def test_samples_are_paid_for_once(tmp_path):
    costs = [cost_of(run, NEW, Throughput(2.0, 1.0), 3600.0) for run in branched(tmp_path).runs]
    assert [cost.own_samples for cost in costs] == [128, 128, 64, 32, 64, 103]
    assert sum(cost.own_samples for cost in costs) == 519 < 160 + 320 + 423
    for cost in costs:
        assert cost.gmacs_total == cost.gmacs * cost.own_samples
        assert cost.hours == cost.own_samples / 2 / 3600
        assert cost.price == pytest.approx(cost.own_samples / 2)


@pytest.mark.parametrize(
    ("changes", "trunks"),
    [
        ({"defaults": DEFAULTS | {"schedule": "cosine", "cooldown": 0}}, 0),
        ({"defaults": DEFAULTS | {"cooldown": 0}}, 0),
        ({"grid": GRID | {"samples": [320]}}, 0),  # nobody to share with
        ({"defaults": DEFAULTS | {"cooldown": 64}}, 3),  # in samples: 96, 256, 352
        ({"defaults": DEFAULTS | {"warmup": 128}}, 2),  # 128: the first one is still warming up there
        ({"grid": GRID | {"seed": [0, 1]}}, 6),
        ({"grid": GRID | {"cooldown": [0.2, 0.25]}, "defaults": SHAPE}, 6),  # and 96, 224, 288 of 120, 240 and 317
    ],
)
def test_who_shares(tmp_path, changes, trunks):
    runs = branched(tmp_path, **changes).runs
    assert sum(run.is_trunk for run in runs) == trunks


def test_all_warm_up_alike(tmp_path):
    """Left out, a warm-up goes by a run's samples, and a trunk has one: that of the shortest, 160 // 20."""
    defaults = {key: value for key, value in DEFAULTS.items() if key != "warmup"}
    assert {run.config.warmup for run in branched(tmp_path, defaults=defaults).runs} == {8}


def test_architectures_with_rates_of_their_own_have_their_own_trunks(tmp_path):
    models = {"xs": tower(4), "s": {"model": tower(8), "lr": 5e-3, "batch_size": 48}}
    runs = {run.name: run for run in branched(tmp_path, models=models, grid=GRID | {"model": ["xs", "s"]}).runs}
    assert runs["xs-a-trunk-128"].config.lr == 1e-2
    assert runs["s-a-trunk-96"].config.lr == 5e-3  # 128 lies within a batch of 48
    assert runs["s-a-160"].seen_before == 96


def test_a_branch_is_the_run_that_was_never_branched(tmp_path, capsys):
    plan = plan_file(tmp_path, grid=GRID, defaults=DEFAULTS)
    assert run_ladder(Request(plan, jobs=2)) == 0
    runs = {run.name: run for run in branched(tmp_path).runs}
    for name in ("xs-a-160", "xs-a-423"):
        alone = runs[name].config.model_copy(update={"start_from": None, "out": str(tmp_path / f"alone-{name}")})
        expected = checkpoint.load(pretrain(alone))
        found = checkpoint.load(checkpoint.newest(tmp_path / "runs" / name))
        assert found["metadata"]["samples_seen"] == alone.samples
        for key, tensor in expected["state_dict"].items():
            assert torch.equal(tensor, found["state_dict"][key]), (name, key)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {".ladder", "xs-a-160", "xs-a-320", "xs-a-423"}
    assert all(state(run) == FINISHED for run in runs.values())
    capsys.readouterr()
    assert run_ladder(Request(plan, jobs=2)) == 0
    assert "6 of 6 runs are finished already" in capsys.readouterr().err


def test_a_length_in_between_comes_later(tmp_path, capsys):
    """The trunk goes on from where it is, and its later parts, which would now go on from another one, stay."""
    plan = plan_file(tmp_path, grid=GRID | {"samples": [160, 423]}, defaults=DEFAULTS)
    assert run_ladder(Request(plan, jobs=1)) == 0
    capsys.readouterr()
    assert run_ladder(Request(plan, ("grid.samples=[160,320,423]",), jobs=1, as_json=True)) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["run"] for row in rows if "seconds" in row] == ["xs-a-trunk-256", "xs-a-320"]


def test_what_waits_for_a_run_that_failed_is_not_begun(tmp_path, capsys):
    sources = {"a": {"shards": "builtin:digits"}, "b": {"shards": "builtin:digitz"}}
    grid = GRID | {"source": ["a", "b"], "samples": [160, 320]}
    plan = plan_file(tmp_path, grid=grid, defaults=DEFAULTS, sources=sources)
    assert run_ladder(Request(plan, jobs=2, as_json=True)) == 3
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert {name for name, row in rows.items() if row["state"] == "failed"} == {
        *("xs-b-trunk-128", "xs-b-trunk-256", "xs-b-160", "xs-b-320")
    }
    assert rows["xs-b-320"]["reason"] == "the run that it goes on from, xs-b-trunk-256, was not trained"
    assert not (tmp_path / "runs" / "xs-b-320").exists()
    assert (tmp_path / "runs" / "xs-a-320" / "latest").is_file()


def test_the_order_in_which_runs_begin(tmp_path):
    runs = branched(tmp_path).runs
    waiting = Waiting(runs)
    first = waiting.take(2)
    assert first.name == "xs-a-trunk-128"
    assert waiting.take(1) is None  # all others wait for it
    waiting.done(first)
    second, third = waiting.take(2), waiting.take(1)
    assert (second.name, third.name) == ("xs-a-trunk-256", "xs-a-160")  # the longer way first
    assert {run.name for run in waiting.lost(second)} == {"xs-a-trunk-320", "xs-a-320", "xs-a-423"}
    assert not waiting


def test_a_trunk_is_trained_only_for_what_has_not_begun(tmp_path):
    runs = branched(tmp_path).runs
    states = dict.fromkeys((run.name for run in runs), NEW)
    assert left_to_do(runs, states) == list(runs)
    states |= {"xs-a-160": FINISHED, "xs-a-320": STARTED, "xs-a-423": FINISHED}
    assert [run.name for run in left_to_do(runs, states)] == ["xs-a-320"]
    states["xs-a-423"] = NEW
    names = ["xs-a-trunk-128", "xs-a-trunk-256", "xs-a-trunk-320", "xs-a-320", "xs-a-423"]
    assert [run.name for run in left_to_do(runs, states)] == names
    states["xs-a-trunk-320"] = STARTED
    assert [run.name for run in left_to_do(runs, states)] == ["xs-a-trunk-320", "xs-a-320", "xs-a-423"]


def test_the_folder_of_a_study_holds_its_points_alone(tmp_path):
    from clipeval import config
    from clipeval.models.specs import resolve

    assert run_ladder(Request(plan_file(tmp_path, grid=GRID | {"samples": [96, 160]}, defaults=DEFAULTS), jobs=1)) == 0
    found = resolve([f"{tmp_path / 'runs'}/*"], config.load())
    assert {Path(spec.name).name for spec in found} == {"xs-a-96", "xs-a-160"}
