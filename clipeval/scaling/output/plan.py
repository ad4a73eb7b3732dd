"""A design on the terminal, and as the plan of a ladder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from clipeval import vocabulary
from clipeval.console import show_lines
from clipeval.drawing import Column
from clipeval.errors import UsageError
from clipeval.files import write_text
from clipeval.scaling.planner import Design, ladder
from clipeval.tables import Sheet
from clipeval.yaml_file import read_yaml


def print_design(plan: Design) -> None:
    """The runs as a table, how well the answer is known with them, and what speaks against the plan."""
    on = f"{vocabulary.dataset(plan.dataset)} · {vocabulary.metric(plan.metric).title}"
    sheet = Sheet(
        f"The next runs for {plan.budget:g} GMACs, to know {plan.what}: {on}",
        *(Column("source", "name"), Column("model", "name")),
        *(Column(name, "figure") for name in ("samples", "runs", "GMACs", "there")),
    )
    for run in plan.runs:
        cost = f"{run.cost * run.count:,.4g}"
        sheet.add(run.source, run.arch, f"{run.samples:,}", f"{run.count}", cost, f"{run.there}")
    sheet.print()
    show_lines(f"· {line}" for line in (*_known(plan), *plan.notes))


def _known(plan: Design) -> Iterator[str]:
    yield f"{sum(run.count for run in plan.runs)} runs, {plan.cost:.4g} GMACs{_trunks(plan)}"
    yield (
        f"{plan.what}: standard deviation {plan.sd_before:.3g} now, {plan.sd_after:.3g} with these runs, "
        f"{plan.sd_largest:.3g} with one run for all the money"
    )
    yield f"by the law {plan.law} as it is fitted now, from which runs scatter by {plan.scatter:.3g} in ln E"
    for source, promised in plan.promised.items():
        if not math.isnan(promised):
            yield (
                f"{source}: its three largest runs were forecast from the others to {plan.missed[source]:.3g} in "
                f"ln E; the law promises {promised:.3g}"
            )


def _trunks(plan: Design) -> str:
    return "" if plan.cooldown is None else ", trunks counted once"


def write_ladder(plan: Design, origin: Path | None, path: Path) -> None:
    """Write the plan of ``clipeval-train ladder`` that trains the runs, with models, sources and defaults of the one at
    ``origin``; without one its architectures are open_clip's, and data and defaults are left to be filled in. Raises
    UsageError and StoreError."""
    document = read_yaml(origin) if origin else _unfilled(plan, path)
    if not isinstance(document, dict):
        raise UsageError(f"{origin}: expected the plan of a ladder, a mapping with `models` and `sources`.")
    head = f"# {plan.what}: standard deviation {plan.sd_before:.3g} before these runs, {plan.sd_after:.3g} after.\n"
    if not origin:
        head += "# Give each source its `shards`, and what all runs share under `defaults`: batch_size, lr, warmup.\n"
    write_text(path, head + yaml.safe_dump(ladder(plan, document, str(origin)), sort_keys=False))


def _unfilled(plan: Design, path: Path) -> dict[str, Any]:
    sources: dict[str, Any] = {run.source: {} for run in plan.runs}
    return {"models": {run.arch: {"model": run.arch} for run in plan.runs}, "sources": sources, "out": path.stem}
