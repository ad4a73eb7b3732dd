"""The training loop: what trains a task from its beginning, or from where it was, to its end."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipeval.console import say
from clipeval.errors import MeasureError, UsageError
from clipeval_train import checkpoint, signals
from clipeval_train.config import PretrainConfig
from clipeval_train.contrastive import ContrastiveTask
from clipeval_train.distributed import World
from clipeval_train.finetune.config import FinetuneConfig
from clipeval_train.input import Batch, arranged, prefetch
from clipeval_train.log import TrainingLog, due, last_costs, open_exporters
from clipeval_train.meter import Meter
from clipeval_train.resume import other_settings, starting_point
from clipeval_train.task import Task
from clipeval_train.together import require_same_data, together
from clipeval_train.trainer import Reading, Trainer

_MOST_ROLLBACKS = 5
_KEPT = 3
"""Checkpoints that stay of those that nobody asked for."""


def pretrain(config: PretrainConfig) -> Path:
    """``train`` on image-text pairs."""
    return train(ContrastiveTask(config))


def train(task: Task) -> Path:
    """Train to the end and return the last checkpoint's path; an unfinished run goes on from its newest checkpoint.

    On the CPU the parts of an interrupted run give the same weights, bit for bit, as one that was never interrupted.
    SIGTERM and SIGINT end it with KeyboardInterrupt, after the step at hand and a checkpoint. Raises UsageError for
    settings that cannot be trained or differ from those of the run in ``out``, DataError for data that is missing or
    has changed, ModelError, MeasureError when loss or gradient are no longer finite, StoreError for ``out``.
    """
    out = Path(task.config.out)
    with together(task.config, out, task.config.device) as world:
        config = task.config.on(world.device.type)
        start = starting_point(config, world.broadcast(checkpoint.newest(out)))
        if start and config.is_done(start.saved):
            _say(world, f"{out}: already finished.")
        else:
            _check_divisible(config, start.saved["metadata"]["samples_seen"] if start else 0, world)
            task.open(config, world, start)
            require_same_data(world, task.facts)
            trainer = Trainer(task, world)
            if start:
                trainer.load(start.saved)
                _say(world, f"{out}: continues at {trainer.clock.seen:,} of {task.samples:,} samples.")
            costs = (start.saved["metadata"] if start else task.facts) | last_costs(out)
            _Run(task, trainer, world, Meter(world, task.gmacs, config.peak_tflops, costs)).to_the_end()
        path = world.broadcast(checkpoint.newest(out))  # a network disk may show it to others later
        assert path is not None
        task.end(config, path, world)
    return path


@dataclass(frozen=True)
class _Step:
    """A step that is on its way: samples (start, stop], read up to the stream position ``past``."""

    start: int
    stop: int
    past: int
    lr: float
    reading: Reading


class _Run:
    """A run from the trainer's clock to its end. All ranks take the same steps and the same decisions.

    What a step has come to is read one step later, so that the device has work meanwhile; and at once before a
    checkpoint or a measurement, which therefore never holds what comes of a broken step.
    """

    def __init__(self, task: Task, trainer: Trainer, world: World, meter: Meter) -> None:
        self._task, self._trainer, self._world, self._meter = task, trainer, world, meter
        self._config, self._out = task.config, Path(task.config.out)
        self._log: TrainingLog | None = None

    def to_the_end(self) -> None:
        """Raises KeyboardInterrupt, when a signal comes, with everything saved."""
        config, clock, world, samples = self._config, self._trainer.clock, self._world, self._task.samples
        begun = clock.seen
        with ExitStack() as stack:
            keep = (config.keep,) if config.keep else (_KEPT, functools.partial(_stays, self._task))
            self._saver = stack.enter_context(checkpoint.Saver(*keep))
            self._log = stack.enter_context(self._open_log()) if world.is_main else None
            received = stack.enter_context(signals.noted())
            self._catch_up()
            batches = self._batches()
            self._saved_at = time.monotonic()
            last: _Step | None = None
            while (clock := self._trainer.clock).seen < samples:
                batch, images, tokens = next(batches)
                self._meter.batch(batch.wait_s, batch.bad)
                stopping, late = self._agreed(bool(received), self._is_late(), len(batch.keys))
                if stopping:
                    break
                step = self._step(images, tokens)
                needed = late or self._task.is_due(step.start, step.stop)
                broken = self._first_broken([last, step] if needed else [last])
                last = None if needed else step
                if broken:
                    self._roll_back(*broken)
                    batches, last = self._batches(), None
                elif needed:
                    self._pause(step, late)
            if clock.seen < samples and clock.seen > begun and not self._first_broken([last]):
                self._pause(None, late=True)
            self._saver.wait()
            if self._log and clock.seen == samples:
                rate = f"{self._meter.rate:,.0f} samples/s"
                say(f"{self._out}: {clock.seen:,} samples, loss {self._log.loss:.3f}, {rate}.")
        world.barrier()
        if clock.seen < samples:
            path = checkpoint.newest(self._out)
            saved = f"saved at {config.seen(path):,} of {samples:,} samples" if path else "nothing is to be saved yet"
            _say(world, f"{self._out}: told to stop; {saved}.")
            raise KeyboardInterrupt

    def _open_log(self) -> TrainingLog:
        config, seen = self._config, self._trainer.clock.seen
        exporters = open_exporters(config.loggers, self._out, config.model_dump(mode="json"), seen)
        return TrainingLog(self._out, self._task.samples, seen, config.batch_size, exporters)

    def _batches(self) -> Iterator[tuple[Batch, torch.Tensor, Any]]:
        """This rank's part of every batch from the clock to the end of the run, with what the step takes."""
        clock, task = self._trainer.clock, self._task
        batches = task.batches(clock.position, task.samples + clock.left_out)
        return prefetch(arranged(batches, task.step.arrange), self._world.device)

    def _is_late(self) -> bool:
        return time.monotonic() - self._saved_at >= 60 * self._config.save_minutes

    def _agreed(self, stopping: bool, late: bool, pairs: int) -> tuple[bool, bool]:
        """Whether any rank has been told to stop, and whether any finds a checkpoint late: the one message of a step
        between CPUs, by which it also notices before the first one between GPUs that a rank has ended."""
        told = self._world.max(torch.tensor([stopping, late, pairs, -pairs], dtype=torch.float64)).tolist()
        assert told[2] == -told[3], "ranks hold different numbers of pairs"  # Parts makes them equal
        return told[0] > 0, told[1] > 0

    def _step(self, images: torch.Tensor, tokens: Any) -> _Step:
        clock = self._trainer.clock
        start, stop = clock.seen, min(clock.seen + self._config.batch_size, self._task.samples)
        past, lr = clock.position + stop - start, self._task.learning_rate((start + stop) / 2)
        loss, norm = self._trainer.gradient(images, tokens)
        return _Step(start, stop, past, lr, self._trainer.update(loss, norm, lr, stop))

    def _first_broken(self, steps: Sequence[_Step | None]) -> tuple[_Step, str] | None:
        """Read what the steps have come to, for meter and log: the first one that training cannot go on from."""
        for step in steps:
            if step is None:
                continue
            loss, norm, scale = step.reading.read()
            if self._trainer.is_broken(loss, norm):
                return step, f"loss {loss}, gradient norm {norm}"
            self._trainer.skips(norm)
            self._meter.step(step.stop - step.start, loss)
            if due(step.start, step.stop, self._task.samples):
                place = {"samples": step.stop, "batch": step.stop - step.start}
                state = {"lr": step.lr, "logit_scale": scale, "grad_norm": norm, **self._trainer.counts()}
                record = {**place, **self._meter.interval(), **state, **self._meter.totals()}
                if self._log:
                    self._log.write(record)
        return None

    def _pause(self, step: _Step | None, late: bool) -> None:
        """What is due at the end of this step: measurements, and a checkpoint of now if it is asked for or ``late``."""
        task, seen = self._task, self._trainer.clock.seen
        save = functools.cache(self._save)

        def file() -> Path:
            path = save()
            self._saver.wait()
            self._world.barrier()
            return path

        with self._meter.paused():
            if step:
                task.measure(self._trainer, step.start, seen, file)
            if late or (step and task.is_asked_for(step.start, seen)):
                save()

    def _save(self) -> Path:
        """The file that a checkpoint of now is on its way to."""
        content = self._trainer.content(self._task.facts | self._meter.totals())
        path = self._config.path(self._trainer.clock.seen)
        if self._world.is_main:
            self._saver.save(path, content)
        self._saved_at = time.monotonic()
        return path

    def _catch_up(self) -> None:
        """Measure what a kill may have come before, and what is to be known before the first step."""
        seen, task = self._trainer.clock.seen, self._task
        path = self._config.path(seen)
        with self._meter.paused():
            before = max(0, seen - self._config.batch_size)
            task.measure(self._trainer, before, seen, lambda: self._world.broadcast(path if path.exists() else None))

    def _roll_back(self, step: _Step, reason: str) -> None:
        """Return to the newest checkpoint and leave out the data from there to the end of this step's batch.

        Raises MeasureError where there is none, where the configuration wants to stop, and when it has happened too
        often.
        """
        config, trainer, clock = self._config, self._trainer, self._trainer.clock
        self._saver.wait()
        self._world.barrier()
        path, rollbacks = self._world.broadcast(checkpoint.newest(self._out)), clock.rollbacks + 1
        trouble = f"{self._out}: {reason} after {step.start:,} samples."
        if config.on_nonfinite == "stop" or path is None or rollbacks > _MOST_ROLLBACKS:
            tried = f" {clock.rollbacks} times the data was left out." if clock.rollbacks else ""
            command = other_settings(config, f"lr={config.lr / 2:g} ")
            remedy = f"from {path.name}: {command}" if path and command else "with another `out`."
            raise MeasureError(f"{trouble}{tried} Lower lr, raise warmup or set grad_clip, and go on {remedy}")
        trainer.load(checkpoint.load(path))
        seen, before = trainer.clock.seen, trainer.clock.left_out
        trainer.clock.rollbacks, trainer.clock.left_out = rollbacks, step.past - seen
        self._meter.interval()
        if self._log:
            place = {"left_out_from": seen + before, "left_out_to": step.past}
            self._log.roll_back({"samples": seen, "event": "rollback", "reason": reason, **place})
            say(f"{trouble} Back at {seen:,} samples; {step.past - seen - before:,} are left out.")


def _stays(task: Task, path: Path) -> bool:
    """Whether a checkpoint was asked for by samples, and not made because time had passed or a signal came."""
    seen = task.config.seen(path)
    return task.is_asked_for(max(0, seen - task.config.batch_size), seen)


def _check_divisible(config: PretrainConfig | FinetuneConfig, seen: int, world: World) -> None:
    """Raises UsageError unless every batch, the last one too, has equal parts for all ranks."""
    sizes = {"batch_size": config.batch_size}
    if isinstance(config, PretrainConfig):
        sizes["samples"] = config.samples - seen
    for key, value in sizes.items():
        if value % world.size:
            left = f", {value:,} of which are left," if key == "samples" and seen else ""
            raise UsageError(
                f"{key}: {getattr(config, key):,}{left} cannot be divided by {world.size} processes. "
                f"Give a multiple of {world.size}."
            )


def _say(world: World, message: str) -> None:
    if world.is_main:
        say(message)
