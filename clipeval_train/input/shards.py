"""Webdataset shards as a source: samples by number, read at their place in their tar file."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from tarfile import BLOCKSIZE

import numpy as np
import torch

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError
from clipeval.files import write_atomically, write_json
from clipeval.machine import workers_per_rank
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.decode import decode_captions, decode_image
from clipeval_train.input.shard_index import ROW, build_index, index_path, load_index

_FEW = 8
"""So many shards are indexed without starting processes for it."""


class ShardSource:
    """The samples of tar files, one unit per file. The table of their places stays on disk, shared by all processes."""

    def __init__(self, entry: SourceEntry) -> None:
        """Index what is not indexed yet, from the headers. Raises UsageError or DataError naming what is wrong."""
        self.name = entry.source
        paths = files.expand(self.name, entry.shards)
        indexes = [index_path(identity) for identity in files.identities(self.name, paths)]
        self._table = index_path([index.stem for index in indexes]).with_suffix(".npy")
        counts, self.tally = _summary(self.name, paths, indexes, self._table)
        if not sum(counts):
            raise DataError(
                f"data: {self.name}: no usable sample in the {len(paths):,} shards of '{entry.shards}' "
                f"({self.tally}). A sample is KEY.jpg, .jpeg, .png or .webp with KEY.txt or KEY.json."
            )
        used = np.flatnonzero(counts)
        self._paths = [paths[place] for place in used]
        self.is_remote = any(map(files.is_remote, self._paths))
        self.units = np.array(counts)[used]
        self._ends = np.cumsum(self.units)
        self._files = files.Reader()
        names = [Path(path).name for path in self._paths]
        self.fingerprint = digest.of_value([names, self.units.tolist(), digest.of_file(self._table)])

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self._table, mmap_mode="r")

    def read(self, index: int) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and captions of a sample. Raises BadSample, or DataError for the shard."""
        image, image_size, text, text_size, is_json = self._rows[index].item()
        shard = self._shard(index)
        captions = decode_captions(self._files.read(shard, text, text_size), is_json)
        return decode_image(self._files.read(shard, image, image_size)), captions

    def where(self, index: int) -> str:
        """How messages call a sample: its shard, and its name as the header before its image has it."""
        name = f"sample {index}"
        with contextlib.suppress(BadSample):
            header = self._files.read(self._shard(index), int(self._rows[index]["image"]) - BLOCKSIZE, 100)
            name = header.split(bytes(1))[0].decode(errors="replace")
        return f"{self._shard(index)}: {name}"

    def fetch(self, unit: int) -> None:
        """Have a shard on this machine. Raises DataError and StoreError."""
        files.local(self._paths[unit])

    def _shard(self, index: int) -> str:
        return self._paths[int(np.searchsorted(self._ends, index, side="right"))]


def _summary(source: str, paths: Sequence[str], indexes: Sequence[Path], table: Path) -> tuple[list[int], Tally]:
    """Usable samples per shard and what is wrong with others; ``table`` holds the rows of all shards afterwards."""
    summary = table.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        saved = json.loads(summary.read_text("utf-8"))
        if saved["seal"] == digest.of_value([digest.of_file(table), saved["counts"], saved["tally"]]):
            return saved["counts"], Tally.of(saved["tally"])
    _index_missing(source, paths, indexes)
    counts, tally = [], Tally()
    for path, index in zip(paths, indexes, strict=True):
        rows, found = _indexed(path, index)
        counts.append(len(rows))
        tally.add(found)

    def write_table(temporary: Path) -> None:
        with temporary.open("wb") as file:  # piece by piece: billions of rows do not fit in memory
            header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (sum(counts),)}
            np.lib.format.write_array_header_1_0(file, header)
            for path, index in zip(paths, indexes, strict=True):
                file.write(_indexed(path, index)[0].tobytes())

    write_atomically(table, write_table)
    seal = digest.of_value([digest.of_file(table), counts, tally.facts()])
    write_json(summary, {"counts": counts, "tally": tally.facts(), "seal": seal}, indent=None)
    return counts, tally


def _index_missing(source: str, paths: Sequence[str], indexes: Sequence[Path]) -> None:
    """Processes that share a cache folder share the work: each goes its own way and skips what others have done."""
    missing = [pair for pair in zip(paths, indexes, strict=True) if not pair[1].exists()]
    random.SystemRandom().shuffle(missing)
    if len(missing) <= _FEW:
        for path, index in missing:
            _indexed(path, index)
        return
    say(f"{source}: indexing {len(missing):,} shards")
    with ProcessPoolExecutor(min(workers_per_rank(), len(missing))) as pool:
        for _ in pool.map(_indexed, *zip(*missing, strict=True), chunksize=1):
            pass


def _indexed(path: str, index: Path) -> tuple[np.ndarray, Tally]:
    if known := load_index(index):
        return known
    files.forget(path)
    try:
        return build_index(files.local(path), path, index)
    except OSError as error:
        raise DataError(f"{path}: cannot read the shard: {error.strerror or error}.") from error
