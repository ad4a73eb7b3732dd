"""Fine-tuning as a task of the loop: the image tower of any checkpoint, and a classifier per data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipeval import config as configuration
from clipeval import machine, models
from clipeval.console import say
from clipeval.errors import MeasureError, ModelError
from clipeval.models import Encoder
from clipeval.models.checkpoint import Checkpoint
from clipeval.models.encoder import OpenClipEncoder
from clipeval.tasks.base import TaskResult
from clipeval_train import optim
from clipeval_train.config import passes
from clipeval_train.distributed import World
from clipeval_train.finetune import data, heads
from clipeval_train.finetune.config import FinetuneConfig, Recipe, check_length
from clipeval_train.finetune.data import LabelledSet
from clipeval_train.finetune.heads import Head
from clipeval_train.finetune.layers import parameter_groups
from clipeval_train.finetune.step import ClassificationStep
from clipeval_train.input import Batch, arranged, prefetch
from clipeval_train.lineage import lineage, model_of, one_checkpoint
from clipeval_train.loop import train
from clipeval_train.resume import Start
from clipeval_train.schedule import cosine
from clipeval_train.task import Trained
from clipeval_train.trainer import Trainer

_BETAS = (0.9, 0.999)


def finetune(config: FinetuneConfig) -> Path:
    """``train`` on labelled images."""
    return train(ClassificationTask(config))


class ClassificationTask:
    """``Task`` for a fine-tuning configuration. Its clock counts samples too: ``batch_size`` of them per iteration."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        self.facts: dict[str, Any] = {}
        self._evaluations: list[dict[str, Any]] = []

    def open(self, config: FinetuneConfig, world: World, start: Start | None) -> None:
        """Raises DataError for data sets that cannot be trained on, MeasureError for what forbids the classifier."""
        self._checkpoint: Checkpoint = models.open_trainable(one_checkpoint(config.model, "model"))
        encoder = models.load_trainable(self._checkpoint, device=str(world.device), precision=config.precision)
        if encoder.device == "cpu":
            machine.set_threads(encoder.info.gmacs_image)
        sets = data.open_sets(config.data, configuration.load(), config.hold_out)
        reason = f"fine-tuned on {', '.join(one.name for one in sets)}"
        self.facts = lineage(encoder.info, "finetune", reason) | {
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            "data": {one.name: f"{one.train.fingerprint}:{len(one.train)}" for one in sets},
        }
        saved = None
        if start:
            start.require_same(f"the checkpoint '{encoder.info.model}'", "init_sha256", self.facts)
            start.require_same("the data", "data", self.facts)
            saved = [Head.restored(start.saved["heads"][one.name]) for one in sets]
        self.prepare(config, encoder, sets, world, saved)

    def prepare(
        self,
        config: FinetuneConfig,
        encoder: OpenClipEncoder,
        sets: Sequence[LabelledSet],
        world: World,
        saved: Sequence[Head] | None = None,
    ) -> None:
        """With an encoder and data sets at hand, whose classifiers start as ``saved`` or as the recipe says."""
        self.config, self._encoder, self._sets, self._world = config, encoder, sets, world
        self._workers = machine.workers_per_rank() if config.workers is None else config.workers
        self._heads = saved or [heads.initial(encoder, one, config, config.seed, self._workers) for one in sets]
        self._iterations = iterations_of(config, sets)
        self.samples, self.gmacs = self._iterations * config.batch_size, encoder.info.gmacs_image
        self.step = ClassificationStep(encoder, self._heads, config, world)
        groups = parameter_groups(encoder.model.visual, self._heads, config.weight_decay, config.layer_decay)
        self.optimizer: torch.optim.Optimizer = optim.adamw(groups, config.lr, _BETAS)
        train = [
            (one.train, head.columns(data.labels_of(one.train))) for one, head in zip(sets, self._heads, strict=True)
        ]
        self._stream = data.LabelledStream(train, encoder.preprocessing, config, config.seed)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Data set by data set."""
        return self._stream.batches(start, stop, self._world.rank, self._world.size, self._workers)

    def learning_rate(self, clock: float) -> float:
        """Up, down along a cosine to the lowest one, and on at that."""
        recipe, total = self.config, self._iterations
        falling = total - recipe.cooldown_of(total)
        share = cosine(min(clock / recipe.batch_size, falling), falling, recipe.warmup_of(total))
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * share

    def is_asked_for(self, start: int, stop: int) -> bool:
        """By ``save_every``."""
        return stop == self.samples or self._passes(start, stop, self.config.save_every)

    def is_due(self, start: int, stop: int) -> bool:
        """A checkpoint, or an evaluation."""
        return self.is_asked_for(start, stop) or self._passes(start, stop, self.config.eval_every)

    def _passes(self, start: int, stop: int, every: int | None) -> bool:
        return every is not None and passes(start, stop, every * self.config.batch_size)

    def measure(self, trained: Trained, start: int, stop: int, file: Callable[[], Path | None]) -> None:
        """The accuracies, before the first iteration, after the last, and by ``eval_every``."""
        iteration = stop // self.config.batch_size
        due = stop in (0, self.samples) or self._passes(start, stop, self.config.eval_every)
        if not due or any(row["iteration"] == iteration for row in self._evaluations):
            return
        for one, result in zip(self._sets, self.evaluate(trained), strict=True):
            values = {metric.name: metric.value for metric in result.metrics}
            where = {"iteration": iteration, "dataset": one.name, "split": one.test.split}
            self._evaluations.append(where | values | {"n": len(one.test)})
            if self._world.is_main:
                say(f"{self.config.out}: iteration {iteration:,}: {one.name} acc1 {values['acc1']:.4f}")

    def evaluate(self, trained: Trained) -> list[TaskResult]:
        """Accuracies of each data set's scored split under its classifier, the images shared out over the processes."""
        rank, size = self._world.rank, self._world.size
        results = []
        with trained.measured():
            for head, one in zip(self._heads, self._sets, strict=True):
                n = len(one.test)
                embeddings = np.empty((n, self._encoder.embed_dim), np.float32)
                mine = heads.embed(self._encoder, one.test, np.arange(rank, n, size), self._workers)
                for place, part in enumerate(self._world.gather_objects(mine)):
                    embeddings[place::size] = part
                results.append(head.score(embeddings, one.test))
        return results

    def content(self, seen: int, average: dict[str, torch.Tensor] | None) -> dict[str, Any]:
        """The weights that count: averaged ones where there are any. Those to go on from lie in ``resume`` then."""
        trained = self.step.module.state_dict()
        counting, model = average or trained, self._encoder.model.state_dict()
        tower = {name.replace("tower.", "visual.", 1): tensor for name, tensor in counting.items()}
        by_name = {
            one.name: head.content(counting[f"heads.{number}.weight"], counting[f"heads.{number}.bias"])
            for number, (one, head) in enumerate(zip(self._sets, self._heads, strict=True))
        }
        unknown = {"gpu_hours": None, "energy_kwh": None}  # of the base and this together
        iteration = {"iteration": seen // self.config.batch_size}
        return {
            **model_of(self._checkpoint),
            "state_dict": {name: tower.get(name, tensor) for name, tensor in model.items()},
            "heads": by_name,
            "metadata": {**iteration, **unknown, "evaluations": self._evaluations},
            "resume": None if seen == self.samples else {**iteration, "trained": trained, "ema": average},
        }

    def load(self, saved: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """The tower and the classifiers as they are trained."""
        resume = saved["resume"]
        resume.setdefault("clock", {"seen": resume["iteration"] * self.config.batch_size})  # of earlier versions
        resume.setdefault("rng", [])
        self.step.module.load_state_dict(resume["trained"])
        self._evaluations = saved["metadata"]["evaluations"]
        average: dict[str, torch.Tensor] | None = resume["ema"]
        return average

    def end(self, config: FinetuneConfig, path: Path, world: World) -> None:
        """The last evaluation is in the checkpoint."""


def iterations_of(recipe: Recipe, sets: Sequence[LabelledSet]) -> int:
    """The length of a run: ``iterations``, or ``epochs`` over all training images together, rounded up.

    Raises UsageError when warm-up and cooldown do not fit into it.
    """
    images = sum(len(dataset.train) for dataset in sets)
    iterations = recipe.iterations or math.ceil((recipe.epochs or 0) * images / recipe.batch_size)
    check_length(recipe, iterations, f"{recipe.epochs:g} epochs of {images:,} images" if recipe.epochs else "the run")
    return iterations


def finetune_copy(
    encoder: Encoder, dataset: LabelledSet, recipe: Recipe, *, seed: int, workers: int
) -> tuple[TaskResult, TaskResult]:
    """Fine-tune a copy of a loaded checkpoint on one data set, in this process, and keep nothing.

    Returns the accuracies on ``dataset.test`` before and after. Raises MeasureError, or UsageError when the recipe does
    not fit the model.
    """
    if not isinstance(encoder, OpenClipEncoder):
        raise ModelError(f"{encoder.info.model}: only models of open_clip can be fine-tuned.")
    device, here = torch.device(encoder.device), {"seed": seed, "workers": workers, "precision": encoder.precision}
    config = FinetuneConfig.model_construct(**dict(recipe) | here)
    task, world = ClassificationTask(config), World(0, 1, 0, device)
    task.prepare(config, encoder.with_own_model(), [dataset], world)
    trainer = Trainer(task, world)
    [before] = task.evaluate(trainer)
    for batch, images, columns in prefetch(arranged(task.batches(0, task.samples), task.step.arrange), device):
        lr = task.learning_rate((batch.start + batch.stop) / 2)
        loss, norm, _ = trainer.update(*trainer.gradient(images, columns), lr, batch.stop).read()
        if trainer.is_broken(loss, norm):
            raise MeasureError(
                f"loss {loss}, gradient norm {norm} after {batch.start:,} samples. Lower lr, or raise warmup."
            )
    [after] = task.evaluate(trainer)
    return before, after
