"""What identifies the content of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clipeval import digest


def of_contents(
    image_digests: Iterable[str],
    labels: np.ndarray | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    groups: np.ndarray | None = None,
    metadata: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Hex SHA-256 of the images' digests, labels and captions (or choices) in their order, and of metadata."""
    total = hashlib.sha256()
    for image_digest in image_digests:
        total.update(image_digest.encode())
    for array in (labels, groups):
        listed = None if array is None else [list(array.shape), array.astype(int).ravel().tolist()]
        total.update(digest.of_value(listed).encode())
    total.update(digest.of_value(None if captions is None else [list(texts) for texts in captions]).encode())
    if metadata is not None:  # without any the digest stays what it was before there was metadata
        total.update(digest.of_value({name: values.tolist() for name, values in metadata.items()}).encode())
    return total.hexdigest()
