"""An HTTP answer before it is sent, so that faults can spoil it; and how it goes over the wire."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any

_PIECE = 1 << 14


@dataclass(frozen=True)
class Request:
    """What somebody asked of one of the origins ``hub``, ``cdn`` and ``proxy``. Header names are in lower case."""

    origin: str
    method: str
    path: str
    target: str
    """The path as it was sent, percent-encoded."""
    query: str
    headers: dict[str, str]
    body: bytes
    at: float
    """Seconds on a monotonic clock."""

    @property
    def token(self) -> str:
        """The bearer token that was sent, or an empty string."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True)
class Answer:
    """Status, headers and body, and how they are sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = -1
    """Content-Length; -1 is the body's, None none at all: the end of the body is the end of the connection."""
    compressible: bool = False
    cut: int | None = None
    """The connection ends after so many bytes of the body; 0: before the status line."""
    reset: bool = False
    """Where it is cut, the connection is reset (RST) instead of closed (FIN): clients tell these errors apart."""
    wait: float = 0.0
    """Seconds before the first byte."""
    stall: tuple[int, float] = (0, 0.0)
    """After so many bytes of the body, so many seconds of silence."""
    rate: float = 0.0
    """Bytes per second; 0 is as fast as it goes."""

    def with_headers(self, **headers: str) -> Answer:
        """The answer with more headers; ``_`` in a name is ``-``."""
        return replace(self, headers=self.headers | {name.replace("_", "-"): text for name, text in headers.items()})


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """A document of the hub's API."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"}).with_headers(
        **headers
    )


def refusal(status: int, code: str, message: str, **headers: str) -> Answer:
    """An error as the hub words it: its class in a header, its text in a header and in the body."""
    answer = json_answer({"error": message}, status, X_Error_Message=message, **headers)
    return answer.with_headers(X_Error_Code=code) if code else answer


def ranged(answer: Answer, request: Request) -> Answer:
    """The part of a whole answer that ``Range`` asks for, unless ``If-Range`` names another version."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    wanted = request.headers.get("if-range")
    if answer.status != 200 or match is None or match[1] + match[2] == "":
        return answer
    if wanted is not None and wanted not in (answer.headers.get("ETag"), answer.headers.get("Last-Modified")):
        return answer
    size = len(answer.body)
    start = int(match[1]) if match[1] else max(size - int(match[2]), 0)
    stop = min(int(match[2]) + 1, size) if match[1] and match[2] else size
    if start >= size or stop <= start:
        return Answer(416, b"", answer.headers | {"Content-Range": f"bytes */{size}"})
    part = replace(answer, status=206, body=answer.body[start:stop], compressible=False)
    return part.with_headers(Content_Range=f"bytes {start}-{stop - 1}/{size}")


def send(handler: BaseHTTPRequestHandler, answer: Answer, closing: threading.Event) -> None:
    """Write an answer to a connection. ``closing`` ends every wait."""
    closing.wait(answer.wait)
    if answer.cut == 0:
        return _hang_up(handler, answer.reset)
    body, headers = answer.body, dict(answer.headers)
    chunked = False
    if answer.compressible and "gzip" in handler.headers.get("Accept-Encoding", "") and handler.command == "GET":
        body, chunked = gzip.compress(body), True
        headers |= {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
        headers.pop("Accept-Ranges", None)
    elif answer.announced is not None:
        headers["Content-Length"] = str(len(body) if answer.announced == -1 else answer.announced)
    else:
        headers["Connection"] = "close"
        handler.close_connection = True
    handler.send_response(answer.status)
    for name, text in headers.items():
        handler.send_header(name, text)
    handler.end_headers()
    if handler.command == "HEAD":
        return None
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    whole = answer.cut is None or answer.cut >= len(body)
    _write(handler, body if whole else body[: answer.cut], answer, closing)
    if not whole or answer.announced not in (None, -1, len(body)):
        _hang_up(handler, answer.reset)
    return None


def _write(handler: BaseHTTPRequestHandler, body: bytes, answer: Answer, closing: threading.Event) -> None:
    stall_at, silence = answer.stall
    if silence:
        handler.wfile.write(body[:stall_at])
        handler.wfile.flush()
        body = body[stall_at:]
        closing.wait(silence)
    piece = max(1, int(answer.rate / 20)) if answer.rate else _PIECE
    for start in range(0, len(body), piece):
        handler.wfile.write(body[start : start + piece])
        if answer.rate and closing.wait(piece / answer.rate):
            break


def _hang_up(handler: BaseHTTPRequestHandler, reset: bool) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    if reset:
        time.sleep(0.05)  # the bytes before the end arrive: a reset overtakes them
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
