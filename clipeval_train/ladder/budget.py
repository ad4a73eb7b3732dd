"""Which run of the ladder to buy with a compute budget, read off laws that its results were fitted with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipeval.errors import MeasureError, UsageError
from clipeval_train.ladder.runs import Run

if TYPE_CHECKING:
    import pandas as pd


def allocate(runs: Sequence[Run], results: Sequence[str], budget: float) -> pd.DataFrame:
    """How to spend ``budget`` (GMACs) by the joint law E(GMACs per sample, samples seen) of each data set and source.

    One row per law for its optimum and one for every architecture of the ladder among its checkpoints: the columns of
    ``clipeval.scaling.questions.optimal.optimal``. Raises UsageError when no result is of an architecture of the
    ladder and MeasureError when no law can be fitted, or followed so far.
    """
    from clipeval.scaling.fit import fit

    result = fit(results, budget=budget)
    found: pd.DataFrame = result.more["allocations"]
    if found.empty:
        raise MeasureError(f"{budget:g} GMACs: no law says what they are best spent on. {' '.join(result.notes)}")
    ours = list(dict.fromkeys(run.architecture.name for run in runs))
    if not found["arch"].isin(ours).any():
        raise UsageError(
            f"{' '.join(results)}: none of its checkpoints is of an architecture of this ladder ({', '.join(ours)})."
        )
    kept = (found["kind"] == "optimum") | found["arch"].isin(ours)
    return found[kept].reset_index(drop=True)


def print_allocation(found: pd.DataFrame) -> None:
    """The best architecture of the ladder for each data set and source, as a table on stdout."""
    from clipeval.drawing import Column
    from clipeval.scaling.fitted import GUARD
    from clipeval.scaling.output.cells import beyond, cell, names, rows_of
    from clipeval.tables import Sheet

    units = {100.0: "error in %", 1.0: "loss"}
    predicted = " or ".join(name for unit, name in units.items() if (found["unit"] == unit).any())
    sheet = Sheet(
        f"The ladder's best run for {found['budget'][0]:g} GMACs, by a law of GMACs per sample and samples seen",
        *names("data set", "metric", "source", "model"),
        *(Column(head, "figure") for head in ("samples", f"{predicted} (95 %)", "beyond the data")),
    )
    choices = found[found["kind"] == "architecture"].sort_values("error")
    for row in rows_of(choices.drop_duplicates(["dataset", "metric", "shots", "source"]).sort_index()):
        error, low, high = (
            f"{row['unit'] * row[name]:.{2 if row['unit'] == 100 else 4}f}"
            for name in ("error", "error_low", "error_high")
        )
        samples = f"{row['samples_seen']:,.0f}"
        sheet.add(*cell(row), row["source"], row["arch"], samples, f"{error} [{low}, {high}]", beyond(row, GUARD))
    sheet.print()
