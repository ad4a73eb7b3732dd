"""A worker in an actor of a Ray cluster. Imported on its node before the driver's environment is handed over."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from clipeval.errors import ClipevalError
from clipeval.evaluation.crew import Machine
from clipeval.evaluation.environment import take_over
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import Unit
from clipeval.evaluation.worker import Piece, Worker


class RayWorker(Worker):
    """Errors are returned, as by any worker, also those of its start."""

    def node(self) -> str:
        """The id of the node that it was placed on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def begin(
        self, options: Options, environment: dict[str, str], search: list[str], folder: str
    ) -> Machine | ClipevalError:
        """``start`` with what the driver's environment hands over, and the folders where it looks for modules."""
        from clipeval.embeddings import sharing

        take_over(environment)
        sys.path += [path for path in search if path not in sys.path]
        machine = self.start(options, folder)
        if isinstance(machine, ClipevalError):
            return machine
        try:
            return replace(machine, cache=sharing.mark(options.run_token))
        except ClipevalError as error:
            return error

    def do(self, unit: Unit, pieces: list[Any], keep: bool) -> Any:
        """``work`` with pieces that lie in the cluster's object store; one that is lost is made again."""
        import ray

        given: list[Piece] = []
        for piece in pieces:
            try:
                given.append(ray.get(piece, timeout=60))
            except ray.exceptions.RayError:
                continue
        return self.work(unit, given, keep)
