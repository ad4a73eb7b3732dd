"""A fit on the terminal: laws, comparisons of sources, forecasts, and what the figures rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from clipeval import tables
from clipeval.console import show, show_lines
from clipeval.drawing import Column
from clipeval.scaling.cherti2023 import BEST_OF_PAPER
from clipeval.scaling.fitted import GUARD
from clipeval.scaling.output import extras, legend
from clipeval.scaling.output.cells import Digits, beyond, cell, names, pair, rows_of
from clipeval.scaling.output.result import FitResult, r2_shown
from clipeval.scaling.validation import NO_SCALING, TOO_FEW
from clipeval.tables import NONE, Sheet


def print_fit(result: FitResult) -> None:
    """The tables of a fit, then its notes."""
    for number, sheet in enumerate(sheets(result)):
        if number:
            show("")
        sheet.print()
    rounded = [] if result.card["preset"] else ["figures have the digits that their intervals support; --json has all"]
    show_lines(f"· {note}" for note in [*result.notes, *rounded])


def sheets(result: FitResult) -> list[Sheet]:
    """The tables of a fit for people, errors and accuracies in percent.

    Figures have the digits that their intervals support, those of a preset six: they are to be compared with printed
    ones. All digits are in ``FitResult.to_dict`` and in the files.
    """
    if "mixtures" in result.more:
        return [extras.mixtures(result)]
    digits = Digits(full=bool(result.card["preset"]))
    questions = (
        *(_laws, extras.ranking, _comparisons, _matched, _forecasts),
        *(extras.allocations, extras.joint_laws, extras.growth, extras.robustness_lines, extras.robustness),
    )
    return [sheet for sheet in (question(result, digits) for question in questions) if sheet is not None]


def _laws(result: FitResult, digits: Digits) -> Sheet:
    rows = rows_of(result.fits)
    floor = any(row["e_inf"] == row["e_inf"] for row in rows)
    simple = all(row["alpha"] == row["alpha"] or row["verdict"] == TOO_FEW for row in rows)
    parameters = ["alpha", "beta", *(["e_inf"] if floor else [])] if simple else ["parameters"]
    frontiers = {row["frontier"] for row in rows}
    sheet = Sheet(
        f"{_formula(rows)} of {rows[0]['x']}, {_error(result)}, with 95 % intervals",
        *names("data set", "metric", "source"),
        Column("n", "figure"),
        Column("frontier", leaves=1),
        *(Column("E_inf" if name == "e_inf" else name, "figure") for name in parameters),
        *(Column("R2", "figure", 2), Column("AICc", "figure", 3), Column("held-out MAE", "figure", 1)),
        Column("verdict"),
    )
    verdicts = [row["verdict"] if digits.full else legend.verdict(row) for row in rows]
    for row, verdict in zip(rows, verdicts, strict=True):
        if row["verdict"] == NO_SCALING and not digits.full:
            values = ["no scaling detected", *([""] * (len(parameters) - 1))]
        elif simple:
            values = [digits.interval(row, name, ratio=name == "beta") for name in parameters]
        else:
            values = ["\n".join(_parameter(row, name, digits) for name in row["params"])]
        sheet.add(
            *cell(row),
            row["source"],
            legend.models(row),
            row["frontier"] if len(frontiers) > 1 else "",
            *values,
            digits.number(r2_shown(row), 4, 2),
            digits.number(row["aicc"], 1, 1),
            digits.number(row["holdout_mae"], 3, 2),
            verdict,
        )
    sheet.legend += legend.of_laws(rows, verdicts)
    return sheet


def _parameter(row: dict[str, Any], name: str, digits: Digits) -> str:
    low, high = row["intervals"][name]
    ratio = not name.startswith(("alpha", "e_inf"))
    ends = {name: row["params"][name], f"{name}_low": low, f"{name}_high": high}
    return f"{name} {digits.interval(ends, name, ratio=ratio)}"


def _formula(rows: Sequence[dict[str, Any]]) -> str:
    law = rows[0]["law"]
    return {"power": "Power law E = beta C^alpha", "power_floor": "Power law E = beta C^alpha + E_inf"}.get(law, law)


def _error(result: FitResult) -> str:
    kinds = {law.points.loss: "the loss" if law.points.loss else "1 - metric" for law in result.laws}
    return f"error E = {', or '.join(kinds[loss] for loss in sorted(kinds))}"


def _unit(result: FitResult, row: dict[str, Any]) -> float:
    """100 for shares, which are shown as percents, 1 for a loss."""
    cells = ((law.points.cell, law.points.unit) for law in result.laws)
    return next(unit for cell, unit in cells if cell[:3] == (row["task"], row["dataset"], row["metric"]))


def _comparisons(result: FitResult, digits: Digits) -> Sheet | None:
    rows = rows_of(result.comparisons)
    if all(math.isnan(row["delta_alpha"]) for row in rows):
        return None
    sheet = Sheet(
        f"Do sources a and b scale differently? Tests of equal exponents, corrected by Holm over {len(rows)} "
        f"comparison{'s' * (len(rows) != 1)}",
        *names("data set", "metric", "a vs b"),
        *(Column("alpha_a - alpha_b", "figure"), Column("p", "figure", 1), Column("p (Holm)", "figure")),
        Column("frontier", leaves=3),
        *(Column("crossover", "figure", 2), Column("compute of b over a at equal error", "figure", 2)),
        Column("verdict"),
    )
    frontiers = {row["frontier"] for row in rows}
    for row in rows:
        crossover = digits.interval(row, "crossover", ratio=True, bound_figures=3)
        multiplier = digits.interval(row, "compute_multiplier", ratio=True, figures=4, bound_figures=3)
        sheet.add(
            *cell(row), pair(row),
            digits.interval(row, "delta_alpha", "delta", bound_figures=4),
            digits.p(row["p"]), digits.p(row["p_holm"]), row["frontier"] if len(frontiers) > 1 else "",
            "undetermined" if crossover == NONE else crossover,
            "beyond the data" if legend.beyond(row) else multiplier,
            row["verdict"],
        )  # fmt: skip
    sheet.legend += legend.of_comparisons(rows)
    return sheet


def _matched(result: FitResult, digits: Digits) -> Sheet | None:
    rows = [row for row in rows_of(result.comparisons) if row["matched_n"] > 1]
    if not rows:
        return None
    sheet = Sheet(
        "The same at matched design: pairs of the same architecture and samples seen",
        *names("data set", "metric", "a vs b"),
        *(Column("pairs", "figure"), Column("alpha_a - alpha_b", "figure"), Column("p", "figure")),
        Column("error of a over that of b", "figure"),
    )
    for row in rows:
        sheet.add(
            *cell(row), pair(row), str(row["matched_n"]),
            digits.interval(row, "matched_delta", bound_figures=4), digits.p(row["matched_p"]),
            digits.interval(row, "matched_ratio", ratio=True, figures=4),
        )  # fmt: skip
    return sheet


def _forecasts(result: FitResult, digits: Digits) -> Sheet | None:
    rows = [row for row in rows_of(result.forecasts) if row["measured_by"] != BEST_OF_PAPER]
    if not rows:
        return None
    sheet = Sheet(
        "Forecasts with 95 % intervals, shares in percent",
        *names("data set", "metric", "source", "model"),
        Column("GMACs", "figure", 1),
        *(Column(head, "figure") for head in ("by the law", "one later model", "measured", "predicted - measured")),
        Column("beyond the data", "figure"),
    )
    for row in rows:
        sheet.add(
            *cell(row), row["source"], row["model"], _compute(row["gmacs_total"]),
            *_predicted(row, _unit(result, row), digits), beyond(row, GUARD),
        )  # fmt: skip
    sheet.legend += legend.of_forecasts(rows)
    return sheet


def _compute(gmacs: float) -> str:
    return NONE if math.isnan(gmacs) else f"{gmacs:.4g}"


def _predicted(row: dict[str, Any], unit: float, digits: Digits) -> tuple[str, str, str, str]:
    """What the law predicts, one later model, the measured value and its difference: percents, or a loss as it is."""
    decimals = 2 if unit == 100 else 4
    by_law, later = (
        digits.predicted(unit * row[value], unit * row[low], unit * row[high], shown, decimals)
        for value, low, high, shown in (
            ("predicted", "law_low", "law_high", 4),
            ("expected", "predicted_low", "predicted_high", decimals),
        )
    )
    difference = NONE if math.isnan(row["difference"]) else f"{unit * row['difference']:+.{decimals}f}"
    measured = tables.number(float(unit * row["measured"]), decimals)
    return "no scaling" if by_law == NONE else by_law, later, measured, difference
