"""What a fit returns: three tables, figures, and files of both."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from clipeval.errors import UsageError, counted, few, suggest
from clipeval.files import require_own, write_atomically, write_json
from clipeval.paths import expand
from clipeval.plain import plain
from clipeval.results.columns import records
from clipeval.results.table import write_csv
from clipeval.scaling.fitted import Fit
from clipeval.scaling.questions.compare import Comparison, compare
from clipeval.scaling.questions.compare import as_rows as comparison_rows
from clipeval.scaling.questions.forecast import Forecast
from clipeval.shown import Shown
from clipeval.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from clipeval.scaling.output.figures import Figures

FIT_COLUMNS = (
    *("task", "dataset", "metric", "source", "x", "law", "frontier", "n_models", "n_points"),
    *("alpha", "alpha_low", "alpha_high", "beta", "beta_low", "beta_high", "e_inf", "e_inf_low", "e_inf_high"),
    *("r2", "aicc", "holdout_mae", "x_min", "x_max", "verdict"),
)
COMPARISON_COLUMNS = (
    *("task", "dataset", "metric", "source_a", "source_b", "delta_alpha", "delta_low", "delta_high", "p", "p_holm"),
    *("crossover", "crossover_low", "crossover_high", "verdict"),
)
FORECAST_COLUMNS = (
    *("task", "dataset", "metric", "source", "model", "gmacs_total"),
    *("predicted", "predicted_low", "predicted_high", "law_low", "law_high", "measured"),
)
"""The first columns of each table, in order; others may follow."""
_CARD = "fit_card.json"
_NAN = float("nan")
_MOST_TOLD = 4
_PACKAGES = ("numpy", "scipy", "pandas")


@dataclass(frozen=True, repr=False)
class FitResult(Shown):
    """Fitted laws, comparisons of their sources and forecasts. ``print`` shows the tables of ``clipeval fit``.

    ``card`` says how they were obtained: the form of the law, the data, the estimator and its options. ``notes`` are
    sentences a reader should see: which rows were used and left out, and what a law does not tell.
    """

    printer = "clipeval.scaling.output.show:print_fit"

    laws: Sequence[Fit]
    predictions: Sequence[Forecast]
    x: str
    card: dict[str, Any]
    notes: Sequence[str]
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables asked for beside these, by name: ``allocations`` of a budget, ``robustness`` and ``robustness_lines``."""

    def __repr__(self) -> str:
        told = [f"  {law.summary}" for law in self.laws[:_MOST_TOLD]]
        if len(self.laws) > _MOST_TOLD:
            told.append(f"  and {len(self.laws) - _MOST_TOLD} more")
        tables = ", ".join(f".{name}" for name in ("fits", "comparisons", "forecasts"))
        more = "".join(f", .more['{name}']" for name in self.more)
        head = f"FitResult: {counted(len(self.laws), 'law')} of {self.x}"
        return "\n".join([head, *told, f"Tables: {tables}{more}. Pictures: .plot(). All of it: print(result)"])

    @cached_property
    def pairs(self) -> Sequence[Comparison]:
        """The comparisons of sources, which take longer than the laws and are made when they are asked for."""
        return compare(self.laws, as_fitted=bool(self.card["preset"]))

    @cached_property
    def fits(self) -> pd.DataFrame:
        """One row per law."""
        return _frame(self._fit_rows, FIT_COLUMNS)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """One row per pair of sources, data set and metric."""
        return _frame(self._comparison_rows, COMPARISON_COLUMNS)

    @cached_property
    def forecasts(self) -> pd.DataFrame:
        """One row per law and model; values in the unit of the metric."""
        return _frame(self._forecast_rows, FORECAST_COLUMNS)

    @cached_property
    def _fit_rows(self) -> list[dict[str, Any]]:
        return [_fit_row(law, self.x) for law in self.laws]

    @cached_property
    def _comparison_rows(self) -> list[dict[str, Any]]:
        return comparison_rows(self.pairs)

    @cached_property
    def _forecast_rows(self) -> list[dict[str, Any]]:
        return [forecast.row() for forecast in self.predictions]

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The tables as lists of plain values; a number that is not known is None."""
        tables = {"fits": self._fit_rows, "comparisons": self._comparison_rows, "forecasts": self._forecast_rows}
        tables |= {name: records(table) for name, table in self.more.items()}
        return {name: [plain(row) for row in rows] for name, rows in tables.items()}

    def to_json(self) -> str:
        """``to_dict`` as a JSON document."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    @overload
    def plot(self, folder: str | Path | None = None, *, dataset: None = None) -> Figures: ...

    @overload
    def plot(self, folder: str | Path | None = None, *, dataset: str) -> Figure: ...

    def plot(self, folder: str | Path | None = None, *, dataset: str | None = None) -> Figures | Figure:
        """The figures by name, which a notebook shows; with ``folder`` also written there as PNG and PDF.

        With ``dataset`` the one figure of all metrics of that data set. Raises UsageError for a data set that was not
        fitted, and StoreError.
        """
        from clipeval.scaling.output import plots

        laws = [law for law in self.laws if dataset in (None, law.points.cell[1])]
        if dataset is not None and not laws:
            names = list(dict.fromkeys(law.points.cell[1] for law in self.laws))
            raise UsageError(f"plot: no law of data set '{dataset}', but of {few(names)}.{suggest(dataset, names)}")
        asked = [forecast for forecast in self.predictions if forecast.model in self.card["forecasts"]["asked"]]
        drawn = plots.figures(laws, self.pairs, asked, self.x)
        if folder is not None:
            plots.save(drawn, expand(folder))
        return drawn if dataset is None else drawn.combined

    def write(self, folder: str | Path) -> None:
        """The tables as CSV files, ``fit_card.json`` and the figures. Raises StoreError, and UsageError where files of
        these names are there that no fit wrote."""
        folder = expand(folder)
        tables = {"fits": self.fits, "comparisons": self.comparisons, "forecasts": self.forecasts, **self.more}
        names = [*(f"{name}.csv" for name in tables), _CARD]
        require_own(folder, names, lambda: _is_card(folder / _CARD), "an earlier fit")
        write_json(folder / _CARD, self.card)  # by which a later fit knows the others
        for name, table in tables.items():
            write_atomically(folder / f"{name}.csv", partial(write_csv, table))
        self.plot(folder)


def _is_card(file: Path) -> bool:
    try:
        return {"form", "estimator"} <= json.loads(file.read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def versions() -> dict[str, str]:
    """What computed a fit."""
    from clipeval.results.provenance import git_commit

    found = {"clipeval": __version__, "git_commit": git_commit(), "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def _fit_row(fit: Fit, x: str) -> dict[str, Any]:
    task, dataset, metric, shots = fit.points.cell
    scale = fit.points.x.reshape(len(fit.points.x), -1)[:, 0]
    estimate = fit.estimate
    row: dict[str, Any] = {
        "task": task,
        "dataset": dataset,
        "metric": metric,
        "source": fit.points.source,
        "x": x,
        "law": fit.law.name,
        "frontier": fit.frontier,
        "n_models": len(scale),
        "n_points": fit.n_points,
    }
    for name in ("alpha", "beta", "e_inf"):
        interval = fit.known.intervals.get(name)
        row[name] = estimate[name] if estimate else _NAN
        row[f"{name}_low"] = interval.low if interval else _NAN
        row[f"{name}_high"] = interval.high if interval else _NAN
    return row | {
        "r2": estimate.r2 if estimate else _NAN,
        "aicc": estimate.aicc if estimate else _NAN,
        "holdout_mae": fit.holdout_mae,
        "x_min": float(scale.min()),
        "x_max": float(scale.max()),
        "verdict": fit.verdict,
        "shots": shots,
        "bic": estimate.bic if estimate else _NAN,
        "loo_mae": fit.loo_mae,
        "alpha_se": fit.known.alpha_se,
        "alpha_df": fit.known.alpha_df,
        "clusters": None if fit.problem.groups is None else len(set(fit.problem.groups)),
        "interval": next((interval.method for interval in fit.known.intervals.values()), "none"),
        "band": fit.known.method,
        "converged": estimate.converged if estimate else None,
        "params": dict(zip(estimate.names, estimate.params.tolist(), strict=True)) if estimate else {},
        "intervals": {name: [interval.low, interval.high] for name, interval in fit.known.intervals.items()},
        "notes": "; ".join(fit.notes),
    }


def r2_shown(row: Mapping[str, Any]) -> float:
    """R2 of a row of fits, for people: NaN of the line of a quantile, which is not meant to go through the middle
    of its points, and where there is no law."""
    return _NAN if row["frontier"] == "quantile" else float(row["r2"])


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns))
