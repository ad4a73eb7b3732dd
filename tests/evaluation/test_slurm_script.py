"""examples/ray-slurm.sh with stand-ins for Slurm's and Ray's commands that note how they are called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "ray-slurm.sh"


@pytest.mark.parametrize("nodes", [1, 3])
def test_one_head_the_other_nodes_then_the_run(tmp_path, nodes):
    stand_ins = {
        "scontrol": 'printf "gpu1\\ngpu2\\ngpu3\\n"',
        "srun": 'echo "srun $*" >> calls; sleep 5',
        "ray": 'test -e ready || { touch ready; exit 1; }; echo "ray $*" >> calls',
        "clipeval": 'sleep 0.3; echo "clipeval $* at $RAY_ADDRESS" >> calls; exit 3',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "gpu[1-3]", "SLURM_JOB_NUM_NODES": str(nodes)}
    environment = os.environ | slurm | {"SLURM_CPUS_PER_TASK": "64", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run([SCRIPT, "-m", "a zoo", "-d", "vtab+"], cwd=tmp_path, env=environment, timeout=60)
    assert ended.returncode == 3
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "clipeval run --executor ray -m a zoo -d vtab+ at gpu1:21234"
    assert "ray status" in calls
    started = sorted(call for call in calls if call.startswith("srun"))
    head = "srun --nodes 1 --ntasks 1 --overlap -w gpu1 ray start --head --port 21234 --num-cpus 64"
    others = "srun --nodes 2 --ntasks 2 --overlap -x gpu1 ray start --address gpu1:21234 --num-cpus 64"
    expected = [f"{words} --disable-usage-stats --block" for words in ([head, others] if nodes > 1 else [head])]
    assert started == sorted(expected)
