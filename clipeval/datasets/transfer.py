"""The bytes of a remote file as they arrive, whatever its server does; and no secret of a URL where others read it."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import threading
from collections.abc import Generator
from dataclasses import astuple, dataclass
from typing import Any
from urllib.parse import urlsplit

from clipeval.errors import DataError, UsageError, first_line

_PIECE_BYTES = 1 << 16
_PIECES_AHEAD = 64
_TAGS = ("ETag", "etag", "blob_id")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What the file systems of fsspec call things that change with a file's content."""


def public(text: str) -> str:
    """``text`` without the secrets of the URLs in it: no user, no password, no values of a query."""
    text = re.sub(r"(://)[^/?#\s'\"]*@", r"\1", text)
    return re.sub(r"\?[^\s?'\"<>)]*=[^\s'\"<>)]*", "?...", text)


def patience() -> float:
    """Seconds without ``_PIECE_BYTES`` more of a file after which a server counts as gone.

    Raises UsageError for a value of ``CLIPEVAL_TIMEOUT`` that is no number of seconds.
    """
    text = os.environ.get("CLIPEVAL_TIMEOUT", "60")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) == 0:
        raise UsageError(f"CLIPEVAL_TIMEOUT: expected a number of seconds, found '{text:.20}'.")
    return float(text)


@dataclass(frozen=True)
class Version:
    """What a server says of a file; None where it does not say."""

    size: int | None
    etag: str | None
    modified: str | None

    def is_as(self, other: Version) -> bool:
        """Whether nothing of what is known of both differs, and there is such a thing."""
        both = [pair for pair in zip(astuple(self), astuple(other), strict=True) if None not in pair]
        return bool(both) and all(mine == theirs for mine, theirs in both)


def from_server(url: str, copy: Version | None, *, body: bool = True) -> Generator[Any, None, None]:
    """A file's Version and then its bytes, read in a thread of its own: whatever a server does, this one goes on.

    ``copy`` is what the server said of the copy that is here: where it is still true, the bytes may be left out. Raises
    FileNotFoundError when there is no such file, and DataError where it cannot be had, or hardly moves.
    """
    seconds = patience()
    source = _http if url.partition("://")[0].lower() in ("http", "https") else _file_system
    items: queue.Queue[Any] = queue.Queue(_PIECES_AHEAD)
    unwanted = threading.Event()

    def put(item: Any) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=1)
                return True
        return False

    def work() -> None:
        try:
            with contextlib.closing(source(url, copy, body)) as found:
                for item in found:
                    if not put(item):
                        return
            put(None)
        except Exception as error:  # requests and every file system of fsspec have errors of their own
            put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            try:
                item = items.get(timeout=seconds)
            except queue.Empty:
                raise DataError(
                    f"{public(url)}: the server sent less than {_PIECE_BYTES:,} bytes in {seconds:g} s. "
                    "Run it again, or give it longer with CLIPEVAL_TIMEOUT=SECONDS."
                ) from None
            if isinstance(item, FileNotFoundError):
                raise item
            if isinstance(item, Exception):
                reason = f"{type(item).__name__}: {public(first_line(item)):.500}"
                raise DataError(
                    f"{public(url)}: the download failed: {reason}. What is complete is kept: run it again."
                ) from item
            if item is None:
                return
            yield item
    finally:
        unwanted.set()


def _http(url: str, copy: Version | None, body: bool) -> Generator[Any, None, None]:
    import requests

    headers = {"Accept-Encoding": "identity", **_token(url)}
    if copy is not None and copy.etag:
        headers["If-None-Match"] = copy.etag
    method = "GET" if body else "HEAD"
    with requests.request(
        method, url, headers=headers, stream=True, timeout=patience(), allow_redirects=True
    ) as response:
        if response.status_code in (404, 410):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), public(url))
        if response.status_code == 304:
            yield copy
            return
        response.raise_for_status()
        said = response.headers
        length = said.get("Content-Length", "") if said.get("Content-Encoding", "identity") == "identity" else ""
        size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        yield Version(size, said.get("ETag"), said.get("Last-Modified"))
        if body:
            yield from response.iter_content(_PIECE_BYTES)


def _file_system(url: str, copy: Version | None, body: bool) -> Generator[Any, None, None]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    info = filesystem.info(path)
    tags, times = ([str(info[key]) for key in keys if info.get(key)] for keys in (_TAGS, _TIMES))
    size = info.get("size")
    yield Version(None if size is None else int(size), next(iter(tags), None), next(iter(times), None))
    if body:
        with filesystem.open(path, "rb") as source:
            while piece := source.read(_PIECE_BYTES):
                yield piece


def _token(url: str) -> dict[str, str]:
    """What tells the hub who asks: for its own address only, and never where others could read it."""
    asked, hub = (urlsplit(address) for address in (url, os.environ.get("HF_ENDPOINT") or "https://huggingface.co"))
    is_hub = (asked.scheme, asked.hostname, asked.port) == (hub.scheme, hub.hostname, hub.port)
    if not is_hub or (asked.scheme != "https" and asked.hostname not in ("localhost", "127.0.0.1", "::1")):
        return {}
    from huggingface_hub.utils import build_hf_headers

    return dict(build_hf_headers())
