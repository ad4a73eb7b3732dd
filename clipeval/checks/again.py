"""The same checkpoint measured again: no sampling error, and no loss of the checkpoint's, but rounding."""

from __future__ import annotations

from clipeval.checks.drops import ROUNDING
from clipeval.checks.matching import Pair
from clipeval.checks.suites import Tested
from clipeval.checks.verdicts import FAIL, PASS, Finding
from clipeval.stats.paired import Paired
from clipeval.vocabulary import metric

_FEW, _FEW_OF_MANY = 2, 0.005
"""Outcomes, and their share, that may differ: a score that lies on the edge falls to either side on other hardware."""


def reproduced(pair: Pair, change: float, test: Tested, rounding: float = 0.0) -> Finding:
    """Whether a ``change`` in points is none. Up to the tolerance, or two outcomes of the net, may change, and two
    outcomes, or 0.5 % of them, may differ, as far as ``test`` knows them; ``rounding`` is what two outcomes make of a
    mean over data sets."""
    n = test.n if isinstance(test, Paired) else 0 if rounding else pair.row.get("n") or 0
    allowed = max(pair.terms.tolerance, rounding, 100 * _FEW / n if n else 0)
    differ, few = _differing(pair, test), max(_FEW, _FEW_OF_MANY * n)
    net = abs(test.lost - test.won) if differ and isinstance(test, Paired) else None
    others = f"{differ:,} of {n:,} outcomes differ" if differ else ""
    if differ <= few and (abs(change) <= allowed + ROUNDING or (net is not None and net <= _FEW)):
        said = f"the same checkpoint: {abs(change):.2f} points apart, {allowed:.3g} allowed"
        return Finding("tolerance", PASS, f"{said}; {others}" if others else said)
    away = f"{change:+.2f} points away, {allowed:.3g} allowed"
    if others:
        away += f" ({others}, {few:,.0f} allowed)"
    if pair.same_surroundings:
        why = f"the same checkpoint measured again is {away}: the evaluation changed, not the checkpoint"
    else:
        why = (
            f"the same weights measured again are {away}: their configuration, preprocessing or tokenizer, or the "
            "version of clipeval or open_clip, is another (checkpoint_identity)"
        )
    return Finding("tolerance", FAIL, why)


def _differing(pair: Pair, test: Tested) -> int:
    """Outcomes that differ; scores that are ranked do in their last digits, and are held to the tolerance only."""
    if not isinstance(test, Paired) or metric(str(pair.row["metric"])).scored == "ranks":
        return 0
    return test.lost + test.won
