"""Shards whose sample counts img2dataset has written beside them: each is fetched and indexed when its block comes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError, UsageError
from clipeval.regular import read_regular
from clipeval.remote.copies import fetch, is_remote, local_path
from clipeval.remote.origin import public
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample
from clipeval_train.input.shard_index import index_path
from clipeval_train.input.shards import Shards, indexed

_REQUESTS_AT_ONCE = 32
_STATS_LIMIT = 1 << 24
_INDEXES = 64
"""Indexes of shards that a process keeps in memory."""


class CountedShardSource(Shards):
    """The samples of tar files, one unit per file of as many samples as ``NNNNN_stats.json`` says were written.

    A sample that turns out not to be there, or of no use, is a bad one.
    """

    def __init__(self, entry: SourceEntry) -> None:
        """Read the counts, and no shard. Raises UsageError, DataError."""
        if entry.where:
            raise UsageError(
                f"data: {entry.source}: where: how many samples are left is known by `counts: index` only."
            )
        super().__init__(entry)
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = list(zip(self._named, pool.map(_successes, self._named), strict=True))
        missing = {path: count for path, count in found if isinstance(count, str)}
        if told := self._refuse(missing):
            say(f"{self.name}: {told}")
        used = [(path, *count) for path, count in found if not isinstance(count, str) and count[0]]
        if not used:
            raise DataError(f"data: {self.name}: the _stats.json of '{public(entry.shards)}' count no sample.")
        self._use([path for path, _, _ in used], [count for _, count, _ in used], missing)
        self.tally.read += int(self.units.sum())
        names = [Path(path).name for path in self._paths]
        self.fingerprint = digest.of_value([names, [count for _, *count in used], *self._chosen.identity])

    def _row(self, index: int) -> tuple[str, np.void]:
        unit, place = self._place(index)
        rows = self._rows(unit)
        if place >= len(rows):
            raise BadSample("not in its shard, though its _stats.json counts it")
        return self._paths[unit], rows[place]

    @cached_property
    def _rows(self) -> Callable[[int], np.ndarray]:
        return lru_cache(_INDEXES)(self._indexed)  # the shards of a block are used in turn

    def _indexed(self, unit: int) -> np.ndarray:
        """The index of a shard, made by the first process that needs it."""
        path = self._paths[unit]
        try:
            known = [path, *digest.stamp(files.local(path)), *self._chosen.identity]
        except OSError as error:
            raise DataError(f"{public(path)}: cannot read the shard: {error.strerror or error}.") from error
        return indexed(path, index_path(known), self._chosen, renew=False).rows


def _forget_older(shard: str, stats: Path) -> None:
    """Give up a copy that was fetched before what is counted changed: a shard itself is not asked about."""
    with contextlib.suppress(FileNotFoundError):
        if local_path(shard).stat().st_mtime_ns < stats.stat().st_mtime_ns:
            files.forget(shard)


def _successes(shard: str) -> tuple[int, str] | str:
    """How many samples a shard has and a digest of what says so, or as a text why that is not known."""
    place = re.sub(r"\.tar(?=$|[?#])", "_stats.json", shard)
    if place == shard:
        return "its name does not end in .tar"
    try:
        if is_remote(place):
            copy = fetch(place, offline=False, optional=True, quiet=True)
            if copy is None:
                return "no _stats.json beside it"
            _forget_older(shard, copy)
        else:
            copy = Path(place)
        content = read_regular(copy, _STATS_LIMIT)
        count = json.loads(content)["successes"]
    except FileNotFoundError:
        return "no _stats.json beside it"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        count = None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        return "its _stats.json has no number `successes`"
    return count, digest.of_value(content.hex())
