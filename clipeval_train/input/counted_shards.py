"""Shards whose sample counts img2dataset has written beside them: each is fetched and indexed when its block comes."""

from __future__ import annotations

import contextlib
import json
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError, UsageError
from clipeval.regular import read_regular
from clipeval.remote.copies import fetch, is_remote, local_path
from clipeval.remote.origin import public
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.selection import Selection
from clipeval_train.input.shard_index import index_path
from clipeval_train.input.shards import UNREADABLE, SampleReader, bad_shards, check_bad, indexed

_REQUESTS_AT_ONCE = 32
_STATS_LIMIT = 1 << 24
_INDEXES = 64
"""Indexes of shards that a process keeps in memory."""


class CountedShardSource:
    """The samples of tar files, one unit per file of as many samples as ``NNNNN_stats.json`` says were written.

    A sample that turns out not to be there, or of no use, is a bad one.
    """

    dropped = 0

    def __init__(self, entry: SourceEntry) -> None:
        """Read the counts, and no shard. Raises UsageError, DataError."""
        self.name, self._chosen = entry.source, Selection.of(entry)
        if entry.where:
            raise UsageError(f"data: {self.name}: where: how many samples are left is known by `counts: index` only.")
        named = files.expand(self.name, entry.shards)
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = list(pool.map(_successes, named))
        bad = {path: count for path, count in zip(named, found, strict=True) if isinstance(count, str)}
        check_bad(entry, bad, len(named))
        self.tally = Tally()
        if bad:
            say(f"{self.name}: {bad_shards(bad, len(named))}")
        for path in bad:
            self.tally.read += 1
            self.tally.reject(UNREADABLE, public(path))
        used = [
            (path, *count) for path, count in zip(named, found, strict=True) if not isinstance(count, str) and count[0]
        ]
        if not used:
            raise DataError(f"data: {self.name}: the _stats.json of '{public(entry.shards)}' count no sample.")
        self._paths = [path for path, _, _ in used]
        self.units = np.array([count for _, count, _ in used])
        self.tally.read += int(self.units.sum())
        self.is_remote = any(map(is_remote, self._paths))
        self._ends = np.cumsum(self.units)
        self._reader = SampleReader(entry, self._chosen)
        self._rows: OrderedDict[int, np.ndarray] = OrderedDict()
        names = [Path(path).name for path in self._paths]
        self.fingerprint = digest.of_value([names, [count for _, *count in used], *self._chosen.identity])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": OrderedDict()}

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """As ``ShardSource.read``."""
        unit, place = self._place(index)
        rows = self._rows_of(unit)
        if place >= len(rows):
            raise BadSample("not in its shard, though its _stats.json counts it")
        return self._reader.read(self._paths[unit], rows[place], draw)

    def where(self, index: int) -> str:
        """How messages call a sample: its shard, and its name where it has one."""
        unit, place = self._place(index)
        with contextlib.suppress(DataError):
            rows = self._rows_of(unit)
            if place < len(rows):
                return self._reader.where(self._paths[unit], rows[place], index)
        return f"{public(self._paths[unit])}: sample {place}"

    def fetch(self, unit: int) -> None:
        """Have a shard on this machine. Raises DataError and StoreError."""
        files.local(self._paths[unit])

    def _place(self, index: int) -> tuple[int, int]:
        unit = int(np.searchsorted(self._ends, index, side="right"))
        return unit, int(index - (self._ends[unit] - self.units[unit]))

    def _rows_of(self, unit: int) -> np.ndarray:
        """The index of a shard, made by the first process that needs it. The shards of a block are used in turn."""
        if unit in self._rows:
            self._rows.move_to_end(unit)
            return self._rows[unit]
        path = self._paths[unit]
        try:
            known = [path, *digest.stamp(files.local(path)), *self._chosen.identity]
        except OSError as error:
            raise DataError(f"{public(path)}: cannot read the shard: {error.strerror or error}.") from error
        index = index_path(known)
        self._rows[unit] = indexed(path, index, self._chosen, renew=False).rows
        if len(self._rows) > _INDEXES:
            self._rows.popitem(last=False)
        return self._rows[unit]


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
