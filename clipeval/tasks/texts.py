"""The texts of a task, each distinct one embedded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clipeval.metrics import require_finite
from clipeval.tasks.base import Inputs


def distinct(groups: Iterable[Iterable[str]]) -> list[str]:
    """The texts of all groups, each once, in order of first appearance."""
    return list(dict.fromkeys(text for group in groups for text in group))


def embedded(inputs: Inputs, groups: Sequence[Sequence[str]], what: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Embeddings ``[T, D]`` of the ``distinct`` texts, and for each group the rows of its own. ``what`` a text is, for
    the MetricError that is raised where an embedding is not finite."""
    texts = distinct(groups)
    place = {text: row for row, text in enumerate(texts)}
    embeddings = inputs.texts(texts)
    require_finite(embeddings, texts, what)
    return embeddings, [np.array([place[text] for text in group]) for group in groups]
