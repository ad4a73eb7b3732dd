"""``clipeval fit``: from a results table to laws, comparisons of their sources, and forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipeval import choices
from clipeval.errors import MeasureError, UsageError
from clipeval.results.columns import COMPUTE
from clipeval.results.published import published
from clipeval.results.reading import Results, read_tables
from clipeval.scaling import cherti2023
from clipeval.scaling.asked import FAMILY, Question, rows_where
from clipeval.scaling.estimate import LEAST_SQUARES
from clipeval.scaling.fitted import Fit
from clipeval.scaling.laws import SIGMOID
from clipeval.scaling.output.result import FitResult, versions
from clipeval.scaling.points import Selection, select
from clipeval.scaling.questions.allocation import growth
from clipeval.scaling.questions.forecast import find_measured, parse, predict
from clipeval.scaling.questions.mixing import mixing
from clipeval.scaling.questions.optimal import joint_law, no_advice, optimal, require_joint, side_by_side
from clipeval.scaling.questions.ranking import ranking
from clipeval.scaling.questions.robustness import TASK as ROBUSTNESS_TASK
from clipeval.scaling.questions.robustness import effective_robustness
from clipeval.scaling.recipe import Recipe, fit_one
from clipeval.spelling import also, several

_TWO_INTERVALS = (
    "the interval by the law says where the law lies, if it is the right one; that of one later model, on the frontier,"
    " counts what laws disagree on and how far they were off before, and assumes that the law does not bend more than"
    " it has"
)
_OF_THE_LAW = "law_low, law_high: where the law lies, if it is the right one"
_OF_A_MODEL = (
    "predicted_low, predicted_high: one later model on the frontier, by laws averaged by how they fit and how they "
    "forecast earlier models; assumes that the law does not bend more than it has"
)
_KINDS = {False: "1 - metric, in [0, 1]", True: "the loss itself"}


@also(dataset="datasets", forecast="forecasts", rank="rank_laws", results="table")
def fit(
    table: Results | None = None,
    *,
    task: str | None = None,
    datasets: Sequence[str] | str | None = None,
    metric: str | None = None,
    x: str = COMPUTE,
    by: str = FAMILY,
    law: str = "power",
    frontier: str | None = None,
    preset: str | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    holdout: float | None = None,
    forecasts: Sequence[str] | str = (),
    estimator: str = "least-squares",
    budget: float | None = None,
    robustness: Sequence[str] | str = (),
    against: str = "imagenet1k",
    rank_laws: bool = False,
    chance: Mapping[str, float] | None = None,
    cluster: str | None = None,
    where: str | None = None,
    mixtures: bool = False,
) -> FitResult:
    """Fit a scaling law to each data set, metric and source of a tidy results table: a DataFrame, a results folder, a
    file, a published study (``clipeval list studies``), or a list of these.

    Without a table the checkpoints of Cherti et al. 2023 are fitted, on the paper's headline data sets unless
    ``datasets`` names others (globs; ``*`` asks for all). ``x`` is a column, or several separated by commas for a joint
    law. With ``holdout``, a value of x, laws are also fitted to the checkpoints up to it and scored on those above.
    ``forecasts`` are words like ``ViT-L-14:34B``. ``preset="cherti2023"`` is the paper's own procedure.

    A ``budget`` in GMACs asks for the best choice of GMACs per sample and samples seen, by a joint law unless ``law``
    and ``x`` name another. ``robustness`` names data sets with a distribution shift (globs), on which sources are
    compared at equal accuracy on the data set ``against``. With ``rank_laws`` all laws are compared by AICc.
    ``chance`` is the accuracy of guessing by data set, where a sigmoid begins; without it that of clipeval's own.
    ``cluster`` is a column of which points of the same value may err together, such as checkpoints of one run; all
    points are then fitted, without a frontier, by least squares. ``where`` is a condition on the columns of the table
    that rows have to meet, such as ``"samples_seen < 1e10 and arch != 'RN50'"``.

    ``mixtures`` asks something else: error by the shares of the training data (columns ``mix.SOURCE``) and ``x``, one
    law for all runs of a data set, and the mixture with the lowest error. There are no laws of single sources then.

    Raises UsageError for unknown names and MeasureError for rows that cannot be fitted; both name the column or row.
    """
    if preset is not None:
        choices.require("--preset", preset, choices.Preset)
    datasets, forecasts, robustness = several(datasets), several(forecasts), several(robustness)
    everything = read_tables(table) if table is not None else published()
    if budget is not None and (law, x) == ("power", COMPUTE):
        law, x = joint_law(everything)
    if budget is not None:
        require_joint(budget, x)
    if robustness:
        task, datasets = task or ROBUSTNESS_TASK, datasets or (against, *robustness)
    columns = tuple(name.strip() for name in x.split(","))
    if chance is None:
        chance = _guessing() if rank_laws or law == SIGMOID else {}
    recipe = Recipe(law, columns, frontier, bootstrap, seed, holdout, estimator, chance, cluster)
    notes: list[str] = []
    rows = everything if table is not None else cherti2023.default_rows(everything, task, datasets or None)
    if preset:
        rows = cherti2023.as_published(rows)
    main_metrics = cherti2023.METRICS if preset else {}
    question = Question(task, datasets or None, metric, columns, by, main_metrics, forecasts, cluster, where)
    selection = select(rows, question)
    card = _card(selection, recipe, question, preset)
    if mixtures:
        _require_alone(recipe, forecasts, preset, budget, robustness, rank_laws)
        table, said = mixing(selection, columns, bootstrap, seed)
        form = {"law": "mixtures", "error": card["form"]["error"]}
        card |= {"form": form, "frontier": "none", "estimator": "least-squares of ln E"}
        return FitResult([], [], x, card, [*_account(selection), *said], {"mixtures": table})
    _require_both_sides(selection, recipe)
    recipes = [cherti2023.recipe(recipe, points.cell[0]) if preset else recipe for points in selection.points]
    fits = [fit_one(points, recipe) for points, recipe in zip(selection.points, recipes, strict=True)]
    _require_a_law(fits)
    targets = [parse(text, rows, cherti2023.SAMPLES if preset else {}) for text in forecasts]
    found = [predict(f, t, columns, find_measured(t, f, by, everything)) for f in fits for t in targets]
    if preset and columns == (COMPUTE,):
        own = cherti2023.forecasts(fits, rows, everything)
        notes += cherti2023.remarks(own)
        found = own + found
    if any(forecast.later.laws for forecast in found):
        notes.append(_TWO_INTERVALS)
    more = {}
    if budget is not None:
        more = {"allocations": optimal(fits, budget, x), "joint_laws": side_by_side(fits, budget)}
        more["growth"] = growth(fits)
    if robustness:
        kept = rows_where(rows, where) if where else rows
        lines, pairs = effective_robustness(kept, baseline=against, shifts=robustness, metric=metric or "acc1", by=by)
        more |= {"robustness": pairs, "robustness_lines": lines}
    if rank_laws:
        more |= {"laws": ranking(fits, recipe)}
    notes += _warnings(fits, {} if budget is None else {id(fit): no_advice(fit, budget) for fit in fits})
    return FitResult(fits, found, x, card, [*_account(selection), *notes], more)


def _require_alone(recipe: Recipe, *questions: object) -> None:
    plain = (recipe.law, recipe.frontier, recipe.holdout, recipe.estimator, recipe.cluster)
    if any(questions) or plain != ("power", None, None, LEAST_SQUARES, None):
        raise UsageError(
            "--mixtures fits a law of its own to all runs. Leave out --law, --frontier, --estimator, --preset, "
            "--holdout, --forecast, --cluster, --budget, --robustness and --rank-laws."
        )


def _guessing() -> dict[str, float]:
    from clipeval import config

    return config.packaged().chances


def _require_both_sides(selection: Selection, recipe: Recipe) -> None:
    scales = [points.x.reshape(len(points.x), -1)[:, 0] for points in selection.points]
    cut = recipe.holdout
    if cut is not None and not any(x.min() <= cut < x.max() for x in scales):
        low, high = min(x.min() for x in scales), max(x.max() for x in scales)
        raise UsageError(
            f"--holdout {cut:g}: no source has checkpoints on both sides of it. Their {recipe.columns[0]} is from "
            f"{low:.4g} to {high:.4g}."
        )


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
    return [*lines, *selection.notes, *selection.mixed]


def _warnings(fits: Sequence[Fit], more: Mapping[int, str]) -> list[str]:
    """The notes of the fits, and ``more`` by the id of one; those that several share once."""
    where: dict[str, list[str]] = {}
    for fit in fits:
        for note in filter(None, (*fit.notes, more.get(id(fit), ""))):
            where.setdefault(note, []).append(fit.points.label)
    return [f"{'; '.join(labels) if len(labels) < 4 else f'{len(labels)} laws'}: {n}" for n, labels in where.items()]


def _card(selection: Selection, recipe: Recipe, question: Question, preset: str | None) -> dict[str, Any]:
    """How the fits were made, after the four points that Li et al. (arXiv:2502.18969) ask every scaling fit to report:
    form, training setup (the rows), data extraction (frontier), optimisation."""
    return {
        "form": {"law": recipe.law, "parameters": recipe.law_of("").names, "error": _error_of(selection)},
        "chance": _chance_of(selection, recipe),
        "x": question.x,
        "by": question.by,
        "preset": preset,
        "where": question.where,
        "data": {
            "sha256": selection.digest(),
            "rows": sum(len(points.x) for points in selection.points),
            "left_out": selection.left_out,
            "mixed": selection.mixed,
        },
        "frontier": "cherti2023" if preset and not recipe.frontier else recipe.frontier_name,
        "estimator": f"{recipe.estimator} of ln E; for the quantile frontier the line of the 10 % quantile of ln E",
        "uncertainty": {"bootstrap_draws": recipe.bootstrap, "seed": recipe.seed, "level": 0.95},
        "cluster": recipe.cluster,
        "holdout": recipe.holdout,
        "forecasts": {"asked": list(question.forecasts), "law": _OF_THE_LAW, "predicted": _OF_A_MODEL},
        "digits": "float64, shortest representation that reads back the same",
        "versions": versions(),
    }


def _error_of(selection: Selection) -> str:
    kinds = {points.loss for points in selection.points}
    return "; ".join(_KINDS[kind] for kind in sorted(kinds))


def _chance_of(selection: Selection, recipe: Recipe) -> dict[str, float]:
    """The accuracies of guessing that a law started from."""
    cells = {points.cell[1] for points in selection.points}
    return {name: recipe.chance.get(name, 0.0) for name in sorted(cells)} if recipe.law == SIGMOID else {}
