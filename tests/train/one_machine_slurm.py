"""A Slurm of this machine alone: controller, one node and munge, with ports, sockets and folders of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from waiting import until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
LACKING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]

_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MaxArraySize=16
KillWait=15
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=4
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Up inside the ``with`` block: ``environment`` finds it, of four cores whatever the machine has."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        places = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": self.folder}
        text = _CONFIGURATION.format(**places, controller=_free_port(), node=_free_port())
        (self.folder / "slurm.conf").write_text(text)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        path = f"{os.environ['PATH']}:/usr/sbin"
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Slurm:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        files = {"key-file": key, "socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log"}
        files["seed-file"] = "munge.seed"
        self._start(["munged", "-F", "-f", *(f"--{name}={self.folder / file}" for name, file in files.items())])
        self._until(lambda: (self.folder / "munge.sock").exists())
        self._start(["slurmctld", "-D", "-i", "-c"])
        self._start(["slurmd", "-D"])
        self._until(lambda: "idle" in self.said("sinfo", "--noheader"))
        return self

    def __exit__(self, *_: object) -> None:
        self.said("scancel", "--me")
        self._until(lambda: not self.said("squeue", "--noheader"))
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        shutil.rmtree(self.folder)

    def said(self, *command: str) -> str:
        """What a program prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def states(self, job: str) -> dict[str, str]:
        """State of each task of an array that it still knows, by its index."""
        blocks = self.said("scontrol", "show", "job", job, "-o").splitlines()
        words = [dict(word.split("=", 1) for word in block.split() if "=" in word) for block in blocks]
        return {block["ArrayTaskId"]: block["JobState"] for block in words if "ArrayTaskId" in block}

    def wait(self, job: str, seconds: float = 240) -> dict[str, str]:
        """The states of its tasks when none waits or runs. What was put back in the queue starts at once."""
        over, since = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}, time.monotonic()

        def is_over() -> bool:
            nonlocal since
            states = self.states(job)
            if not set(states.values()) <= over:
                if time.monotonic() - since > 5:  # a node that is still at the end of it could not start it
                    for index in (index for index, state in states.items() if state == "PENDING"):
                        self.said("scontrol", "update", f"jobid={job}_{index}", "starttime=now")
                    since = time.monotonic()
                return False
            time.sleep(1)
            return set(self.states(job).values()) <= over  # not on its way back into the queue

        self._until(is_over, seconds)
        return self.states(job)

    def _start(self, command: list[str]) -> None:
        daemon = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._daemons.append(daemon)

    def _until(self, is_true, seconds: float = 60) -> None:
        def logs() -> dict[str, str]:
            return {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}

        until(is_true, seconds, logs)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
