"""The loss on held-out pairs while training: rows of OUT/results beside those of ``clipeval run``."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipeval import models
from clipeval.console import say
from clipeval.errors import ClipevalError, DataError, UsageError
from clipeval.evaluation.rows import of_metric
from clipeval.identity import DatasetIdentity, Measure, cell_id
from clipeval.models.opened import Opened
from clipeval.results import provenance, table
from clipeval.results.ledger import Ledger, exclusive
from clipeval.tasks.base import Metric
from clipeval.tasks.zeroshot_retrieval import evaluate as retrieval
from clipeval_train import checkpoint
from clipeval_train.config import PretrainConfig, SourceEntry, ValidateEntry
from clipeval_train.distributed import World
from clipeval_train.evaluation import VALIDATION
from clipeval_train.input import Corpus, arranged, open_corpus, prefetch
from clipeval_train.lineage import one_checkpoint
from clipeval_train.model import Architecture
from clipeval_train.task import Trained

_VERSION = "1"
_SMALLEST_BATCH = 2
"""The order of a source keeps repeats a batch apart; here every pair comes once."""


class Validation:
    """Held-out sources, each measured by itself: the mean loss over its batches, and recall among all of its pairs.

    Which pairs, in which crops and batches, is the same for every checkpoint of every run with the same ``validate``.
    """

    def __init__(self, config: PretrainConfig, entry: ValidateEntry, architecture: Architecture, world: World) -> None:
        """Raises UsageError or DataError that names the source."""
        self._entry, self._out, self._world = entry, Path(config.out), world
        self._precision = "tf32" if config.precision == "fp32" and world.device.type == "cuda" else config.precision
        self._loss = config.loss
        self._sources = [(source.source, *self._opened(config, source, architecture)) for source in entry.data]

    def _opened(self, config: PretrainConfig, source: SourceEntry, architecture: Architecture) -> tuple[Corpus, int]:
        changes = {"data": (source,), "seed": 0, "batch_size": _SMALLEST_BATCH, "lanes": 1}
        corpus = open_corpus(config.model_copy(update=changes), architecture, "test")
        size = self._entry.batch_size
        if size % self._world.size:
            raise UsageError(
                f"validate.batch_size: {size} cannot be divided by {self._world.size} processes. Give a multiple of "
                f"{self._world.size}."
            )
        if (pairs := min(self._entry.samples, len(corpus)) // size * size) == 0:
            raise DataError(
                f"validate: {source.source}: {len(corpus):,} pairs do not fill a batch of {size}. Lower it."
            )
        return corpus, pairs

    def measure(self, trained: Trained, path: Path) -> None:
        """Measure the weights, whose checkpoint is the file at ``path``, into the table of OUT/results. Collective.

        What the table has already is not measured again. A table that cannot be written is reported.
        """
        if self._entry.use_ema:
            path = checkpoint.averaged(path, self._out, self._world)
        for name, corpus, pairs in self._sources:
            cell = _Cell(path, name, corpus, pairs, self._entry.batch_size, self._loss, self._precision)
            if self._world.broadcast(self._world.is_main and cell.stands(self._out)):
                continue
            metrics = self._metrics(trained, corpus, pairs)
            if self._world.is_main:
                try:
                    cell.write(self._out, metrics, str(self._world.device))
                    shown = (f"{metric.name} {metric.value:.4f}" for metric in metrics if "@5" in metric.name)
                    say(f"{path}: {name} contrastive_loss {metrics[0].value:.4f}, {', '.join(shown)}")
                except ClipevalError as error:
                    say(f"{path}: {name}: not validated: {error}")

    def _metrics(self, trained: Trained, corpus: Corpus, pairs: int) -> list[Metric]:
        world, size = self._world, self._entry.batch_size
        losses: list[torch.Tensor] = []
        features: list[list[torch.Tensor]] = [[], []]
        batches = corpus.batches(0, pairs, size, world.rank, world.size)
        with trained.measured(self._entry.use_ema) as step:
            for _, images, tokens in prefetch(arranged(batches, step.arrange), world.device):
                loss, *both = step.loss(images, tokens)
                losses.append(loss)
                for column, part in zip(features, both, strict=True):
                    column.append(world.all_gather(part.float()))
        arrays = [torch.cat(column).cpu().numpy() for column in features]
        found = retrieval(arrays[0], arrays[1], np.arange(pairs), [str(number) for number in range(pairs)])
        mean = float(torch.stack(losses).double().mean())
        return [Metric("contrastive_loss", mean, math.nan, math.nan, pairs, higher_is_better=False), *found.metrics]


class _Cell:
    """One checkpoint on one source."""

    def __init__(
        self, path: Path, name: str, corpus: Corpus, pairs: int, batch_size: int, loss: str, precision: str
    ) -> None:
        self._path, self._name, self._fingerprint = path, name, corpus.fingerprint
        self._measure = Measure(
            VALIDATION, _VERSION, None, 0, f"{loss} loss of batches of {batch_size}", pairs, precision
        )

    @cached_property
    def _opened(self) -> Opened:
        return models.open_checkpoint(one_checkpoint(self._path.as_posix(), "out"), offline=True)

    @property
    def _id(self) -> str:
        return cell_id(self._opened.identity, DatasetIdentity(self._fingerprint), self._measure)

    def stands(self, out: Path) -> bool:
        """Whether the ledger has it."""
        return any(record.cell == self._id for record in Ledger(out / "results").standing.values())

    def write(self, out: Path, metrics: list[Metric], device: str) -> None:
        """Its rows, into the ledger and the tables of OUT/results. Raises StoreError, UsageError."""
        opened, results = self._opened, out / "results"
        shared: dict[str, Any] = {
            "model": opened.info.model,
            "checkpoint_sha256": opened.info.checkpoint_sha256,
            "checkpoint_identity": opened.identity.digest,
            "dataset": self._name,
            "split": "validation",
            "dataset_fingerprint": self._fingerprint,
            "task": VALIDATION,
            "shots": None,
            "seed": self._measure.seed,
            "task_version": _VERSION,
            "protocol": self._measure.protocol,
            "precision": self._measure.precision,
            "device": device,
            **provenance.columns(),
        }
        rows = [shared | of_metric(metric) for metric in metrics]
        with exclusive(results, "`out`"):
            table.refuse_foreign(results)
            ledger = Ledger(results)
            ledger.add_checkpoint(asdict(opened.info))
            ledger.add_cell(self._id, rows)
            table.write(results, table.current_rows(ledger), ledger.digest)
