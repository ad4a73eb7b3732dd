"""What the words of a fit's tables mean: a sentence for each that occurs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clipeval.scaling.fitted import GUARD
from clipeval.scaling.frontier import PAPER_BINS, QUANTILE
from clipeval.scaling.questions.compare import A_BETTER, B_BETTER, UNDETERMINED
from clipeval.scaling.validation import NO_SCALING, SCALING, TOO_FEW

Row = Mapping[str, Any]
FASTEST_NEGLIGIBLE = 0.02
"""Of an error that falls by a smaller share for ten times the scale one may doubt that it matters."""
NEGLIGIBLE = "negligible"

_VERDICTS = {
    SCALING: "the error falls beyond doubt",
    NEGLIGIBLE: f"it falls beyond doubt, but by less than {100 * FASTEST_NEGLIGIBLE:.0f} % for ten times the scale",
    NO_SCALING: "it may not fall at all",
    TOO_FEW: "fewer than three points, or three that show no fall",
    A_BETTER: "the error of a falls faster",
    B_BETTER: "the error of b falls faster",
    UNDETERMINED: "the data do not tell which (Holm's p is 0.05 or more)",
}
_FRONTIERS = {
    "none": "a line through all checkpoints",
    "quantile": f"the line that {100 * QUANTILE:.0f} % of the checkpoints lie below",
    "cherti2023": f"through the lowest error in each of {PAPER_BINS} bins of compute",
    "pareto": "through the checkpoints that none with less compute beats",
    "hull": "through the corners of the lower convex hull",
}


def verdict(row: Row) -> str:
    """The verdict on a law, and whether what is beyond doubt is next to nothing."""
    alpha = row["alpha"]
    slow = row["law"] == "power" and row["verdict"] == SCALING and 1 - 10**alpha < FASTEST_NEGLIGIBLE
    return NEGLIGIBLE if slow else str(row["verdict"])


def of_laws(rows: Sequence[Row], verdicts: Iterable[str]) -> Iterator[str]:
    """On the verdicts and frontiers of laws, on points that are fewer than checkpoints, and on three points."""
    yield from of_words("verdict", _VERDICTS, verdicts)
    yield from of_words("frontier", _FRONTIERS, (row["frontier"] for row in rows))
    fewer = next((row for row in rows if row["n_points"] != row["n_models"]), None)
    if fewer is not None:
        yield f"n {models(fewer)}: of {fewer['n_models']} checkpoints {fewer['n_points']} points are fitted"
    if any(row["n_points"] == 3 and row["interval"].startswith("Student") for row in rows):
        yield "n 3: the interval is Student's t with 1 degree of freedom"


def of_comparisons(rows: Sequence[Row]) -> Iterator[str]:
    """On the verdicts, and on the scales of a crossover and of equal error."""
    yield from of_words("verdict", _VERDICTS, (row["verdict"] for row in rows))
    if any(beyond(row) for row in rows):
        yield "beyond the data: its interval leaves the compute of the checkpoints by more than ten times"


def of_forecasts(rows: Sequence[Row]) -> Iterator[str]:
    """On forecasts that are too far out."""
    if any(row["decades_beyond"] > GUARD for row in rows):
        yield "!: more than ten times the scale of all checkpoints, where no law has been tested"


def of_words(what: str, known: Mapping[str, str], words: Iterable[str]) -> Iterator[str]:
    """``verdict: scaling = ...; no-scaling = ...``, in the order of ``known``."""
    occurring = set(words)
    said = [f"{word} = {meaning}" for word, meaning in known.items() if word in occurring]
    if said:
        yield f"{what}: {'; '.join(said)}"


def beyond(row: Row) -> bool:
    """Whether the compute at equal error is not given because its interval leaves the data."""
    return math.isnan(row["compute_multiplier"]) and "equal error undetermined" in row["note"]


def models(row: Row) -> str:
    """Checkpoints, and in brackets the points of their frontier where those are others."""
    same = row["n_models"] == row["n_points"]
    return str(row["n_models"]) if same else f"{row['n_models']} ({row['n_points']})"
