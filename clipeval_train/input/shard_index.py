"""Where image and caption of every sample of a webdataset shard lie in its tar file, found from the headers alone.

A sample is the files of one key, as LAION, DataComp and img2dataset write them: ``KEY.jpg`` (or .jpeg, .png, .webp)
with ``KEY.txt``, or with ``KEY.json`` where there is no .txt.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipeval import digest, tar
from clipeval.datasets.images import BYTE_LIMIT, SUFFIXES
from clipeval.files import write_bytes
from clipeval.paths import cache_dir
from clipeval.regular import open_regular
from clipeval.remote.copies import is_web_page
from clipeval_train.input.bad import Tally

_FIRST = ("jpg", "jpeg", "png", "webp")
IMAGES = (*_FIRST, *sorted({suffix[1:] for suffix in SUFFIXES}.difference(_FIRST)))
"""In the order in which a sample's image is looked for."""
CAPTIONS = ("txt", "json")
ROW = np.dtype([("image", "<i8"), ("image_size", "<i8"), ("text", "<i8"), ("text_size", "<i8"), ("is_json", "?")])
"""Offsets and sizes in bytes of a sample's image and caption."""

CAPTION_LIMIT = 1 << 20
"""Bytes of a caption file; more are not read."""
DAMAGED = "truncated or damaged tar"
"""The reason under which a shard is counted."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
"""How gzip, bzip2, zstandard and xz begin."""
_FORMAT = 5
_SEAL = hashlib.sha256().digest_size
_SPARSE = -1
"""The size noted for a file that is stored without its holes."""


def index_path(identity: list[object]) -> Path:
    """Where the index of a shard is kept; ``identity`` changes with the file."""
    return cache_dir() / "indexes" / "train" / f"{digest.of_value([_FORMAT, identity])}.npz"


class Indexed(NamedTuple):
    """What a shard holds."""

    rows: np.ndarray
    """Its usable samples, ``ROW``."""
    tally: Tally
    """With what is wrong with the others."""
    damage: str
    """What is wrong with the shard, "" where nothing is."""


def load_index(path: Path) -> Indexed | None:
    """A kept index, as ``build_index`` returned it; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[_SEAL:]).digest() != data[:_SEAL]:
        return None
    with np.load(io.BytesIO(data[_SEAL:]), allow_pickle=False) as saved:
        facts = json.loads(str(saved["facts"]))
        return Indexed(saved["rows"], Tally.of(facts), facts["damage"])


def build_index(shard: Path, name: str, path: Path) -> Indexed:
    """What ``shard`` holds, kept at ``path``; ``name`` is for messages.

    Raises OSError when the shard cannot be read or changes meanwhile, and StoreError.
    """
    before = digest.stamp(shard)
    tally, damage = Tally(), ""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        for member in tar.members(shard):
            if member.extension in found.setdefault(member.key, {}):
                tally.reject("two files of one kind", f"{name}: {member.key}.{member.extension}")
            else:
                found[member.key][member.extension] = (member.offset, _SPARSE if member.is_sparse else member.size)
    except tar.Damaged as error:
        damage = _what_it_is(shard) or (f"truncated or damaged {error}" if found else "not a tar")
        tally.reject(DAMAGED, name)
    usable = []
    for key, files in found.items():
        image = next((files[kind] for kind in IMAGES if kind in files), None)
        caption = next(((*files[kind], kind == "json") for kind in CAPTIONS if kind in files), None)
        if reason := _problem("image", image, BYTE_LIMIT) or _problem("caption", caption, CAPTION_LIMIT):
            if image or caption:  # files of other kinds alone are not a sample
                tally.reject(reason, f"{name}: {key}")
            elif any(kind.rpartition(".")[2] in IMAGES for kind in files):
                tally.reject("a name with dots, and keys end at the first dot", f"{name}: {key}.{next(iter(files))}")
        elif image and caption:
            usable.append((*image, *caption))
    if digest.stamp(shard) != before:
        raise OSError(errno.EBUSY, "it changed while it was read", str(shard))
    rows = np.array(usable, ROW)
    tally.read = len(rows) + tally.bad.total()
    return _kept(path, Indexed(rows, tally, damage))


def index_of_nothing(name: str, damage: str, path: Path) -> Indexed:
    """The index of a shard that holds no sample for this reason, kept at ``path``."""
    tally = Tally(read=1)
    tally.reject(DAMAGED, name)
    return _kept(path, Indexed(np.zeros(0, ROW), tally, damage))


def _kept(path: Path, index: Indexed) -> Indexed:
    buffer = io.BytesIO()
    facts = index.tally.facts() | {"damage": index.damage}
    np.savez(buffer, rows=index.rows, facts=np.array(json.dumps(facts)))
    write_bytes(path, hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    return index


def _what_it_is(shard: Path) -> str | None:
    """What is in a tar's place, where that can be told."""
    with open_regular(shard) as file:
        start = file.read(1000)
    if not start:
        return "an empty file"
    if is_web_page(start):
        return "a web page, not a tar"
    return "compressed; unpack it" if start.startswith(_COMPRESSED) else None


def _problem(what: str, found: tuple[int, ...] | None, limit: int) -> str | None:
    """Why a sample cannot be used, by the size of its image or caption; None where it can."""
    if not found:
        return f"no {what}"
    size = found[1]
    return {_SPARSE: f"sparse {what} file", 0: f"empty {what}"}.get(size, f"{what} too large" if size > limit else None)
