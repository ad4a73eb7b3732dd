"""What a run is asked for, validated once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipeval import choices, machine
from clipeval import precision as precisions
from clipeval.config import Config
from clipeval.embeddings import room
from clipeval.errors import UsageError
from clipeval.models.compiling import require_compiler
from clipeval.remote.origin import is_offline

_TOO_LARGE = 2**32


def batch(word: int | str) -> dict[str, Any]:
    """``Options`` of a batch size: a number, or ``auto``. Raises UsageError for another word."""
    if word == "auto":
        return {"batch_auto": True}
    try:
        return {"batch_size": int(word)}
    except ValueError:
        raise UsageError(f"--batch-size {word}: expected a number of images, or auto.") from None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run; none of it says what to run. ``auto`` and None are filled in from this machine, or by Ray's workers
    from theirs. Raises UsageError for a value that means nothing."""

    out: Path
    limit: int | None = None
    seed: int = 0
    shots: Sequence[int | None] | None = None
    """Shots of few-shot tasks; None inside means the full training set. None: what the configuration says."""
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int = 64
    """Images per forward pass, of texts as many tokens; slices of images are multiples of it."""
    batch_auto: bool = False
    """Whether ``batch_size`` is what a CPU takes, and a GPU what it has room for."""
    compile: bool = False
    """Whether torch.compile makes code of the towers."""
    workers: int | None = None
    """Image decoding processes; of a Ray run the workers, 0 for as many as the cluster has GPUs or cores; of
    ``processes`` on a CPU the workers too."""
    rerun: str = "missing"
    offline: bool = False
    """Whether nothing is fetched; so it is too where HF_HUB_OFFLINE says so."""
    keep_weights: bool = True
    """Whether weights that this run has fetched stay on this machine after their last cell."""
    allow_python: bool = False
    """Whether the configuration, and not the command line alone, may name functions as models."""
    executor: str | None = None
    """None: ``processes`` where the machine has several GPUs, and none of them is chosen, else ``local``."""
    uses_one_gpu_of_several: bool = field(default=False, init=False)
    """Whether ``keep_weights`` is why this is no run of ``processes``."""
    ray_address: str | None = None
    run_token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tells this run from all others."""

    def __post_init__(self) -> None:
        if self.limit is not None and not 1 <= self.limit < _TOO_LARGE:
            raise UsageError(f"--limit {self.limit}: expected a number of samples of at least 1.")
        if not 0 <= self.seed < _TOO_LARGE:
            raise UsageError(f"--seed {self.seed}: expected a number from 0 to {_TOO_LARGE - 1}.")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: expected at least 1.")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers {self.workers}: expected at least 0.")
        if self.shots is not None and any(k is not None and not 1 <= k < _TOO_LARGE for k in self.shots):
            raise UsageError("--shots: expected numbers of images per class of at least 1, or 'full'.")
        choices.require("--precision", self.precision, choices.Precision)
        choices.require("--rerun", self.rerun, choices.Rerun)
        if self.executor is not None:
            choices.require("--executor", self.executor, choices.Executor)
        if self.ray_address and self.executor != "ray":
            raise UsageError(f"--ray-address {self.ray_address}: only --executor ray joins a cluster.")
        if not self.keep_weights and self.executor in ("processes", "ray"):
            raise UsageError(
                f"--keep-weights no: the workers of --executor {self.executor} share what one of them has fetched. "
                "Use --executor local."
            )
        room.limit()
        self._fill("offline", self.offline or is_offline())
        if self.executor in ("processes", "ray") and self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--device {self.device}: --executor {self.executor} has a GPU for each worker. Give cuda, cpu or auto."
            )
        if self.executor != "ray":
            self._fill("device", machine.resolve_device(self.device))
            several = self.executor is None and self.device == "cuda" and len(machine.gpus()) > 1
            self._fill("uses_one_gpu_of_several", several and not self.keep_weights)
            self._fill("executor", self.executor or ("processes" if several and self.keep_weights else "local"))
            if refusal := precisions.refusal(self.precision, self.device):
                raise UsageError(f"--precision {self.precision} {refusal}")
            if self.compile:
                require_compiler(self.device)
        if self.executor == "local":
            self._fill("workers", machine.default_workers() if self.workers is None else self.workers)

    def _fill(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def decoders(self) -> int:
        """Image decoding processes beside this one."""
        return self.workers or 0

    @property
    def fresh(self) -> str | None:
        """The token of a run that takes nothing from the cache that was there before it; None: all of it is good."""
        return self.run_token if self.rerun == "always" else None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to run and how: the words of the command line, and the configuration that explains them."""

    config: Config
    options: Options
    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    tasks: Sequence[str] = ()
    prompts: str | None = None
    """The prompt set of all classification sets: a name, or the path of a file. None: of each its own."""
