"""What a fitted law says of a model that was not fitted: ``ARCH:SAMPLES``, scored where somebody has measured it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import MeasureError, UsageError, suggest
from clipeval.models import zoo
from clipeval.results.columns import COMPUTE, archs, numbers
from clipeval.scaling.fitted import GUARD, Fit
from clipeval.scaling.frontier import on_frontier
from clipeval.scaling.laws import LAWS
from clipeval.scaling.points import Cell, source_of
from clipeval.scaling.uncertainty.outlook import AVERAGED, outlook

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SAMPLES = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:e\d+)?)([kMBT]?)")
_MEASURED_TOLERANCE = 0.1
"""A measured checkpoint scores a forecast when its samples seen differ by at most 10 %."""
_OTHER_NAMES = {"ViT-G-14": "ViT-bigG-14"}
"""Names in papers of architectures that open_clip calls otherwise (Zhai et al., arXiv:2106.04560, for ViT-G/14)."""
_NAN = float("nan")
_SIZES = ("params", "params_image", "params_text", "gmacs", "gmacs_image", "gmacs_text", "image_size")


@dataclass(frozen=True)
class Target:
    """A model to forecast: sizes by column name, ``samples_seen`` among them; ``arch`` is open_clip's name."""

    name: str
    arch: str
    sizes: dict[str, float]

    def x(self, columns: tuple[str, ...]) -> np.ndarray:
        """The scales of the law: ``[1]``, or ``[1, inputs]`` for several columns. Raises UsageError."""
        known = self.sizes | {COMPUTE: self.sizes["gmacs"] * self.sizes["samples_seen"]}
        for column in columns:
            if not known.get(column, np.nan) > 0:
                raise UsageError(
                    f"--forecast {self.name}: its {column} is not known. A forecast can be made on laws of "
                    f"{', '.join(name for name, value in known.items() if value > 0)}."
                )
        values = np.array([[known[column] for column in columns]])
        return values[:, 0] if len(columns) == 1 else values


@dataclass(frozen=True)
class Measured:
    """A measured value and the checkpoint it is of."""

    value: float
    model: str


UNKNOWN = Measured(float("nan"), "")


@dataclass(frozen=True)
class Later:
    """What is said of one later model: a 95 % interval of its value around ``expected``, by several ``laws`` (their
    names and weights), which missed ``past_n`` earlier models by ``past_mae`` on average."""

    expected: float = _NAN
    low: float = _NAN
    high: float = _NAN
    past_mae: float = _NAN
    past_n: int = 0
    laws: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """The value of a metric that a law predicts, the 95 % interval of the ``law`` there, and that of one ``later``
    model, which also scatters and may follow another law.

    ``decades_beyond`` is how far the model lies outside the points of the fit, 0 inside.
    """

    cell: Cell
    source: str
    model: str
    gmacs_total: float
    predicted: float
    law: tuple[float, float]
    later: Later
    measured: Measured
    decades_beyond: float
    note: str = ""

    def row(self) -> dict[str, Any]:
        """The columns of the output, in order."""
        task, dataset, metric, shots = self.cell
        return {
            "task": task,
            "dataset": dataset,
            "metric": metric,
            "source": self.source,
            "model": self.model,
            "gmacs_total": self.gmacs_total,
            "predicted": self.predicted,
            "predicted_low": self.later.low,
            "predicted_high": self.later.high,
            "law_low": self.law[0],
            "law_high": self.law[1],
            "measured": self.measured.value,
            "shots": shots,
            "difference": self.predicted - self.measured.value,
            "measured_by": self.measured.model,
            "decades_beyond": self.decades_beyond,
            "expected": self.later.expected,
            "past_mae": self.later.past_mae,
            "past_n": self.later.past_n,
            "laws": self.later.laws,
            "note": self.note,
        }


def parse(text: str, table: pd.DataFrame, labels: Mapping[str, float] = {}, option: str = "--forecast ") -> Target:
    """``ViT-G-14:34B`` as a Target. Sizes of an architecture are those of ``table`` where it has it, so that the
    forecast counts compute as the fit does, else open_clip's. ``labels`` are numbers of samples seen that mean
    something else than they say; ``option`` stands before ``text`` in messages. Raises UsageError."""
    arch, separator, samples = text.rpartition(":")
    if not separator:
        raise UsageError(f"{option}{text}: expected ARCHITECTURE:SAMPLES_SEEN, for example ViT-L-14:12.8B.")
    seen = labels[samples] if samples in labels else _samples(samples, f"{option}{text}")
    return Target(text, _open_clip_name(arch), _sizes(arch, table, option) | {"samples_seen": seen})


def _samples(word: str, said: str) -> float:
    found = _SAMPLES.fullmatch(word)
    value = float(found[1].replace("_", "")) * _SUFFIXES[found[2]] if found else 0.0
    if not value > 0:
        raise UsageError(
            f"{said}: '{word}' is not a number of samples seen. "
            "Write a positive number, with k, M, B or T for thousands, millions, billions or trillions: 12.8B."
        )
    return value


def _open_clip_name(arch: str) -> str:
    return _OTHER_NAMES.get(arch, arch)


def _sizes(arch: str, table: pd.DataFrame, option: str) -> dict[str, float]:
    architecture = zoo.architectures().get(_open_clip_name(arch))
    known = {name: getattr(architecture, name) for name in _SIZES} if architecture else {}
    here = table[archs(table) == arch.removesuffix("-quickgelu")]
    known |= {
        name: float(np.nanmedian(numbers(here, name))) for name in _SIZES if name in here and here[name].notna().any()
    }
    if not known:
        names = [*zoo.architectures(), *archs(table)]
        raise UsageError(f"{option}{arch}: not an architecture of open_clip or of the table.{suggest(arch, names)}")
    return known


def predict(fit: Fit, target: Target, columns: tuple[str, ...], measured: Measured = UNKNOWN) -> Forecast:
    """What ``fit`` says of the target: no value where the error does not fall with scale. Raises UsageError."""
    x = target.x(columns)
    error, band, later = _NAN, (_NAN, _NAN), Later()
    beyond = float(fit.decades_beyond(x)[0])
    notes = ["more than a decade beyond the data"] if beyond > GUARD else []
    if fit.extrapolates:
        error, band = float(fit.error(x)[0]), _values(fit, *(float(side[0]) for side in fit.band(x)))
        later = _one_later_model(fit, x)
        notes += later.notes
    else:
        notes = [f"no forecast: {fit.verdict}"]
    return Forecast(
        fit.points.cell, fit.points.source, target.name, target.sizes["gmacs"] * target.sizes["samples_seen"],
        fit.points.value(error), band, later, measured, beyond, "; ".join(dict.fromkeys(notes)),
    )  # fmt: skip


def _one_later_model(fit: Fit, x: np.ndarray) -> Later:
    """Of a model on the frontier of a zoo. A law of several scales has no past to be checked against: its band and the
    scatter about it."""
    points = fit.points
    if fit.law.inputs > 1:
        middle, (low, high) = float(np.log(fit.error(x)[0])), (float(np.log(side[0])) for side in fit.band(x))
        spread = 1.96 * float(np.sqrt(fit.problem.estimate.rss / max(fit.problem.freedom, 1)))
        ends = np.exp([middle - np.hypot(middle - low, spread), middle + np.hypot(high - middle, spread)]).tolist()
        note = ("one later model: not checked against the past, as a law of several scales",)
        return Later(points.value(float(np.exp(middle))), *_values(fit, *ends), laws=fit.law.name, notes=note)
    on = on_frontier("pareto", points.x, points.error)
    laws = [name for name in AVERAGED if not (points.loss and LAWS[name].of_shares)]
    try:
        found = outlook(points.x[on], points.error[on], float(x[0]), laws=laws)
    except MeasureError:
        return Later(notes=("one later model: too few models on the frontier",))
    named = ", ".join(f"{law.law} {law.weight:.2f}" for law in found.laws if law.weight >= 0.005)
    ends = _values(fit, found.low, found.high)
    unchecked = tuple(note for note in found.notes if "not checked" in note)
    return Later(points.value(found.centre), *ends, points.unit * found.past_mae, found.past_n, named, unchecked)


def _values(fit: Fit, low: float, high: float) -> tuple[float, float]:
    """The values of the metric at both ends of an interval of errors, the lower one first; a share is not below 0."""
    ends = (fit.points.value(low), fit.points.value(high))
    return ends if fit.points.loss else (max(ends[1], 0.0), ends[0])


def find_measured(target: Target, fit: Fit, by: str, table: pd.DataFrame) -> Measured:
    """The measured value of the target on the source of ``fit``, where ``table`` has one.

    Of several checkpoints that fit, the one with the nearest number of samples seen, then the best value.
    """
    task, dataset, metric, shots = fit.points.cell
    asked = {
        "task": task,
        "dataset": dataset,
        "metric": metric,
        "status": "ok",
        "from_scratch_filter": "",
        "shots": shots or 0,
    }
    usable = source_of(table, by).isin([fit.points.source]).to_numpy(bool)
    for column, value in asked.items():
        if column in table:
            default: Any = {"status": "ok", "from_scratch_filter": "", "shots": 0}.get(column)
            found = table[column].fillna(default) if default is not None else table[column]
            usable = usable & found.isin([value]).to_numpy(bool)
    rows = table[usable]
    rows = rows[archs(rows) == target.arch.removesuffix("-quickgelu")]
    if rows.empty:
        return UNKNOWN
    away = np.abs(np.log(numbers(rows, "samples_seen") / target.sizes["samples_seen"]))
    close = np.nan_to_num(away, nan=np.inf) <= np.log1p(_MEASURED_TOLERANCE)
    if not close.any():
        return UNKNOWN
    ascending = [True, fit.points.loss]
    best = rows[close].assign(away=away[close]).sort_values(["away", "value"], ascending=ascending).iloc[0]
    return Measured(float(best["value"]), str(best["model"]))
