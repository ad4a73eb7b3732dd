"""The calls of huggingface_hub that the door makes, and where that library keeps files (its documented layout)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from clipeval import digest
from clipeval.console import say
from clipeval.errors import RemoteError
from clipeval.files import sync_folder
from clipeval.paths import cache_dir
from clipeval.remote.origin import BUSY, address, endpoint, headers_for, may_have_token, tried

_MOST_REDIRECTS = 10
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
_MOST_PAGES = 100_000

fetched: set[Path] = set()
"""The blobs that this run has fetched."""


@dataclass(frozen=True)
class Announced:
    """What the hub says of a file: its digest (SHA-256 of a large one, git's of a small one), size, where it lies."""

    etag: str
    size: int | None
    location: str
    address: tuple[str, str, str, str]
    """Kind, name, commit and path."""
    in_xet: bool


@dataclass(frozen=True)
class Answer:
    """The commit that a revision names, and a file of it, None where it has none."""

    commit: str
    file: Announced | None


class NotAHub(RemoteError):
    """What answers at the endpoint is no hub."""


def storage(kind: str, name: str) -> Path:
    """The folder of a repository in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *name.split("/")])


def ask(kind: str, name: str, revision: str, path: str) -> Answer:
    """Ask for a file's metadata, with five tries. Raises what huggingface_hub and its HTTP library raise."""
    _be_quiet()
    url = address(kind, name, revision, path)
    return tried(lambda: _metadata(url, (kind, name, path)), is_temporary)


def _metadata(url: str, asked_for: tuple[str, str, str]) -> Answer:
    """Redirects are followed by hand: the token goes to the endpoint only, and the first answer that describes the file
    is the hub's, whatever a storage says."""
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import hf_raise_for_status

    commit = None
    for _ in range(_MOST_REDIRECTS):
        response = _answer("HEAD", url)
        said = response.headers
        commit = said.get("X-Repo-Commit") or commit
        try:
            hf_raise_for_status(response)
        except EntryNotFoundError:
            if commit is None:
                raise
            return Answer(commit, None)
        target = urljoin(url, said["Location"]) if "Location" in said else None
        if target is None or "X-Linked-ETag" in said:
            break
        url = target
    else:
        raise NotAHub(f"more than {_MOST_REDIRECTS} redirects")
    etag = (said.get("X-Linked-ETag") or said.get("ETag") or "").removeprefix("W/").strip('"')
    if not etag or commit is None or not re.fullmatch("[0-9a-f]{40}", commit):
        raise NotAHub("the answer names no commit and no digest, as a hub's do: is a login or a proxy in between?")
    if not re.fullmatch(r"\w[\w.+=-]{0,199}", etag):
        etag = f"etag-{digest.of_value(etag)}"
    is_packed = said.get("Content-Encoding", "identity") != "identity"
    size = said.get("X-Linked-Size") or (None if target or is_packed else said.get("Content-Length"))
    kind, name, path = asked_for
    known = int(size) if size and re.fullmatch(r"\d{1,18}", size) else None
    return Answer(commit, Announced(etag, known, target or url, (kind, name, commit, path), "X-Xet-Hash" in said))


def listing(kind: str, name: str, commit: str) -> list[str]:
    """All paths of a repository at a commit. Raises what huggingface_hub and its HTTP library raise.

    Of the address of a further page the query is taken only: a mirror passes on the public hub's.
    """
    _be_quiet()
    url = f"{endpoint()}/api/{kind}s/{name}/tree/{commit}"
    found: list[str] = []
    queries = {"recursive=true": None}
    for _ in range(_MOST_PAGES):
        response = tried(lambda: _page(f"{url}?{[*queries][-1]}"), is_temporary)
        found += [entry["path"] for entry in response.json() if entry["type"] == "file"]
        following = urlsplit(response.links.get("next", {}).get("url", "")).query
        if not following:
            return found
        if following in queries:
            break
        queries[following] = None
    raise NotAHub("the list of files has no end")


def _page(url: str) -> Any:
    from huggingface_hub.utils import hf_raise_for_status

    for _ in range(_MOST_REDIRECTS):
        response = _answer("GET", url)
        hf_raise_for_status(response)
        if "Location" not in response.headers:
            return response
        url = urljoin(url, response.headers["Location"])
    raise NotAHub(f"more than {_MOST_REDIRECTS} redirects")


def _answer(method: str, url: str) -> Any:
    """One answer, which may be a redirect: who is told the token is decided for each address."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    headers = headers_for(url) | ({"Accept-Encoding": "identity"} if method == "HEAD" else {})
    return session.request(method, url, headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False)


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
            blob.unlink()  # under the name of another commit's file
        if not blob.exists():
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
            is_another_size = _has_another_size(error) or _status(error) == 416
            if not is_another_size or _digest(partial, announced.etag) != announced.etag:
                raise

    def is_worth_another_try(error: Exception) -> bool:
        if _status(error) == 416:
            partial.unlink(missing_ok=True)
            return True
        if _status(error) in _EXPIRED and len(locations) == 1:
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


def is_temporary(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    if (status := _status(error)) is not None:
        return status in BUSY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return False
    return _has_another_size(error) or is_of_transport(error)


def _has_another_size(error: Exception) -> bool:
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def _status(error: Exception) -> int | None:
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def is_of_transport(error: Exception) -> bool:
    """Whether no answer came at all, or not the whole of one."""
    libraries = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    of_library = any(kind.__module__.partition(".")[0] in libraries for kind in type(error).__mro__)
    return of_library or isinstance(error, ConnectionError | TimeoutError)


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


def _be_quiet() -> None:
    """What huggingface_hub logs of its tries holds signed addresses."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
