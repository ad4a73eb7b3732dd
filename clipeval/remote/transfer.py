"""The bytes of a file at a plain address as they arrive, whatever its server does."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import queue
import re
import threading
import time
from collections.abc import Generator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from clipeval.errors import DataError, UsageError, first_line
from clipeval.remote.origin import BUSY, WAITS, address, headers_for, on_hub, public, wait_of

if TYPE_CHECKING:
    import requests

_PIECE_BYTES = 1 << 16
_PIECES_AHEAD = 64
_TAGS = ("ETag", "etag", "blob_id")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What the file systems of fsspec call things that change with a file's content."""


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
    digest: str | None = None
    """The SHA-256 that the hub announces."""

    def is_as(self, other: Version) -> bool:
        """Whether nothing of what is known of both differs, and there is such a thing."""
        if self.digest and other.digest:
            return self.digest == other.digest
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
            if item != b"":
                yield item
    finally:
        unwanted.set()


def _http(url: str, copy: Version | None, body: bool) -> Generator[Any, None, None]:
    """Five tries as long as nothing more arrives; what is there is not asked for again where the server allows that."""
    import requests  # it opens a socket when it is imported

    whole = _Body(url, copy, body)
    tries = 0
    while True:
        before = whole.received
        try:
            yield from whole.rest()
            return
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            tries = 0 if whole.received > before else tries
            if tries == len(WAITS) or not _is_temporary(error):
                raise
            response = error.response if isinstance(error, requests.RequestException) else None
            for _ in range(math.ceil(wait_of(response.headers if response is not None else {}, WAITS[tries]))):
                time.sleep(1)
                yield b""  # a sign of life for the one who counts the seconds
            tries += 1


class _Body:
    """A file as it arrives over several connections."""

    def __init__(self, url: str, copy: Version | None, body: bool) -> None:
        self.received = 0
        place = on_hub(url)
        self._url, self._copy, self._body = address(*place) if place else url, copy, body
        self._of_hub = place is not None
        self._version: Version | None = None

    def rest(self) -> Generator[Any, None, None]:
        """The Version first, then the bytes that did not come before. Raises what requests raises."""
        import requests

        method = "GET" if self._body else "HEAD"
        with requests.request(
            method, self._url, headers=self._headers(), stream=True, timeout=patience(), allow_redirects=True
        ) as response:
            if response.status_code in (404, 410):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), public(self._url))
            if response.status_code == 304:
                yield self._copy
                return
            self._require_access(response)
            response.raise_for_status()
            continued = response.status_code == 206
            skip = 0 if continued else self.received
            if self._version is None:
                self._version = _version(response, self._of_hub)
                yield self._version
            elif not continued and not _version(response, self._of_hub).is_as(self._version):
                raise DataError(f"{public(self._url)}: the file changed while it was fetched. Run it again.")
            if not self._body:
                return
            for piece in _pieces(response):
                new = piece[skip:]
                skip -= len(piece) - len(new)
                self.received += len(new)
                yield new
            if self._version.size is not None and self.received < self._version.size:
                raise ConnectionError(f"received {self.received:,} of {self._version.size:,} bytes")

    def _require_access(self, response: requests.Response) -> None:
        if self._of_hub and response.status_code in (401, 403):
            reason = response.headers.get("X-Error-Message", "")
            raise PermissionError(f"{response.status_code} {reason}. Accept its terms where it has some, set HF_TOKEN.")

    def _headers(self) -> dict[str, str]:
        headers = {**headers_for(self._url), "Accept-Encoding": "identity"}
        if self._copy is not None and self._copy.etag:
            headers["If-None-Match"] = self._copy.etag
        condition = self._version and (self._version.etag or self._version.modified)
        if self.received and condition and not condition.startswith("W/"):
            headers |= {"Range": f"bytes={self.received}-", "If-Range": condition}
        return headers


def _pieces(response: requests.Response) -> Generator[bytes, None, None]:
    """The body in pieces of ``_PIECE_BYTES``; where it breaks off, what has come of the last one too."""
    import urllib3

    piece = bytearray()
    try:
        while data := response.raw.read1(_PIECE_BYTES, decode_content=True):
            piece += data
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)
    except urllib3.exceptions.HTTPError as error:
        yield bytes(piece)
        raise ConnectionError(first_line(error)) from error


def _version(response: requests.Response, of_hub: bool) -> Version:
    said = response.headers
    length = said.get("Content-Length", "") if said.get("Content-Encoding", "identity") == "identity" else ""
    size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
    first = (response.history or [response])[0].headers
    announced = first.get("X-Linked-ETag", "").strip('"') if of_hub else ""
    digest = announced if re.fullmatch("[0-9a-f]{64}", announced) else None
    return Version(size, said.get("ETag"), said.get("Last-Modified"), digest)


def _is_temporary(error: Exception) -> bool:
    response = getattr(error, "response", None)
    if response is None:
        return not isinstance(error, ValueError)  # of an address that is none
    return response.status_code in BUSY


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
