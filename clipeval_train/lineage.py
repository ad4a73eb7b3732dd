"""Checkpoints that others are made of: found by a MODEL spec, told in the metadata."""

from __future__ import annotations

from typing import Any

from clipeval import config as configuration
from clipeval import models
from clipeval.errors import UsageError
from clipeval.models import ModelSpec
from clipeval.models.base import ModelInfo
from clipeval.models.checkpoint import Checkpoint
from clipeval.results import provenance


def one_checkpoint(word: str, key: str) -> ModelSpec:
    """The checkpoint that a MODEL spec names. Raises UsageError when it names none or several."""
    specs = models.resolve([word], configuration.load())
    if len(specs) != 1:
        raise UsageError(f"{key}: '{word}' names {len(specs)} checkpoints, '{specs[0].name}' first. Name exactly one.")
    return specs[0]


def model_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint of the same model says of it."""
    described = checkpoint.description
    return {
        "arch": checkpoint.info.arch,
        "model_cfg": described.model_cfg,
        "preprocess_cfg": described.preprocess_cfg,
    }


def ancestor(info: ModelInfo, stage: str, reason: str) -> dict[str, Any]:
    """What a checkpoint is made of, and why this is no point of a from-scratch law."""
    return {
        "init": info.model,
        "init_sha256": info.checkpoint_sha256,
        "stage": stage,
        "from_scratch_filter": "; ".join(filter(None, (info.from_scratch_filter, reason))),
    }


def lineage(info: ModelInfo, stage: str, reason: str) -> dict[str, Any]:
    """Metadata of a checkpoint made of another, whose data and samples are its own."""
    return {
        "source": info.source,
        "source_family": info.source_family,
        "unique_samples": info.unique_samples,
        "samples_seen": info.samples_seen,
        "samples_seen_from": info.samples_seen_from,
        **ancestor(info, stage, reason),
        **provenance.columns(),
    }
