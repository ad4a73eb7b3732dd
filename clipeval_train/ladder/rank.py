"""One of the processes that train a run, in an actor of a Ray cluster."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

from clipeval.evaluation.crew import Machine
from clipeval.evaluation.environment import take_over
from clipeval_train.ladder import ranks


class Rank:
    """Imported on its node before the driver's environment is handed over."""

    def begin(self, environment: dict[str, str], search: list[str], folder: str) -> tuple[str, Machine]:
        """The id of its node, and what this machine has of what decides values. Relative paths start at ``folder``."""
        import ray

        from clipeval.results import provenance

        take_over(environment)
        sys.path += [path for path in search if path not in sys.path]
        with suppress(OSError):  # the run's own files are then missing, which it says
            os.chdir(folder)
        machine = Machine(socket.gethostname(), provenance.sources(), provenance.packages())
        return ray.get_runtime_context().get_node_id(), machine

    def meeting_point(self) -> tuple[str, int]:
        """Where the others find this process, if it is the first."""
        import ray

        address = ray.util.get_node_ip_address()
        return address, ranks.free_port(address)

    def train(self, file: str, log: str, variables: dict[str, str], on_gpu: bool) -> int:
        """The exit code of ``clipeval-train pretrain``; what it prints is appended to ``log``."""
        os.environ |= variables
        if not on_gpu:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        with open(log, "ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        from clipeval_train.ladder import child

        try:
            child.pretrain(file)
        except SystemExit as end:
            return int(end.code or 0)
        return 0
