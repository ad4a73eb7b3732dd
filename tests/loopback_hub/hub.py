"""The hub as tests use it: three servers on the loopback, what they were asked, and programs that talk to them only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote

from loopback_hub import endpoint
from loopback_hub.answers import Answer, Request, send
from loopback_hub.faults import Change, Fault
from loopback_hub.repositories import Repository
from loopback_hub.warm import Program

ROOT = Path(__file__).parents[2]
_OURS = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "CLIPEVAL", "HTTP_", "HTTPS_", "ALL_PROXY", "NO_PROXY")
"""Variables of the outer world that would lead programs elsewhere."""


class Hub:
    """Use it with ``with``: an ``endpoint``, a ``cdn`` on another port, and a ``proxy`` that refuses all it is asked.

    Add repositories, run programs in its ``environment``, look at ``requests``. Attributes to set: ``tokens`` that are
    valid (others are answered 401, for public repositories too), and ``writers``, those that may write; ``plain``, path
    -> content of a web server that is no hub, on the CDN's origin; ``renamed`` repositories, (kind, old name) -> new
    name; ``caches``, whether small files are sent round by a relative redirect as huggingface.co does.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` takes the programs' caches and is their working directory."""
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.plain: dict[str, bytes] = {}
        self.tokens = {"hf_reader", "hf_stranger", "hf_writer"}
        self.writers = {"hf_writer"}
        self.uploaded: dict[str, bytes] = {}
        self.caches = False
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._closing = threading.Event()
        self._servers = [_Server(self, origin) for origin in ("hub", "cdn", "proxy")]
        self.endpoint, self.cdn, self.proxy = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        inherited = {name: text for name, text in os.environ.items() if not name.upper().startswith(_OURS)}
        self.environment = inherited | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "CLIPEVAL_CACHE": str(folder / "cache"),
            "HTTP_PROXY": self.proxy,
            "HTTPS_PROXY": self.proxy,
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def __enter__(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def repository(
        self, name: str, files: dict[str, bytes], kind: Literal["model", "dataset"] = "model", **traits: Any
    ) -> Repository:
        """A new repository with one commit; ``traits`` are Repository's."""
        made = self.repositories[kind, name] = Repository(name, kind, **traits)
        made.push(files)
        return made

    def fault(
        self,
        change: Change,
        path: str = "",
        *,
        origin: str = "",
        method: str = "",
        times: int | None = 1,
        after: int = 0,
    ) -> Fault:
        """From now on, spoil answers as ``Fault`` says."""
        rule = Fault(change, path, origin, method, times, after)
        self._faults.append(rule)
        return rule

    def heal(self) -> None:
        """No faults any more, and what was asked is forgotten."""
        self._faults.clear()
        self.requests.clear()

    def seen(self, path: str = "", origin: str = "", method: str = "") -> list[Request]:
        """The requests to an origin whose path matches, in order."""
        return [
            request
            for request in list(self.requests)
            if origin in ("", request.origin) and method in ("", request.method) and re.search(path, request.path)
        ]

    def run(self, *words: object, timeout: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``clipeval WORDS``."""
        with (self.folder / "stdout").open("w+b") as out, (self.folder / "stderr").open("w+b") as err:
            program = self._started(words, environment, out, err)
            try:
                code = program.wait(timeout)
            except subprocess.TimeoutExpired:
                program.kill()
                raise
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(program.args, code, *said)

    def start(self, *words: object, stderr: Path | None = None, **environment: str) -> Program:
        """``clipeval WORDS`` as a process to wait for or to kill; ``stderr`` is a file that it writes to."""
        with (stderr or Path(os.devnull)).open("wb") as err, Path(os.devnull).open("wb") as out:
            return self._started(words, environment, out, err)

    def _started(self, words: Sequence[object], environment: dict[str, str], out: BinaryIO, err: BinaryIO) -> Program:
        words = ["clipeval", *map(str, words)]
        return Program(words, self.environment | environment, self.folder, out.fileno(), err.fileno())

    def python(self, code: str, *words: object, timeout: float = 180, **environment: str) -> str:
        """What a program prints; it must end well."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            env=self.environment | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answer(self, request: Request) -> Answer:
        """What an origin says to a request, spoilt by the faults that match it."""
        self.requests.append(request)
        answer = {"hub": endpoint.of_hub, "cdn": endpoint.of_cdn, "proxy": endpoint.of_proxy}[request.origin](
            self, request
        )
        for fault in list(self._faults):
            answer = fault.apply(request, answer)
        return answer

    @property
    def closing(self) -> threading.Event:
        """Set when the hub ends, so that no answer waits any longer."""
        return self._closing


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, origin: str) -> None:
        self.hub, self.origin = hub, origin
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what many tests are about; anything else is this hub's bug."""
        if not isinstance(sys.exception(), ConnectionError | ValueError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        target, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            self.server.origin,
            self.command,
            unquote(target),
            target,
            query,
            {name.lower(): text for name, text in self.headers.items()},
            body,
            time.monotonic(),
        )
        send(self, self.server.hub.answer(request), self.server.hub.closing)

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = _serve

    def log_message(self, *_: object) -> None:
        pass
