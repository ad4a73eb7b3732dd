"""What processes tell each other, and how they find each other."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from worlds import in_processes, one

from clipeval.errors import UsageError
from clipeval_train import distributed
from clipeval_train.distributed import World, open_world

STARTERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
PROGRAM = """
import torch.distributed
from clipeval_train.distributed import open_world
try:
    with open_world("cpu") as world:
        total = world.sum(float(world.rank + 1))
        print(f"rank {world.rank} of {world.size} on {world.device}: {total}", flush=True)
        raise KeyError("after the group was opened")
except KeyError:
    print(f"still open: {torch.distributed.is_initialized()}", flush=True)
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in STARTERS:
        monkeypatch.delenv(name, raising=False)


def everything(world, _):
    own = torch.tensor([[1.0, 10.0]]) * (world.rank + 1)
    results = {
        "sum": world.sum(own),
        "mean": world.mean(2.0 * world.rank),
        "max": world.max(own),
        "largest": world.max(-float(world.rank)),
        "all": (world.all_true(True), world.all_true(world.rank != 1)),
        "broadcast": world.broadcast({"from": world.rank}),
        "objects": world.gather_objects(f"rank {world.rank}"),
        "gathered": world.all_gather(own.T).flatten(),
        "scattered": world.reduce_scatter(torch.arange(6.0).reshape(6, 1) * (world.rank + 1)).flatten(),
        "own": own,
        "main": world.is_main,
    }
    world.barrier()
    return results


def test_collectives_of_three_processes(tmp_path):
    for rank, found in enumerate(in_processes(3, tmp_path, everything)):
        assert found["sum"].tolist() == [[6.0, 60.0]]
        assert found["mean"] == 2.0
        assert found["max"].tolist() == [[3.0, 30.0]]
        assert found["largest"] == 0.0
        assert found["all"] == (True, False)
        assert found["broadcast"] == {"from": 0}
        assert found["objects"] == ["rank 0", "rank 1", "rank 2"]
        assert found["gathered"].tolist() == [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]
        assert found["scattered"].tolist() == [12.0 * rank, 12.0 * rank + 6]
        assert found["own"].tolist() == [[rank + 1.0, 10.0 * (rank + 1)]]  # arguments are left as they were
        assert found["main"] is (rank == 0)


def test_one_process_needs_no_group():
    with open_world("cpu") as world:
        assert world == World(0, 1, 0, torch.device("cpu"))
        assert world.is_main
        assert not dist.is_initialized()
    found = everything(one(), None)
    assert found["sum"].tolist() == found["max"].tolist() == [[1.0, 10.0]]
    assert found["all"] == (True, True)
    assert found["objects"] == ["rank 0"]
    assert found["scattered"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_torchrun_starts_two_which_close_their_group_after_an_error_and_warn_of_nothing():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [sys.executable, "-W", "error", "-c", PROGRAM]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert finished.returncode == 0, finished.stderr
    lines = ["rank 0 of 2 on cpu: 3.0", "rank 1 of 2 on cpu: 3.0", "still open: False"]
    assert [finished.stdout.count(line) for line in lines] == [1, 1, 2]  # two processes may share a line
    assert "Warning" not in finished.stderr


def test_slurm_gives_places_inside_a_step_only():
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "70123"}
    assert distributed._place(batch_script) == (0, 1, 0)
    step = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "70123"}
    assert distributed._place(step) == (5, 8, 1)
    assert distributed._place({**step, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == (1, 2, 1)
    for nodes, first in {"gpu[003-006,9],old1": "gpu003", "gpu7": "gpu7", "a-1,b2": "a-1", "n[4,8]": "n4"}.items():
        point = distributed._meeting_point({**step, "SLURM_STEP_NODELIST": nodes})
        assert point == {"MASTER_ADDR": first, "MASTER_PORT": "30123"}
    assert distributed._meeting_point({}) == {}


def test_half_an_environment_is_refused():
    with pytest.raises(UsageError, match=r"WORLD_SIZE is set but RANK, LOCAL_RANK not. Start with torchrun or srun."):
        distributed._place({"WORLD_SIZE": "2"})


def test_an_absent_gpu_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a driver that is not there
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="no such GPU"), open_world("cuda"):
        pass
