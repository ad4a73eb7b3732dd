"""How workers are spread over the nodes of a cluster, and what each asks of its node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its id, its name for people, and what it has."""

    id: str
    where: str
    cores: float
    gpus: float

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.where} with {self.cores:g} cores and {self.gpus:g} GPUs"


def node_of(found: dict[str, Any]) -> Node:
    """A node as ``ray.nodes()`` describes it."""
    has = found["Resources"]
    where = f"{found['NodeManagerHostname']} ({found['NodeManagerAddress']})"
    return Node(found["NodeID"], where, has.get("CPU", 0.0), has.get("GPU", 0.0))


def spread(nodes: Collection[Node], workers: int | None, on_gpu: bool) -> dict[str, int]:
    """How many workers each node takes, by its id: one per GPU, or per core.

    Where a number is asked for, each worker in turn goes to where it gets most. More than there are cores share them;
    a GPU is shared by none.
    """
    sizes = {node.id: float(int(node.gpus)) if on_gpu else node.cores for node in nodes}
    sizes = {name: size for name, size in sizes.items() if size > 0}
    if not workers or (on_gpu and workers >= sum(sizes.values())):
        return {name: max(int(size), 1) for name, size in sizes.items()}
    counts = dict.fromkeys(sizes, 0)
    for _ in range(workers if sizes else 0):
        counts[max(sizes, key=lambda name: sizes[name] / (counts[name] + 1))] += 1
    return {name: count for name, count in counts.items() if count}


def share(node: Node, workers: int, on_gpu: bool) -> dict[str, float]:
    """What each of a node's workers asks of it: whole cores where there are enough. On a GPU a worker runs without a
    core of its own where they are not."""
    cores = node.cores / workers
    cores = float(int(cores)) if cores >= 1 or on_gpu else cores
    return {"num_cpus": cores, "num_gpus": 1.0 if on_gpu else 0.0}


def largest(nodes: Sequence[Node]) -> str:
    """The node that has most, for messages."""
    return max(nodes, key=lambda node: (node.gpus, node.cores)).label if nodes else "none"
