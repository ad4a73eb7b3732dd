"""Where every number comes from: all columns of all rows, compact enough to lie in the page."""

from __future__ import annotations

import json
import math
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

from clipeval.plain import plain
from clipeval.reporting.rows import HELPERS, number, text
from clipeval.results.columns import records
from clipeval.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

_COMMAND = ("clipeval_version", "model", "dataset", "task", "shots", "seed", "limit", "prompts", "precision")
_OPTIONS = (("shots", "--shots"), ("seed", "--seed"), ("limit", "--limit"))


def columns(rows: pd.DataFrame) -> dict[str, Any]:
    """Every column as its distinct values and one index into them per row (-1: empty); ``same`` where all are equal.

    Empty columns are left out. Rows that clipeval measured have a further column with the command that does it again.
    """
    known = cache(lambda *cells: command(dict(zip(_COMMAND, cells, strict=True))))  # one for all metrics of a cell
    commands: list[Any] = [known(*row.values()) for row in records(rows[list(_COMMAND)])]
    table = rows.drop(columns=list(HELPERS)).assign(command=commands)
    found: dict[str, Any] = {}
    for name in table:
        codes, distinct = table[name].factorize()
        if not len(distinct):
            continue
        values = [plain(value) for value in distinct]
        same = len(values) == 1 and (codes == 0).all()
        found[str(name)] = {"same": values[0]} if same else {"values": values, "codes": codes.tolist()}
    return found


def command(row: dict[str, Any]) -> str | None:
    """The command line that measures a row again; None for rows that were imported."""
    if not text(row["clipeval_version"]):
        return None
    parts = ["clipeval", "run", "-m", text(row["model"]), "-d", text(row["dataset"]), "-t", text(row["task"])]
    parts += [
        part
        for name, option in _OPTIONS
        if not math.isnan(number(row[name]))
        for part in (option, f"{number(row[name]):.0f}")
    ]
    trains = row["task"] in TASKS and "train" in TASKS[row["task"]].needs
    if trains and math.isnan(number(row["shots"])):
        parts += ["--shots", "full"]
    if text(row["prompts"]) == "clip_benchmark":
        parts += ["--prompts", "clip_benchmark"]
    if precision := text(row["precision"]):
        parts += ["--precision", precision]
    return shlex.join(parts)


def facts(rows: pd.DataFrame) -> dict[str, Any]:
    """What the page says at its top of the whole table."""
    started = sorted(rows["started_at"].dropna())
    return {
        "models": rows["model"].nunique(),
        "datasets": rows.loc[~rows["suite"], "dataset"].nunique(),
        "suites": rows.loc[rows["suite"], "dataset"].nunique(),
        "tasks": rows["task"].nunique(),
        "values": int(rows["good"].sum()),
        "first": started[0][:16].replace("T", " ") if started else "",
        "last": started[-1][:16].replace("T", " ") if started else "",
        "clipeval_versions": sorted(rows["clipeval_version"].dropna().unique()),
        "commits": sorted({commit[:7] + commit[40:] for commit in rows["git_commit"].dropna()}),
        "precisions": sorted(rows["precision"].dropna().unique()),
        "devices": sorted(rows["device"].dropna().unique()),
        "packages": sorted(rows["packages"].dropna().unique()),
        "studies": sorted(rows["study"].dropna().unique()),
        "files": list(dict.fromkeys(map(str, rows["results_file"]))),
        "references": sorted(rows["reference"].dropna()[~rows["suite"]].unique()),
    }


def as_json(value: Any) -> str:
    """Compact JSON that may stand inside a ``<script>``."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e")
