"""Where image and caption of every sample of a webdataset shard lie in its tar file, found from the headers alone.

A sample is the files of one key, as LAION, DataComp and img2dataset write them: ``KEY.jpg`` (or .jpeg, .png, .webp)
with ``KEY.txt``, or with ``KEY.json`` where there is no .txt.
"""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipeval import digest
from clipeval.files import write_atomically
from clipeval.paths import cache_dir
from clipeval_train.input.bad import Tally

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("txt", "json")
ROW = np.dtype([("image", "<i8"), ("image_size", "<i8"), ("text", "<i8"), ("text_size", "<i8"), ("is_json", "?")])
"""Offsets and sizes in bytes of a sample's image and caption."""

_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META_NAME = re.compile(r"(^|/)__[^/]*__($|/)")
_FORMAT = 1


def index_path(identity: list[object]) -> Path:
    """Where the index of a shard is kept; ``identity`` changes with the file."""
    return cache_dir() / "indexes" / "train" / f"{digest.of_value([_FORMAT, identity])}.npz"


def load_index(path: Path) -> tuple[np.ndarray, Tally] | None:
    """A kept index, as ``build_index`` returned it; None where there is none, or a damaged one."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as saved,
    ):
        return saved["rows"], Tally.of(json.loads(str(saved["facts"])))
    return None


def build_index(shard: Path, name: str, path: Path) -> tuple[np.ndarray, Tally]:
    """The usable samples of ``shard`` (``ROW``) and a tally of the others, kept at ``path``; ``name`` is for messages.

    Raises OSError when the shard cannot be read, and StoreError.
    """
    tally = Tally()
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        for key, extension, offset, size in _members(shard):
            if extension in found.setdefault(key, {}):
                tally.reject("two files of one kind", f"{name}: {key}.{extension}")
            else:
                found[key][extension] = (offset, size)
    except tarfile.TarError:
        tally.reject("truncated or damaged tar", name)
    usable = []
    for key, member in found.items():
        image = next((member[kind] for kind in IMAGES if kind in member), None)
        caption = next(((*member[kind], kind == "json") for kind in CAPTIONS if kind in member), None)
        if image and caption and image[1] and caption[1]:
            usable.append((*image, *caption))
        elif image or caption:  # files of other kinds alone are not a sample
            tally.reject(_what_is_missing(image, caption), f"{name}: {key}")
    rows = np.array(usable, ROW)
    tally.read = len(rows) + tally.bad.total()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, rows=rows, facts=np.array(json.dumps(tally.facts())))

    write_atomically(path, write)
    return rows, tally


def _what_is_missing(image: tuple[int, int] | None, caption: tuple[int, int, bool] | None) -> str:
    for what, found in (("image", image), ("caption", caption)):
        if not (found and found[1]):
            return f"empty {what}" if found else f"no {what}"
    raise AssertionError("nothing is missing")


def _members(shard: Path) -> Iterator[tuple[str, str, int, int]]:
    """Key, extension, data offset and size of every file of a tar, in its order. Raises tarfile.TarError."""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # they would all be kept
            match = _KEY_AND_EXTENSION.fullmatch(member.name)
            if member.isfile() and match and not _META_NAME.search(member.name):
                yield match[1], match[2].lower(), member.offset_data, member.size
        end = tar.offset
    with shard.open("rb") as file:  # tarfile takes a damaged or missing header for the end of the archive
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of archive")
