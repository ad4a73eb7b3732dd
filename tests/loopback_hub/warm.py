"""Programs that start warm: forked from a process that has imported the large libraries that know no hub.

A start of clipeval is some five seconds of imports, of torch above all. What reads its environment at import
(huggingface_hub and all that is built on it, clipeval too) is imported by each program itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

LARGE = ("faiss", "pandas", "pyarrow.parquet", "scipy.optimize", "sklearn.linear_model", "torchvision", "typer", "rich")
_OF_THE_HUB = ("huggingface_hub", "transformers", "datasets", "open_clip", "timm", "clipeval")
_REQUEST_BYTES = 1 << 20


class Program:
    """``python -m WORDS`` at work: the part of ``subprocess.Popen`` that tests use."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: int, stderr: int
    ) -> None:
        self.args, self.returncode = list(words), None
        ours, theirs = os.pipe()
        request = json.dumps({"words": self.args, "environment": dict(environment), "folder": str(folder)})
        try:
            socket.send_fds(_kitchen(), [request.encode()], [stdout, stderr, theirs])
        finally:
            os.close(theirs)
        self._said = os.fdopen(ours, "rb", 0)
        self.pid = int(self._said.readline())

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(int(self._said.readline()))
            self._said.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


_open: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []


def _kitchen() -> socket.socket:
    """The way to this process's own server, which ends when that is closed."""
    if not _open:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "CLIPEVAL"))}
        words = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
        server = subprocess.Popen(words, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _open.append((ours, server))
    return _open[0][0]


def _serve(requests: socket.socket) -> None:
    for name in LARGE:
        import_module(name)
    early = [name for name in _OF_THE_HUB if name in sys.modules]
    assert not early, f"{early} read their environment at import, and would have that of another program"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the minders
    while True:
        request, files, *_ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _mind(json.loads(request), *files)
        for file in files:
            os.close(file)


def _mind(request: dict, stdout: int, stderr: int, said: int) -> None:
    """Start the program, and say its process and how that ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = os.fork()
    if program == 0:
        os.close(said)
        _become(request, stdout, stderr)
    os.write(said, f"{program}\n".encode())
    _, status = os.waitpid(program, 0)
    os.write(said, f"{status}\n".encode())
    os._exit(0)


def _become(request: dict, stdout: int, stderr: int) -> None:
    for file, place in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(file, place)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    module, *words = request["words"]
    sys.argv, sys.path[0] = [module, *words], request["folder"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
