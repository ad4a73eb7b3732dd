"""``clipeval fit``: from a results table to laws, comparisons of their sources, and forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval.errors import MeasureError, UsageError, suggest
from clipeval.scaling import cherti2023
from clipeval.scaling.columns import COMPUTE, numbers
from clipeval.scaling.compare import compare
from clipeval.scaling.fitted import Fit
from clipeval.scaling.forecast import find_measured, parse, predict
from clipeval.scaling.frontier import DEFAULT_FRONTIER
from clipeval.scaling.one import Recipe, fit_one
from clipeval.scaling.result import FitResult, versions
from clipeval.scaling.rows import FAMILY, MAIN_METRICS, Question, Selection, select

if TYPE_CHECKING:
    import pandas as pd


def fit(
    table: pd.DataFrame | None = None,
    *,
    task: str | None = None,
    datasets: Sequence[str] | None = None,
    metric: str | None = None,
    x: str = COMPUTE,
    by: str = FAMILY,
    law: str = "power",
    frontier: str | None = None,
    preset: str | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    holdout: float | None = None,
    forecasts: Sequence[str] = (),
) -> FitResult:
    """Fit a scaling law to each data set, metric and source of a tidy results table.

    Without a table the checkpoints of Cherti et al. 2023 are fitted, on the paper's headline data sets unless
    ``datasets`` names others (globs; ``*`` asks for all). ``x`` is a column, or several separated by commas for a joint
    law. With ``holdout``, a value of x, laws are also fitted to the checkpoints up to it and scored on those above.
    ``forecasts`` are words like ``ViT-L-14:34B``. ``preset="cherti2023"`` is the paper's own procedure. Raises
    UsageError for unknown names and MeasureError for rows that cannot be fitted; both name the column or row.
    """
    if preset not in (None, cherti2023.PRESET):
        raise UsageError(f"--preset {preset}: unknown.{suggest(str(preset), [cherti2023.PRESET])} Presets: cherti2023.")
    columns = tuple(name.strip() for name in x.split(","))
    recipe = Recipe(law, columns, frontier, bootstrap, seed, holdout)
    notes: list[str] = []
    everything = table if table is not None else _published()
    rows = everything if table is not None else cherti2023.default_rows(everything, task, datasets or None)
    main_metrics = MAIN_METRICS
    if preset:
        rows, main_metrics = cherti2023.as_published(rows), MAIN_METRICS | cherti2023.METRICS
    question = Question(task, tuple(datasets) if datasets else None, metric, columns, by, main_metrics)
    selection = select(rows, question)
    recipes = [cherti2023.recipe(recipe, points.cell[0]) if preset else recipe for points in selection.points]
    fits = [fit_one(points, recipe) for points, recipe in zip(selection.points, recipes, strict=True)]
    _require_a_law(fits)
    targets = [parse(text, rows, cherti2023.SAMPLES if preset else {}) for text in forecasts]
    found = [predict(f, t, columns, find_measured(t, f, by, everything)) for f in fits for t in targets]
    if preset and columns == (COMPUTE,):
        own = cherti2023.forecasts(fits, rows, everything)
        notes += cherti2023.remarks(own)
        found = own + found
    card = _card(selection, recipe, question, preset)
    return FitResult(fits, compare(fits), found, x, card, [*_account(selection), *notes, *_warnings(fits)])


def run_fit(results: Sequence[str], **options: Any) -> FitResult:
    """``fit`` on result files or folders, or on published studies by name; on the published default without any.

    ``options`` are the keywords of ``fit``. Raises UsageError for a file that is no results table.
    """
    return fit(read_tables(results) if results else None, **options)


def read_tables(results: Sequence[str]) -> pd.DataFrame:
    """One table of several: files, results folders, or names of published studies (``open_clip``)."""
    import pandas as pd

    return pd.concat([_read_table(str(word)) for word in results])


def _read_table(word: str) -> pd.DataFrame:
    from clipeval.results.table import read_results

    if not Path(word).exists() and not Path(word).suffix:
        studies = _published()
        names = sorted(studies["study"].unique())
        if word in names:
            return studies[studies["study"].isin([word]).to_numpy(bool)]
        if len(Path(word).parts) == 1:
            raise UsageError(
                f"{word}: no such file or folder, and not a published study ({', '.join(names)}).{suggest(word, names)}"
            )
    try:
        return read_results(word).assign(results_file=word)
    except ValueError as error:  # a cell of another type than its column
        _refuse_words_for_numbers(word)
        raise UsageError(f"{word}: not a readable results table: {error}.") from error


def _refuse_words_for_numbers(file: str) -> None:
    """Raises MeasureError about the first cell of a CSV file that should be a number and is not."""
    import pandas as pd

    from clipeval.results.schema import COLUMNS, NUMBER

    cells = pd.read_csv(file, dtype=str).assign(results_file=file)
    for column in map(str, cells):
        if COLUMNS.get(column) == NUMBER:
            numbers(cells, column)


def _published() -> pd.DataFrame:
    from clipeval.results.published import published

    return published()


def _require_a_law(fits: Sequence[Fit]) -> None:
    if all(fit.estimate is None for fit in fits):
        listed = "; ".join(f"{fit.points.label}: {' '.join(fit.notes)}" for fit in fits[:5])
        raise MeasureError(f"nothing can be fitted. {listed}. Add checkpoints of other scales, or choose another --by.")


def _account(selection: Selection) -> list[str]:
    """Which rows were used and which were not."""
    import pandas as pd

    used = pd.concat([points.table for points in selection.points])
    checkpoints = used["model"].nunique()
    where = ""
    if "study" in used and used["study"].notna().all():
        where = " of " + "; ".join(sorted(used["reference"].dropna().unique()))
    lines = [f"{len(used)} rows are fitted: {checkpoints} checkpoints{where}"]
    if selection.left_out:
        reasons = "; ".join(f"{count} {reason}" for reason, count in selection.left_out.items())
        lines.append(f"{sum(selection.left_out.values())} rows are left out: {reasons}")
    return [*lines, *selection.notes]


def _warnings(fits: Sequence[Fit]) -> list[str]:
    """The notes of the fits, those that several share once."""
    where: dict[str, list[str]] = {}
    for fit in fits:
        for note in fit.notes:
            where.setdefault(note, []).append(fit.points.label)
    return [f"{'; '.join(labels) if len(labels) < 4 else f'{len(labels)} laws'}: {n}" for n, labels in where.items()]


def _card(selection: Selection, recipe: Recipe, question: Question, preset: str | None) -> dict[str, Any]:
    """How the fits were made, after the four points that Li et al. (arXiv:2502.18969) ask every scaling fit to report:
    form, training setup (the rows), data extraction (frontier), optimisation."""
    return {
        "form": {"law": recipe.law, "parameters": recipe.law_of("").names, "error": "1 - metric, in [0, 1]"},
        "x": question.x,
        "by": question.by,
        "preset": preset,
        "data": {
            "sha256": selection.digest(),
            "rows": sum(len(points.x) for points in selection.points),
            "left_out": selection.left_out,
        },
        "frontier": recipe.frontier or ("cherti2023" if preset else DEFAULT_FRONTIER),
        "estimator": "least squares of ln E; for the quantile frontier the line of the 10 % quantile of ln E",
        "uncertainty": {"bootstrap_draws": recipe.bootstrap, "seed": recipe.seed, "level": 0.95},
        "holdout": recipe.holdout,
        "digits": "float64, shortest representation that reads back the same",
        "versions": versions(),
    }
