"""Whom remote files come from: the hub's endpoint, who may be told its token, and how often a host is asked."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from clipeval.version import __version__

T = TypeVar("T")

PUBLIC_HUB = "https://huggingface.co"
WAITS = (1, 2, 4, 8)
"""Seconds before the second to the fifth try, where the server names none."""
_LONGEST_WAIT = 300
BUSY = (408, 429, 500, 502, 503, 504)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}


def endpoint() -> str:
    """The address of the Hugging Face hub: ``$HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` says that the hub is not to be asked."""
    words = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(word.upper() in ("1", "ON", "YES", "TRUE") for word in words)


def may_have_token(url: str) -> bool:
    """Whether the hub's token may be sent to ``url``: to the endpoint's own scheme, host and port, where nobody
    listens on the way."""
    asked, hub = _origin(url), _origin(endpoint())
    return asked == hub and (asked[0] == "https" or asked[1] in _LOOPBACK)


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
            return call()
        except Exception as error:
            if not is_temporary(error):
                raise
            time.sleep(wait_of(getattr(getattr(error, "response", None), "headers", {}), wait))
    return call()
