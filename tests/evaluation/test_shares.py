"""How workers are spread over nodes, worked by hand."""

from __future__ import annotations

import pytest

from clipeval.evaluation.shares import Node, largest, node_of, share, spread


def node(name: str, cores: float, gpus: float = 0) -> Node:
    return Node(name, f"{name} (10.0.0.1)", cores, gpus)


SMALL, LARGE, HEAD = node("small", 1), node("large", 2), node("head", 0)


@pytest.mark.parametrize(
    ("workers", "expected", "cores"),
    [
        (None, {"small": 1, "large": 2}, {"small": 1, "large": 1}),
        (0, {"small": 1, "large": 2}, {"small": 1, "large": 1}),
        (1, {"large": 1}, {"large": 2}),  # a third of the cluster's cores, 1.5 of each node's, would fit neither
        (3, {"small": 1, "large": 2}, {"small": 1, "large": 1}),
        (6, {"small": 2, "large": 4}, {"small": 0.5, "large": 0.5}),
    ],
)
def test_cores(workers, expected, cores):
    nodes = {found.id: found for found in (HEAD, SMALL, LARGE)}
    counts = spread(nodes.values(), workers, on_gpu=False)
    assert counts == expected
    assert {name: share(nodes[name], count, False)["num_cpus"] for name, count in counts.items()} == cores
    for name, count in counts.items():
        assert count * share(nodes[name], count, False)["num_cpus"] <= nodes[name].cores


def test_gpus_are_all_used_whatever_the_number_of_workers_and_cores():
    """A node of 2 cores and 2 GPUs beside a head of one core: shares of the whole cluster would leave a GPU idle."""
    nodes = [node("head", 1), node("gpu", 2, gpus=2)]
    for workers in (None, 2, 4, 7):
        assert spread(nodes, workers, on_gpu=True) == {"gpu": 2}, "no GPU is shared: the others are asked for"
    assert spread(nodes, 1, on_gpu=True) == {"gpu": 1}
    assert share(nodes[1], 2, True) == {"num_cpus": 1.0, "num_gpus": 1.0}
    assert share(node("thin", 2, gpus=4), 4, True)["num_cpus"] == 0, "rather none than a GPU without a worker"
    assert share(node("fat", 64, gpus=8), 8, True) == {"num_cpus": 8.0, "num_gpus": 1.0}


def test_unequal_nodes_each_give_their_own_share():
    nodes = [node("a", 64, gpus=8), node("b", 8, gpus=2)]
    assert spread(nodes, None, True) == {"a": 8, "b": 2}
    assert spread(nodes, 5, True) == {"a": 4, "b": 1}
    assert share(nodes[1], 2, True) == {"num_cpus": 4.0, "num_gpus": 1.0}
    assert spread([HEAD], None, False) == {}
    assert spread([HEAD], 3, True) == {}
    assert spread([HEAD], 3, False) == {}


def test_a_node_as_ray_describes_it():
    found = {"NodeID": "f00", "NodeManagerHostname": "gpu1", "NodeManagerAddress": "10.0.0.7"}
    known = node_of(found | {"Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}})
    assert known == Node("f00", "gpu1 (10.0.0.7)", 8.0, 2.0)
    assert node_of(found | {"Resources": {}}) == Node("f00", "gpu1 (10.0.0.7)", 0.0, 0.0)
    assert largest([SMALL, known]) == "gpu1 (10.0.0.7) with 8 cores and 2 GPUs"
    assert largest([]) == "none"
