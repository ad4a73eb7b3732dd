"""What processes tell each other, and how they find each other."""

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_run import tiny_config
from worlds import in_processes, one

from clipeval import machine
from clipeval.errors import UsageError
from clipeval_train import distributed
from clipeval_train.distributed import World, open_world
from clipeval_train.together import together

STARTERS = (
    "OMPI_COMM_WORLD_SIZE",
    "SLURM_STEP_ID",
    "SLURM_JOB_ID",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
)
PROGRAM = """
import torch.distributed
from clipeval_train.distributed import open_world
try:
    with open_world("cpu") as world:
        total = world.sum(torch.tensor(world.rank + 1.0)).item()
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
        "mean": world.mean(torch.tensor(2.0 * world.rank)).item(),
        "max": world.max(own),
        "largest": world.max(torch.tensor(-float(world.rank))).item(),
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
    steps = [{"SLURM_STEP_NODELIST": "n1", "SLURM_JOB_ID": "70123", "SLURM_STEP_ID": str(n)} for n in range(9)]
    assert len({distributed._meeting_point(one)["MASTER_PORT"] for one in steps}) == 9
    mpirun = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert distributed._place(mpirun) == (3, 4, 1)
    assert distributed._place({**step, **mpirun}) == (3, 4, 1)  # started on another node by a step of its own
    assert distributed._meeting_point({}) == {}


def test_half_an_environment_is_refused():
    with pytest.raises(UsageError, match=r"WORLD_SIZE is set but RANK, LOCAL_RANK not. Start with torchrun or srun."):
        distributed._place({"WORLD_SIZE": "2"})


def test_an_absent_gpu_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a driver that is not there
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match=r"device: cuda: this machine has no such GPU.*Use device: cpu"):
        open_world("cuda").__enter__()


class Reached(Exception):
    """The call has come to the driver."""


@pytest.mark.parametrize(
    ("environment", "gpus", "index"),
    [
        ({}, 1, 0),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 1, 0),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5"}, 8, 5),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "3"}, 1, 0),
    ],
    ids=["alone", "torchrun of one", "torchrun of eight", "one visible GPU per task"],
)
def test_each_process_binds_a_gpu_by_its_number(monkeypatch, environment, gpus, index):
    """Only what asks the driver is stood in for: torch's own checks of the argument are the real ones."""
    bound = []

    def driver(number):
        bound.append(number)
        raise Reached

    monkeypatch.setattr(machine, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", driver, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for device in ("auto", "cuda"):
        with pytest.raises(Reached):
            open_world(device).__enter__()
    assert bound == [index, index]


def inside_a_group(world, _):
    with open_world("cpu") as own:
        total = own.sum(torch.tensor(own.rank + 1.0)).item()
        gathered = own.gather_objects(own.rank)
        own.barrier()
    return (own.rank, own.size), total, gathered, dist.is_initialized()


def test_a_group_that_the_caller_has_opened_is_used_and_left_open(tmp_path):
    for rank, found in enumerate(in_processes(2, tmp_path, inside_a_group)):
        assert found == ((rank, 2), 3.0, [0, 1], True)


def two_runs(world, folder):
    os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"] = "7", str(world.rank)
    config = tiny_config(folder / "ab"[world.rank], lr=1e-3 * (1 + world.rank))
    with pytest.raises(UsageError) as met, together(config, Path(config.out)):
        pass
    return str(met.value)


def test_processes_of_two_runs_that_meet_both_say_so(tmp_path):
    for message in in_processes(2, tmp_path / "processes", two_runs, tmp_path):
        assert f"process 0 trains {tmp_path}/a (settings " in message
        assert f"process 1 trains {tmp_path}/b (settings " in message
        assert "job 7, step 0" in message
        assert "job 7, step 1" in message
    assert not (tmp_path / "a").exists(), "neither writes anything"


def test_a_meeting_point_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=f"MASTER_PORT: {port} is taken on this machine"):
            open_world("cpu").__enter__()
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UsageError, match="environment: MASTER_PORT: the 2 processes need them to find each other"):
        open_world("cpu").__enter__()


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(208, 8, 16), (64, 8, 7), (16, 1, 15), (2, 1, 1), (1, 4, 1)])
def test_the_cores_that_ranks_leave_decode(monkeypatch, cores, ranks, workers):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert machine.workers_per_rank() == workers


@pytest.mark.parametrize(
    ("cores", "environment", "ranks", "workers"),
    [
        (96, {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_CPUS_ON_NODE": "96"}, 8, 11),  # all may use all
        (12, {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_CPUS_ON_NODE": "96"}, 8, 11),  # each has its own
        (96, {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "1", "SLURM_CPUS_ON_NODE": "48"}, 4, 11),
        (96, {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "2", "SLURM_CPUS_ON_NODE": "48"}, 3, 15),
        (8, {"SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_CPUS_ON_NODE": "8", "LOCAL_WORLD_SIZE": "2"}, 2, 3),
        (8, {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4, 1),
    ],
)
def test_a_launcher_tells_the_ranks_of_a_machine(monkeypatch, cores, environment, ranks, workers):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert machine.ranks_here() == ranks
    assert machine.workers_per_rank() == workers
