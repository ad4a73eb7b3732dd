"""SIGTERM as torchrun, Slurm and `timeout` send it: to every process of a run, those that decode images included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from finetune_runs import base_checkpoint
from helpers import caption_shards, image_folder
from tiny_run import MODEL
from waiting import until

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def descendants(root):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = {}
    for pid, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        todo += (below := children.get(todo.pop(), []))
        found += below
    return found


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stopped(command, log, tmp_path, target):
    """Start, wait for lines in the log, signal what ``target`` chooses: exit code, stderr, the processes there were."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr, start_new_session=True)
        until(
            lambda: log.exists() and len(log.read_text().splitlines()) >= 3,
            200,
            lambda: (tmp_path / "stderr").read_text()[-3000:],
            process,
        )
        family = descendants(process.pid)
        target(process.pid, family)
        code = process.wait(120)
    return code, (tmp_path / "stderr").read_text(), family


def term_to_group(pid, family):
    os.killpg(pid, signal.SIGTERM)


def term_to_launcher(pid, family):
    os.kill(pid, signal.SIGTERM)


def term_to_all_below(pid, family):
    for process in family:
        os.kill(process, signal.SIGTERM)


def command_of(kind, tmp_path):
    """The words of a run that lasts, which writes to ``tmp_path/run``."""
    config = {"batch_size": 16, "lr": 1e-4, "workers": 2, "out": str(tmp_path / "run")}
    if kind == "pretrain":
        caption_shards(tmp_path / "pairs", images=130)
        data = [{"source": "squares", "shards": f"{tmp_path}/pairs/test/{{0..1}}.tar"}]
        config |= {"model": MODEL, "data": data, "samples": 1_000_000}
    else:
        data = [f"folder:{image_folder(tmp_path / 'colours')}"]
        config |= {"model": str(base_checkpoint(tmp_path / "base.pt")), "data": data, "iterations": 50_000}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    return ["clipeval_train", kind, str(tmp_path / "run.yaml")]


def assert_saved_and_gone(tmp_path, said, family, kind):
    assert "bug" not in said, said[-3000:]
    latest = tmp_path / "run" / (tmp_path / "run/latest").read_text().strip()
    assert latest.name.startswith({"pretrain": "samples_", "finetune": "iteration_"}[kind])
    assert torch.load(latest, weights_only=True)["resume"] is not None
    all_gone(family)


def all_gone(family):
    """Workers of a killed process notice within five seconds."""
    until(lambda: not any(map(is_running, family)), 30, lambda: list(filter(is_running, family)))


@pytest.mark.parametrize(
    ("kind", "target"),
    [("pretrain", term_to_launcher), ("pretrain", term_to_all_below), ("finetune", term_to_launcher)],
)
def test_two_ranks_with_workers_save_and_end(tmp_path, kind, target):
    """torchrun signals the group of each rank; Slurm all processes of a step."""
    command = [*TORCHRUN, *command_of(kind, tmp_path)]
    code, said, family = stopped(command, tmp_path / "run/log.jsonl", tmp_path, target)
    assert code != 0, "torchrun's own"
    assert said.count("told to stop; saved at") == 1
    assert len(family) >= 6, "two ranks and two workers of each"
    assert_saved_and_gone(tmp_path, said, family, kind)


def kill_a_rank(pid, family):
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_rank_that_is_killed_ends_the_other_one_with_its_reason(tmp_path, kind):
    command = [*TORCHRUN, *command_of(kind, tmp_path)]
    code, said, family = stopped(command, tmp_path / "run/log.jsonl", tmp_path, kill_a_rank)
    assert code != 0
    assert "bug" not in said, said[-3000:]
    assert "another process of this run has ended, and says why" in said
    all_gone(family)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_one_process_and_its_workers_in_a_group_save_and_end_with_130(tmp_path, kind):
    command = [sys.executable, "-m", *command_of(kind, tmp_path)]
    code, said, family = stopped(command, tmp_path / "run/log.jsonl", tmp_path, term_to_group)
    assert code == 130, said[-3000:]
    assert len(family) >= 2
    assert_saved_and_gone(tmp_path, said, family, kind)
