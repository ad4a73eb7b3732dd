"""Tables of a fit that are asked for beside its laws: budgets, robustness, and which law fits best."""

from __future__ import annotations

import math
from typing import Any

from clipeval import vocabulary
from clipeval.drawing import Column
from clipeval.scaling.fitted import GUARD
from clipeval.scaling.output import legend
from clipeval.scaling.output.cells import Digits, beyond, cell, names, pair, rows_of
from clipeval.scaling.output.result import FitResult
from clipeval.scaling.questions.mixing import NO_EFFECT
from clipeval.tables import NONE, Sheet, estimate, human, significant


def _asked(result: FitResult, name: str) -> list[dict[str, Any]]:
    return rows_of(result.more[name]) if name in result.more else []


def ranking(result: FitResult, digits: Digits) -> Sheet | None:
    """All laws through all checkpoints."""
    rows = _asked(result, "laws")
    if not rows:
        return None
    sheet = Sheet(
        "Which law do the data prefer? Least squares through all checkpoints; the lowest AICc is best",
        *names("data set", "metric", "source", "law"),
        *(Column("n", "figure", 1), Column("parameters", "figure", 1), Column("AICc", "figure")),
        *(Column("above the best", "figure"), Column("BIC", "figure", 2), Column("R2", "figure", 3)),
    )
    for row in rows:
        figures = (digits.number(row[name], 1, 1) for name in ("aicc", "delta_aicc", "bic"))
        counts = str(row["n"]), str(row["parameters"])
        sheet.add(*cell(row), row["source"], row["law"], *counts, *figures, digits.number(row["r2"], 4, 3))
    return sheet


def allocations(result: FitResult, digits: Digits) -> Sheet | None:
    """The optimum of each law and the best of its architectures; the others are in the files."""
    if "allocations" not in result.more:
        return None
    rows = _asked(result, "allocations")
    if not rows:
        return Sheet("No law to read an optimum off: see below", *names("data set"))
    losses = all(law.points.loss for law in result.laws)
    sheet = Sheet(
        f"What {rows[0]['budget']:.4g} GMACs are best spent on, with 95 % intervals",
        *names("data set", "metric", "source", "choice"),
        *(Column("GMACs per sample", "figure"), Column("samples seen", "figure")),
        *(Column("loss" if losses else "error in %", "figure"), Column("within 1 % of the lowest error", "figure", 1)),
        Column("beyond the data", "figure"),
    )
    units = {law.points.cell[:3]: law.points.unit for law in result.laws}
    for row in rows:
        if row["kind"] == "architecture":
            rivals = [r for r in rows if r["kind"] == "architecture" and r["source"] == row["source"]]
            rivals = [rival for rival in rivals if cell(rival) == cell(row)]
            if row is not min(rivals, key=lambda rival: rival["error"]):
                continue
        optimum = row["kind"] == "optimum"
        unit = units[row["task"], row["dataset"], row["metric"]]
        flat = f"{significant(row['flat_low'], 3)} to {significant(row['flat_high'], 3)} GMACs"
        sheet.add(
            *cell(row), row["source"], "any size" if optimum else row["arch"],
            _size(row), human(row["samples_seen"]),
            estimate(*(unit * row[name] for name in ("error", "error_low", "error_high"))),
            flat if optimum else f"{100 * row['excess']:+.2f} %", beyond(row, GUARD),
        )  # fmt: skip
    sheet.legend += legend.of_forecasts(rows)
    return sheet


def _size(row: dict[str, Any]) -> str:
    """GMACs per sample: an optimum at an end of the data may lie beyond it, and so may an end of its interval."""
    if row["kind"] == "architecture":
        return significant(row["gmacs"], 4)
    if row["edge"]:
        sign = "≤" if row["edge"] == "smallest" else "≥"
        return f"{sign} {significant(row['gmacs'], 4)} ({row['edge']} model seen)"
    if math.isnan(row["gmacs_low"]) or math.isnan(row["gmacs_high"]):
        ends = ("open" if math.isnan(end) else significant(end, 2) for end in (row["gmacs_low"], row["gmacs_high"]))
        return f"{significant(row['gmacs'], 2)} [{', '.join(ends)}]"
    return estimate(row["gmacs"], row["gmacs_low"], row["gmacs_high"], ratio=True)


def joint_laws(result: FitResult, digits: Digits) -> Sheet | None:
    """The best size by each joint law, and whether they agree."""
    rows = _asked(result, "joint_laws")
    if not any(row["gmacs"] == row["gmacs"] for row in rows):
        return None
    sheet = Sheet(
        "The same by each joint law",
        *names("data set", "metric", "source", "law"),
        *(Column("AICc", "figure", 1), Column("GMACs per sample", "figure"), Column("error", "figure", 1)),
        Column("conclusion", "prose"),
    )
    for row in rows:
        named = (*cell(row), row["source"], row["law"], digits.number(row["aicc"], 1, 1))
        if row["reason"]:
            sheet.add(*named, NONE, NONE, row["reason"])
            continue
        error = estimate(*(row["unit"] * row[name] for name in ("error", "error_low", "error_high")))
        sheet.add(*named, _size(row | {"kind": "optimum"}), error, row["conclusion"])
    return sheet


def mixtures(result: FitResult) -> Sheet:
    """The best mixture by each law of error and shares."""
    rows = _asked(result, "mixtures")
    sheet = Sheet(
        f"The best mixture at {rows[0]['at']:.4g} {rows[0]['x']}, by laws of error and shares, with 95 % intervals",
        *names("data set", "metric"),
        *(Column("mixtures", "figure", 1), Column("best mixture"), Column("its error", "figure")),
        *(Column("one run of it", "figure", 1), Column("lowest measured", "figure", 1)),
        *(Column("off by, left out", "figure", 2), Column("without shares", "figure", 2), Column("verdict", "prose")),
    )
    sources = [name.removesuffix("_low") for name in rows[0] if name.startswith("mix.") and name.endswith("_low")]
    for row in rows:
        known, unit = row["verdict"] != NO_EFFECT, row["unit"]
        seen = [name for name in sources if row[name] > 0 or row[f"{name}_high"] > 0]
        error = estimate(*(unit * row[name] for name in ("error", "error_low", "error_high")))
        low, high, measured = (significant(unit * row[name], 3) for name in ("run_low", "run_high", "measured_error"))
        sheet.add(
            *cell(row), f"{row['n_mixtures']} ({row['n_points']} runs)",
            "\n".join(_share(row, name) for name in seen) if known else NONE, error if known else NONE,
            f"{low} to {high}" if known else NONE, f"{row['measured']}\n{measured}",
            f"{100 * row['loo_error']:.2f} %", f"{100 * row['loo_error_without']:.2f} %", row["verdict"],
        )  # fmt: skip
    return sheet


def _share(row: dict[str, Any], name: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    return f"{value:.2f} {name.removeprefix('mix.')}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def growth(result: FitResult, digits: Digits) -> Sheet | None:
    """How the best size grows with compute, by each approach that says something."""
    rows = _asked(result, "growth")
    if not rows:
        return None
    sheet = Sheet(
        "How the best GMACs per sample grow with compute C, as C^a, by three approaches (Hoffmann et al. 2022)",
        *names("data set", "metric", "source", "approach"),
        *(Column("a", "figure"), Column("n", "figure"), Column("conclusion", "prose")),
    )
    for row in rows:
        value = significant(row["a"], 2) if math.isnan(row["low"]) else estimate(row["a"], row["low"], row["high"])
        sheet.add(*cell(row), row["source"], row["approach"], value, f"{row['n']}", row["reason"] or row["conclusion"])
    return sheet


def robustness_lines(result: FitResult, digits: Digits) -> Sheet | None:
    """Accuracy under a shift as a line of accuracy without it."""
    rows = _asked(result, "robustness_lines")
    if not rows:
        return None
    sheet = Sheet(
        "Accuracy under a shift: logit(shifted) = level + slope (logit(accuracy) - logit(centre))",
        *names("data set", "source"),
        *(Column(head, "figure") for head in ("n", "slope", "level", "centre in %")),
    )
    for row in rows:
        sheet.add(
            vocabulary.dataset(row["dataset"]), row["source"], str(row["n"]),
            digits.interval(row, "slope"), digits.interval(row, "level"), digits.number(100 * row["at"], 2, 1),
        )  # fmt: skip
    return sheet


def robustness(result: FitResult, digits: Digits) -> Sheet | None:
    """The difference of two such lines where both are equally accurate."""
    rows = _asked(result, "robustness")
    if not rows:
        return None
    sheet = Sheet(
        "Effective robustness: a minus b where both are equally accurate without the shift",
        *names("data set", "a vs b"),
        *(Column("at accuracy in %", "figure"), Column("points", "figure"), Column("logit", "figure", 1)),
        *(Column("p", "figure", 2), Column("p (Holm)", "figure")),
    )
    for row in rows:
        points = row | {f"points{end}": 100 * row[f"points{end}"] for end in ("", "_low", "_high")}
        at = NONE if math.isnan(row["at"]) else digits.number(100 * row["at"], 2, 1)
        figures = digits.interval(points, "points", figures=4), digits.interval(row, "logit")
        sheet.add(
            vocabulary.dataset(row["dataset"]), pair(row), at, *figures, digits.p(row["p"]), digits.p(row["p_holm"])
        )
    return sheet
