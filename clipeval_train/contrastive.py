"""Pre-training as a task of the loop: both towers, on image-text pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from clipeval.machine import set_threads
from clipeval.models import zoo
from clipeval.results import provenance
from clipeval_train import evaluation, optim
from clipeval_train.config import PretrainConfig, passes
from clipeval_train.distributed import World
from clipeval_train.initial import Initial
from clipeval_train.input import Batch, open_corpus
from clipeval_train.resume import Start
from clipeval_train.schedule import learning_rate
from clipeval_train.step import ContrastiveStep
from clipeval_train.task import Trained
from clipeval_train.validation import Validation


class ContrastiveTask:
    """``Task`` for a pre-training configuration. Raises UsageError for what it names, ModelError."""

    facts: dict[str, Any]

    def __init__(self, config: PretrainConfig) -> None:
        self.config, self.samples = config, config.samples
        self._initial = Initial(config)
        self._architecture = self._initial.architecture
        if config.evaluate:
            evaluation.check(config.evaluate)

    def open(self, config: PretrainConfig, world: World, start: Start | None) -> None:
        """The data is opened after the model has been built."""
        self.config, self._world = config, world
        self._build()
        self._corpus = corpus = open_corpus(config, self._architecture)
        source = "+".join(dict.fromkeys(entry.source for entry in config.data))
        self.facts = {
            "source": source,
            "source_family": zoo.family(source),
            "mixture": corpus.shares,
            "unique_samples": len(corpus),
            "filtered": corpus.filtered,
            "bad_samples": corpus.left_out,
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            "data_fingerprint": corpus.fingerprint,
            "from_scratch_filter": "",
            **provenance.columns(),
            **self._initial.facts,
        }
        if start:
            start.require_same("the data", "data_fingerprint", self.facts)
            start.require_same(f"init: '{config.init}'", "init_sha256", self.facts)
            reasons = "; ".join(filter(None, (self.facts["from_scratch_filter"], start.remark)))
            self.facts |= {"history": start.history, "from_scratch_filter": reasons}
        self._validation = Validation(config, config.validate, self._architecture, world) if config.validate else None

    def _build(self) -> None:
        config, world = self.config, self._world
        clip = self._initial.build().to(world.device)
        self.gmacs = self._architecture.profile.gmacs
        if world.device.type == "cpu":
            set_threads(self._architecture.profile.gmacs_image)
        self.step = ContrastiveStep(
            clip,
            world,
            loss=config.loss,
            precision=config.precision,
            micro_batch=config.micro_batch,
            tile=config.tile,
            checkpointing=config.activation_checkpointing,
            compile=config.compile,
            normalise=self._architecture.mean_and_std,
        )
        groups = optim.decay_groups(clip.parameters(), config.weight_decay)
        self.optimizer: torch.optim.Optimizer = optim.adamw(groups, config.lr, config.betas, config.eps)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Those of the corpus."""
        return self._corpus.batches(start, stop, self.config.batch_size, self._world.rank, self._world.size)

    def learning_rate(self, clock: float) -> float:
        """The configured one."""
        return learning_rate(clock, self.config)

    def is_asked_for(self, start: int, stop: int) -> bool:
        """By ``save_every``, and for every evaluation and validation."""
        entries = self.config.evaluate, self.config.validate
        every = [self.config.save_every, *(entry.every for entry in entries if entry)]
        return stop == self.samples or any(passes(start, stop, one) for one in every)

    is_due = is_asked_for

    def measure(self, trained: Trained, start: int, stop: int, file: Callable[[], Path | None]) -> None:
        """The loss on held-out pairs, and what ``clipeval run`` finds; the last of the latter comes in ``end``."""
        config, last = self.config, stop == self.samples
        validated = config.validate and (last or passes(start, stop, config.validate.every))
        evaluated = config.evaluate and not last and passes(start, stop, config.evaluate.every)
        if (validated or evaluated) and (path := file()):
            if self._validation and validated:
                self._validation.measure(trained, path)
            if config.evaluate and evaluated:
                evaluation.evaluate(config.evaluate, path, Path(config.out), self._world)

    def content(self, seen: int, average: dict[str, torch.Tensor] | None) -> dict[str, Any]:
        """What the rate has not fallen to zero for is marked as no point of a scaling law."""
        config, architecture = self.config, self._architecture
        at_zero, decays = learning_rate(seen, config) == 0, config.schedule == "cosine" or config.cooldown > 0
        mark = "" if at_zero else "learning rate not yet 0" if decays else "constant learning rate"
        marks = "; ".join(filter(None, (self.facts["from_scratch_filter"], mark)))
        return {
            "arch": architecture.name,
            "model_cfg": architecture.config,
            **({"preprocess_cfg": architecture.preprocess_cfg} if architecture.preprocess_cfg else {}),
            "state_dict": self.step.module.state_dict(),
            "ema": average,
            "metadata": {"samples_seen": seen, "from_scratch_filter": marks},
            "resume": None if seen == self.samples and at_zero else {},
        }

    def load(self, saved: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """Both towers, and the average that lies beside them."""
        self.step.module.load_state_dict(saved["state_dict"])
        average: dict[str, torch.Tensor] | None = saved["ema"]
        return average

    def end(self, config: PretrainConfig, path: Path, world: World) -> None:
        """The last evaluation."""
        if config.evaluate:
            evaluation.evaluate(config.evaluate, path, Path(config.out), world)
