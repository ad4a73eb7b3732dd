"""Handing a ladder to Slurm: one array task per run, each of them ``clipeval-train pretrain``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from clipeval.files import write_text
from clipeval_train.ladder.runs import Run, hidden

_WARNING_SECONDS = 120
"""How long before its end Slurm sends SIGTERM, so that the run saves."""


def write_array(runs: Sequence[Run], out: Path) -> Path:
    """Write the runs' configurations and an array script for them; returns the script. Raises StoreError."""
    for run in runs:
        write_text(run.file, run.yaml)
    path = hidden(out) / "array.sbatch"
    write_text(path, script(runs, out))
    return path


def script(runs: Sequence[Run], out: Path) -> str:
    """The array script: it changes to the folder it was made in and trains run number SLURM_ARRAY_TASK_ID."""
    names = "\n".join(f"  {shlex.quote(run.name)}" for run in runs)
    return f"""#!/bin/bash
#SBATCH --job-name={out.name or "ladder"}
#SBATCH --array=0-{len(runs) - 1}
#SBATCH --ntasks=1
#SBATCH --output=/dev/null
#SBATCH --signal=TERM@{_WARNING_SECONDS}
#SBATCH --requeue
set -euo pipefail
cd {shlex.quote(str(Path.cwd()))}
runs=(
{names}
)
run={shlex.quote(str(hidden(out)))}/${{runs[$SLURM_ARRAY_TASK_ID]}}
exec srun {shlex.quote(sys.executable)} -m clipeval_train pretrain "$run.yaml" >> "$run.log" 2>&1
"""
