"""Webdataset shards as a source: samples by number, read at their place in their tar file."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property, partial
from pathlib import Path
from tarfile import BLOCKSIZE

import numpy as np
import torch

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError, few
from clipeval.files import write_atomically, write_json
from clipeval.machine import workers_per_rank
from clipeval.remote.copies import WebPage, is_remote
from clipeval.remote.origin import public
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.decode import decode_captions, decode_image
from clipeval_train.input.selection import Selection, choose, place_of
from clipeval_train.input.shard_index import Indexed, build_index, index_of_nothing, index_path, load_index, row_type

_NAMED = 8
"""So many bad shards are named in a message."""
_UNREADABLE = "missing or unreadable shard"
_FETCHES_AT_ONCE = 8
_FEW = 8
"""So many shards are indexed without starting processes for it."""


class Shards:
    """Tar files as a source, one unit per file."""

    dropped = 0

    def __init__(self, entry: SourceEntry) -> None:
        """Raises UsageError or DataError for what the entry names."""
        self.name, self._entry, self._chosen, self.tally = entry.source, entry, Selection.of(entry), Tally()
        self._named = files.expand(self.name, entry.shards)
        self._places = [place_of(key) for key in self._chosen.captions]
        self._weights = [*(entry.caption or {}).values()]
        self._files = files.Reader()

    def _refuse(self, bad: Mapping[str, str]) -> str:
        """Which shards are bad, and why, as a message has it; empty where none is. Raises DataError for more than the
        entry allows."""
        if not bad:
            return ""
        count, names = len(self._named), few((f"{public(path)} ({why})" for path, why in bad.items()), most=_NAMED)
        listed = f"{len(bad):,} of {count:,} shards {'is' if len(bad) == 1 else 'are'} missing or damaged: {names}."
        if len(bad) > self._entry.bad_shards:
            allow = f", or allow so many with `bad_shards: {len(bad)}` in this source" if len(bad) < count else ""
            raise DataError(f"data: {self.name}: {listed} Check the path and download them again{allow}.")
        return listed

    def _use(self, paths: Sequence[str], counts: Sequence[int], missing: Iterable[str]) -> None:
        """Take these shards of so many usable samples each, and count those that cannot be read."""
        for path in missing:
            self.tally.read += 1
            self.tally.reject(_UNREADABLE, public(path))
        self._paths, self.units = list(paths), np.array(counts)
        self._ends = np.cumsum(self.units)
        self.is_remote = any(map(is_remote, self._paths))

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    def _row(self, index: int) -> tuple[str, np.void]:
        """The shard of a sample, and its row in the shard's index. Raises BadSample, or DataError for the shard."""
        raise NotImplementedError

    def _place(self, index: int) -> tuple[int, int]:
        """The unit of a sample, and its number there."""
        unit = int(np.searchsorted(self._ends, index, side="right"))
        return unit, int(index - (self._ends[unit] - self.units[unit]))

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and captions of a sample; of those that ``caption`` names the ones that
        ``draw`` in [0, 1) chooses. Raises BadSample, or DataError for the shard."""
        shard, row = self._row(index)
        if self._places:
            texts = row["texts"].tolist()
            number = choose(self._weights, [size > 0 for _, size in texts], draw)
            (text, size), field = texts[number], self._places[number][1]
        else:
            text, size, field = int(row["text"]), int(row["text_size"]), "caption" if row["is_json"] else ""
        captions = decode_captions(self._files.read(shard, text, size), field)
        return decode_image(self._files.read(shard, int(row["image"]), int(row["image_size"]))), captions

    def where(self, index: int) -> str:
        """How messages call a sample: its shard, and its name, where it has one, as the header before its image has
        it."""
        name = f"sample {index}"
        with contextlib.suppress(BadSample, DataError):
            shard, row = self._row(index)
            header = self._files.read(shard, int(row["image"]) - BLOCKSIZE, 100)
            name = header.split(bytes(1))[0].decode(errors="replace")
        return f"{public(self._paths[self._place(index)[0]])}: {name}"

    def fetch(self, unit: int) -> None:
        """Have a shard on this machine. Raises DataError and StoreError."""
        files.local(self._paths[unit])


class ShardSource(Shards):
    """The samples of tar files whose places are known. The table of them stays on disk, shared by all processes."""

    def __init__(self, entry: SourceEntry) -> None:
        """Index what is not indexed yet, from the headers. Raises UsageError or DataError naming what is wrong."""
        super().__init__(entry)
        known = list(zip(self._named, files.identities(self.name, self._named), strict=True))
        missing = {path: identity for path, identity in known if isinstance(identity, str)}
        self._refuse(missing)
        paths = [path for path, identity in known if not isinstance(identity, str)]
        chosen = self._chosen.identity
        indexes = [index_path([one, *chosen] if chosen else one) for _, one in known if not isinstance(one, str)]
        self._table = index_path([index.stem for index in indexes]).with_suffix(".npy")
        counts, self.tally, damaged, self.dropped, rows = _summary(self._chosen, paths, indexes, self._table)
        if told := self._refuse(missing | damaged):
            say(f"{self.name}: {told} What is whole in them is used.")
        used = np.flatnonzero(counts)
        self._use([paths[place] for place in used], np.array(counts)[used].tolist(), missing)
        if not sum(counts):
            why = f" where {entry.where}" if self.dropped else ""
            raise DataError(
                f"data: {self.name}: no usable sample in the {len(self._named):,} shards of '{entry.shards}'{why} "
                f"({self.tally}). A sample is KEY.jpg, .jpeg, .png or .webp with KEY.txt or KEY.json."
            )
        assert len(self._rows) == sum(counts)  # mapped here, workers have it when the cache is cleared meanwhile
        content = [[Path(path).name for path in self._paths], self.units.tolist(), rows]
        captions = self._chosen.captions
        self.fingerprint = digest.of_value([*content, captions] if captions else content)

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self._table, mmap_mode="r")

    def _row(self, index: int) -> tuple[str, np.void]:
        return self._paths[self._place(index)[0]], self._rows[index]


def _summary(
    chosen: Selection, paths: Sequence[str], indexes: Sequence[Path], table: Path
) -> tuple[list[int], Tally, dict[str, str], int, str]:
    """Usable samples per shard, what is wrong with others, what with shards, how many ``where`` leaves out, and the
    digest of ``table``, which holds the rows of all shards afterwards."""
    summary = table.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        saved = json.loads(summary.read_text("utf-8"))
        rows = digest.of_file(table)
        if saved["seal"] == digest.of_value([rows, saved["found"]]):
            counts, facts, damaged, dropped = saved["found"]
            return counts, Tally.of(facts), {paths[place]: damage for place, damage in damaged}, dropped, rows
    _index_missing(chosen, paths, indexes)
    counts, tally, damaged, dropped = [], Tally(), [], 0
    compared: set[str] = set()
    known: tuple[str, ...] = ()
    for place, (path, index) in enumerate(zip(paths, indexes, strict=True)):
        found = indexed(path, index, chosen)
        counts.append(len(found.rows))
        tally.add(found.tally)
        dropped += found.dropped
        compared.update(found.compared)
        known = known or found.known
        if found.damage:
            damaged.append([place, found.damage])
    if sum(counts) + dropped:
        chosen.check_fields(compared, known, "the JSON of no sample has a")

    def write_table(temporary: Path) -> None:
        nonlocal rows
        with temporary.open("wb") as file:  # piece by piece: billions of rows do not fit in memory
            row = np.lib.format.dtype_to_descr(row_type(chosen.captions))
            header = {"descr": row, "fortran_order": False, "shape": (sum(counts),)}
            np.lib.format.write_array_header_1_0(file, header)
            for path, index in zip(paths, indexes, strict=True):
                file.write(indexed(path, index, chosen).rows.tobytes())
        rows = digest.of_file(temporary)  # under the other name another process may put the same in its place

    rows = ""
    write_atomically(table, write_table)
    facts = [counts, tally.facts(), damaged, dropped]
    write_json(summary, {"found": facts, "seal": digest.of_value([rows, facts])}, indent=None)
    return counts, tally, {paths[place]: damage for place, damage in damaged}, dropped, rows


def _index_missing(chosen: Selection, paths: Sequence[str], indexes: Sequence[Path]) -> None:
    """Processes that share a cache folder share the work: each goes its own way and skips what others have done."""
    missing = [pair for pair in zip(paths, indexes, strict=True) if not pair[1].exists()]
    random.SystemRandom().shuffle(missing)
    if len(missing) <= _FEW:
        for path, index in missing:
            indexed(path, index, chosen)
        return
    at_once = max(workers_per_rank(), _FETCHES_AT_ONCE if any(is_remote(path) for path, _ in missing) else 0)
    say(f"{chosen.source}: indexing {len(missing):,} shards")
    try:
        with ProcessPoolExecutor(min(at_once, len(missing))) as pool:
            for _ in pool.map(partial(indexed, chosen=chosen), *zip(*missing, strict=True), chunksize=1):
                pass
    except BrokenProcessPool as error:
        raise DataError(
            f"data: {chosen.source}: a process that indexes shards was killed. If memory ran out, free some: the same "
            "command goes on with the shards that are left."
        ) from error


def indexed(path: str, index: Path, chosen: Selection, renew: bool = True) -> Indexed:
    """What a shard holds, from its index or from the shard. ``renew``: what is here of a remote one may be older.

    Raises DataError and StoreError.
    """
    if known := load_index(index):
        return known
    with files.only_one(index):  # another process may be reading the copy that is given up here
        return load_index(index) or _newly_indexed(path, index, chosen, renew)


def _newly_indexed(path: str, index: Path, chosen: Selection, renew: bool) -> Indexed:
    if renew:
        files.forget(path)
    try:
        return build_index(files.local(path), path, index, chosen)
    except WebPage:
        return index_of_nothing(path, "a web page, not a tar", index)
    except OSError as error:
        raise DataError(f"{path}: cannot read the shard: {error.strerror or error}.") from error
