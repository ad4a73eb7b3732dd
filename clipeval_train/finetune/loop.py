"""``clipeval-train finetune``: from a configuration to a checkpoint that ``clipeval run`` evaluates."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clipeval import config as configuration
from clipeval import machine, models
from clipeval.console import say
from clipeval.errors import DataError, ModelError, UsageError
from clipeval.models import Encoder
from clipeval.models.checkpoint import Checkpoint
from clipeval.models.encoder import OpenClipEncoder
from clipeval.tasks.base import TaskResult
from clipeval_train import checkpoint
from clipeval_train.distributed import World
from clipeval_train.finetune import data, heads
from clipeval_train.finetune.config import FinetuneConfig, Recipe, check_length
from clipeval_train.finetune.data import LabelledSet
from clipeval_train.finetune.heads import Head
from clipeval_train.finetune.tuner import Finetuner
from clipeval_train.lineage import lineage, one_checkpoint
from clipeval_train.log import TrainingLog
from clipeval_train.signals import StopSignals
from clipeval_train.together import together

_FREE_KEYS = {"out", "resume", "save_every", "eval_every", "workers", "device"}
"""Settings that may change between the parts of a run: they do not decide what is learnt."""


def finetune(config: FinetuneConfig) -> Path:
    """Train to the end and return the last checkpoint's path; an unfinished run goes on from its newest checkpoint.

    On the CPU the parts of an interrupted run give the same weights, bit for bit, as one that was never interrupted.
    Under ``torchrun`` every process takes its share of each batch. Raises UsageError for settings that cannot be
    trained or differ from those of the run in ``out``, DataError, ModelError, StoreError, and MeasureError when the
    loss is no longer finite.
    """
    with together(config, Path(config.out), config.device) as world:
        return _finetune(config, world)


def _finetune(config: FinetuneConfig, world: World) -> Path:
    out = Path(config.out)
    if config.batch_size % world.size:
        raise UsageError(f"batch_size: {config.batch_size} images cannot be shared equally by {world.size} processes.")
    saved = _saved(out, config)
    if saved and saved["resume"] is None:
        if world.is_main:
            say(f"{out}: already finished.")
        return checkpoint.newest(out) or out
    start = models.open_trainable(one_checkpoint(config.model, "model"))
    encoder = models.load_trainable(start, device=str(world.device), precision=config.precision)
    if encoder.device == "cpu":
        machine.set_threads(encoder.info.gmacs_image)
    workers = machine.workers_per_rank() if config.workers is None else config.workers
    sets = data.open_sets(config.data, configuration.load(), config.hold_out)
    if saved:
        _check_unchanged(out, saved, encoder, sets)
        classifiers = [Head.restored(saved["heads"][dataset.name]) for dataset in sets]
    else:
        classifiers = [heads.initial(encoder, dataset, config, config.seed, workers) for dataset in sets]
    iterations = iterations_of(config, sets)
    tuner = Finetuner(
        encoder, classifiers, config, iterations, seed=config.seed, precision=config.precision, world=world
    )
    run = _Run(config, start, encoder, sets, tuner, iterations, world, workers)
    if saved:
        run.go_on_from(saved)
    return run.to_the_end()


@dataclass
class _Run:
    """A fine-tuning run with its log, evaluations and checkpoints."""

    config: FinetuneConfig
    start: Checkpoint
    encoder: OpenClipEncoder
    sets: list[LabelledSet]
    tuner: Finetuner
    iterations: int
    world: World
    workers: int
    seconds: float = 0.0
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def _out(self) -> Path:
        return Path(self.config.out)

    def go_on_from(self, saved: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.tuner.load_state(saved["resume"])
        self.seconds = saved["metadata"]["seconds"]
        self.evaluations = saved["metadata"]["evaluations"]
        if self.world.is_main:
            say(f"{self._out}: continues at iteration {self.tuner.iteration:,} of {self.iterations:,}.")

    def to_the_end(self) -> Path:
        """The path of the last checkpoint."""
        config, tuner, size = self.config, self.tuner, self.config.batch_size
        batches = training_batches(self.encoder, self.sets, tuner.heads, config, config.seed, self.world)
        loaded = data.load(batches, tuner.iteration, self.iterations, self.workers, self.world.device)
        with self._log() as log, StopSignals() as stop:
            if tuner.iteration == 0:
                self._evaluate()
            for task, images, columns in loaded:
                lr = tuner.lr
                loss = tuner.step(task, images, columns)
                if log:
                    log.step(size, loss, lr, tuner.heads[task].scale)
                    self.seconds = log.seconds
                done, stopped = tuner.iteration == self.iterations, not self.world.all_true(not stop.received)
                if done or _is_multiple(tuner.iteration, config.eval_every):
                    self._evaluate()
                if done or stopped or _is_multiple(tuner.iteration, config.save_every):
                    self._save(last=done)
                if stopped and not done:
                    raise KeyboardInterrupt
        return self._path()

    def _log(self) -> AbstractContextManager[TrainingLog | None]:
        if not self.world.is_main:
            return nullcontext()
        size = self.config.batch_size
        return TrainingLog(self._out, self.iterations * size, self.tuner.iteration * size, self.seconds)

    def _evaluate(self) -> None:
        for dataset, result in zip(self.sets, self.tuner.evaluate(self.sets, self.workers), strict=True):
            values = {metric.name: metric.value for metric in result.metrics}
            where = {"iteration": self.tuner.iteration, "dataset": dataset.name, "split": dataset.test.split}
            self.evaluations.append(where | values | {"n": len(dataset.test)})
            if self.world.is_main:
                say(f"{self._out}: iteration {self.tuner.iteration:,}: {dataset.name} acc1 {values['acc1']:.4f}")

    def _path(self) -> Path:
        return self._out / "checkpoints" / f"iteration_{self.tuner.iteration:08d}.pt"

    def _save(self, last: bool) -> None:
        if not self.world.is_main:
            return
        resume = None if last else self.tuner.state()
        with self.tuner.averaged():
            content = {
                "arch": self.encoder.info.arch,
                "model_cfg": self.start.description.model_cfg,
                "preprocess_cfg": self.start.description.preprocess_cfg,
                "state_dict": {name: tensor.cpu() for name, tensor in self.encoder.model.state_dict().items()},
                "heads": {one.name: head.content() for one, head in zip(self.sets, self.tuner.heads, strict=True)},
                "metadata": self._metadata(),
                "resume": resume,
            }
            checkpoint.write(self._out, self._path(), content)

    def _metadata(self) -> dict[str, Any]:
        names = ", ".join(dataset.name for dataset in self.sets)
        return lineage(self.encoder.info, "finetune", f"fine-tuned on {names}") | {
            "seed": self.config.seed,
            "config": self.config.model_dump(mode="json"),
            "iteration": self.tuner.iteration,
            "seconds": self.seconds,
            "data": _fingerprints(self.sets),
            "evaluations": self.evaluations,
        }


def iterations_of(recipe: Recipe, sets: list[LabelledSet]) -> int:
    """The length of a run: ``iterations``, or ``epochs`` over all training images together, rounded up.

    Raises UsageError when warm-up and cooldown do not fit into it.
    """
    images = sum(len(dataset.train) for dataset in sets)
    iterations = recipe.iterations or math.ceil((recipe.epochs or 0) * images / recipe.batch_size)
    check_length(recipe, iterations, f"{recipe.epochs:g} epochs of {images:,} images" if recipe.epochs else "the run")
    return iterations


def training_batches(
    encoder: OpenClipEncoder, sets: list[LabelledSet], classifiers: list[Head], recipe: Recipe, seed: int, world: World
) -> data.Batches:
    """The batches of a run, as this process sees them."""
    train = [
        (dataset.train, head.columns(data.labels_of(dataset.train)))
        for dataset, head in zip(sets, classifiers, strict=True)
    ]
    return data.Batches(train, encoder.preprocessing, recipe, seed, world.rank, world.size)


def finetune_copy(
    encoder: Encoder, dataset: LabelledSet, recipe: Recipe, *, seed: int, workers: int
) -> tuple[TaskResult, TaskResult]:
    """Fine-tune a copy of a loaded checkpoint on one data set, in this process, and keep nothing.

    Returns the accuracies on ``dataset.test`` before and after. Raises MeasureError, or UsageError when the recipe does
    not fit the model.
    """
    if not isinstance(encoder, OpenClipEncoder):
        raise ModelError(f"{encoder.info.model}: only models of open_clip can be fine-tuned.")
    encoder = encoder.with_own_model()
    world = World(0, 1, 0, torch.device(encoder.device))
    head = heads.initial(encoder, dataset, recipe, seed, workers)
    iterations = iterations_of(recipe, [dataset])
    precision = encoder.precision
    tuner = Finetuner(encoder, [head], recipe, iterations, seed=seed, precision=precision, world=world)
    [before] = tuner.evaluate([dataset], workers)
    batches = training_batches(encoder, [dataset], tuner.heads, recipe, seed, world)
    for task, images, columns in data.load(batches, 0, iterations, workers, world.device):
        tuner.step(task, images, columns)
    [after] = tuner.evaluate([dataset], workers)
    return before, after


def _saved(out: Path, config: FinetuneConfig) -> dict[str, Any] | None:
    """The newest checkpoint in ``out``, or None. Raises UsageError when it is of a run with other settings."""
    path = checkpoint.newest(out)
    if path is None:
        return None
    saved = checkpoint.load(path)
    theirs = saved["metadata"].get("config", {})
    for key, mine in config.model_dump(mode="json").items():
        if key not in _FREE_KEYS and mine != theirs.get(key):
            raise UsageError(
                f"{out}: holds a run with {key}: {theirs.get(key)!r:.80}, and this one says {mine!r:.80}. "
                "Give another `out`, or the settings of that run to continue it."
            )
    return saved


def _check_unchanged(out: Path, saved: dict[str, Any], encoder: OpenClipEncoder, sets: list[LabelledSet]) -> None:
    if saved["metadata"]["init_sha256"] != encoder.info.checkpoint_sha256:
        raise DataError(f"{out}: the checkpoint '{encoder.info.model}' has changed since this run began.")
    if saved["metadata"]["data"] != _fingerprints(sets):
        raise DataError(f"{out}: the data has changed since this run began. Give another `out`.")


def _fingerprints(sets: list[LabelledSet]) -> dict[str, str]:
    return {dataset.name: f"{dataset.train.fingerprint}:{len(dataset.train)}" for dataset in sets}


def _is_multiple(iteration: int, every: int | None) -> bool:
    return every is not None and iteration % every == 0
