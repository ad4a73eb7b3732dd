"""Where every number comes from: all columns of all rows, compact enough to lie in the page."""

from __future__ import annotations

import json
import math
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.plain import plain
from clipeval.reporting.rows import HELPERS, number, text
from clipeval.results.columns import records
from clipeval.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

_COMMAND = ("clipeval_version", "dataset", "task", "shots", "seed", "limit", "prompts", "precision")
_OPTIONS = (("shots", "--shots"), ("seed", "--seed"), ("limit", "--limit"))


_KEYS = ("model", "dataset")
"""Columns that decide others."""
_MODEL = "{model}"


def columns(rows: pd.DataFrame) -> dict[str, Any]:
    """Every column in the shortest of four forms; an empty cell is null, empty columns are left out.

    ``same``: one value for all rows. ``values`` and ``of``: the value by the distinct values of another column, which
    decides it. ``values`` and ``runs``: distinct values, and codes with how often each follows itself (-1: empty).
    ``cells``: one value per row. Rows that clipeval measured have a further column, the command that does it again, in
    which ``{model}`` stands for the model as a shell reads it.
    """
    known = cache(lambda *cells: command(dict(zip(_COMMAND, cells, strict=True)), _MODEL))
    commands: list[Any] = [known(*row.values()) for row in records(rows[list(_COMMAND)])]
    table = rows.drop(columns=list(HELPERS)).assign(command=commands)
    keys = {name: table[name].factorize()[0] for name in _KEYS}
    found = {str(name): _column(table[name], {} if name in keys else keys) for name in table}
    return {name: column for name, column in found.items() if column}


def _column(column: pd.Series, keys: dict[str, np.ndarray]) -> dict[str, Any]:
    codes, found = column.factorize()
    distinct = [plain(value) for value in found]
    if not distinct:
        return {}
    if len(distinct) == 1 and (codes == 0).all():
        return {"same": distinct[0]}
    by_code = [*distinct, None]  # -1 is the last
    for key, of in keys.items():
        first = np.unique(of, return_index=True)[1]
        if len(first) < len(codes) / 2 and (codes == codes[first][of]).all():
            return {"values": [by_code[code] for code in codes[first]], "of": key}
    if 2 * len(distinct) > len(codes):
        return {"cells": [by_code[code] for code in codes.tolist()]}
    starts = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
    runs = np.stack([codes[starts], np.diff(starts, append=len(codes))], axis=1)
    return {"values": distinct, "runs": runs.ravel().tolist()}


def command(row: dict[str, Any], model: str) -> str | None:
    """The command line that measures a row of ``model`` again; None for rows that were imported."""
    if not text(row["clipeval_version"]):
        return None
    parts = ["clipeval", "run", "-m", model, "-d", text(row["dataset"]), "-t", text(row["task"])]
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
    return shlex.join(parts).replace(shlex.quote(model), model, 1)


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
