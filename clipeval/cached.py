"""What lies in the cache folder, by kind, and how much of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval import choices
from clipeval.errors import StoreError
from clipeval.paths import cache_dir

KINDS = {
    "pixels": "pixels of images after resize and crop",
    "images": "image embeddings",
    "texts": "text embeddings",
    "shards": "tar files from plain addresses",
    "datasets": "what CLIP_benchmark's builders have downloaded",
    "huggingface": "tables that `datasets` has converted",
    "downloads": "downloads that were cut off",
    "indexes": "digests of files and places in them",
    "profiles": "sizes and costs of models",
    "hub": "listings of repositories",
}
"""Folder -> what is in it. Weights and tables of the hub lie in the hub's own cache, which is not ours to clear."""


@dataclass(frozen=True)
class Kept:
    """One kind: its folders, of this and earlier versions, with ``bytes`` in ``files``."""

    kind: str
    folders: tuple[Path, ...]
    bytes: int
    files: int

    def to_json(self) -> dict[str, Any]:
        """As ``clipeval cache list --json`` prints it."""
        return {
            "kind": self.kind,
            "what": KINDS[self.kind],
            "bytes": self.bytes,
            "files": self.files,
            "folders": [str(folder) for folder in self.folders],
        }


def listed() -> list[Kept]:
    """What is there of every kind."""
    return [_kept(kind) for kind in KINDS]


def clear(kinds: Sequence[str] = ()) -> list[Kept]:
    """Remove some kinds, or all; what was removed. A run that is at work computes or fetches again what it misses.
    Raises UsageError for a word that is no kind, StoreError for what cannot be removed."""
    for word in kinds:
        choices.require("cache clear", word, choices.CacheKind)
    removed = []
    for kept in map(_kept, dict.fromkeys(kinds) or KINDS):
        for folder in kept.folders:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise StoreError(f"{folder}: cannot be removed: {error.strerror or error}.") from error
        removed += [kept] if kept.folders else []
    return removed


def _kept(kind: str) -> Kept:
    form = re.compile(rf"{kind}(-\d+)?")
    folders = [path for path in sorted(cache_dir().glob(f"{kind}*")) if form.fullmatch(path.name)]
    folders = [path for path in folders if path.is_dir() and not path.is_symlink()]
    sizes = [size for folder in folders for size in _sizes(folder)]
    return Kept(kind, tuple(folders), sum(sizes), len(sizes))


def _sizes(folder: Path) -> Iterator[int]:
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield (Path(top) / name).lstat().st_size
