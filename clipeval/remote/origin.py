"""Whom remote files come from: the hub's endpoint, who may be told its token, and how often a host is asked."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from clipeval.console import say
from clipeval.errors import UsageError
from clipeval.remote.libraries import despite
from clipeval.version import __version__

T = TypeVar("T")

PUBLIC_HUB = "https://huggingface.co"
WAITS = (1, 2, 4, 8)
"""Seconds before the second to the fifth try, where the server names none."""
_LONGEST_WAIT = 300
BUSY = (408, 429, 500, 502, 503, 504)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_TOLD_WAIT = 9
"""Seconds of waiting that a person is told of."""
_ADDRESS = re.compile(r"https?://([^\s/?#@]*@)?([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?(/[^\s?#]*)?")
_OF_HUB = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+(?=/(?:tree|resolve|blob|raw)/)|[^/]+/[^/]+?)"
    r"(?:/(?:tree|resolve|blob|raw)/(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


def endpoint() -> str:
    """The address of the Hugging Face hub: ``$HF_ENDPOINT``, else the public one. Raises UsageError for no address."""
    text = (os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).strip().rstrip("/")
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"HF_ENDPOINT: expected an address as {PUBLIC_HUB}, found '{public(text):.200}'.")
    return text


def on_hub(url: str) -> tuple[str, str, str, str] | None:
    """(``model`` or ``dataset``, name, revision, path) of what an address of the hub names; None for another server's.

    Addresses of the public hub are those of ``$HF_ENDPOINT`` where that is set.
    """
    for root in dict.fromkeys((PUBLIC_HUB, endpoint())):
        if url.startswith(f"{root}/") and (match := _OF_HUB.fullmatch(url.removeprefix(root).partition("?")[0])):
            revision, path = unquote(match["revision"] or ""), unquote(match["path"] or "").strip("/")
            kind = "dataset" if match["kind"] else "model"
            return kind, match["name"], "" if revision == "main" else revision, path
    return None


def address(kind: str, name: str, revision: str, path: str) -> str:
    """Where the endpoint serves a file."""
    folder = "datasets/" if kind == "dataset" else ""
    return f"{endpoint()}/{folder}{name}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` says that the hub is not to be asked."""
    words = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(word.upper() in ("1", "ON", "YES", "TRUE") for word in words)


def may_have_token(url: str) -> bool:
    """Whether the hub's token may be sent to ``url``: to the endpoint's own scheme, host and port, where nobody
    listens on the way."""
    scheme, host, _ = _origin(url)
    return same_origin(url, endpoint()) and (scheme == "https" or host in _LOOPBACK)


def same_origin(url: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def headers_for(url: str) -> dict[str, str]:
    """What tells the hub who asks, for its own address only; to all others what asks."""
    if not may_have_token(url):
        return {"User-Agent": f"clipeval/{__version__}"}
    from huggingface_hub.utils import build_hf_headers

    return dict(build_hf_headers(library_name="clipeval", library_version=__version__))


def public(text: str) -> str:
    """``text`` without the secrets of the URLs in it: no user, no password, no values of a query."""
    text = re.sub(r"(://)[^/?#\s'\"]*@", r"\1", text)
    return re.sub(r"\?[^\s?'\"<>)]*=[^\s'\"<>)]*", "?...", text)


def wait_of(headers: Any, otherwise: float) -> float:
    """The seconds that an answer's ``Retry-After`` asks for."""
    text = str(headers.get("Retry-After") or "")
    return min(float(text), _LONGEST_WAIT) if re.fullmatch(r"\d{1,9}", text) else otherwise


def tried(call: Callable[[], T], is_temporary: Callable[[Exception], bool]) -> T:
    """``call()``, up to five times while it raises what ``is_temporary``."""
    for wait in WAITS:
        try:
            return despite(call)
        except Exception as error:
            if not is_temporary(error):
                raise
            seconds = wait_of(getattr(getattr(error, "response", None), "headers", {}), wait)
            if seconds >= _TOLD_WAIT:
                say(f"the server asks to wait {seconds:g} s")
            time.sleep(seconds)
    return despite(call)
