"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from clipeval.console import say
from clipeval.errors import ClipevalError, DataError, MeasureError, UsageError
from clipeval.results.provenance import git_commit, packages
from clipeval.version import __version__
from clipeval_train import checkpoint, evaluation, model
from clipeval_train.config import PretrainConfig
from clipeval_train.distributed import World, open_world
from clipeval_train.input import Batch, Corpus, open_corpus, prefetch
from clipeval_train.log import TrainingLog, due, last_costs, open_exporters
from clipeval_train.meter import Meter
from clipeval_train.schedule import learning_rate
from clipeval_train.signals import StopSignals
from clipeval_train.trainer import Trainer

_FREE_KEYS = {
    *("out", "resume", "save_every", "save_minutes", "keep", "evaluate", "loggers", "peak_tflops", "workers"),
    *("bad_samples", "on_nonfinite", "micro_batch", "tile", "activation_checkpointing", "compile"),
}
"""Settings that may change between the parts of a run: they do not decide what is learnt, but for rounding."""
_BRANCH_KEYS = {"samples", "cooldown", "start_from"}
"""Settings in which a branch differs from its trunk."""
_MOST_ROLLBACKS = 5


def pretrain(config: PretrainConfig) -> Path:
    """Train to the end and return the last checkpoint's path; an unfinished run goes on from its newest checkpoint.

    On the CPU the parts of an interrupted run give the same weights, bit for bit, as one that was never interrupted.
    SIGTERM and SIGINT end it with KeyboardInterrupt, after the step at hand and a checkpoint. Raises UsageError for
    settings that cannot be trained or differ from those of the run in ``out``, DataError for data that is missing or
    has changed, MeasureError when loss or gradient are no longer finite, StoreError for ``out``.
    """
    out = Path(config.out)
    architecture = model.resolve(config.model, config.arch, config.loss)
    if config.evaluate:
        evaluation.check(config.evaluate)
    with open_world() as world, _one_fate(world), _claimed(out, world):
        saved = _starting_point(config)
        seen = saved["metadata"]["samples_seen"] if saved else 0
        if seen == config.samples:
            _say(world, f"{out}: already finished.")
        else:
            _check_divisible(config, seen, world)
            trainer = Trainer(config, architecture, world)
            corpus = open_corpus(config, architecture)
            if saved:
                if saved["metadata"]["data_fingerprint"] != corpus.fingerprint:
                    raise DataError(f"{out}: the data has changed since this run began. Give another `out`.")
                trainer.load(saved)
                _say(world, f"{out}: continues at {seen:,} of {config.samples:,} samples.")
            path = checkpoint.path_of(out, seen)
            if config.evaluate and _is_due(config, max(0, seen - config.batch_size), seen) and path.exists():
                evaluation.evaluate(config.evaluate, path, out, world)  # a kill may have come before it
            costs = (saved["metadata"] if saved else {"bad_samples": corpus.left_out}) | last_costs(out)
            gmacs = architecture.profile.gmacs
            _train(config, trainer, corpus, world, Meter(world, gmacs, config.peak_tflops, costs))
        path = checkpoint.path_of(out, config.samples)
        if config.evaluate:
            evaluation.evaluate(config.evaluate, path, out, world)
    return path


def _train(config: PretrainConfig, trainer: Trainer, corpus: Corpus, world: World, meter: Meter) -> None:
    """From the trainer's clock to the end of the run. All ranks take the same steps and the same decisions."""
    out, facts = Path(config.out), _facts(config, corpus)
    with ExitStack() as stack:
        saver = stack.enter_context(checkpoint.Saver(out, config.keep))
        log = stack.enter_context(_open_log(config, trainer.clock.seen)) if world.is_main else None
        signals = stack.enter_context(StopSignals())
        batches = _batches(corpus, config, trainer, world)
        saved_at = time.monotonic()
        stopping = False
        while trainer.clock.seen < config.samples and not stopping:
            start, stop = trainer.clock.seen, min(trainer.clock.seen + config.batch_size, config.samples)
            batch, images, tokens = next(batches)
            meter.batch(batch.wait_s, batch.bad)
            lr = learning_rate((start + stop) / 2, config)
            loss, norm = trainer.gradient(images, tokens)

            is_late = config.save_minutes is not None and time.monotonic() - saved_at >= 60 * config.save_minutes
            broken, stopping, late = _any_rank(world, trainer.is_broken(loss, norm), signals.received, is_late)
            if broken:
                saver.wait()
                _roll_back(config, trainer, stop - start, f"loss {loss}, gradient norm {norm}", world, log)
                batches = _batches(corpus, config, trainer, world)
                meter.interval()
                continue
            trainer.update(lr, stop)
            meter.step(stop - start, loss)

            if due(start, stop, config.samples):
                state = {"lr": lr, "logit_scale": trainer.scale, "grad_norm": norm}
                record = {"samples": stop, **meter.interval(), **state, **trainer.counts(), **meter.totals()}
                if log:
                    log.write(record)
            last = stop == config.samples
            measured = config.evaluate if not last and _is_due(config, start, stop) else None
            if last or stopping or late or measured or _passes(start, stop, config.save_every):
                content = _content(config, trainer, facts | meter.totals())
                if world.is_main:
                    saver.save(content)
                saved_at = time.monotonic()
            if measured:
                saver.wait()
                world.barrier()
                evaluation.evaluate(measured, checkpoint.path_of(out, stop), out, world)
        saver.wait()
        if log and (seen := trainer.clock.seen) == config.samples:
            say(f"{out}: {seen:,} samples, loss {log.loss:.3f}, {log.rate(seen):,.0f} samples/s.")
    world.barrier()
    if trainer.clock.seen < config.samples:
        _say(world, f"{out}: told to stop; saved at {trainer.clock.seen:,} of {config.samples:,} samples.")
        raise KeyboardInterrupt


def _content(config: PretrainConfig, trainer: Trainer, facts: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of now. One on the way of a decaying rate is marked as no point of a scaling law."""
    seen, decays = trainer.clock.seen, config.schedule == "cosine" or config.cooldown > 0
    at_zero = learning_rate(seen, config) == 0
    mark = "learning rate not yet 0" if decays and not at_zero else ""
    content = trainer.content(final=seen == config.samples and at_zero)
    metadata = {**facts, "samples_seen": seen, "from_scratch_filter": mark, **trainer.counts()}
    return content | {"metadata": metadata}


def _batches(
    corpus: Corpus, config: PretrainConfig, trainer: Trainer, world: World
) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
    """This rank's part of every batch from the trainer's clock to the end of the run, with what the model takes."""
    position, end = trainer.clock.position, config.samples + trainer.clock.left_out
    return prefetch(corpus.batches(position, end, config.batch_size, world.rank, world.size), world.device)


def _roll_back(
    config: PretrainConfig, trainer: Trainer, batch: int, reason: str, world: World, log: TrainingLog | None
) -> None:
    """Return to the newest checkpoint and leave out the data from there to the end of this batch.

    Raises MeasureError where there is none, where the configuration wants to stop, and when it has happened too often.
    """
    out, clock = Path(config.out), trainer.clock
    world.barrier()
    path, rollbacks, past = checkpoint.newest(out), clock.rollbacks + 1, clock.position + batch
    trouble = f"{out}: {reason} after {clock.seen:,} samples."
    if config.on_nonfinite == "stop" or path is None or rollbacks > _MOST_ROLLBACKS:
        tried = f" {clock.rollbacks} times the data was left out." if clock.rollbacks else ""
        raise MeasureError(
            f"{trouble}{tried} Lower lr, raise warmup or set grad_clip; checkpoints saved so far are kept."
        )
    trainer.load(checkpoint.load(path))
    before = trainer.clock.left_out
    trainer.clock.rollbacks, trainer.clock.left_out = rollbacks, past - trainer.clock.seen
    if log:
        event = {
            "event": "rollback",
            "reason": reason,
            "left_out_from": trainer.clock.seen + before,
            "left_out_to": past,
        }
        log.roll_back({"samples": trainer.clock.seen, **event})
        say(f"{trouble} Back at {trainer.clock.seen:,} samples; {past - trainer.clock.seen - before:,} are left out.")


def _starting_point(config: PretrainConfig) -> dict[str, Any] | None:
    """The newest checkpoint in ``out``, or the trunk's that ``start_from`` names, or None.

    Raises UsageError when it is of a run with other settings.
    """
    out = Path(config.out)
    if path := checkpoint.newest(out):
        saved = checkpoint.load(path)
        _check_settings(config, saved, _FREE_KEYS, f"{out}: holds", "Give another `out`")
        return saved
    if config.start_from is None:
        return None
    path = checkpoint.find(Path(config.start_from))
    saved = checkpoint.load(path)
    _check_settings(config, saved, _FREE_KEYS | _BRANCH_KEYS, f"start_from: '{path}' is of", "Branch off another run")
    seen, trunk = saved["metadata"]["samples_seen"], saved["metadata"]["config"]
    constant_until = min(config.samples - config.cooldown, trunk["samples"] - trunk["cooldown"])
    if saved["resume"] is None or seen > constant_until:
        raise UsageError(
            f"start_from: '{path}' has seen {seen:,} samples, but the rates of trunk and branch are equal only until "
            f"{constant_until:,}. Give an earlier checkpoint, more `samples` or a shorter `cooldown`."
        )
    return saved


def _check_settings(config: PretrainConfig, saved: dict[str, Any], free: set[str], where: str, otherwise: str) -> None:
    theirs = saved["metadata"]["config"]
    for key, mine in config.model_dump(mode="json").items():
        default = PretrainConfig.model_fields[key].default  # of a setting that is younger than the checkpoint
        if key not in free and mine != theirs.get(key, default):
            raise UsageError(
                f"{where} a run with {key}: {theirs.get(key)!r:.80}, and this one says {mine!r:.80}. "
                f"{otherwise}, or give the settings of that run."
            )


def _check_divisible(config: PretrainConfig, seen: int, world: World) -> None:
    """Raises UsageError unless every batch, the last one too, has equal parts for all ranks."""
    for key, value in (("batch_size", config.batch_size), ("samples", config.samples - seen)):
        if value % world.size:
            left = f", {value:,} of which are left," if key == "samples" and seen else ""
            raise UsageError(
                f"{key}: {getattr(config, key):,}{left} cannot be divided by {world.size} processes. "
                f"Give a multiple of {world.size}."
            )


@contextmanager
def _one_fate(world: World) -> Iterator[None]:
    """When a process has ended, the others notice by a connection that is closed, which is no bug of theirs."""
    try:
        yield
    except RuntimeError as error:  # torch.distributed has no narrower class for what gloo reports
        if world.size > 1 and ("gloo" in str(error).lower() or isinstance(error, torch.distributed.DistError)):
            raise MeasureError(f"process {world.rank}: another process of this run has ended, and says why.") from error
        raise


@contextmanager
def _claimed(out: Path, world: World) -> Iterator[None]:
    """Rank 0 holds the run's folder; if it cannot, every rank raises its error."""
    with ExitStack() as stack:
        error: ClipevalError | None = None
        if world.is_main:
            try:
                stack.enter_context(checkpoint.claimed(out))
            except ClipevalError as found:
                error = found
        if error := world.broadcast(error):
            raise error
        yield


def _open_log(config: PretrainConfig, seen: int) -> TrainingLog:
    out = Path(config.out)
    exporters = open_exporters(config.loggers, out, config.model_dump(mode="json"))
    return TrainingLog(out, config.samples, seen, exporters=exporters)


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
        "clipeval_version": __version__,
        "git_commit": git_commit(),
        "packages": packages(),
    }


def _any_rank(world: World, *flags: bool) -> list[bool]:
    """Which flags are set on any rank; one message for all of them."""
    return [flag > 0 for flag in world.max(torch.tensor(flags, dtype=torch.float64)).tolist()]


def _is_due(config: PretrainConfig, start: int, stop: int) -> bool:
    return config.evaluate is not None and _passes(start, stop, config.evaluate.every)


def _passes(start: int, stop: int, every: int | None) -> bool:
    """Whether a multiple of ``every`` lies in (start, stop]."""
    return every is not None and stop // every > start // every


def _say(world: World, message: str) -> None:
    if world.is_main:
        say(message)
