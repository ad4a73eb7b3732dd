"""How laws are written on the page: as many digits as their intervals allow."""

from __future__ import annotations

import math

from clipeval.reporting.laws import Law
from clipeval.scaling.fitted import Fit
from clipeval.scaling.questions.compare import Comparison
from clipeval.scaling.validation import NO_SCALING, TOO_FEW

_SUPERSCRIPTS = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")
NO_LAW = {NO_SCALING: "no scaling detected", TOO_FEW: "too few points for a law"}


def decimals(low: float, high: float, most: int = 5) -> int:
    """So many that half of an interval has two digits."""
    half = (high - low) / 2
    return min(most, max(0, 1 - math.floor(math.log10(half)))) if 0 < half < math.inf else 4


def number(value: float, digits: int) -> str:
    """With a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def interval(value: float, low: float, high: float, unit: str = "", most: int = 5, alone: int = 4) -> str:
    """``−0.103 [−0.138, −0.071]``; the value with ``alone`` decimals where it has no interval."""
    if math.isnan(value):
        return "–"
    if not math.isfinite(high - low):
        return f"{number(value, alone)}{unit}"
    digits = decimals(low, high, most)
    return f"{number(value, digits)}{unit} [{number(low, digits)}, {number(high, digits)}]"


def equation(fit: Fit, symbol: str = "C") -> str:
    """``E = 3.24·C<sup>−0.0739</sup>``, of HTML that page and plots read alike."""
    assert fit.estimate is not None
    alpha, beta = fit.estimate["alpha"], fit.estimate["beta"]
    known = fit.known.intervals.get("alpha")
    digits = max(3, decimals(known.low, known.high)) if known else 4
    return f"E = {_short(beta)}·{symbol}<sup>{number(alpha, digits)}</sup>"


def _short(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}·10<sup>{number(int(exponent), 0)}</sup>"


def exponent(law: Law) -> str:
    """``−0.103 [−0.138, −0.071]``"""
    row = law.numbers
    return interval(row["alpha"], row["alpha_low"], row["alpha_high"])


def fall(law: Law) -> str:
    """How much the error falls per tenfold compute: ``21 % [15, 27]``. Of no law with another form than a power."""
    row = law.numbers
    value, *ends = (100 * (1 - 10 ** row[name]) for name in ("alpha", "alpha_high", "alpha_low"))
    digits = max(0, min(3, decimals(*ends) - 1))
    alone = f"{number(value, digits)} %"
    return f"{alone} [{number(ends[0], digits)}, {number(ends[1], digits)}]" if math.isfinite(sum(ends)) else alone


def large(value: float) -> str:
    """``2.5·10¹¹``, ``5.7``"""
    if math.isnan(value):
        return "–"
    if 0.1 <= value < 1000:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    mantissa, power = f"{value:.1e}".split("e")
    return f"{mantissa}·10{str(int(power)).translate(_SUPERSCRIPTS)}"


def crossover(pair: Comparison, x_min: float, x_max: float) -> str:
    """Where two laws cross; ``beyond the data`` where it is not within the compute of the checkpoints."""
    if math.isnan(pair.crossover):
        return "undetermined" if pair.note.startswith("crossover") else "–"
    if not x_min <= pair.crossover <= x_max:
        return "beyond the data"
    return f"{large(pair.crossover)} [{large(pair.crossover_low)}, {large(pair.crossover_high)}]"


def surely(p: float) -> str:
    """``corrected p = 0.012``, ``corrected p < 0.001``"""
    return f"corrected p {'< 0.001' if p < 0.001 else f'= {p:.3f}' if p < 0.1 else f'= {p:.2f}'}"
