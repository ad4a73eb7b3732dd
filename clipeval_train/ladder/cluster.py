"""Training the runs of a ladder on a Ray cluster, each process on a GPU of its own, or on a core without GPUs.

The plan's folder and its data lie on a file system that all machines share. The processes of a run are placed together:
on one node where one is large enough, else on as few as possible. A run whose node is lost begins again from its newest
checkpoint, and a node with other code gets none.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipeval.console import say
from clipeval.errors import EXIT_NOT_MEASURED, counted, few
from clipeval.evaluation.dispatch import difference
from clipeval.evaluation.environment import handed_over
from clipeval.evaluation.ray import cluster, reason_of
from clipeval.evaluation.shares import Node, largest, node_of
from clipeval.files import write_text
from clipeval_train.ladder import outcomes, ranks
from clipeval_train.ladder.outcomes import Outcome, Outcomes
from clipeval_train.ladder.rank import Rank
from clipeval_train.ladder.runs import Run
from clipeval_train.ladder.waiting import Waiting

_RETRIES = 3
_FIRST_WORD_SECONDS, _NEXT_WORD_SECONDS = 5.0, 60.0
_SECONDS_TO_NOTICE = 30.0
"""Until Ray has noticed that a node is lost whose process the others miss."""


def train_on_cluster(runs: Sequence[Run], address: str) -> list[Outcome]:
    """Train ``runs`` on the cluster at ``address`` (``local``: a Ray of this machine). Raises as ``cluster`` does.

    A run that fails leaves alone the others that do not go on from it. An interrupt ends all of them and is passed on.
    """
    with cluster(address):
        return _Cluster(runs).train()


class _Cluster:
    """The runs on the connected cluster, each followed by a thread of its own."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._waiting = Waiting(runs)
        self._outcomes = Outcomes(len(runs))
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._unplaced: dict[str, Run] = {}
        self._closed: dict[str, str] = {}
        """Nodes that get no work, and why."""
        self._on_gpu = any(node.gpus >= 1 for node in self._nodes())

    def train(self) -> list[Outcome]:
        """Until all have ended."""
        if not self._on_gpu:
            say("No node of the cluster has a GPU now: each process trains on a core.")
        running, patience = 0, _FIRST_WORD_SECONDS
        while self._waiting or running:
            while run := self._waiting.take(sys.maxsize):  # Ray knows what there is room for
                threading.Thread(target=self._follow, args=(run,), daemon=True).start()
                running += 1
            try:
                outcome = self._ended.get(timeout=patience)
            except queue.Empty:
                self._say_what_waits()
                patience = _NEXT_WORD_SECONDS
                continue
            running -= 1
            self._outcomes.add(self._waiting, outcome)
        return self._outcomes.all

    def _nodes(self) -> list[Node]:
        import ray

        return [node_of(found) for found in ray.nodes() if found["Alive"]]

    def _say_what_waits(self) -> None:
        waiting = list(self._unplaced.values())
        if waiting:
            asked = few([f"{run.name} for {counted(run.processes, self._unit)}" for run in waiting], 3)
            say(f"{counted(len(waiting), 'run')} of the ladder wait for room on the cluster: {asked}.")

    @property
    def _unit(self) -> str:
        return "GPU" if self._on_gpu else "core"

    def _follow(self, run: Run) -> None:
        """In a thread: train the run, again where a node was lost under it."""
        started = time.monotonic()
        write_text(run.file, run.yaml)
        reason, lost = "", 0
        while lost <= _RETRIES:
            try:
                reason = self._attempt(run)
            except _OtherCode:
                continue
            except Exception as error:  # whatever Ray raises, in a thread that nobody joins
                lost, reason = lost + 1, reason_of(error)
                continue
            break
        self._ended.put(Outcome(run, time.monotonic() - started, reason))

    def _attempt(self, run: Run) -> str:
        """Place and train the run: why it failed, or ''. Raises what Ray raises, and _OtherCode."""
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Place

        share = {"GPU": 1.0} if self._on_gpu else {"CPU": 1.0}
        nodes = [node for node in self._nodes() if node.id not in self._closed]
        sizes = [int(node.gpus if self._on_gpu else node.cores) for node in nodes]
        if sum(sizes) < run.processes:
            why = f" Left out: {few(sorted(self._closed.values()))}." if self._closed else ""
            asked = counted(run.processes, self._unit)
            return f"takes {asked}, and the cluster has {sum(sizes)}; the largest node is {largest(nodes)}.{why}"
        more: dict[str, Any] = {}
        if self._closed:
            more["bundle_label_selector"] = [{"ray.io/node-id": f"!in({','.join(self._closed)})"}] * run.processes
        strategy = "STRICT_PACK" if max(sizes) >= run.processes else "PACK"
        self._unplaced[run.name] = run
        group = placement_group([share] * run.processes, strategy=strategy, **more)
        try:
            ray.get(group.ready())
            del self._unplaced[run.name]
            actor: Any = ray.remote(Rank)
            asks = {"num_cpus": share.get("CPU", 0), "num_gpus": share.get("GPU", 0), "max_restarts": 0}
            places = [Place(group, placement_group_bundle_index=index) for index in range(run.processes)]
            team = [actor.options(**asks, scheduling_strategy=place).remote() for place in places]
            return self._train(run, team)
        finally:
            self._unplaced.pop(run.name, None)
            remove_placement_group(group)  # and with it its actors

    def _train(self, run: Run, team: list[Any]) -> str:
        import ray

        words = handed_over(), sys.path, str(Path.cwd())
        begun = ray.get([rank.begin.remote(*words) for rank in team])
        for node, machine in begun:
            if different := difference(machine):
                if node not in self._closed:
                    self._closed[node] = f"{machine.host}: {different}"
                    say(f"{machine.host} gets no run: {different}. Install the same there.")
                raise _OtherCode
        address, port = ray.get(team[0].meeting_point.remote())
        on_node = Counter(node for node, _ in begun)
        hosts = dict.fromkeys(machine.host for _, machine in begun)
        outcomes.begin_log(run, f"{', '.join(hosts)} (Ray)")
        training = []
        for number, (rank, (node, _)) in enumerate(zip(team, begun, strict=True)):
            # each sees its own GPU alone, which is the first for it
            told = ranks.variables(number, 0, len(team), on_node[node], address, port) if len(team) > 1 else {}
            training.append(rank.train.remote(str(run.file), str(run.log), told, self._on_gpu))
        while training:
            (ended,), training = ray.wait(training, num_returns=1)
            if code := ray.get(ended):
                if code == EXIT_NOT_MEASURED:  # perhaps as another's node is lost, which is then raised here
                    ray.get(ray.wait(training, num_returns=len(training), timeout=_SECONDS_TO_NOTICE)[0])
                return outcomes.reason_of(code, run)
        return ""


class _OtherCode(Exception):
    """A node has other code than this machine."""
