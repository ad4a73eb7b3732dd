"""Shard files: which ones a reference names, what identifies their content, and where their bytes can be read.

A remote shard is fetched whole into the cache folder, once for all processes of a machine, and given up again when
the cache fills half of what its disk has left.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from clipeval import digest
from clipeval.datasets import braces
from clipeval.datasets.selection import refuse_commands
from clipeval.errors import DataError, StoreError
from clipeval.files import NO_LOCKS
from clipeval.paths import with_home
from clipeval.remote.copies import ask, fetch, is_remote, local_path
from clipeval.remote.origin import public
from clipeval_train.input.bad import BadSample

_OPEN_FILES = 64
_REQUESTS_AT_ONCE = 32


def patterns(source: str, reference: str) -> list[str]:
    """The parts of ``A::B`` without their braces, which may be globs.

    Raises UsageError for commands and unknown schemes, DataError for braces that stand for too much or nothing.
    """
    refuse_commands(reference, f"data: {source}: {reference}")
    try:
        return [pattern for part in with_home(reference).split("::") for pattern in braces.expand(part)]
    except ValueError as error:
        raise DataError(f"data: {source}: '{public(reference):.200}': {error}. Write {{00000..00099}}.") from error


def expand(source: str, reference: str) -> list[str]:
    """The files of ``A::B`` with brace patterns, and globs where they are local.

    Raises as ``patterns``, and DataError naming the pattern that matches nothing.
    """
    paths = []
    for pattern in patterns(source, reference):
        is_pattern = not is_remote(pattern) and glob.has_magic(pattern)
        try:
            matches = sorted(glob.glob(pattern, recursive=True)) if is_pattern else [pattern]  # noqa: PTH207
        except RecursionError as error:
            raise DataError(f"data: {source}: '{pattern:.200}' is thousands of folders deep.") from error
        if not matches:
            raise DataError(f"data: {source}: no file matches '{pattern}'. Check the path.")
        paths += matches
    return paths


def is_list(reference: str) -> bool:
    """Whether a reference names lists rather than shards."""
    return reference.lower().endswith((".csv", ".tsv", ".parquet"))


def identities(source: str, paths: Sequence[str]) -> list[list[object] | str]:
    """Per file, its place and what changes with its content (size and time, or the server's tag), or as a text why it
    cannot be read. Raises DataError naming the file that a server cannot be asked for."""
    if not any(map(is_remote, paths)):
        return [_identity(source, path) for path in paths]
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(lambda path: _identity(source, path), paths))


def local(path: str) -> Path:
    """A file that holds the bytes of ``path`` now: itself, or a copy that is fetched unless it is here.

    Raises DataError when it cannot be had, StoreError when it cannot be kept.
    """
    if not is_remote(path):
        return Path(path)
    copy = local_path(path)
    if not copy.exists():
        with only_one(copy):
            if not copy.exists():
                _make_room(copy.parent.parent)
                fetch(path, offline=False, quiet=True)
    return copy


class Reader:
    """Bytes of files by their place. Keeps the files that were used last open: opening is slow on network disks."""

    def __init__(self) -> None:
        self._open = lru_cache(_OPEN_FILES)(_opened)

    def __reduce__(self) -> tuple[type[Reader], tuple[()]]:
        return Reader, ()  # another process opens files itself

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``. Raises BadSample when they are not there, DataError where ``local`` does."""
        try:
            data = os.pread(self._open(path).number, size, offset)
        except OSError:
            raise BadSample("file cannot be read") from None
        if len(data) != size:
            raise BadSample("file ends early")
        return data


def _opened(path: str) -> _Descriptor:
    try:
        return _Descriptor(local(path))
    except FileNotFoundError:
        if not is_remote(path):
            raise
        return _Descriptor(local(path))  # another process made room for its own in between


class _Descriptor:
    """An open file, closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


def forget(path: str) -> None:
    """Give up the copy of a remote file, which may be of an older version."""
    if is_remote(path):
        local_path(path).unlink(missing_ok=True)


def _identity(source: str, path: str) -> list[object] | str:
    try:
        if is_remote(path):
            found = ask(path)
            return [path, found.digest] if found.digest else [path, found.size, found.etag, found.modified]
        found_here = Path(path).stat()
        if not stat.S_ISREG(found_here.st_mode):
            return "not a regular file"
        if not os.access(path, os.R_OK):
            return "permission denied"
        known = digest.stamp_of(found_here)
        # The content of a file that changed just now is asked for: it may change again under the same stamp.
        return [os.path.realpath(path), *known, *([] if digest.is_settled(known) else [digest.of_file(Path(path))])]
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        return str((error.strerror if isinstance(error, OSError) else None) or error)
    except DataError as error:
        raise DataError(f"data: {source}: {public(path)} cannot be asked for: {error}") from error


@contextlib.contextmanager
def only_one(copy: Path) -> Iterator[None]:
    """Other processes of this machine that want to make the same file wait; one that dies leaves no lock behind.
    Raises StoreError."""
    import fcntl

    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        lock = copy.with_name(f".{copy.name}.lock").open("w")
    except OSError as error:
        raise StoreError(f"{copy}: cannot write: {error.strerror}. Choose another CLIPEVAL_CACHE.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # without locks several fetch the same: each puts a whole file in place
            if error.errno not in NO_LOCKS:
                raise
        yield


def _make_room(folder: Path) -> None:
    """Remove the copies that were fetched first while all take more than half of the disk's free space and theirs.

    A process that reads one of them keeps its bytes until it closes the file; who needs it later fetches it again.
    """
    found = []
    for path in folder.glob("*/*.tar"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    taken = sum(size for _, size, _ in found)
    allowed = (shutil.disk_usage(folder).free + taken) / 2
    for _, size, path in sorted(found):
        if taken <= allowed:
            break
        path.unlink(missing_ok=True)
        taken -= size
