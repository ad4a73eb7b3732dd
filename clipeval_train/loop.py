"""The training loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import open_clip
import torch

import clipeval
from clipeval.console import say
from clipeval.errors import DataError, MeasureError, UsageError
from clipeval.machine import resolve_device, set_threads
from clipeval.models import profile
from clipeval.results.provenance import git_commit, packages
from clipeval_train import checkpoint, model
from clipeval_train.config import PretrainConfig
from clipeval_train.data import Corpus
from clipeval_train.log import TrainingLog
from clipeval_train.loss import info_nce
from clipeval_train.optim import adamw, learning_rate

MAX_LOGIT_SCALE = math.log(100)
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_FREE_KEYS = {"out", "resume", "save_every"}
"""Settings that may change between the parts of a run: they do not decide what is learnt."""


def pretrain(config: PretrainConfig) -> Path:
    """Train to the end and return the last checkpoint's path; an unfinished run goes on from its newest checkpoint.

    On the CPU the parts of an interrupted run give the same weights, bit for bit, as one that was never interrupted.
    Raises UsageError for settings that cannot be trained or differ from those of the run in ``out``, DataError for
    data that is missing or has changed, MeasureError when the loss is no longer finite, StoreError for ``out``.
    """
    out = Path(config.out)
    architecture = model.resolve(config.model, config.arch)
    saved = _saved(out, config)
    if saved and saved["metadata"]["samples_seen"] == config.samples:
        say(f"{out}: already finished.")
        return checkpoint.path_of(out, config.samples)

    trainer = Trainer(config, architecture)
    corpus = Corpus(config, architecture)
    seconds = 0.0
    if saved:
        if saved["metadata"]["data_fingerprint"] != corpus.fingerprint:
            raise DataError(f"{out}: the data has changed since this run began. Give another `out`.")
        trainer.load(saved)
        seconds = saved["metadata"]["seconds"]
        say(f"{out}: continues at {trainer.seen:,} of {config.samples:,} samples.")

    with TrainingLog(out, config.samples, trainer.seen, seconds) as log:
        while trainer.seen < config.samples:
            start, stop = trainer.seen, min(trainer.seen + config.batch_size, config.samples)
            lr = learning_rate((start + stop) / 2, config)
            loss = trainer.step(*corpus.batch(start, stop, trainer.device), lr)
            log.step(stop - start, loss, lr, trainer.scale)
            if stop == config.samples or _passes_multiple(start, stop, config.save_every):
                facts = {**_metadata(config, corpus), "samples_seen": stop, "seconds": log.seconds}
                checkpoint.save(out, trainer.content(last=stop == config.samples) | {"metadata": facts})
        say(f"{out}: {config.samples:,} samples, loss {log.loss:.3f}, {log.rate:,.0f} samples/s.")
    return checkpoint.path_of(out, config.samples)


class Trainer:
    """A model and its optimizer, and the clock: ``seen`` counts the samples of all steps so far."""

    def __init__(self, config: PretrainConfig, architecture: model.Architecture) -> None:
        """Starts from a fresh initialisation. Raises UsageError when the model or the precision is impossible here."""
        self.device = torch.device(resolve_device("auto"))
        if config.precision == "fp16" and self.device.type != "cuda":
            raise UsageError("precision: fp16 needs a CUDA device, and this machine has none. Give bf16 or fp32.")
        self.seen = 0
        self._out, self._autocast = config.out, _AUTOCAST[config.precision]
        self._architecture = architecture
        self._clip: open_clip.CLIP = model.build(architecture, config.seed).to(self.device)
        if self.device.type == "cpu":
            set_threads(profile.of_config(architecture.config).gmacs_image)
        self._optimizer = adamw(self._clip, config)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

    @property
    def scale(self) -> float:
        """The inverse temperature that multiplies the cosines."""
        return self._clip.logit_scale.exp().item()

    def step(self, images: torch.Tensor, tokens: torch.Tensor, lr: float) -> float:
        """One optimizer step on a batch (``Corpus.batch``); returns its mean loss. Raises MeasureError."""
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            image_features, text_features = self._clip.encode_image(images), self._clip.encode_text(tokens)
        loss = info_nce(image_features, text_features, self._clip.logit_scale.exp())
        if not torch.isfinite(loss):
            raise MeasureError(
                f"{self._out}: the loss is {loss.item()} after {self.seen:,} samples. Lower lr or raise warmup; "
                "checkpoints saved so far are kept."
            )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        with torch.no_grad():  # after the step: a clamp in the forward pass would stop the gradient at the bound
            self._clip.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.seen += len(images)
        return loss.item()

    def content(self, last: bool) -> dict[str, Any]:
        """What a checkpoint holds besides its metadata; nothing is trained on from the ``last`` one."""
        state = {
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        return {
            "arch": self._architecture.name,
            "model_cfg": self._architecture.config,
            "state_dict": self._clip.state_dict(),
            "resume": None if last else state,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint that was not the last of its run."""
        self._clip.load_state_dict(saved["state_dict"])
        self._optimizer.load_state_dict(saved["resume"]["optimizer"])
        self._scaler.load_state_dict(saved["resume"]["scaler"])
        torch.set_rng_state(saved["resume"]["rng"])
        self.seen = saved["metadata"]["samples_seen"]


def _saved(out: Path, config: PretrainConfig) -> dict[str, Any] | None:
    """The newest checkpoint in ``out``, or None. Raises UsageError when it is of a run with other settings."""
    path = checkpoint.newest(out)
    if path is None:
        return None
    saved = checkpoint.load(path)
    theirs = saved["metadata"]["config"]
    for key, mine in config.model_dump(mode="json").items():
        if key not in _FREE_KEYS and mine != theirs.get(key):
            raise UsageError(
                f"{out}: holds a run with {key}: {theirs.get(key)!r:.80}, and this one says {mine!r:.80}. "
                "Give another `out`, or the settings of that run to continue it."
            )
    return saved


def _metadata(config: PretrainConfig, corpus: Corpus) -> dict[str, Any]:
    source = "+".join(entry.source for entry in config.data)
    return {
        "source": source,
        "source_family": source,
        "unique_samples": len(corpus),
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "data_fingerprint": corpus.fingerprint,
        "clipeval_version": clipeval.__version__,
        "git_commit": git_commit(),
        "packages": packages(),
    }


def _passes_multiple(start: int, stop: int, every: int | None) -> bool:
    return every is not None and stop // every > start // every
