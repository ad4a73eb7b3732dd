"""How often intervals of forecasts hold what was measured later, on public data: several rules side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.uncertainty.outlook import CURVE, NORMAL, ZOO, LawOutlook, Outlook, outlook

CUTS = (5e11, 1e12, 3e12)
"""GMACs up to which the models of Cherti et al. 2023 are known to a forecast."""
METRICS = ("acc1", "image_retrieval_recall@5", "text_retrieval_recall@5", "mean_average_precision")
FEWEST = 4


@dataclass(frozen=True)
class Case:
    """What is known (``x`` and ``error`` ``[n]``) and what came: the error ``outcome`` of scale ``at``."""

    group: str
    x: np.ndarray
    error: np.ndarray
    at: float
    outcome: float
    spacing: float


def main(*options: str) -> None:
    """Print for each rule and group the coverage, the median half width and the mean interval score.

    Half widths are in % of the error. The score is the half width plus, for an outcome outside, 20 times its distance
    (half the interval score of Gneiting and Raftery 2007 for 95 %): lower is better.
    """
    parser = argparse.ArgumentParser(prog="python -m bench outlook", description=__doc__)
    parser.add_argument(
        "--planted", type=int, default=0, metavar="N", help="also N tables per planted law, scatter, size and distance"
    )
    asked = parser.parse_args(options)
    results: dict[str, list[tuple[Case, Outlook]]] = {}
    for case in (*curves(), *zoo()):
        try:
            results.setdefault(case.group, []).append(
                (case, outlook(case.x, case.error, case.at, spacing=case.spacing))
            )
        except MeasureError:
            continue
    table({group: [one for one in found if one[1].past_n] for group, found in results.items()}, RULES)
    print("\nwithout a past to check against")
    table(
        {group: without for group, found in results.items() if (without := [o for o in found if not o[1].past_n])},
        {name: RULES[name] for name in ("this interval", "Akaike mixture")},
    )
    if asked.planted:
        planted(asked.planted)


def curves() -> Iterator[Case]:
    """Of each learning curve of Alabdulmohsin et al. 2022 the last point, from those that the paper fitted to."""
    from clipeval.results.studies import study

    for _, curve in study("alabdulmohsin2022").groupby(["dataset", "shots", "model"]):
        curve = curve.drop_duplicates("samples_seen").sort_values("samples_seen")
        x, error = curve["samples_seen"].to_numpy(float), 1 - curve["value"].to_numpy(float)
        known = (curve["notes"] == "fitted in the paper").to_numpy(bool)
        if known.sum() >= FEWEST and not known[-1]:
            yield Case("IC curves", x[known], error[known], x[-1], error[-1], CURVE)


def zoo() -> Iterator[Case]:
    """Of the LAION models of Cherti et al. 2023 the next and the last model of the Pareto set beyond each cut.

    On the data sets on which the error falls with compute.
    """
    from clipeval.results.published import published
    from clipeval.scaling.frontier import on_frontier
    from clipeval.scaling.laws import LAWS
    from clipeval.scaling.problem import Problem
    from clipeval.scaling.uncertainty.methods import uncertainty
    from clipeval.scaling.validation import SCALING, verdict

    rows = published()
    rows = rows[rows["study"].isin(["cherti2023"])]
    rows = rows[rows["source"].str.startswith("LAION") & rows["metric"].isin(METRICS)]
    for _, models in rows.groupby(["dataset", "task", "metric"]):
        x, error = models["gmacs_total"].to_numpy(float), 1 - models["value"].to_numpy(float)
        alpha = uncertainty(Problem(LAWS["power"], x, error, draws=100)).intervals["alpha"]
        if verdict(alpha, x, error) != SCALING:
            continue
        best = on_frontier("pareto", x, error)
        best = best[np.argsort(x[best])]
        x, error = x[best], error[best]
        for cut in CUTS:
            later = np.flatnonzero(x > cut)
            if len(x) - len(later) < FEWEST or not len(later):
                continue
            known = slice(0, later[0])
            yield Case("LAION next", x[known], error[known], x[later[0]], error[later[0]], ZOO)
            if len(later) > 1:
                yield Case("LAION last", x[known], error[known], x[later[-1]], error[later[-1]], ZOO)


TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "power": lambda x: 5.9 * x**-0.1114,
    "floor": lambda x: 60 * x**-0.25 + 0.12,
    "bending": lambda x: 9 * (x + 3e11) ** -0.13,
}
SCATTERS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(0, 0.02 * np.log(10), n),
    "one-sided": lambda rng, n: rng.exponential(0.05 * np.log(10), n),
}


def planted(draws: int) -> None:
    """Coverage of a later model, and by the laws' average alone, half a decade and a decade beyond 9 and 29 points."""
    print("\nplanted laws: coverage of a later model (by the law alone; median half width in %)")
    for name, truth in TRUTHS.items():
        for kind, scatter in SCATTERS.items():
            cells = [_planted(truth, scatter, n, ahead, draws) for n in (9, 29) for ahead in (0.5, 1.0)]
            print(f"{name:8} {kind:10}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def _planted(
    truth: Callable[[np.ndarray], np.ndarray],
    scatter: Callable[[np.random.Generator, int], np.ndarray],
    n: int,
    ahead: float,
    draws: int,
) -> str:
    x = np.geomspace(1.8e10, 6.6e12, n)
    at, scores = x[-1:] * 10**ahead, []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        found = outlook(x, truth(x) * np.exp(scatter(rng, n)), float(at[0]))
        later = float(truth(at)[0] * np.exp(scatter(rng, 1)[0]))
        inside = found.low <= later <= found.high, found.law_low <= later <= found.law_high
        scores.append([*inside, 50 * np.log(found.high / found.low)])
    coverage, by_law = np.mean(scores, axis=0)[:2]
    return f"{coverage:.2f} ({by_law:.2f}; {np.median(scores, axis=0)[2]:.0f})"


# --- the rules: from what each law says to a centre and a half width of ln E


def _best(found: Outlook) -> LawOutlook:
    return min(found.laws, key=lambda law: law.aicc)


def _mixed(found: Outlook, weight: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Mean and variance of ln E of a mixture of the laws with these weights and variances."""
    value = np.log([law.error for law in found.laws])
    weight = weight / weight.sum()
    mean = float(weight @ value)
    return mean, float(weight @ ((value - mean) ** 2 + variance))


def _own(found: Outlook) -> np.ndarray:
    return np.array([law.line_sd**2 + law.scatter_sd**2 for law in found.laws])


def _akaike(found: Outlook) -> tuple[float, float]:
    aicc = np.array([law.aicc for law in found.laws])
    weight = np.exp(-(aicc - aicc.min()) / 2) if np.isfinite(aicc).all() else np.ones(len(aicc))
    return _mixed(found, weight, _own(found))


def _past(found: Outlook) -> tuple[float, float]:
    missed = np.array([law.past_rmse**2 for law in found.laws])
    known = np.isfinite(missed)
    return _mixed(found, np.where(known, 1 / np.where(known, missed, 1.0), 0.0), np.where(known, missed, 0.0))


def _both(found: Outlook) -> tuple[float, float]:
    mean, variance = _akaike(found)
    return mean, variance + _past(found)[1]


def _this(found: Outlook) -> tuple[float, float]:
    return float(np.log(found.centre)), (np.log(found.high / found.centre) / NORMAL) ** 2


RULES: dict[str, Callable[[Outlook], tuple[float, float]]] = {
    "best law by AICc, its band": lambda found: (np.log(_best(found).error), _best(found).line_sd ** 2),
    "+ scatter of the models": lambda found: (
        np.log(_best(found).error),
        _best(found).line_sd ** 2 + _best(found).scatter_sd ** 2,
    ),
    "Akaike mixture": _akaike,
    "equal weights": lambda found: _mixed(found, np.ones(len(found.laws)), _own(found)),
    "past errors only": _past,
    "Akaike mixture + past errors": _both,
    "this interval": _this,
}
"""Mean and variance of ln E by each."""


def table(
    results: dict[str, list[tuple[Case, Outlook]]], rules: dict[str, Callable[[Outlook], tuple[float, float]]]
) -> None:
    """One line per rule: coverage (median half width, mean score) per group and of all."""
    print(
        f"\n{'':32}" + "".join(f"{f'{group}, n {len(found)}':>26}" for group, found in results.items()) + f"{'all':>18}"
    )
    for name, rule in rules.items():
        scores = {group: np.array([_scored(case, *rule(found)) for case, found in of]) for group, of in results.items()}
        cells = [f"{s[:, 0].mean():.3f} ({np.median(s[:, 1]):.0f}, {s[:, 2].mean():.0f})" for s in scores.values()]
        every = np.concatenate(list(scores.values()))
        print(
            f"{name:32}" + "".join(f"{cell:>26}" for cell in cells)
            + f"{f'{every[:, 0].mean():.3f} ({every[:, 2].mean():.0f})':>18}"
        )  # fmt: skip


def _scored(case: Case, mean: float, variance: float) -> tuple[float, float, float]:
    half, away = NORMAL * np.sqrt(variance), abs(np.log(case.outcome) - mean)
    return float(away <= half), 100 * half, 100 * (half + 20 * max(0.0, away - half))
