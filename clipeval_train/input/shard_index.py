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

import numpy as np

from clipeval import digest, tar
from clipeval.datasets.images import BYTE_LIMIT, SUFFIXES
from clipeval.files import write_bytes
from clipeval.paths import cache_dir
from clipeval_train.input.bad import Tally

_FIRST = ("jpg", "jpeg", "png", "webp")
IMAGES = (*_FIRST, *sorted({suffix[1:] for suffix in SUFFIXES}.difference(_FIRST)))
"""In the order in which a sample's image is looked for."""
CAPTIONS = ("txt", "json")
ROW = np.dtype([("image", "<i8"), ("image_size", "<i8"), ("text", "<i8"), ("text_size", "<i8"), ("is_json", "?")])
"""Offsets and sizes in bytes of a sample's image and caption."""

CAPTION_LIMIT = 1 << 20
"""Bytes of a caption file; more are not read."""
_FORMAT = 4
_SEAL = hashlib.sha256().digest_size
_SPARSE = -1
"""The size noted for a file that is stored without its holes."""


def index_path(identity: list[object]) -> Path:
    """Where the index of a shard is kept; ``identity`` changes with the file."""
    return cache_dir() / "indexes" / "train" / f"{digest.of_value([_FORMAT, identity])}.npz"


def load_index(path: Path) -> tuple[np.ndarray, Tally] | None:
    """A kept index, as ``build_index`` returned it; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[_SEAL:]).digest() != data[:_SEAL]:
        return None
    with np.load(io.BytesIO(data[_SEAL:]), allow_pickle=False) as saved:
        return saved["rows"], Tally.of(json.loads(str(saved["facts"])))


def build_index(shard: Path, name: str, path: Path) -> tuple[np.ndarray, Tally]:
    """The usable samples of ``shard`` (``ROW``) and a tally of the others, kept at ``path``; ``name`` is for messages.

    Raises OSError when the shard cannot be read or changes meanwhile, and StoreError.
    """
    before = digest.stamp(shard)
    tally = Tally()
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        for member in tar.members(shard):
            if member.extension in found.setdefault(member.key, {}):
                tally.reject("two files of one kind", f"{name}: {member.key}.{member.extension}")
            else:
                found[member.key][member.extension] = (member.offset, _SPARSE if member.is_sparse else member.size)
    except tar.Damaged:
        tally.reject("truncated or damaged tar", name)
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
    buffer = io.BytesIO()
    np.savez(buffer, rows=rows, facts=np.array(json.dumps(tally.facts())))
    write_bytes(path, hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    return rows, tally


def _problem(what: str, found: tuple[int, ...] | None, limit: int) -> str | None:
    """Why a sample cannot be used, by the size of its image or caption; None where it can."""
    if not found:
        return f"no {what}"
    size = found[1]
    return {_SPARSE: f"sparse {what} file", 0: f"empty {what}"}.get(size, f"{what} too large" if size > limit else None)
