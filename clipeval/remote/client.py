"""The calls of huggingface_hub that the door makes, and where that library keeps files (its documented layout)."""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from clipeval import digest
from clipeval.remote.origin import BUSY, address, endpoint, headers_for, tried

_MOST_REDIRECTS = 10
_MOST_PAGES = 100_000


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


class NotAHub(Exception):
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
    query, seen = "recursive=true", set[str]()
    while query and query not in seen and len(seen) < _MOST_PAGES:
        seen.add(query)
        response = tried(partial(_page, f"{url}?{query}"), is_temporary)
        found += [entry["path"] for entry in response.json() if entry["type"] == "file"]
        query = urlsplit(response.links.get("next", {}).get("url", "")).query
    if query:
        raise NotAHub("the list of files has no end")
    return found


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


def is_temporary(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    if (status := status_of(error)) is not None:
        return status in BUSY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return False
    return has_another_size(error) or is_of_transport(error)


def has_another_size(error: Exception) -> bool:
    """Whether another number of bytes came than was announced."""
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def status_of(error: Exception) -> int | None:
    """The status of the answer that an error tells of."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def is_of_transport(error: Exception) -> bool:
    """Whether no answer came at all, or not the whole of one."""
    libraries = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    of_library = any(kind.__module__.partition(".")[0] in libraries for kind in type(error).__mro__)
    return of_library or isinstance(error, ConnectionError | TimeoutError)


def _be_quiet() -> None:
    """What huggingface_hub logs of its tries holds signed addresses."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
