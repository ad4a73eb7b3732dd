"""A ladder on a real Ray of this machine."""

from __future__ import annotations

import json

import pytest
from tiny_ladder import ladder, plan_file, tower

from clipeval.errors import UsageError
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.runs import FINISHED, state

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::FutureWarning"
)
SOURCES = {"a": {"shards": "builtin:digits"}, "b": {"shards": "nothing-here.tar"}}
GRID = {"model": ["xs"], "source": ["a", "b"], "samples": [64]}


def test_runs_train_fail_alone_and_are_not_trained_twice(tmp_path, capsys):
    plan = plan_file(tmp_path, grid=GRID, models={"xs": tower(4)}, sources=SOURCES)
    request = Request(plan, ray_address="local", as_json=True)
    assert run_ladder(request) == 3
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {"xs-a-64": "finished", "xs-b-64": "failed"}
    assert "exit code" in rows["xs-b-64"]["reason"]
    assert "nothing-here.tar" in rows["xs-b-64"]["reason"]
    runs = ladder(tmp_path, grid=GRID, models={"xs": tower(4)}, sources=SOURCES).runs
    assert [state(run) == FINISHED for run in runs] == [True, False]


def test_the_cluster_chooses_the_number_of_jobs(tmp_path):
    with pytest.raises(UsageError, match="--ray-address and --jobs"):
        run_ladder(Request(plan_file(tmp_path), jobs=2, ray_address="local"))
