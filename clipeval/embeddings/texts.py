"""Text embeddings of one checkpoint: every unique text once, whatever data sets and tasks use it."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.embeddings import batches, entries
from clipeval.embeddings.batches import Batch
from clipeval.embeddings.bucket import Bucket, store_url
from clipeval.embeddings.images import Progress
from clipeval.embeddings.records import split_records, with_checksum
from clipeval.errors import ModelError

if TYPE_CHECKING:
    from clipeval.models.base import Encoder

_DIGEST_BYTES = 32


class TextStore:
    """Embeddings of texts under one checkpoint, addressed by the text.

    Every writer appends to a segment of its own, so writers never meet; readers merge the segments.
    """

    def __init__(self, encoder_key: dict[str, Any], embed_dim: int, fresh: str | None = None) -> None:
        """``encoder_key`` is ``CheckpointIdentity.text_key``; ``fresh`` as for ``entries.folder``.

        Raises UsageError or StoreError.
        """
        key = {"encoder": encoder_key}
        body_bytes = _DIGEST_BYTES + 4 * embed_dim
        url = store_url()
        self._segments = Bucket(url, "texts", key, body_bytes, fresh) if url else _Folder(key, body_bytes, fresh)
        self._waiting: list[bytes] = []
        self._embed_dim = embed_dim
        self._known: dict[bytes, bytes] = {}
        self._not_finite: set[bytes] = set()
        for path in self._segments.labels():
            for body in self._segments.read(path):
                self._known[body[:_DIGEST_BYTES]] = body[_DIGEST_BYTES:]

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The unique texts that have not been encoded yet, in order of first appearance."""
        unique = {text: _digest(text) for text in dict.fromkeys(texts)}
        return [text for text, key in unique.items() if key not in self._known and key not in self._not_finite]

    def get(self, texts: list[str]) -> np.ndarray:
        """Embeddings ``[len(texts), embed_dim]`` float32 of texts none of which is ``missing``. Raises ModelError for a
        text whose embedding is not finite."""
        rows = np.empty((len(texts), self._embed_dim), np.float32)
        for row, text in enumerate(texts):
            vector = self._known.get(_digest(text))
            if vector is None:
                if _digest(text) not in self._not_finite:
                    raise LookupError(f"text {text!r:.120} has not been encoded")
                raise ModelError(
                    f"text {text!r:.120}: its embedding is not finite. "
                    "The weights may be broken, or overflow at this precision: try --precision fp32."
                )
            rows[row] = np.frombuffer(vector, np.float32)
        return rows

    def add(self, texts: list[str], embeddings: np.ndarray) -> None:
        """Keep ``embeddings`` ``[len(texts), embed_dim]``; rows that are not finite are not stored, but known
        as such. Raises StoreError."""
        finite = np.isfinite(embeddings).all(axis=1)
        self._not_finite.update(_digest(texts[row]) for row in np.flatnonzero(~finite))
        for row in np.flatnonzero(finite):
            key, vector = _digest(texts[row]), np.ascontiguousarray(embeddings[row], np.float32).tobytes()
            self._known[key] = vector
            self._waiting.append(key + vector)
        if len(self._waiting) >= self._segments.enough:
            self.flush()

    def bodies(self) -> bytes:
        """All that is known, for ``receive`` of a store under the same key on another machine."""
        return b"".join(key + vector for key, vector in self._known.items())

    def receive(self, bodies: bytes) -> None:
        """Keep what another store knows. Raises StoreError."""
        size = _DIGEST_BYTES + 4 * self._embed_dim
        for start in range(0, len(bodies), size):
            key, vector = bodies[start : start + _DIGEST_BYTES], bodies[start + _DIGEST_BYTES : start + size]
            if key not in self._known:
                self._known[key] = vector
                self._waiting.append(key + vector)
        self.flush()

    def flush(self) -> None:
        """Write what was kept back. Raises StoreError."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._segments.add("texts", waiting)


def embed(encoder: Encoder, store: TextStore, texts: Iterable[str], batch_size: int, progress: Progress) -> None:
    """Encode the texts that ``store`` lacks, sorted by length, in batches of as many tokens as ``batch_size`` texts of
    77."""
    missing = store.missing(texts)
    if not missing:
        return
    tokenized = encoder.tokenized(missing)
    given = ((batch.rows, batch) for batch in by_length(tokenized.lengths, batch_size * batches.TOKENS))
    try:
        for chosen, embeddings in batches.encoded(encoder, "tokens", given, tokenized.encode):
            store.add([missing[row] for row in chosen], embeddings)
            progress(len(chosen), 0)
    finally:
        store.flush()


def by_length(lengths: np.ndarray, budget: int) -> Iterator[Batch]:
    """Rows of texts of ``lengths`` ``[n]`` in ascending order, so many together that none of them padded to the longest
    makes more than ``budget``; one at least."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        longest = int(lengths[order[stop - 1]])
        if stop == len(order) or (stop + 1 - start) * int(lengths[order[stop]]) > budget:
            yield Batch(order[start:stop], longest)
            start = stop


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class _Folder:
    """A store entry's segments in the cache folder: ``Bucket`` for a disk, with one growing segment per object."""

    enough = 1

    def __init__(self, key: dict[str, Any], body_bytes: int, fresh: str | None) -> None:
        self._folder = entries.folder("texts", key, fresh)
        self._segment = self._folder / f"{uuid.uuid4().hex}.rec"
        self._body_bytes = body_bytes

    def add(self, label: str, bodies: list[bytes]) -> None:
        records = map(with_checksum, bodies)
        with entries.usable(self._segment), entries.writing(self._segment) as file:
            end = os.fstat(file).st_size
            try:
                entries.write_at(file, records, end)
            except OSError:
                os.ftruncate(file, end)  # half a record would shift all that follow
                raise

    def labels(self) -> list[str]:
        return sorted(map(str, self._folder.glob("*.rec")))

    def read(self, path: str) -> list[bytes]:
        with entries.usable(Path(path)):
            try:
                return split_records(Path(path).read_bytes(), self._body_bytes)
            except FileNotFoundError:  # the cache was deleted just now
                return []
