"""The members of a webdataset tar: key, extension and place of every file, checked to the archive's end.

Only headers are read, each once, in time and memory that are linear in what they hold. Member names are only ever keys:
nothing is extracted to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clipeval.paths import readable
from clipeval.regular import open_regular

_BLOCK = 512
_HEADER_LIMIT = 1 << 20
"""Bytes of an extended header. What programs write is far below."""
_NAME_LIMIT = 4096
_LONG_NAME, _LONG_LINK, _GLOBAL, _GNU_SPARSE = b"L", b"K", b"g", b"S"
_PAX = (b"x", b"X")
_REGULAR = (b"0", b"\0", b"7", _GNU_SPARSE)
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


class Damaged(Exception):
    """The archive is truncated or damaged; the message says where and why."""


@dataclass(frozen=True)
class Member:
    """A file of a sample: ``KEY.EXTENSION`` as webdataset splits names, the extension in lower case."""

    key: str
    extension: str
    offset: int
    size: int
    is_sparse: bool
    """Whether it is stored without its holes: what lies at ``offset`` is not its content."""


def members(path: Path) -> Iterator[Member]:
    """The files of a tar in its order; what belongs to no sample is passed over.

    Raises OSError when it cannot be read, and Damaged after the last sound member of an archive that does not end as
    archives do.
    """
    last = "its start"
    with open_regular(path) as file:
        try:
            for header in _headers(file):
                name = header.name.decode("utf-8", "surrogateescape")
                last = readable(name)
                parts = split_name(name)
                if header.is_file and parts and not is_metadata(name):
                    yield Member(readable(parts[0]), parts[1].lower(), header.offset, header.size, header.is_sparse)
        except ValueError as error:
            raise Damaged(f"after {last}: {error}") from error


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension at the first dot of a name's last part, as webdataset does; None where there is no key.

    A name of nothing but an extension belongs to the folder it is in: ``a/.jpg`` has the key ``a/``.
    """
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    nameless = not stem and (not slash or "." in folder.rpartition("/")[2])
    return None if not dot or nameless else (f"{folder}{slash}{stem}", extension)


def is_metadata(name: str) -> bool:
    """Whether a part of the name is ``__WORD__``: webdataset keeps facts about a shard under such names."""
    return any(len(part) >= 4 and part.startswith("__") and part.endswith("__") for part in name.split("/"))


@dataclass
class _Header:
    name: bytes
    offset: int
    size: int
    is_file: bool
    is_sparse: bool


def _headers(file: BinaryIO) -> Iterator[_Header]:
    """Every member up to the block of zeros that ends an archive. Raises ValueError when there is none."""
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    at = 0
    while any(block := _read(file, at, _BLOCK)):
        if _checksum(block) != _number(block[148:156]):
            raise ValueError("the next header is damaged")
        kind, size, at = block[156:157], _number(block[124:136]), at + _BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _GLOBAL, *_PAX):
            if size > _HEADER_LIMIT:
                raise ValueError(f"a header of {size:,} bytes")
            content = _read(file, at, size)
            if kind == _GLOBAL:
                shared |= _records(content)
            elif kind != _LONG_LINK:  # of several headers before a file the first counts
                own = ({b"path": _text(content)} if kind == _LONG_NAME else _records(content)) | own
            at += _padded(size)
            continue
        facts, own = shared | own, {}
        if kind == _GNU_SPARSE:
            more = block[482]
            while more:
                more = _read(file, at, _BLOCK)[504]
                at += _BLOCK
        name = facts.get(b"GNU.sparse.name") or facts.get(b"path") or _name(block)
        if len(name) > _NAME_LIMIT:
            raise ValueError(f"a name of {len(name):,} bytes")
        if b"size" in facts:
            size = _decimal(facts[b"size"])
        is_sparse = kind == _GNU_SPARSE or any(key.startswith(b"GNU.sparse.") for key in facts)
        is_folder = kind == b"\0" and name.endswith(b"/")
        yield _Header(name, at, size, kind in _REGULAR and not is_folder, is_sparse)
        at += 0 if kind in _WITHOUT_DATA or is_folder else _padded(size)


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it ends early")
    return data


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first byte says so. Raises ValueError, for negative numbers too."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = _text(field).strip()
    if digits.strip(b"01234567"):
        raise ValueError("a header with a number that is none")
    return int(digits or b"0", 8)


def _decimal(field: bytes) -> int:
    if not field.isdigit() or len(field) > 20:
        raise ValueError("a header with a size that is none")
    return int(field)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), _text(block[345:500])
    return prefix + b"/" + name if prefix and block[156:157] != _GNU_SPARSE else name


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records ``LENGTH KEY=VALUE`` of an extended header that matter here. Raises ValueError."""
    found = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 10)
        end = at + _decimal(content[at:space] if space > 0 else b"")
        key, equals, value = content[space + 1 : end].partition(b"=")
        if not equals or end > len(content) or value[-1:] != b"\n":
            raise ValueError("an extended header is damaged")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            found[key] = value[:-1]
        at = end
    return found
