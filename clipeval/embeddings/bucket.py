"""Embeddings in a bucket: the same records as on a disk, in objects of any fsspec file system.

Objects are written whole and never changed, so writers on several machines never meet; readers merge what they find.
Chosen with ``CLIPEVAL_STORE=s3://bucket/folder``; without it, embeddings lie in the cache folder.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from clipeval.embeddings import entries
from clipeval.embeddings.records import split_records, with_checksum
from clipeval.errors import StoreError, UsageError

_INDEX_BYTES = 8


def store_url() -> str | None:
    """``$CLIPEVAL_STORE`` without a slash at its end, or None. Raises UsageError when it is not a URL."""
    chosen = os.environ.get("CLIPEVAL_STORE")
    if chosen and "://" not in chosen:
        raise UsageError(
            f"CLIPEVAL_STORE={chosen}: expected an fsspec URL such as s3://bucket/folder. "
            "CLIPEVAL_CACHE chooses a folder of this machine."
        )
    return chosen.rstrip("/") if chosen else None


class Bucket:
    """One store entry's objects. ``bodies`` are byte strings of one length, kept with a checksum each.

    ``enough`` bodies make an object worth writing.
    """

    enough = 4096

    def __init__(self, store: str, kind: str, key: dict[str, Any], body_bytes: int, fresh: str | None = None) -> None:
        """The folder of the store that the digest of ``key`` names; ``fresh`` as for ``entries.folder``.

        Raises UsageError for an unknown kind of URL, StoreError when it cannot be written.
        """
        import fsspec

        self.url = f"{store}/{entries.address(kind, key)}"
        self._body_bytes = body_bytes
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"CLIPEVAL_STORE={store}: {error}") from error
        with self._reachable():
            self._files.makedirs(self._folder, exist_ok=True)
            if not self._files.exists(f"{self._folder}/key.json"):
                self._files.pipe_file(f"{self._folder}/key.json", entries.described(key))
            if fresh:
                self._refresh(fresh)

    def add(self, label: str, bodies: list[bytes]) -> None:
        """Write one object; its name starts with ``label``. Raises StoreError."""
        with self._reachable():
            data = b"".join(map(with_checksum, bodies))
            self._files.pipe_file(f"{self._folder}/{label}-{uuid.uuid4().hex}.rec", data)

    def labels(self) -> dict[str, str]:
        """Every object's path and label. Raises StoreError."""
        with self._reachable():
            self._files.invalidate_cache()
            paths = [path for path in self._files.ls(self._folder, detail=False) if path.endswith(".rec")]
        return {path: path.rpartition("/")[2].rpartition("-")[0] for path in sorted(paths)}

    def read(self, path: str) -> list[bytes]:
        """The undamaged bodies of an object: none when it is gone. Raises StoreError."""
        with self._reachable():
            return split_records(self._content(path), self._body_bytes)

    def _refresh(self, fresh: str) -> None:
        marks = entries.with_mark(self._content(f"{self._folder}/fresh"), fresh)
        if marks:
            for path in self.labels():
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)
            self._files.pipe_file(f"{self._folder}/fresh", marks)

    def _content(self, path: str) -> bytes:
        try:
            return self._files.cat_file(path)
        except FileNotFoundError:
            return b""

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has errors of its own
            raise StoreError(
                f"{self.url}: cannot use the store: {error}. Check CLIPEVAL_STORE and its rights."
            ) from error


class BucketRecords:
    """``n`` records of ``row_bytes`` bytes, addressed by index: ``RecordFile`` for a bucket.

    What is written is kept back until ``flush`` or ``Bucket.enough`` records, so that an object holds many.
    """

    def __init__(self, bucket: Bucket, n: int, row_bytes: int) -> None:
        """``bucket`` has bodies of ``8 + row_bytes`` bytes."""
        self.path = bucket.url
        self.n = n
        self.row_bytes = row_bytes
        self._bucket = bucket
        self._waiting: dict[int, bytes] = {}

    @classmethod
    def open(
        cls, store: str, kind: str, key: dict[str, Any], n: int, row_bytes: int, fresh: str | None = None
    ) -> BucketRecords:
        """The records of one store entry; ``fresh`` as for ``entries.folder``. Raises UsageError or StoreError."""
        return cls(Bucket(store, kind, key, _INDEX_BYTES + row_bytes, fresh), n, row_bytes)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[k, row_bytes]`` uint8 at ``indices``, and ``[k]`` bool: which of them are there."""
        rows, valid = np.zeros((len(indices), self.row_bytes), np.uint8), np.zeros(len(indices), bool)
        place = {int(index): position for position, index in enumerate(indices)}
        for path, label in self._bucket.labels().items():
            first, last = map(int, label.split("-"))
            if not ((indices >= first) & (indices <= last)).any():
                continue
            for body in self._bucket.read(path):
                position = place.get(int.from_bytes(body[:_INDEX_BYTES], "little"))
                if position is not None:
                    rows[position] = np.frombuffer(body, np.uint8, offset=_INDEX_BYTES)
                    valid[position] = True
        return rows, valid

    def write(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Take ``rows`` (``[k, ...]``, ``row_bytes`` bytes each) for ``indices``. Raises StoreError."""
        bodies = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        self._waiting |= {int(index): body.tobytes() for index, body in zip(indices, bodies, strict=True)}
        if len(self._waiting) >= self._bucket.enough:
            self.flush()

    def flush(self) -> None:
        """Write what was kept back as one object. Raises StoreError."""
        if self._waiting:
            label = f"{min(self._waiting)}-{max(self._waiting)}"
            bodies = [index.to_bytes(_INDEX_BYTES, "little") + body for index, body in sorted(self._waiting.items())]
            self._bucket.add(label, bodies)
            self._waiting = {}
