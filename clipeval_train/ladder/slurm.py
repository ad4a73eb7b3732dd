"""Handing a ladder to Slurm: scripts of arrays whose tasks are ``clipeval-train pretrain``, and what is queued already.

A task trains what belongs together, one run after the other: a trunk and its branches, and several of those where there
are more than an array may have tasks. It goes back into the queue when Slurm has told it to stop and it has saved more
than before.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipeval.errors import UsageError
from clipeval.files import write_text
from clipeval_train.ladder.runs import Run, hidden

_WARNING_SECONDS = 120
"""How long before its end Slurm sends SIGTERM, so that the run saves."""
_MOST_TASKS = 1001
"""Slurm's MaxArraySize unless a cluster says otherwise."""
_OURS = {"array": "the runs decide it", "ntasks": "give `processes`, in `defaults` or beside an architecture"}
_SAFE = re.compile(r"[\w@%+=:,./-]*")

Settings = Mapping[str, Any]
"""The key ``slurm`` of a plan: options of sbatch without ``--``, and ``setup``, lines of shell before the training."""


def check(settings: Settings) -> None:
    """Raises UsageError, which starts with the key, for what cannot stand in a script."""
    for key, value in settings.items():
        words = value if key == "setup" and isinstance(value, list) else [value]
        if key in _OURS:
            raise UsageError(f"slurm.{key}: cannot be given: {_OURS[key]}.")
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", key):
            raise UsageError(f"slurm.{key}: expected an option of sbatch without its dashes, as in `gpus-per-task: 1`.")
        if not all(isinstance(word, str | int | float | None) for word in words):
            raise UsageError(f"slurm.{key}: expected one value" + (", or a list of lines." if key == "setup" else "."))
        if key == "time" and not isinstance(value, str):
            raise UsageError(f"slurm.time: {value}: YAML reads 1:00:00 as a number. Put it in quotes.")
        if key != "setup" and "\n" in str(value):
            raise UsageError(f"slurm.{key}: expected one line.")


def write_arrays(runs: Sequence[Run], home: Path, settings: Settings, keep: Sequence[Path] = ()) -> list[Path]:
    """Write the runs' configurations and array scripts, one for each number of processes; returns the scripts.

    Earlier scripts go, but for those in ``keep``: they are in the queue. Raises StoreError.
    """
    for run in runs:
        write_text(run.file, run.yaml)
    for old in set(hidden(home).glob("array*.sbatch")) - set(keep):
        old.unlink()
    scripts = []
    for processes in sorted({run.processes for run in runs}):
        path = _free_name(home)
        write_text(path, script([run for run in runs if run.processes == processes], home, settings))
        scripts.append(path)
    return scripts


def _free_name(home: Path) -> Path:
    number = 1
    while (path := hidden(home) / (f"array-{number}.sbatch" if number > 1 else "array.sbatch")).exists():
        number += 1
    return path


def script(runs: Sequence[Run], home: Path, settings: Settings) -> str:
    """The array script of runs that are all trained by the same number of processes."""
    parts = tasks(runs, _most_tasks())
    folder = shlex.quote(str(hidden(home)))
    setup = settings.get("setup") or []
    program = f"{shlex.quote(sys.executable)} -m clipeval_train pretrain"
    return "\n".join(
        [
            "#!/bin/bash",
            *_directives(home, len(parts), runs[0].processes, settings),
            *([setup] if isinstance(setup, str) else map(str, setup)),
            "set -uo pipefail",
            f"cd {shlex.quote(str(Path.cwd()))}",
            "tasks=(",
            *(f"  '{' '.join(run.name for run in part)}'" for part in parts),
            ")",
            f"saved() {{ cat {shlex.quote(str(home))}/$1/latest {folder}/$1/latest 2>/dev/null; }}",
            "me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
            "failed=0",
            "for run in ${tasks[$SLURM_ARRAY_TASK_ID]}; do",
            f"  file={folder}/$run",
            "  before=$(saved $run)",
            '  echo "== $(date "+%F %T") $(hostname) job $me, restart ${SLURM_RESTART_COUNT:-0}" >> "$file.log"',
            "  srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \\",
            f'    {program} "$file.yaml" >> "$file.log" 2>&1',
            "  code=$?",
            "  if [ $code = 130 ]; then  # told to stop, and saved",
            *_requeue(settings),
            "    exit $code",
            "  fi",
            '  [ $code = 0 ] || { failed=$code; echo "$run: exit code $code, see $file.log"; }',
            "done",
            "exit $failed",
            "",
        ]
    )


def _directives(home: Path, count: int, processes: int, settings: Settings) -> list[str]:
    log = str((hidden(home) / "slurm-").absolute()).replace("%", "%%") + "%A_%a.out"
    given = {key.replace("_", "-"): value for key, value in settings.items() if key != "setup"}
    words: dict[str, Any] = {
        "job-name": re.sub(r"[^\w.-]+", "_", home.resolve().name) or "ladder",
        "array": f"0-{count - 1}",
        "ntasks": processes,
        "output": log,
        "open-mode": "append",
        "signal": f"TERM@{_WARNING_SECONDS}",
        "requeue": True,
    } | given
    if words["requeue"] is False:
        words["no-requeue"] = True
    lines = {key: f"#SBATCH --{key}" + ("" if value is True else f"={_quoted(value)}") for key, value in words.items()}
    return [line for key, line in lines.items() if words[key] is not None and words[key] is not False]


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _SAFE.fullmatch(text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _requeue(settings: Settings) -> list[str]:
    """A job that is cancelled does not come here: its shell has ended with it. One that gets no further would go on for
    ever."""
    if settings.get("requeue") is False:
        return []
    return [
        '    if [ "$(saved $run)" != "$before" ]; then',
        '      scontrol requeue "$me" && sleep 60',
        "    else",
        '      echo "$run: nothing was saved since its last start: not put back in the queue"',
        "    fi",
    ]


def tasks(runs: Sequence[Run], most: int) -> list[list[Run]]:
    """What each task trains, in this order: runs that go on from one another, and of more such parts than ``most``
    several."""
    parts: dict[str, list[Run]] = {}
    roots: dict[str, str] = {}
    for run in runs:
        root = roots[run.name] = roots.get(run.after, run.name)
        parts.setdefault(root, []).append(run)
    listed = list(parts.values())
    return [list(itertools.chain(*listed[start::most])) for start in range(min(most, len(listed)))]


def in_queue(home: Path) -> dict[str, Path]:
    """The runs that wait or train in one's own jobs, and their scripts. Nothing where there is no Slurm."""
    words = ["squeue", "--me", "--noheader", "--array", "--format=%K|%o"]
    jobs = (line.split("|", 1) for line in _said(words).splitlines() if "|" in line)
    found: dict[str, Path] = {}
    for index, command in jobs:
        path = Path(command.strip())
        if path.parent == hidden(home).absolute() and index.isdecimal() and path.is_file():
            parts = re.findall(r"^  '([^']*)'$", path.read_text("utf-8"), re.MULTILINE)
            part = dict(enumerate(parts)).get(int(index), "")  # people change scripts
            found |= {name: hidden(home) / path.name for name in part.split()}
    return found


def _most_tasks() -> int:
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _said(["scontrol", "show", "config"]), re.MULTILINE)
    return int(found[1]) if found else _MOST_TASKS


def _said(command: Sequence[str]) -> str:
    """What a program of Slurm prints; nothing when it does not answer, or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
