"""examples/ray-slurm.sh with stand-ins for Slurm's commands, and for Ray's or with Ray itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import tiny_checkpoint

import clipeval

SCRIPT = Path(__file__).parents[2] / "examples" / "ray-slurm.sh"


def environment(folder: Path, nodes: int, stand_ins: dict[str, str]) -> dict[str, str]:
    for name, body in stand_ins.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "gpu[1-3]", "SLURM_JOB_NUM_NODES": str(nodes)}
    return os.environ | slurm | {"SLURM_CPUS_PER_TASK": "64", "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("nodes", [1, 3])
def test_one_head_the_other_nodes_then_the_run(tmp_path, nodes):
    stand_ins = {
        "scontrol": 'printf "gpu1\\ngpu2\\ngpu3\\n"',
        "srun": 'echo "srun $*" >> calls; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> tokens; sleep 5',
        "ray": 'test -e ready || { touch ready; exit 1; }; echo "ray $*" >> calls',
        "clipeval": 'sleep 0.3; echo "clipeval $* at $RAY_ADDRESS" >> calls; exit 3',
    }
    env = environment(tmp_path, nodes, stand_ins)
    ended = subprocess.run([SCRIPT, "-m", "a zoo", "-d", "vtab+"], cwd=tmp_path, env=env, timeout=60)
    assert ended.returncode == 3
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "clipeval run --executor ray -m a zoo -d vtab+ at gpu1:21234"
    assert "ray status" in calls
    started = sorted(call for call in calls if call.startswith("srun"))
    head = "srun --nodes 1 --ntasks 1 --overlap -w gpu1 ray start --head --port 21234 --num-cpus 64"
    others = "srun --nodes 2 --ntasks 2 --overlap -x gpu1 ray start --address gpu1:21234 --num-cpus 64"
    expected = [f"{words} --disable-usage-stats --block" for words in ([head, others] if nodes > 1 else [head])]
    assert started == sorted(expected)
    (token,) = set((tmp_path / "tokens").read_text().splitlines())
    assert token.startswith("token ")
    assert len(bytes.fromhex(token.split()[1])) == 32


@pytest.mark.parametrize("head", ["echo 'no port is free' >&2; exit 1", "echo 'no port is free'; sleep 30"])
def test_a_head_that_does_not_start_ends_the_job_and_is_quoted(tmp_path, head):
    stand_ins = {"scontrol": "echo gpu1", "srun": head, "ray": "exit 1", "clipeval": "touch measured"}
    env = environment(tmp_path, 1, stand_ins) | {"RAY_START_SECONDS": "3"}
    started = time.monotonic()
    ended = subprocess.run([SCRIPT], cwd=tmp_path, env=env, timeout=25, capture_output=True, text=True)
    assert ended.returncode == 3
    assert time.monotonic() - started < 20
    assert "Ray's head does not start on gpu1. It says (ray-41234.log):\nno port is free" in ended.stderr
    assert not (tmp_path / "measured").exists()


def test_with_ray_itself(tmp_path, monkeypatch):
    """The head asks for the job's token, and ends with the job."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    tiny_checkpoint(tmp_path / "a.pt")
    python = f"{sys.executable} -m"
    stand_ins = {
        "scontrol": "echo 127.0.0.1",
        "srun": f'until [ "$1" = ray ]; do shift; done; shift; exec {python} ray.scripts.scripts "$@"',
        "ray": f'exec {python} ray.scripts.scripts "$@"',
        "clipeval": f'exec {python} clipeval "$@"',
    }
    env = environment(tmp_path, 1, stand_ins) | {"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": str(os.getpid())}
    words = ["-m", str(tmp_path / "a.pt"), "-d", "digits", "--limit", "20", "-o", str(tmp_path / "results")]
    ended = subprocess.run([SCRIPT, *words], cwd=tmp_path, env=env, timeout=180, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "1 worker on 1 node, 1 core\n" in ended.stderr
    assert set(clipeval.read_results(tmp_path / "results").status) == {"limited"}
    status = subprocess.run([tmp_path / "ray", "status"], env=env | {"RAY_ADDRESS": f"127.0.0.1:{port()}"}, timeout=60)
    assert status.returncode != 0


def port() -> int:
    return 20000 + os.getpid() % 20000
