"""What identifies the content of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from clipeval import digest


def of_contents(
    image_digests: Iterable[str],
    labels: np.ndarray | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    groups: np.ndarray | None = None,
) -> str:
    """Hex SHA-256 of the images' digests, labels and captions (or choices) in their order."""
    total = hashlib.sha256()
    for image_digest in image_digests:
        total.update(image_digest.encode())
    for array in (labels, groups):
        listed = None if array is None else [list(array.shape), array.astype(int).ravel().tolist()]
        total.update(digest.of_value(listed).encode())
    total.update(digest.of_value(None if captions is None else [list(texts) for texts in captions]).encode())
    return total.hexdigest()
