"""Where image and caption of every sample of a webdataset shard lie in its tar file, found from the headers alone.

A sample is the files of one key, as LAION, DataComp and img2dataset write them: ``KEY.jpg`` (or .jpeg, .png, .webp)
with ``KEY.txt``, or with ``KEY.json`` where there is no .txt.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from clipeval import digest, tar
from clipeval.datasets.images import BYTE_LIMIT, SUFFIXES
from clipeval.files import write_bytes
from clipeval.paths import cache_dir
from clipeval.regular import open_regular
from clipeval.remote.copies import is_web_page
from clipeval_train.input.bad import Tally
from clipeval_train.input.selection import Selection, captions_of, field_of, place_of

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
_KNOWN = 60
"""Fields that are named where one is not there."""
_SEAL = hashlib.sha256().digest_size
ALL = Selection("")
"""Nothing is chosen."""
_SPARSE = -1
"""The size noted for a file that is stored without its holes."""

_Place = tuple[int, int]
"""Offset and size of a file in its tar."""


def index_path(identity: list[object]) -> Path:
    """Where the index of a shard is kept; ``identity`` changes with the file."""
    return cache_dir() / "indexes" / "train" / f"{digest.of_value([_FORMAT, identity])}.npz"


class Indexed(NamedTuple):
    """What a shard holds."""

    rows: np.ndarray
    """Its usable samples, ``ROW``."""
    tally: Tally
    """With what is wrong with the others."""
    damage: str = ""
    """What is wrong with the shard, "" where nothing is."""
    dropped: int = 0
    """Usable samples that ``where`` leaves out."""
    compared: tuple[str, ...] = ()
    """Of the fields that ``where`` compares those that a sample has."""
    known: tuple[str, ...] = ()
    """The fields of the first sample, where there is a ``where``."""


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
        more = tuple(facts["compared"]), tuple(facts["known"])
        return Indexed(saved["rows"], Tally.of(facts), facts["damage"], facts["dropped"], *more)


def row_type(keys: Sequence[str]) -> np.dtype:
    """``ROW``, or where captions are named, with a place for each of them; of size 0 where a sample has none."""
    if not keys:
        return ROW
    return np.dtype([("image", "<i8"), ("image_size", "<i8"), ("texts", "<i8", (len(keys), 2))])


def build_index(shard: Path, name: str, path: Path, selection: Selection = ALL) -> Indexed:
    """What ``shard`` holds, kept at ``path``; ``name`` is for messages.

    Raises OSError when the shard cannot be read or changes meanwhile, and StoreError.
    """
    before = digest.stamp(shard)
    tally = Tally()
    found, damage = _files(shard, name, tally)
    with contextlib.closing(_Documents(shard)) as documents:
        usable, facts = _usable(found, name, tally, selection, documents)
    if digest.stamp(shard) != before:
        raise OSError(errno.EBUSY, "it changed while it was read", str(shard))
    rows = np.array(usable, row_type(selection.captions))
    tally.read = len(rows) + tally.bad.total()
    if not selection.where:
        return _kept(path, Indexed(rows, tally, damage))
    columns = {field: [field_of(document, field) for document in facts] for field in selection.fields}
    kept = rows[selection.keeps(columns, name)]
    compared = tuple(field for field, values in columns.items() if any(value is not None for value in values))
    known = next((tuple(document)[:_KNOWN] for document in facts if isinstance(document, dict)), ())
    return _kept(path, Indexed(kept, tally, damage, len(rows) - len(kept), compared, known))


def _files(shard: Path, name: str, tally: Tally) -> tuple[dict[str, dict[str, _Place]], str]:
    """The files of each key by extension, and what is wrong with the shard."""
    found: dict[str, dict[str, _Place]] = {}
    try:
        for member in tar.members(shard):
            if member.extension in found.setdefault(member.key, {}):
                tally.reject("two files of one kind", f"{name}: {member.key}.{member.extension}")
            else:
                found[member.key][member.extension] = (member.offset, _SPARSE if member.is_sparse else member.size)
    except tar.Damaged as error:
        tally.reject(DAMAGED, name)
        return found, _what_it_is(shard) or (f"truncated or damaged {error}" if found else "not a tar")
    return found, ""


def _usable(
    found: dict[str, dict[str, _Place]], name: str, tally: Tally, selection: Selection, documents: _Documents
) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """A row per usable sample, and where there is a ``where`` what is known of it; the others are counted."""
    usable: list[tuple[Any, ...]] = []
    facts: list[Any] = []
    for key, files in found.items():
        image = next((files[kind] for kind in IMAGES if kind in files), None)
        caption = _texts(files, selection.captions, documents) if selection.captions else _caption(files)
        if reason := _problem("image", image, BYTE_LIMIT) or _problem("caption", caption, CAPTION_LIMIT):
            if image or caption:  # files of other kinds alone are not a sample
                tally.reject(reason, f"{name}: {key}")
            elif any(kind.rpartition(".")[2] in IMAGES for kind in files):
                tally.reject("a name with dots, and keys end at the first dot", f"{name}: {key}.{next(iter(files))}")
        elif image and caption:
            usable.append((*image, caption[-1]) if selection.captions else (*image, *caption))
            if selection.where:
                facts.append(documents.read(files.get("json")))
    return usable, facts


def index_of_nothing(name: str, damage: str, path: Path) -> Indexed:
    """The index of a shard that holds no sample for this reason, kept at ``path``."""
    tally = Tally(read=1)
    tally.reject(DAMAGED, name)
    return _kept(path, Indexed(np.zeros(0, ROW), tally, damage))


class _Documents:
    """The JSON files of a shard, by their place. The last one is kept: several captions may be in it."""

    def __init__(self, shard: Path) -> None:
        self._shard = shard
        self._file: BinaryIO | None = None
        self._last: tuple[_Place, Any] = (0, 0), None

    def read(self, place: _Place | None) -> Any:
        """What a file holds; None where there is none or it is no JSON."""
        if place is None or not 0 < place[1] <= CAPTION_LIMIT:
            return None
        if place != self._last[0]:
            self._file = self._file or open_regular(self._shard)
            self._file.seek(place[0])
            data, found = self._file.read(place[1]), None
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(data.decode("utf-8-sig"))
            self._last = place, found
        return self._last[1]

    def close(self) -> None:
        """No more is read."""
        if self._file:
            self._file.close()


def _caption(files: dict[str, _Place]) -> tuple[int, int, bool] | None:
    """The file of a sample's caption, where none is named."""
    return next(((*files[kind], kind == "json") for kind in CAPTIONS if kind in files), None)


def _texts(files: dict[str, _Place], keys: Sequence[str], documents: _Documents) -> tuple[Any, ...] | None:
    """As ``_caption``, the largest of the files that hold captions, and last the places of all ``keys``."""
    places = []
    for extension, field in map(place_of, keys):
        place = files.get(extension)
        if field and place and not captions_of(field_of(documents.read(place), field)):
            place = None
        places.append(place or (0, 0))
    largest = max(places, key=lambda place: (place[1], place[0]))
    return (*largest, places) if largest != (0, 0) else None


def _kept(path: Path, index: Indexed) -> Indexed:
    buffer = io.BytesIO()
    facts = index.tally.facts() | index._asdict()
    del facts["rows"], facts["tally"]
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
