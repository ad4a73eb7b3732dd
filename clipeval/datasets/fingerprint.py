"""What identifies the content of a data set, and a memory for what takes long to find out about files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipeval import digest
from clipeval.paths import cache_dir


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


def of_files(paths: Sequence[Path]) -> list[str]:
    """Hex SHA-256 of each file's bytes, remembered as a whole under paths, sizes, times and inodes.

    Raises OSError when a file cannot be read.
    """
    stats = [path.stat() for path in paths]
    key = [
        [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino]
        for path, stat in zip(paths, stats, strict=True)
    ]
    return list(remembered(["files", key], lambda: [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]))


def remembered(key: Any, compute: Callable[[], Any]) -> Any:
    """``compute()`` (a JSON value), or what it returned the last time for an equal ``key``.

    The memory only saves time: a damaged or unwritable one is the same as none.
    """
    path = cache_dir() / "indexes" / f"{digest.of_value(key)}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
    value = compute()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(value, file)
        Path(file.name).replace(path)
    return value
