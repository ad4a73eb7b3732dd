"""A fit on the terminal: laws, comparisons of sources, forecasts, and what the figures rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from clipeval import tables, vocabulary
from clipeval.console import lines, out, show
from clipeval.plain import printable
from clipeval.scaling.cherti2023 import BEST_OF_PAPER
from clipeval.scaling.fitted import GUARD
from clipeval.scaling.output.result import FitResult

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10_000
_NONE = "–"
_NAMES = 3
"""The first columns of a table, which say what a line is about."""


def print_fit(result: FitResult) -> None:
    """The tables of a fit, then its notes. Exponents have six significant digits; errors and accuracies percents."""
    console = out()
    questions: tuple[Callable[[FitResult], Table | None], ...] = (
        *(_laws, _ranking, _comparisons, _matched, _forecasts, _allocations, _growth, _robustness_lines, _robustness),
    )
    for table in (question(result) for question in questions):
        if table is not None:
            width = console.measure(table, options=console.options.update(width=_UNLIMITED)).maximum
            console.print(_narrow(table) if width > console.width else table)
    for note in result.notes:
        show(f"· {note}")


def _table(title: str, *columns: str) -> Table:
    table = tables.table(title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < _NAMES or column == "verdict" else "right", overflow="fold")
    return table


def _narrow(table: Table) -> Table:
    """The same for a terminal that is not wide enough: the first three columns in one, intervals on their own lines."""
    narrow = tables.table(str(table.title))
    narrow.padding, narrow.leading = (0, 0, 0, 0), 1
    narrow.add_column(lines(*(str(column.header) for column in table.columns[:_NAMES])))
    for column in table.columns[_NAMES:]:
        narrow.add_column(column.header, justify=column.justify, overflow="fold")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [cell.plain if isinstance(cell, Text) else printable(cell) for cell in row]
        values = [cell.replace(" [", "\n[").replace(", ", ",\n") for cell in cells[_NAMES:]]
        narrow.add_row(lines(*cells[:_NAMES]), *(lines(*value.split("\n")) for value in values))
    return narrow


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary per row, unknown numbers as NaN: they go through arithmetic."""
    rows: list[Any] = table.to_dict("records")
    return rows


def _laws(result: FitResult) -> Table:
    rows = _rows(result.fits)
    floor = any(row["e_inf"] == row["e_inf"] for row in rows)
    held = any(row["holdout_mae"] == row["holdout_mae"] for row in rows)
    simple = all(row["alpha"] == row["alpha"] or row["verdict"] == "too-few-points" for row in rows)
    columns = ["alpha (95 %)", "beta (95 %)", *(["E_inf (95 %)"] if floor else [])] if simple else ["parameters (95 %)"]
    table = _table(
        f"{_formula(rows)} of {rows[0]['x']}, {_error(result)}",
        *("data set", "metric", "source", "n", "frontier", *columns, "R2", "AICc"),
        *(["held-out MAE"] if held else []),
        "verdict",
    )
    for row in rows:
        values: list[str | Text]
        if row["verdict"] == "no-scaling" and not result.card["preset"]:
            values = ["no scaling detected", *([""] * (len(columns) - 1))]
        elif simple:
            values = [_interval(row, name) for name in ("alpha", "beta", *(["e_inf"] if floor else []))]
        else:
            values = [lines(*(_parameter(row, name) for name in row["params"]))]
        fitted = (
            str(row["n_models"]) if row["n_models"] == row["n_points"] else f"{row['n_models']} ({row['n_points']})"
        )
        table.add_row(
            *_cell(row),
            row["source"],
            fitted,
            row["frontier"],
            *values,
            _NONE if row["frontier"] == "quantile" else _number(row["r2"], 4),
            _number(row["aicc"], 1),
            *([_number(row["holdout_mae"], 3)] if held else []),
            row["verdict"],
        )  # fmt: skip
    return table


def _parameter(row: dict[str, Any], name: str) -> str:
    low, high = row["intervals"][name]
    return f"{name} " + _interval({name: row["params"][name], f"{name}_low": low, f"{name}_high": high}, name)


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


def _comparisons(result: FitResult) -> Table | None:
    rows = _rows(result.comparisons)
    if all(math.isnan(row["delta_alpha"]) for row in rows):
        return None
    again = any(row["frontier"] for row in rows)
    table = _table(
        f"Do sources scale differently? Tests of equal exponents, corrected by Holm over {len(rows)} comparisons",
        *("data set", "metric", "a, b", "alpha_a - alpha_b (95 %)", "p", "p (Holm)"),
        *(["frontier"] if again else []),
        *("crossover (95 %)", "compute b / a at equal error", "verdict"),
    )
    for row in rows:
        crossover = (
            _interval(row, "crossover", bound_digits=3) if row["crossover"] == row["crossover"] else "undetermined"
        )
        table.add_row(
            *_cell(row), f"{row['source_a']}, {row['source_b']}",
            _interval(row, "delta_alpha", "delta", bound_digits=4),
            _number(row["p"], 4), _number(row["p_holm"], 4), *([row["frontier"]] if again else []), crossover,
            _interval(row, "compute_multiplier", digits=4, bound_digits=3), row["verdict"],
        )  # fmt: skip
    return table


def _matched(result: FitResult) -> Table | None:
    rows = [row for row in _rows(result.comparisons) if row["matched_n"] > 1]
    if not rows:
        return None
    table = _table(
        "The same at matched design: pairs of the same architecture and samples seen",
        *("data set", "metric", "a, b", "pairs", "alpha_a - alpha_b (95 %)", "p", "error of a / error of b (95 %)"),
    )
    for row in rows:
        table.add_row(
            *_cell(row), f"{row['source_a']}, {row['source_b']}", str(row["matched_n"]),
            _interval(row, "matched_delta", bound_digits=4), _number(row["matched_p"], 4),
            _interval(row, "matched_ratio", digits=4),
        )  # fmt: skip
    return table


def _forecasts(result: FitResult) -> Table | None:
    rows = [row for row in _rows(result.forecasts) if row["measured_by"] != BEST_OF_PAPER]
    if not rows:
        return None
    table = _table(
        "Forecasts, shares in percent",
        *("data set", "metric", "source", "model", "GMACs", "by the law (95 %)", "one later model (95 %)", "measured"),
        *("predicted - measured", "beyond the data"),
    )
    for row in rows:
        table.add_row(
            *_cell(row), row["source"], row["model"], _number(row["gmacs_total"], None),
            *_predicted(row, _unit(result, row)), _beyond(row),
        )  # fmt: skip
    return table


def _allocations(result: FitResult) -> Table | None:
    """The optimum of each law and the best of its architectures; the others are in the files."""
    if "allocations" not in result.more:
        return None
    rows = _rows(result.more["allocations"])
    losses = all(law.points.loss for law in result.laws)
    table = _table(
        f"What {rows[0]['budget']:.4g} GMACs are best spent on" if rows else "No law to read an optimum off: see below",
        *("data set", "metric", "source", "choice", "GMACs per sample (95 %)", "samples seen"),
        *(f"{'loss' if losses else 'error in %'} (95 %)", "within 1 % of the lowest error", "beyond the data"),
    )
    for row in rows:
        if row["kind"] == "architecture":
            rivals = [r for r in rows if r["kind"] == "architecture" and r["source"] == row["source"]]
            rivals = [rival for rival in rivals if _cell(rival) == _cell(row)]
            if row is not min(rivals, key=lambda rival: rival["error"]):
                continue
        optimum = row["kind"] == "optimum"
        error = [_six(_unit(result, row) * row[name], 4) for name in ("error", "error_low", "error_high")]
        flat = f"{_six(row['flat_low'], 4)} to {_six(row['flat_high'], 4)} GMACs"
        table.add_row(
            *_cell(row), row["source"], "any size" if optimum else row["arch"],
            _size(row), tables.human(row["samples_seen"]),
            f"{error[0]} [{error[1]}, {error[2]}]",
            flat if optimum else f"{100 * row['excess']:+.2f} %", _beyond(row),
        )  # fmt: skip
    return table


def _growth(result: FitResult) -> Table | None:
    """How the best size grows with compute, by each approach that says something."""
    rows = _rows(result.more["growth"]) if "growth" in result.more else []
    if not rows:
        return None
    table = _table(
        "How the best GMACs per sample grow with compute C, as C^a, by three approaches (Hoffmann et al. 2022)",
        *("data set", "metric", "source", "approach", "a (95 %)", "n", "conclusion"),
    )
    for row in rows:
        low, high = _six(row["low"], 2), _six(row["high"], 2)
        value = _six(row["a"], 2) if math.isnan(row["low"]) else f"{_six(row['a'], 2)} [{low}, {high}]"
        table.add_row(
            *_cell(row), row["source"], row["approach"], value, f"{row['n']}", row["reason"] or row["conclusion"]
        )
    return table


def _size(row: dict[str, Any]) -> str:
    """GMACs per sample: an optimum at an end of the data may lie beyond it, and so may an end of its interval."""
    value = _six(row["gmacs"], 4)
    if row["kind"] == "architecture":
        return value
    if row["edge"]:
        return f"{'≤' if row['edge'] == 'smallest' else '≥'} {value} ({row['edge']} model seen)"
    low, high = ("open" if math.isnan(end) else _six(end, 4) for end in (row["gmacs_low"], row["gmacs_high"]))
    return f"{value} [{low}, {high}]"


def _ranking(result: FitResult) -> Table | None:
    rows = _rows(result.more["laws"]) if "laws" in result.more else []
    if not rows:
        return None
    table = _table(
        "Which law do the data prefer? Least squares through all checkpoints; the lowest AICc is best",
        *("data set", "metric", "source", "law", "n", "parameters", "AICc", "above the best", "BIC", "R2"),
    )
    for row in rows:
        figures = (
            _number(row["aicc"], 1),
            _number(row["delta_aicc"], 1),
            _number(row["bic"], 1),
            _number(row["r2"], 4),
        )
        table.add_row(*_cell(row), row["source"], row["law"], str(row["n"]), str(row["parameters"]), *figures)
    return table


def _robustness_lines(result: FitResult) -> Table | None:
    if "robustness_lines" not in result.more:
        return None
    table = _table(
        "Accuracy under a shift: logit(shifted) = level + slope (logit(accuracy) - logit(centre))",
        *("data set", "source", "n", "slope (95 %)", "level (95 %)", "centre in %"),
    )
    for row in _rows(result.more["robustness_lines"]):
        table.add_row(
            vocabulary.dataset(row["dataset"]), row["source"], str(row["n"]),
            _interval(row, "slope"), _interval(row, "level"), _number(100 * row["at"], 2),
        )  # fmt: skip
    return table


def _robustness(result: FitResult) -> Table | None:
    rows = _rows(result.more["robustness"]) if "robustness" in result.more else []
    if not rows:
        return None
    table = _table(
        "Effective robustness: a minus b where both are equally accurate without the shift",
        *("data set", "a, b", "at accuracy in %", "points (95 %)", "logit (95 %)", "p", "p (Holm)"),
    )
    for row in rows:
        points = row | {f"points{end}": 100 * row[f"points{end}"] for end in ("", "_low", "_high")}
        table.add_row(
            vocabulary.dataset(row["dataset"]), f"{row['source_a']}, {row['source_b']}", _number(100 * row["at"], 2),
            _interval(points, "points", digits=4), _interval(row, "logit"),
            _number(row["p"], 4), _number(row["p_holm"], 4),
        )  # fmt: skip
    return table


def _beyond(row: dict[str, Any]) -> str:
    beyond = row["decades_beyond"]
    return f"{beyond:.2f} decades{' !' if beyond > GUARD else ''}" if beyond > 0 else "within"


def _cell(row: dict[str, Any]) -> tuple[str, str]:
    shots = row["shots"]
    dataset = vocabulary.dataset(row["dataset"], int(shots) if shots == shots and shots else None)
    return dataset, vocabulary.metric(row["metric"]).title


def _interval(
    row: dict[str, Any], name: str, bounds: str = "", digits: int = 6, bound_digits: int | None = None
) -> str:
    low, high = row[f"{bounds or name}_low"], row[f"{bounds or name}_high"]
    value, shown = _six(row[name], digits), bound_digits or digits
    return value if math.isnan(low) or math.isnan(high) else f"{value} [{_six(low, shown)}, {_six(high, shown)}]"


def _predicted(row: dict[str, Any], unit: float) -> tuple[str, str, str, str]:
    """What the law predicts, one later model, the measured value and its difference: percents, or a loss as it is."""
    digits = 2 if unit == 100 else 4

    def interval(value: float, decimals: int, low: float, high: float) -> str:
        bounds = "" if math.isnan(low) else f" [{unit * low:.{digits}f}, {unit * high:.{digits}f}]"
        return _NONE if math.isnan(value) else f"{unit * value:.{decimals}f}{bounds}"

    by_law = interval(row["predicted"], 4, row["law_low"], row["law_high"])
    later = interval(row["expected"], digits, row["predicted_low"], row["predicted_high"])
    difference = _NONE if math.isnan(row["difference"]) else f"{unit * row['difference']:+.{digits}f}"
    return "no scaling" if by_law == _NONE else by_law, later, _number(unit * row["measured"], digits), difference


def _six(value: float, digits: int = 6) -> str:
    """Significant digits, trailing zeros kept, as exponents must not look rounder than they are."""
    return _NONE if math.isnan(value) else f"{value:#.{digits}g}".rstrip(".")


def _number(value: float, decimals: int | None) -> str:
    if value is None or math.isnan(value) or math.isinf(value):
        return _NONE
    return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
