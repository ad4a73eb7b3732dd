"""Wall time of ``clipeval fit`` on one core, start-up included."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.measure import machine, timed

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CASES = {
    "--task retrieval": (4.0, 5),
    "cherti2023 -d * --bootstrap 2000 --json": (30.0, 1),
    "--task retrieval, tables and figures": (None, 1),
}
"""Limit in seconds and repetitions. The second is all 41 data sets of Cherti et al. 2023 on both sources."""


def main() -> None:
    """Print the medians beside their limits."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(machine())
    script = Path(sys.executable).with_name("clipeval")
    for words, (limit, repetitions) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            command = words.replace(", tables and figures", f" -o {folder}").split()
            runs = [timed([str(script), "fit", *command], **ONE_THREAD) for _ in range(repetitions)]
        seconds, cpu = statistics.median(run.seconds for run in runs), statistics.mean(run.cpu for run in runs)
        limited = f" (limit {limit:.0f} s)" if limit else ""
        print(f"clipeval fit {words:42} {seconds:5.2f} s{limited}, {cpu:.2f} s of CPU")
