"""The training loop."""

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
from clipeval.results.provenance import git_commit, packages
from clipeval.version import __version__
from clipeval_train import checkpoint, evaluation
from clipeval_train.config import PretrainConfig, passes
from clipeval_train.distributed import World
from clipeval_train.initial import Initial
from clipeval_train.input import Batch, Corpus, arranged, open_corpus, prefetch
from clipeval_train.log import TrainingLog, due, last_costs, open_exporters
from clipeval_train.meter import Meter
from clipeval_train.resume import other_settings, starting_point
from clipeval_train.schedule import learning_rate
from clipeval_train.signals import StopSignals
from clipeval_train.together import together
from clipeval_train.trainer import Reading, Trainer
from clipeval_train.validation import Validation

_MOST_ROLLBACKS = 5
_KEPT = 3
"""Checkpoints that stay of those that nobody asked for."""


def pretrain(config: PretrainConfig) -> Path:
    """Train to the end and return the last checkpoint's path; an unfinished run goes on from its newest checkpoint.

    On the CPU the parts of an interrupted run give the same weights, bit for bit, as one that was never interrupted.
    SIGTERM and SIGINT end it with KeyboardInterrupt, after the step at hand and a checkpoint. Raises UsageError for
    settings that cannot be trained or differ from those of the run in ``out``, DataError for data that is missing or
    has changed, MeasureError when loss or gradient are no longer finite, StoreError for ``out``.
    """
    out = Path(config.out)
    initial = Initial(config)
    architecture = initial.architecture
    if config.evaluate:
        evaluation.check(config.evaluate)
    with together(config, out, config.device) as world:
        config = config.on(world.device.type)
        start = starting_point(config)
        seen = start.seen if start else 0
        if seen == config.samples:
            _say(world, f"{out}: already finished.")
        else:
            _check_divisible(config, seen, world)
            trainer = Trainer(config, initial, world)
            corpus = open_corpus(config, architecture)
            facts = _facts(config, corpus) | initial.facts
            if start:
                start.check_data(corpus.fingerprint, out)
                initial.require_unchanged(start.saved["metadata"])
                reasons = "; ".join(filter(None, (facts["from_scratch_filter"], start.remark)))
                facts |= {"history": start.history, "from_scratch_filter": reasons}
                trainer.load(start.saved)
                _say(world, f"{out}: continues at {seen:,} of {config.samples:,} samples.")
            validation = Validation(config, config.validate, architecture, world) if config.validate else None
            path = checkpoint.path_of(out, seen)
            before = max(0, seen - config.batch_size)
            if validation and config.validate and passes(before, seen, config.validate.every) and path.exists():
                validation.measure(trainer, path)  # a kill may have come before it
            if config.evaluate and _is_due(config, before, seen) and path.exists():
                evaluation.evaluate(config.evaluate, path, out, world)  # a kill may have come before it
            costs = (start.saved["metadata"] if start else {"bad_samples": corpus.left_out}) | last_costs(out)
            gmacs = architecture.profile.gmacs
            meter = Meter(world, gmacs, config.peak_tflops, costs)
            _Run(config, trainer, corpus, facts, world, meter, validation).to_the_end()
        path = checkpoint.path_of(out, config.samples)
        if config.evaluate:
            evaluation.evaluate(config.evaluate, path, out, world)
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
    checkpoint, which therefore never holds what comes of a broken step.
    """

    def __init__(
        self,
        config: PretrainConfig,
        trainer: Trainer,
        corpus: Corpus,
        facts: dict[str, Any],
        world: World,
        meter: Meter,
        validation: Validation | None,
    ) -> None:
        self._config, self._trainer, self._corpus, self._facts = config, trainer, corpus, facts
        self._world, self._meter, self._out = world, meter, Path(config.out)
        self._validation = validation
        self._log: TrainingLog | None = None

    def to_the_end(self) -> None:
        """Raises KeyboardInterrupt, when a signal comes, with everything saved."""
        config, clock, world = self._config, self._trainer.clock, self._world
        begun = clock.seen
        with ExitStack() as stack:
            stays = functools.partial(_stays, config)
            keep = (config.keep, lambda samples: False) if config.keep else (_KEPT, stays)
            self._saver = stack.enter_context(checkpoint.Saver(self._out, *keep))
            self._log = stack.enter_context(_open_log(config, clock.seen)) if world.is_main else None
            signals = stack.enter_context(StopSignals())
            batches = self._batches()
            self._saved_at = time.monotonic()
            last: _Step | None = None
            while (clock := self._trainer.clock).seen < config.samples:
                batch, images, tokens = next(batches)
                self._meter.batch(batch.wait_s, batch.bad)
                stopping, late = self._agreed(signals.received, self._is_late(), len(batch.keys))
                if stopping:
                    break
                step = self._step(images, tokens)
                needed = late or config.is_asked_for(step.start, step.stop)
                broken = self._first_broken([last, step] if needed else [last])
                last = None if needed else step
                if broken:
                    self._roll_back(*broken)
                    batches, last = self._batches(), None
                elif needed:
                    self._save(step)
            if clock.seen < config.samples and clock.seen > begun and not self._first_broken([last]):
                self._save(None)
            self._saver.wait()
            if self._log and clock.seen == config.samples:
                rate = f"{self._meter.rate:,.0f} samples/s"
                say(f"{self._out}: {clock.seen:,} samples, loss {self._log.loss:.3f}, {rate}.")
        world.barrier()
        if clock.seen < config.samples:
            _say(world, f"{self._out}: told to stop; saved at {clock.seen:,} of {config.samples:,} samples.")
            raise KeyboardInterrupt

    def _batches(self) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
        """This rank's part of every batch from the clock to the end of the run, with what the step takes."""
        config, clock, world = self._config, self._trainer.clock, self._world
        end = config.samples + clock.left_out
        batches = self._corpus.batches(clock.position, end, config.batch_size, world.rank, world.size)
        return prefetch(arranged(batches, self._trainer.arrange), world.device)

    def _is_late(self) -> bool:
        return time.monotonic() - self._saved_at >= 60 * self._config.save_minutes

    def _agreed(self, stopping: bool, late: bool, pairs: int) -> tuple[bool, bool]:
        """Whether any rank has been told to stop, and whether any finds a checkpoint late: the one message of a step
        between CPUs, by which it also notices before the first one between GPUs that a rank has ended."""
        told = self._world.max(torch.tensor([stopping, late, pairs, -pairs], dtype=torch.float64)).tolist()
        assert told[2] == -told[3], "ranks hold different numbers of pairs"  # Parts makes them equal
        return told[0] > 0, told[1] > 0

    def _step(self, images: torch.Tensor, tokens: torch.Tensor) -> _Step:
        config, clock = self._config, self._trainer.clock
        start, stop = clock.seen, min(clock.seen + config.batch_size, config.samples)
        past, lr = clock.position + stop - start, learning_rate((start + stop) / 2, config)
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
            if due(step.start, step.stop, self._config.samples):
                place = {"samples": step.stop, "batch": step.stop - step.start}
                state = {"lr": step.lr, "logit_scale": scale, "grad_norm": norm, **self._trainer.counts()}
                record = {**place, **self._meter.interval(), **state, **self._meter.totals()}
                if self._log:
                    self._log.write(record)
        return None

    def _save(self, step: _Step | None) -> None:
        """A checkpoint of now, and what is measured of it at the end of this step; the last evaluation comes later."""
        config, seen = self._config, self._trainer.clock.seen
        with self._meter.paused():
            content = _content(config, self._trainer, self._facts | self._meter.totals())
            if self._world.is_main:
                self._saver.save(content)
            last, path = seen == config.samples, checkpoint.path_of(self._out, seen)
            validated = step and config.validate and (last or passes(step.start, seen, config.validate.every))
            evaluated = step and not last and _is_due(config, step.start, seen)
            if validated or evaluated:
                self._saver.wait()
                self._world.barrier()
            if self._validation and validated:
                self._validation.measure(self._trainer, path)
            if config.evaluate and evaluated:
                evaluation.evaluate(config.evaluate, path, self._out, self._world)
        self._saved_at = time.monotonic()

    def _roll_back(self, step: _Step, reason: str) -> None:
        """Return to the newest checkpoint and leave out the data from there to the end of this step's batch.

        Raises MeasureError where there is none, where the configuration wants to stop, and when it has happened too
        often.
        """
        config, trainer, clock = self._config, self._trainer, self._trainer.clock
        self._saver.wait()
        self._world.barrier()
        path, rollbacks = checkpoint.newest(self._out), clock.rollbacks + 1
        trouble = f"{self._out}: {reason} after {step.start:,} samples."
        if config.on_nonfinite == "stop" or path is None or rollbacks > _MOST_ROLLBACKS:
            tried = f" {clock.rollbacks} times the data was left out." if clock.rollbacks else ""
            command = other_settings(self._out, f"lr={config.lr / 2:g} ")
            remedy = f"from {path.name}: {command}" if path else "with another `out`."
            raise MeasureError(f"{trouble}{tried} Lower lr, raise warmup or set grad_clip, and go on {remedy}")
        trainer.load(checkpoint.load(path))
        seen, before = trainer.clock.seen, trainer.clock.left_out
        trainer.clock.rollbacks, trainer.clock.left_out = rollbacks, step.past - seen
        self._meter.interval()
        if self._log:
            place = {"left_out_from": seen + before, "left_out_to": step.past}
            self._log.roll_back({"samples": seen, "event": "rollback", "reason": reason, **place})
            say(f"{trouble} Back at {seen:,} samples; {step.past - seen - before:,} are left out.")


def _stays(config: PretrainConfig, samples: int) -> bool:
    """Whether a checkpoint was asked for by samples, and not made because time had passed or a signal came."""
    return config.is_asked_for(max(0, samples - config.batch_size), samples)


def _content(config: PretrainConfig, trainer: Trainer, facts: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of now. What the rate has not fallen to zero for is marked as no point of a scaling law."""
    seen, decays = trainer.clock.seen, config.schedule == "cosine" or config.cooldown > 0
    at_zero = learning_rate(seen, config) == 0
    mark = "" if at_zero else "learning rate not yet 0" if decays else "constant learning rate"
    content = trainer.content(final=seen == config.samples and at_zero)
    marks = "; ".join(filter(None, (facts["from_scratch_filter"], mark)))
    metadata = {**facts, "samples_seen": seen, "from_scratch_filter": marks, **trainer.counts()}
    return content | {"metadata": metadata}


def _check_divisible(config: PretrainConfig, seen: int, world: World) -> None:
    """Raises UsageError unless every batch, the last one too, has equal parts for all ranks."""
    for key, value in (("batch_size", config.batch_size), ("samples", config.samples - seen)):
        if value % world.size:
            left = f", {value:,} of which are left," if key == "samples" and seen else ""
            raise UsageError(
                f"{key}: {getattr(config, key):,}{left} cannot be divided by {world.size} processes. "
                f"Give a multiple of {world.size}."
            )


def _open_log(config: PretrainConfig, seen: int) -> TrainingLog:
    out = Path(config.out)
    exporters = open_exporters(config.loggers, out, config.model_dump(mode="json"), seen)
    return TrainingLog(out, config.samples, seen, batch_size=config.batch_size, exporters=exporters)


def _facts(config: PretrainConfig, corpus: Corpus) -> dict[str, Any]:
    source = "+".join(entry.source for entry in config.data)
    return {
        "source": source,
        "source_family": source,
        "unique_samples": len(corpus),
        "filtered": corpus.filtered,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "data_fingerprint": corpus.fingerprint,
        "from_scratch_filter": "",
        "clipeval_version": __version__,
        "git_commit": git_commit(),
        "packages": packages(),
    }


def _is_due(config: PretrainConfig, start: int, stop: int) -> bool:
    return config.evaluate is not None and passes(start, stop, config.evaluate.every)


def _say(world: World, message: str) -> None:
    if world.is_main:
        say(message)
