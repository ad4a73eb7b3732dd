"""What one later model will do: an interval that counts what laws disagree on and how far they were off before.

The band of a law says where the law is, if it is the right one. A later model also scatters about it, the law may be
another one, and whatever bends beyond the points shows in no residual. What can be asked of the points is how the laws
did in the past: each is fitted below earlier cuts and forecasts as far beyond these as the target lies beyond the data
(leave-future-out: Bürkner, Gabry and Vehtari 2020, J. Stat. Comput. Simul. 90:2499). So

    weight of a law    ~ exp(-AICc / 2) / S**2, how well it fits and how well it forecast
    variance of ln E   the weighted sum of (ln E_l - m)**2 + v + s**2 + S**2

with m the weighted mean of the laws' ln E_l, v the variance of each law's line by the delta method and s**2 its
residual variance (model averaging: Buckland, Burnham and Augustin 1997, Biometrics 53:603), and S its root mean square
past deviation. Few cuts tell little, so that S**2 includes one more of the size that is usual among the laws, and is
not below s**2. A law that could not be checked, as the points below the cuts are too few for it, does not count. The
interval is m +- 1.96 standard deviations. Where none could be checked, laws count equally, without S, and it is
m +- 2.5.

Of 218 forecasts whose outcome is public this holds 94 %, and the best law's own band 50 %; ``python -m bench outlook``
shows these and other rules on the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.laws import LAWS, Law
from clipeval.scaling.problem import Problem
from clipeval.scaling.validation import decades_beyond

AVERAGED = ("power", "power_floor", "shifted_floor", "m4")
CURVE, ZOO = 1.0, 0.5
"""How far apart earlier cuts are, in units of the distance to the target: the points of one training run are many and
follow each other closely; models of a zoo are few."""
CUTS = 3
NEAREST = float(np.log(1.3))
"""A forecast nearer than 1.3 times the largest scale is checked at that distance."""
SPARE = 2
"""Points that a law needs beyond the number of its parameters."""
NORMAL, UNCHECKED = 1.96, 2.5
"""Half widths in standard deviations: of a forecast with a past, and of one without."""
TOO_FAR = 1.0
"""Decades beyond the data from which a forecast is an extrapolation too far."""
_EXACT = -1e6
"""Stands for the AICc of an exact fit, which is -inf."""
_NAN = float("nan")


@dataclass(frozen=True)
class Foresight:
    """How a law did when it forecast the rest of the points from earlier ones.

    ``deviation`` ``[cuts]`` is the forecast minus the measured ln E at the farthest point ahead of each cut, NaN where
    the points before the cut did not determine the law; ``mae`` is the mean absolute error in units of the error.
    """

    law: str
    deviation: np.ndarray
    mae: float

    @property
    def n(self) -> int:
        """Forecasts that could be made."""
        return int(np.isfinite(self.deviation).sum())

    @property
    def rmse(self) -> float:
        """The root mean square of the deviations of ln E; NaN without any."""
        return float(np.sqrt(np.nanmean(self.deviation**2))) if self.n else _NAN


@dataclass(frozen=True)
class LawOutlook:
    """One of the laws that a forecast is averaged over: its own forecast and how much it counts.

    In units of ln E: ``line_sd`` is the standard deviation of its line at the target, ``scatter_sd`` that of points
    about it, and ``past_rmse`` the root mean square of what it missed by in the past (NaN without any).
    """

    law: str
    error: float
    weight: float
    aicc: float
    line_sd: float
    scatter_sd: float
    past_rmse: float


@dataclass(frozen=True)
class Outlook:
    """A forecast of the error of one later model. ``low`` and ``high`` are its 95 % interval.

    ``law_low`` and ``law_high`` are that of the laws' average, without the scatter of models and without what past
    forecasts missed. ``past_n`` counts the earlier cuts that could be checked, ``past_mae`` is the mean absolute error
    there of the same average, in units of the error (NaN without any). ``high`` may lie above 1.
    """

    at: float
    centre: float
    low: float
    high: float
    law_low: float
    law_high: float
    past_mae: float
    past_n: int
    laws: tuple[LawOutlook, ...]
    decades_beyond: float
    notes: tuple[str, ...]


def outlook(
    x: np.ndarray, error: np.ndarray, at: float, *, spacing: float = ZOO, laws: Sequence[Law | str] = AVERAGED
) -> Outlook:
    """The error of one later model of scale ``at``, from points of scale ``x`` ``[n]`` and ``error`` ``[n]``.

    Of a zoo the points are those on the frontier (the Pareto set, whose part below a cut is the Pareto set of that
    part), and the forecast is of a model on it; of a training run they are all its checkpoints, with ``spacing=CURVE``.
    Errors are positive, a loss as well. Raises MeasureError where no law has two points to spare.
    """
    x, error = np.asarray(x, dtype=float), np.asarray(error, dtype=float)
    chosen = [LAWS[law] if isinstance(law, str) else law for law in laws]
    lines = [line for law in chosen if (line := _Line.through(law, x, error))]
    # a law with few points to spare follows them anywhere: it counts only where no other can be had
    lines = [line for line in lines if line.aicc < np.inf] or lines
    if not lines:
        raise MeasureError(
            f"{len(x)} points, or too alike: a forecast of a later model needs a law with {SPARE} points to spare, "
            "4 of different scales for a power law. Add models."
        )
    seen = foresight(x, error, at, spacing=spacing, laws=[line.law for line in lines])
    past = {one.law: one for one in seen}
    deviation = np.array([past[line.law.name].deviation for line in lines])
    average = _Average.of(lines, np.log(at), deviation)
    half = (NORMAL if average.checked else UNCHECKED) * average.sd
    ends = np.exp(average.centre + np.array([0.0, -half, half])).tolist()
    of_law = np.exp(average.centre + NORMAL * average.sd_of_law * np.array([-1.0, 1.0])).tolist()
    own = [
        LawOutlook(
            line.law.name, float(np.exp(average.value[j])), float(average.weight[j]), line.aicc,
            float(average.own_sd[j, 0]), float(average.own_sd[j, 1]), past[line.law.name].rmse,
        )
        for j, line in enumerate(lines)
    ]  # fmt: skip
    beyond = float(decades_beyond(x, np.array([at]))[0])
    return Outlook(
        at=float(at),
        centre=ends[0], low=ends[1], high=ends[2], law_low=of_law[0], law_high=of_law[1],
        past_mae=_mean_miss(average.weight, deviation, [error[cut.ahead] for cut in _cuts(x, at, spacing)]),
        past_n=int(np.isfinite(deviation).any(axis=0).sum()),
        laws=tuple(sorted(own, key=lambda law: -law.weight)),
        decades_beyond=beyond,
        notes=_notes(average.checked, beyond),
    )  # fmt: skip


def foresight(
    x: np.ndarray, error: np.ndarray, at: float, *, spacing: float = ZOO, laws: Sequence[Law | str] = AVERAGED
) -> list[Foresight]:
    """Laws by what they would have predicted, the best first: forecasts from earlier cuts, as far ahead as ``at`` is.

    A choice between laws by how they fit says little of how they forecast. Arguments are those of ``outlook``; laws
    that could forecast from more cuts come before those from fewer, as the earlier cuts are not the easier ones.
    """
    found = []
    cuts = _cuts(x, at, spacing)
    for law in laws:
        law = LAWS[law] if isinstance(law, str) else law
        predicted = np.full(len(cuts), _NAN)
        for j, cut in enumerate(cuts):
            line = _Line.through(law, x[cut.before], error[cut.before])
            if line:
                predicted[j] = line.at(np.log(x[cut.ahead : cut.ahead + 1]))[0][0]
        measured = np.array([error[cut.ahead] for cut in cuts])
        known = np.isfinite(predicted)
        mae = float(np.abs(np.exp(predicted[known]) - measured[known]).mean()) if known.any() else _NAN
        found.append(Foresight(law.name, predicted - np.log(measured), mae))
    return sorted(found, key=lambda seen: (-seen.n, seen.rmse))


@dataclass(frozen=True)
class _Cut:
    """An earlier state of knowledge: the points ``before`` it (boolean ``[n]``), and the farthest within reach."""

    before: np.ndarray
    ahead: int


def _cuts(x: np.ndarray, at: float, spacing: float) -> list[_Cut]:
    distance = max(float(np.log(at / x.max())), NEAREST)
    found = []
    for j in range(1, CUTS + 1):
        log_cut = np.log(x.max()) - j * spacing * distance
        before = np.log(x) <= log_cut + 1e-9
        ahead = ~before & (np.log(x) <= log_cut + distance + 1e-9)
        if ahead.any():
            found.append(_Cut(before, int(np.argmax(np.where(ahead, x, -np.inf)))))
    return found


@dataclass(frozen=True)
class _Line:
    """A fitted law near its estimate: ``theta`` in coordinates of x over ``exp(log_scale)``."""

    law: Law
    theta: np.ndarray
    log_scale: np.ndarray
    jacobian: np.ndarray
    free: np.ndarray
    scatter: float
    aicc: float

    @classmethod
    def through(cls, law: Law, x: np.ndarray, error: np.ndarray) -> _Line | None:
        """By least squares; None where the points do not determine the law or leave nothing over."""
        if len(x) < len(law.names) + SPARE or (law.of_shares and error.max() > 1):
            return None
        try:
            found = Problem(law, x, error).estimate
        except MeasureError:
            return None
        scale = law.log_scale(np.log(x))
        log_x = np.log(x) - scale
        theta = law.coordinates(found.params, scale)
        low, high = law.bounds(log_x, error)
        _, jacobian = law.log_error(log_x[None], theta[None])
        scatter = found.rss / (len(x) - len(law.names))
        return cls(law, theta, scale, jacobian[0], (theta > low) & (theta < high), scatter, found.aicc)

    def at(self, log_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ln E ``[m]`` and the variance of the line there ``[m]``.

        A coordinate at a bound counts as known, and so does a direction that the points say nothing of: other laws
        say what may lie there, and the past how much it matters.
        """
        value, gradient = self.law.log_error(log_x[None] - self.log_scale, self.theta[None])
        jacobian, gradient = self.jacobian[:, self.free], gradient[0][:, self.free]
        size = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
        reach = (gradient / size) @ np.linalg.pinv(jacobian / size, rcond=1e-6)
        return value[0], self.scatter * (reach**2).sum(1)


@dataclass(frozen=True)
class _Average:
    """Laws averaged at the target, each array ``[laws]``: ln E and its weight, and in ``own_sd`` ``[laws, 2]`` the
    standard deviations of its line and of points about it. ``sd`` is that of a later model, ``sd_of_law`` the law's."""

    value: np.ndarray
    weight: np.ndarray
    own_sd: np.ndarray
    centre: float
    sd: float
    sd_of_law: float
    checked: bool

    @classmethod
    def of(cls, lines: Sequence[_Line], log_at: float, deviation: np.ndarray) -> _Average:
        """``deviation`` ``[laws, cuts]`` is what each missed by in the past, NaN where it could not be fitted."""
        value, of_line = np.array([line.at(np.array([log_at])) for line in lines])[..., 0].T
        scatter = np.array([line.scatter for line in lines])
        known = np.isfinite(deviation).any(axis=1)
        if known.any():
            missed = _missed(deviation, scatter)
            weight = _weights(np.array([line.aicc for line in lines]), missed, known)
        else:
            missed, weight = np.zeros(len(lines)), np.full(len(lines), 1 / len(lines))
        centre = float(weight @ value)
        of_law = float(weight @ ((value - centre) ** 2 + of_line))
        own_sd = np.sqrt(np.stack([of_line, scatter], axis=1))
        sd = float(np.sqrt(of_law + weight @ (scatter + missed)))
        return cls(value, weight, own_sd, centre, sd, float(np.sqrt(of_law)), bool(known.any()))


def _missed(deviation: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """S**2 of each law ``[laws]``: its mean square ``deviation`` ``[laws, cuts]`` with one more of the usual size.

    At least the ``scatter`` of the law.
    """
    known = np.isfinite(deviation)
    total, count = (np.where(known, deviation, 0.0) ** 2).sum(1), known.sum(1)
    usual = np.median(total[count > 0] / count[count > 0])
    return np.maximum((total + usual) / (count + 1), scatter)


def _weights(aicc: np.ndarray, missed: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Akaike's weights over S**2, summing to 1; equal ones over S**2 where the points are too few for AICc.

    A law counts only if it could be checked (``known``).
    """
    aicc = np.where(known, np.maximum(aicc, _EXACT), np.inf)
    fits = np.exp(-(aicc - aicc.min()) / 2) if aicc.min() < np.inf else known.astype(float)
    weight = fits / np.maximum(missed, 1e-12)
    return weight / weight.sum()


def _mean_miss(weight: np.ndarray, deviation: np.ndarray, measured: Sequence[float]) -> float:
    """The mean absolute error of the average over laws at the earlier cuts, NaN without any."""
    share = np.where(np.isfinite(deviation), weight[:, None], 0.0)
    usable = share.sum(0) > 0
    if not usable.any():
        return _NAN
    mean = (share * np.nan_to_num(deviation)).sum(0)[usable] / share.sum(0)[usable]
    return float(np.abs(np.array(measured)[usable] * np.expm1(mean)).mean())


def _notes(checked: bool, beyond: float) -> tuple[str, ...]:
    notes = ["assumes that the law does not bend more than it has"]
    if not checked:
        notes.insert(0, "not checked against the past: too few points lie far enough below")
    if beyond > TOO_FAR:
        notes.append("more than a decade beyond the data")
    return tuple(notes)
