"""Ray clusters of several nodes on one machine, each with mounts, a host name and a temporary folder of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from waiting import until

NAMESPACES = ["unshare", "-m", "-u"] if os.geteuid() == 0 else ["unshare", "-U", "-r", "-m", "-u"]
HAS_NAMESPACES = (
    shutil.which("unshare") is not None
    and subprocess.run([*NAMESPACES, "mount", "--make-rprivate", "/"], capture_output=True).returncode == 0
)
_RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]


class Nodes:
    """A cluster whose head has no cores. Ends with the ``with`` block, and by the ids of its processes."""

    def __init__(self, head: str = "--num-cpus=0", **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets: at most 107 characters
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"} | environment
        self._processes: dict[str, subprocess.Popen] = {}
        words = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}", *head.split()]
        self._start("head", [*_RAY, *words])

    def add(self, name: str, words: str = "--num-cpus=1", *mounts: str, **environment: str) -> None:
        """A node called ``name`` that has mounted what is said, in shell words behind ``mount``."""
        ray = [*_RAY, f"--address={self.address}", *words.split()]
        steps = ["mount --make-rprivate /", f"hostname {name}", *(f"mount {words}" for words in mounts)]
        script = " && ".join([*steps, f"exec {shlex.join(ray)}"])
        self._start(name, [*NAMESPACES, "sh", "-c", script], **environment)

    def _start(self, name: str, command: list[str], **environment: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment | environment,
                start_new_session=True,
            )
        until(lambda: "Ray runtime started" in log.read_text(), 60, log.read_text, self._processes[name])

    def pids(self) -> list[int]:
        """The ids of all processes of all nodes."""
        return [pid for process in self._processes.values() for pid in descendants(process.pid)]

    def kill(self, name: str) -> None:
        """kill -9 of a node with all its processes."""
        process = self._processes.pop(name)
        for pid in [process.pid, *descendants(process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """The ids of all processes below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]
