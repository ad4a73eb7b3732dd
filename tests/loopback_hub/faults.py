"""What goes wrong between a hub and its clients: rules that spoil answers.

``hub.fault(status(503), r"0\\.tar$", origin="cdn", times=2)``
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from loopback_hub.answers import Answer, Request, refusal

Change = Callable[[Answer], Answer]


@dataclass
class Fault:
    """Applies ``change`` to the answers whose path (decoded, without a query) matches ``path``.

    The first ``after`` of them pass; then ``times`` are spoilt, None: all. ``met`` counts those.
    """

    change: Change
    path: str = ""
    origin: str = ""
    method: str = ""
    times: int | None = 1
    after: int = 0
    met: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def apply(self, request: Request, answer: Answer) -> Answer:
        """The answer, spoilt where the rule says so."""
        names = (self.origin or request.origin, self.method or request.method)
        if names != (request.origin, request.method) or not re.search(self.path, request.path):
            return answer
        with self._lock:
            if self.after > 0:
                self.after -= 1
                return answer
            if self.times is not None and self.met >= self.times:
                return answer
            self.met += 1
        return self.change(answer)


def status(code: int, error: str = "", message: str = "", retry_after: int | None = None) -> Change:
    """An error instead of the answer, with the hub's class of error in ``X-Error-Code`` where given."""
    waits = {} if retry_after is None else {"Retry_After": str(retry_after)}
    return lambda answer: refusal(code, error, message or f"fault {code}", **waits)


def cut(after: float) -> Change:
    """The connection is closed after so many bytes, or after a part (0.5) of the body; 0: before anything is said."""
    return lambda answer: replace(answer, cut=_place(answer, after))


def reset(after: float) -> Change:
    """As ``cut``, but the connection is reset, as by a firewall or a restarted server."""
    return lambda answer: replace(answer, cut=_place(answer, after), reset=True)


def short(by: int = 1) -> Change:
    """A complete answer, only some bytes shorter than the file: a full disk of a mirror, a proxy's mistake."""
    return lambda answer: replace(answer, body=answer.body[:-by], compressible=False)


def flip(at: float = 0.5) -> Change:
    """One bit of the body is wrong: at a byte, or at a part of it."""

    def flipped(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        if body:
            body[_place(answer, at)] ^= 1
        return replace(answer, body=bytes(body))

    return flipped


def unannounced() -> Change:
    """No Content-Length: whether the body is whole cannot be seen from its end."""
    return lambda answer: replace(answer, announced=None, compressible=False)


def stall(seconds: float, at: float | None = None) -> Change:
    """Silence: before the answer, or inside the body."""
    if at is None:
        return lambda answer: replace(answer, wait=seconds)
    return lambda answer: replace(answer, stall=(_place(answer, at), seconds), compressible=False)


def slow(rate: float) -> Change:
    """So many bytes a second."""
    return lambda answer: replace(answer, rate=rate)


def redirect(location: str, code: int = 302) -> Change:
    """The client is sent elsewhere; what the hub says of the file stays."""
    return lambda answer: Answer(code, b"", answer.headers | {"Location": location})


def portal() -> Change:
    """The page of a hotel, a firewall or a broken mirror: HTML with status 200 instead of the file."""
    page = b"<!DOCTYPE html><html><body>Please sign in to continue.</body></html>"
    return lambda answer: Answer(200, page, {"Content-Type": "text/html; charset=utf-8"})


def then(action: Callable[[], object]) -> Change:
    """Nothing is spoilt; ``action`` happens before the answer is sent, such as a new commit or a look at a file."""

    def acted(answer: Answer) -> Answer:
        action()
        return answer

    return acted


def _place(answer: Answer, at: float) -> int:
    return int(at * len(answer.body)) if isinstance(at, float) else int(at)
