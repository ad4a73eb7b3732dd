"""Webdataset shards as a source: samples by number, read at their place in their tar file."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
UNREADABLE = "missing or unreadable shard"
_FETCHES_AT_ONCE = 8
_FEW = 8
"""So many shards are indexed without starting processes for it."""


class ShardSource:
    """The samples of tar files, one unit per file. The table of their places stays on disk, shared by all processes."""

    def __init__(self, entry: SourceEntry) -> None:
        """Index what is not indexed yet, from the headers. Raises UsageError or DataError naming what is wrong."""
        self.name = entry.source
        named = files.expand(self.name, entry.shards)
        paths, identities, bad = [], [], {}
        for path, identity in zip(named, files.identities(self.name, named), strict=True):
            if isinstance(identity, str):
                bad[path] = identity
            else:
                paths.append(path)
                identities.append(identity)
        check_bad(entry, bad, len(named))
        chosen = Selection.of(entry)
        indexes = [index_path([identity, *chosen.identity] if chosen.identity else identity) for identity in identities]
        self._table = index_path([index.stem for index in indexes]).with_suffix(".npy")
        counts, self.tally, damaged, self.dropped, rows = _summary(chosen, paths, indexes, self._table)
        for path in bad:
            self.tally.read += 1
            self.tally.reject(UNREADABLE, public(path))
        if bad := bad | damaged:
            check_bad(entry, bad, len(named))
            say(f"{self.name}: {bad_shards(bad, len(named))} What is whole in them is used.")
        if not sum(counts):
            why = f" where {entry.where}" if self.dropped else ""
            raise DataError(
                f"data: {self.name}: no usable sample in the {len(named):,} shards of '{entry.shards}'{why} "
                f"({self.tally}). A sample is KEY.jpg, .jpeg, .png or .webp with KEY.txt or KEY.json."
            )
        used = np.flatnonzero(counts)
        self._paths = [paths[place] for place in used]
        self.is_remote = any(map(files.is_remote, self._paths))
        self.units = np.array(counts)[used]
        self._ends = np.cumsum(self.units)
        names = [Path(path).name for path in self._paths]
        content = [names, self.units.tolist(), rows]
        self.fingerprint = digest.of_value([*content, chosen.captions] if chosen.captions else content)
        self._reader = SampleReader(entry, chosen)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self._table, mmap_mode="r")

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and captions of a sample; of those that ``caption`` names the ones that
        ``draw`` in [0, 1) chooses. Raises BadSample, or DataError for the shard."""
        return self._reader.read(self._shard(index), self._rows[index], draw)

    def where(self, index: int) -> str:
        """How messages call a sample: its shard, and its name as the header before its image has it."""
        return self._reader.where(self._shard(index), self._rows[index], index)

    def fetch(self, unit: int) -> None:
        """Have a shard on this machine. Raises DataError and StoreError."""
        files.local(self._paths[unit])

    def _shard(self, index: int) -> str:
        return self._paths[int(np.searchsorted(self._ends, index, side="right"))]


class SampleReader:
    """Reads samples by their row in a shard's index."""

    def __init__(self, entry: SourceEntry, chosen: Selection) -> None:
        self._places = [place_of(key) for key in chosen.captions]
        self._weights = [*(entry.caption or {}).values()]
        self._files = files.Reader()

    def read(self, shard: str, row: np.void, draw: float) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and captions of a sample; of those that ``caption`` names the ones that
        ``draw`` in [0, 1) chooses. Raises BadSample, or DataError for the shard."""
        if self._places:
            texts = row["texts"].tolist()
            number = choose(self._weights, [size > 0 for _, size in texts], draw)
            (text, size), field = texts[number], self._places[number][1]
        else:
            text, size, field = int(row["text"]), int(row["text_size"]), "caption" if row["is_json"] else ""
        captions = decode_captions(self._files.read(shard, text, size), field)
        return decode_image(self._files.read(shard, int(row["image"]), int(row["image_size"]))), captions

    def where(self, shard: str, row: np.void, index: int) -> str:
        """How messages call a sample: its shard, and its name as the header before its image has it."""
        name = f"sample {index}"
        with contextlib.suppress(BadSample):
            header = self._files.read(shard, int(row["image"]) - BLOCKSIZE, 100)
            name = header.split(bytes(1))[0].decode(errors="replace")
        return f"{shard}: {name}"


def check_bad(entry: SourceEntry, bad: Mapping[str, str], count: int) -> None:
    """Raises DataError when more of the ``count`` shards are bad than ``entry`` allows."""
    if len(bad) > entry.bad_shards:
        allow = f", or allow so many with `bad_shards: {len(bad)}` in this source" if len(bad) < count else ""
        listed = bad_shards(bad, count)
        raise DataError(f"data: {entry.source}: {listed} Check the path and download them again{allow}.")


def bad_shards(bad: Mapping[str, str], count: int) -> str:
    """Which of ``count`` shards are bad, and why, as a message has it."""
    names = few((f"{public(path)} ({reason})" for path, reason in bad.items()), most=_NAMED)
    return f"{len(bad):,} of {count:,} shards {'is' if len(bad) == 1 else 'are'} missing or damaged: {names}."


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
    with ProcessPoolExecutor(min(at_once, len(missing))) as pool:
        for _ in pool.map(partial(indexed, chosen=chosen), *zip(*missing, strict=True), chunksize=1):
            pass


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
