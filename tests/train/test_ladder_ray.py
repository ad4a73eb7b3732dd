"""A ladder on a real Ray of this machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ray_nodes import HAS_NAMESPACES, Nodes
from tiny_ladder import ladder, plan_file, tower
from waiting import until

import clipeval_train
from clipeval.errors import UsageError
from clipeval_train import checkpoint
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


def read_log(run):
    return run.log.read_text() if run.log.exists() else ""


WIDE = {"xs": {"model": tower(4), "processes": 2}}


@pytest.mark.skipif(not HAS_NAMESPACES, reason="needs mount and host name namespaces")
def test_a_run_over_two_nodes_outlives_one_of_them(tmp_path, monkeypatch):
    """Two nodes of a core each. One with other code is named and gets none; one is lost and replaced."""
    package = Path(clipeval_train.__file__).parent
    changed = tmp_path / "schedule.py"
    changed.write_text((package / "schedule.py").read_text() + "\n# changed\n")
    grid = {"model": ["xs"], "source": ["a"], "samples": [6400]}
    changes = {"grid": grid, "models": WIDE, "defaults": {"batch_size": 32, "lr": 1e-2, "save_every": 320}}
    plan = plan_file(tmp_path, **changes)
    (run,) = ladder(tmp_path, **changes).runs
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with Nodes() as nodes:
        nodes.add(
            "other", "--num-cpus=2", f"--bind {shlex.quote(str(changed))} {shlex.quote(str(package))}/schedule.py"
        )
        nodes.add("left")
        nodes.add("right")
        words = ["-m", "clipeval_train", "ladder", str(plan), "--ray-address", nodes.address]
        command = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        until((Path(run.config.out) / "latest").exists, 120, lambda: read_log(run), command)
        nodes.kill("right")
        nodes.add("third")
        _, err = command.communicate(timeout=200)
    assert command.returncode == 0, err + read_log(run)
    assert "other gets no run: another clipeval (different: clipeval_train/schedule.py)" in err
    text = read_log(run)
    assert text.count("== ") == 2
    assert "left, right (Ray)" in text or "right, left (Ray)" in text
    assert "continues at" in text
    metadata = checkpoint.load(checkpoint.newest(Path(run.config.out)))["metadata"]
    assert metadata["samples_seen"] == 6400


def test_several_processes_and_a_run_that_is_too_large(tmp_path, capsys, monkeypatch):
    models = WIDE | {"s": {"model": tower(8), "processes": 99}}
    plan = plan_file(tmp_path, grid=GRID | {"source": ["a"], "model": ["xs", "s"]}, models=models)
    assert run_ladder(Request(plan, ray_address="local", as_json=True)) == 3
    captured = capsys.readouterr()
    rows = {row["run"]: row for row in json.loads(captured.out)["runs"]}
    assert rows["xs-a-64"]["state"] == "finished"
    assert "takes 99 cores, and the cluster has" in rows["s-a-64"]["reason"]
    assert "each process trains on a core" in captured.err
