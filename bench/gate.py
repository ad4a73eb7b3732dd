"""How often ``clipeval check`` passes, fails and cannot tell, on simulated outcomes of two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipeval import config
from clipeval.stats import noninferiority
from clipeval.stats.significance import holm, mcnemar_p

CHECKS = 2_000
ALLOWED, ALPHA = 0.01, 0.05
LEFT_OUT = "misc/winogavil"
"""Of the 38 data sets of DataComp the one whose outcomes are not right or wrong."""
SIZES = (100, 360, 1_000, 5_000, 50_000)
SETS = (1, 3, 9, 37)


@dataclass(frozen=True)
class Case:
    """Data sets of ``n`` samples each, with the true ``drops`` of each (a share), and how many outcomes differ."""

    title: str
    n: npt.ArrayLike
    drops: npt.ArrayLike = 0.0
    disagreement: float = 0.15


def datacomp() -> tuple[list[str], np.ndarray]:
    """Names and sizes of 37 data sets, by the catalogue."""
    found = config.packaged()
    names = [name for name in found.members("datacomp") if name != LEFT_OUT]
    return names, np.array([entry.n for name in names if (entry := found.dataset(name))])


def cases() -> list[Case]:
    """Equal checkpoints, allowed and forbidden drops, everywhere and in one data set."""
    names, sizes = datacomp()
    few, many, most = (np.full(9, n) for n in (360, 1_000, 5_000))
    one_of_37 = np.where(np.array(names) == "datacomp/vtab/pets", 0.03, 0)
    one_of_9 = np.where(np.arange(9) == 0, 0.03, 0)
    return [
        Case("equal, 9 x 360", few),
        Case("equal, 9 x 1,000", many),
        Case("equal, 9 x 5,000", most),
        Case("equal, 37 sets of DataComp", sizes),
        Case("equal, 37 sets, 5 % differ", sizes, disagreement=0.05),
        Case("each lost 0.5 (allowed), 37 sets", sizes, 0.005),
        Case("each lost exactly 1, 37 sets", sizes, 0.01),
        Case("each lost 2, 9 x 1,000", many, 0.02),
        Case("each lost 2, 9 x 5,000", most, 0.02),
        Case("each lost 2, 37 sets", sizes, 0.02),
        Case("one of 37 lost 3 (n 3,669)", sizes, one_of_37),
        Case("one of 9 x 5,000 lost 3", most, one_of_9),
    ]


def outcomes(case: Case, checks: int = CHECKS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lost and won ``[checks, data sets]``, of ``n`` ``[data sets]``."""
    n = np.atleast_1d(case.n)
    drops = np.broadcast_to(case.drops, n.shape)
    lost, won = (case.disagreement + drops) / 2, (case.disagreement - drops) / 2
    kinds = np.stack([lost, won, 1 - lost - won], axis=-1)
    drawn = np.random.default_rng(seed).multinomial(np.broadcast_to(n, (checks, len(n))), kinds)
    return drawn[..., 0], drawn[..., 1], n


def verdicts(lost: np.ndarray, won: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of ``[checks]`` passes, and fails: what ``clipeval check`` says of one metric of one checkpoint."""
    drop, sets = (lost - won) / n, len(n)
    suspect = (drop > ALLOWED + 1e-11) & (holm(mcnemar_p(lost, won)) <= ALPHA)
    fails = (holm(noninferiority.score_p(lost, won, n, ALLOWED)) <= ALPHA).any(axis=-1)
    if sets == 1:
        high = noninferiority.drop_limit(lost, won, n)[..., 0]
    else:
        mean, variance = drop.mean(axis=-1), noninferiority.drop_variance(lost, won, n).sum(axis=-1) / sets**2
        fails |= noninferiority.beyond(mean, variance, ALLOWED) <= ALPHA
        high = noninferiority.normal_limit(mean, variance)
    return (high < ALLOWED) & ~suspect.any(axis=-1) & ~fails, fails


def shares(case: Case, checks: int = CHECKS, seed: int = 0) -> tuple[float, float, float]:
    """How many checks pass, cannot tell, and fail."""
    passes, fails = verdicts(*outcomes(case, checks, seed))
    return float(passes.mean()), float(1 - passes.mean() - fails.mean()), float(fails.mean())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    ruler = f"|---{'|--:' * (len(heads) - 1)}|\n"
    first, *others = [f"| {' | '.join(line)} |\n" for line in (heads, *rows)]
    return "".join([first, ruler, *others])


def tables() -> Iterator[tuple[str, str]]:
    """Title and table, as docs/gate.md has them."""
    rows = [[case.title, *(f"{share:.2f}" for share in shares(case))] for case in cases()]
    yield "How often a check ends how", table(["", "pass", "cannot-tell", "fail"], rows)
    yield "How often it passes at equal quality, by samples per data set", _by_size(0.0, 0)
    yield "How often it passes, wrongly, where each data set lost exactly 1 point", _by_size(0.01, 0)
    yield "How often it fails, wrongly, at equal quality", _by_size(0.0, 2)
    for points in (2, 3):
        yield f"How often it fails where each data set lost {points} points", _by_size(points / 100, 2)
    rows = [
        [f"{100 * margin:g}", *(f"{_needed(share, margin):,}" for share in (0.02, 0.05, 0.1, 0.15, 0.3))]
        for margin in (0.005, 0.01, 0.02)
    ]
    heads = ["points allowed", "2 % differ", "5 %", "10 %", "15 %", "30 %"]
    yield "Outcomes that make 90 % of checks pass at equal quality", table(heads, rows)


def _by_size(drop: float, which: int) -> str:
    rows = [[str(sets), *(f"{shares(Case('', np.full(sets, n), drop))[which]:.2f}" for n in SIZES)] for sets in SETS]
    return table(["data sets", *(f"{n:,}" for n in SIZES)], rows)


def _needed(share: float, margin: float) -> int:
    return int(np.ceil(noninferiority.times_as_many(share, margin)))


def main() -> None:
    """Print the tables; seconds."""
    for title, found in tables():
        print(f"{title}:\n\n{found}")
