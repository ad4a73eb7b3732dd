"""A fit on the terminal: laws, comparisons of sources, forecasts, and what the figures rest on."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipeval.scaling import names
from clipeval.scaling.cherti2023 import BEST_OF_PAPER
from clipeval.scaling.result import FitResult

if TYPE_CHECKING:
    import pandas as pd


_PIPE_WIDTH = 200
_NONE = "–"


def print_fit(result: FitResult) -> None:
    """The tables of a fit, then its notes. Exponents have six significant digits; errors and accuracies percents."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(_laws(result))
    for table in (_comparisons(result), _matched(result), _forecasts(result)):
        if table is not None:
            console.print(table)
    for note in result.notes:
        console.print(f"· {note}", markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 3 or column == "verdict" else "right", overflow="fold")
    return table


def _laws(result: FitResult) -> Table:
    rows = _records(result.fits)
    floor = any(row["e_inf"] == row["e_inf"] for row in rows)
    held = any(row["holdout_mae"] == row["holdout_mae"] for row in rows)
    simple = all(row["alpha"] == row["alpha"] or row["verdict"] == "too-few-points" for row in rows)
    columns = ["alpha (95 %)", "beta (95 %)", *(["E_inf (95 %)"] if floor else [])] if simple else ["parameters"]
    table = _table(
        f"{_formula(rows)} of {rows[0]['x']}, error E = 1 - metric",
        *("data set", "metric", "source", "n", "frontier", *columns, "R2", "AICc"),
        *(["held-out MAE"] if held else []),
        "verdict",
    )
    for row in rows:
        if row["verdict"] == "no-scaling" and not result.card["preset"]:
            values = ["no scaling detected", *([""] * (len(columns) - 1))]
        elif simple:
            values = [_interval(row, name) for name in ("alpha", "beta", *(["e_inf"] if floor else []))]
        else:
            values = [" ".join(f"{name} {_six(value)}" for name, value in row["params"].items())]
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


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[Any] = table.to_dict("records")
    return rows


def _formula(rows: Sequence[dict[str, Any]]) -> str:
    law = rows[0]["law"]
    return {"power": "Power law E = beta C^alpha", "power_floor": "Power law E = beta C^alpha + E_inf"}.get(law, law)


def _comparisons(result: FitResult) -> Table | None:
    rows = _records(result.comparisons)
    if not rows:
        return None
    table = _table(
        f"Do sources scale differently? Tests of equal exponents, corrected by Holm over {len(rows)} comparisons",
        *("data set", "metric", "a, b", "alpha_a - alpha_b (95 %)", "p", "p (Holm)"),
        *("crossover (95 %)", "compute b / a at equal error", "verdict"),
    )
    for row in rows:
        crossover = (
            _interval(row, "crossover", bound_digits=3) if row["crossover"] == row["crossover"] else "undetermined"
        )
        table.add_row(
            *_cell(row), f"{row['source_a']}, {row['source_b']}", _interval(row, "delta_alpha", "delta"),
            _number(row["p"], 4), _number(row["p_holm"], 4), crossover,
            _interval(row, "compute_multiplier", digits=4, bound_digits=3), row["verdict"],
        )  # fmt: skip
    return table


def _matched(result: FitResult) -> Table | None:
    rows = [row for row in _records(result.comparisons) if row["matched_n"] > 1]
    if not rows:
        return None
    table = _table(
        "The same at matched design: pairs of the same architecture and samples seen",
        *("data set", "metric", "a, b", "pairs", "alpha_a - alpha_b (95 %)", "p", "error of a / error of b (95 %)"),
    )
    for row in rows:
        table.add_row(
            *_cell(row), f"{row['source_a']}, {row['source_b']}", str(row["matched_n"]),
            _interval(row, "matched_delta"), _number(row["matched_p"], 4), _interval(row, "matched_ratio", digits=4),
        )  # fmt: skip
    return table


def _forecasts(result: FitResult) -> Table | None:
    rows = [row for row in _records(result.forecasts) if row["measured_by"] != BEST_OF_PAPER]
    if not rows:
        return None
    table = _table(
        "Forecasts, in percent",
        *("data set", "metric", "source", "model", "GMACs", "predicted (95 %)", "measured", "predicted - measured"),
        "beyond the data",
    )
    for row in rows:
        beyond = row["decades_beyond"]
        guard = f"{beyond:.2f} decades{' !' if beyond > 1 else ''}" if beyond > 0 else "within"
        table.add_row(
            *_cell(row), row["source"], row["model"], _number(row["gmacs_total"], None), _percent(row),
            _number(100 * row["measured"], 2), _signed(100 * row["difference"]), guard,
        )  # fmt: skip
    return table


def _cell(row: dict[str, Any]) -> tuple[str, str]:
    shots = row["shots"]
    return names.dataset(row["dataset"], int(shots) if shots == shots and shots else None), names.metric(row["metric"])


def _interval(
    row: dict[str, Any], name: str, bounds: str = "", digits: int = 6, bound_digits: int | None = None
) -> str:
    low, high = row[f"{bounds or name}_low"], row[f"{bounds or name}_high"]
    value, shown = _six(row[name], digits), bound_digits or digits
    return value if math.isnan(low) or math.isnan(high) else f"{value} [{_six(low, shown)}, {_six(high, shown)}]"


def _percent(row: dict[str, Any]) -> str:
    if math.isnan(row["predicted"]):
        return "no scaling"
    bounds = f" [{100 * row['predicted_low']:.2f}, {100 * row['predicted_high']:.2f}]"
    return f"{100 * row['predicted']:.4f}" + ("" if math.isnan(row["predicted_low"]) else bounds)


def _six(value: float, digits: int = 6) -> str:
    """Significant digits, trailing zeros kept, as exponents must not look rounder than they are."""
    return _NONE if math.isnan(value) else f"{value:#.{digits}g}".rstrip(".")


def _number(value: float, decimals: int | None) -> str:
    if value is None or math.isnan(value) or math.isinf(value):
        return _NONE
    return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"


def _signed(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:+.2f}"
