"""Files of the hub on this machine: received, compared with their announced digest, linked, and removed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from clipeval import digest
from clipeval.console import say
from clipeval.errors import RemoteError
from clipeval.files import sync_folder
from clipeval.paths import cache_dir
from clipeval.remote import later
from clipeval.remote.client import Announced, ask, has_another_size, is_temporary, status_of, storage
from clipeval.remote.origin import endpoint, headers_for, may_have_token, tried

_TOLD_BYTES = 1_000_000
"""Of smaller files nothing is said."""
_RETRIED_BY_CLIENT = (
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "WriteTimeout",
    "PoolTimeout",
    "RemoteProtocolError",
)
_GIT_HASHED_BYTES = 1 << 26
_EXPIRED = (400, 401, 403, 404, 410)
"""What storages answer to a signed address that is too old."""

fetched: set[Path] = set()
"""The blobs that this run has fetched."""


def fetch(announced: Announced, place: Path, what: str) -> Path:
    """Have the file at ``place``, a path in a snapshot's folder. Bytes with another digest than the announced one are
    fetched a second time and then refused. Raises RemoteError, and what huggingface_hub and its HTTP library raise."""
    from huggingface_hub.utils import WeakFileLock

    repository = storage(*announced.address[:2])
    blob = repository / "blobs" / announced.etag
    lock = repository.parent / ".locks" / repository.name / f"{announced.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists() and _digest(blob, announced.etag) not in (announced.etag, ""):
            blob.unlink()
        if not blob.exists():
            later.require_now(what, announced.size, partial(fetch, announced, place, what))
            if announced.size is None or announced.size >= _TOLD_BYTES:
                size = "of unknown size" if announced.size is None else f"{announced.size / 1e6:,.0f} MB"
                say(f"fetching {what} ({size})")
            _fill(blob, announced, what)
            fetched.add(blob)
        _link(blob, place)
    return place


def _fill(blob: Path, announced: Announced, what: str) -> None:
    """Programs with caches of the hub of their own may share the folder of downloads: they wait for one another."""
    from huggingface_hub.utils import WeakFileLock

    found = ""
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(downloads / f".{announced.etag}.lock"):
        for _ in range(2):
            partial = _received(announced, downloads)
            found = _digest(partial, announced.etag)
            if found in (announced.etag, ""):
                _move(partial, blob)
                shutil.rmtree(_xet_folder(announced), ignore_errors=True)
                return
            say(f"{what} arrived damaged: its digest is not the announced one")
            partial.unlink()
    raise RemoteError(
        f"{what} arrived damaged twice: the hub announces the digest {announced.etag}, what comes has {found}. "
        "Is a proxy or a mirror in between broken?"
    )


def _received(announced: Announced, downloads: Path) -> Path:
    """All bytes of a file, in the folder of downloads, where an interrupted one goes on.

    The digest decides what is whole, whatever size was announced. A signed address may have expired since it was told.
    """
    from huggingface_hub import constants, file_download

    if announced.in_xet and find_spec("hf_xet") and not constants.HF_HUB_DISABLE_XET:
        return _received_by_xet(announced)
    unsure = "" if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", announced.etag) else f".{uuid.uuid4().hex}"
    partial = downloads / f"{announced.etag}{unsure}.part"
    locations = [announced.location]

    def receive() -> None:
        there = partial.stat().st_size if partial.exists() else 0
        if not announced.size or there > announced.size:
            partial.unlink(missing_ok=True)
            there = 0
        try:
            with partial.open("ab") as file:
                file_download.http_get(
                    locations[-1],
                    file,
                    resume_size=there,
                    headers=headers_for(locations[-1]),
                    expected_size=announced.size or None,
                    displayed_filename=announced.address[3].rpartition("/")[2],
                )
        except Exception as error:
            is_another_size = has_another_size(error) or status_of(error) == 416
            if not is_another_size or _digest(partial, announced.etag) != announced.etag:
                raise

    def is_worth_another_try(error: Exception) -> bool:
        if status_of(error) == 416:
            partial.unlink(missing_ok=True)
            return True
        if status_of(error) in _EXPIRED and len(locations) == 1:
            now = ask(*announced.address).file
            locations.append(now.location if now and now.etag == announced.etag else announced.location)
            return True
        return is_temporary(error) and type(error).__name__ not in _RETRIED_BY_CLIENT

    tried(receive, is_worth_another_try)
    return partial


def _received_by_xet(announced: Announced) -> Path:
    from huggingface_hub import hf_hub_download

    kind, name, commit, path = announced.address
    token = None if may_have_token(endpoint()) else False
    folder = _xet_folder(announced)
    return Path(hf_hub_download(name, path, repo_type=kind, revision=commit, local_dir=folder, token=token))


def _xet_folder(announced: Announced) -> Path:
    return cache_dir() / "downloads" / f"{announced.etag}.xet"


def is_whole(place: Path) -> bool:
    """Whether a file of the cache still has the digest in its blob's name, where that is one."""
    name = digest_of_place(place)
    return _digest(place, name) in (name, "")


def digest_of_place(place: Path) -> str:
    """The name of the blob that a file of a snapshot is."""
    return place.resolve().name


def discard(place: Path) -> None:
    """Remove a file of a snapshot, and the bytes that it names."""
    blob = place.resolve()
    for path in {place, blob}:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _digest(path: Path, announced: str) -> str:
    """The content's digest of the kind of ``announced``; empty where that is none. Raises RemoteError."""
    try:
        if re.fullmatch("[0-9a-f]{64}", announced):
            return digest.of_file(path)
        if re.fullmatch("[0-9a-f]{40}", announced) and path.stat().st_size <= _GIT_HASHED_BYTES:
            data = path.read_bytes()
            return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    except OSError as error:
        raise RemoteError(f"{path}: cannot be read: {error.strerror or error}.") from error
    return ""


def _move(partial: Path, blob: Path) -> None:
    blob.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        partial.replace(blob)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the two caches are on two disks
            raise
        copy = blob.with_name(f"{blob.name}.{uuid.uuid4().hex[:8]}.incomplete")
        try:
            shutil.copyfile(partial, copy)
            copy.replace(blob)
        finally:
            copy.unlink(missing_ok=True)
        partial.unlink()
    sync_folder(blob.parent)


def _link(blob: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return
    place.unlink(missing_ok=True)  # a link to what was removed
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        shutil.copyfile(blob, place)


def remove(places: Iterable[Path]) -> None:
    """Remove those of ``places`` that this run has fetched."""
    for place in places:
        if (blob := place.resolve()) in {path.resolve() for path in fetched}:
            discard(place)
            fetched.discard(blob)
