"""Checkpoints: what names them, what is known of them, and how they are loaded.

Naming and listing need no torch and no open_clip; they are imported when a checkpoint is described or loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.models.base import Encoder, ModelInfo, Preprocessing
from clipeval.models.specs import ModelSpec, resolve
from clipeval.models.zoo import zoo_table

if TYPE_CHECKING:
    from clipeval.models.loader import OpenClipEncoder

__all__ = [
    "Encoder",
    "ModelInfo",
    "ModelSpec",
    "Preprocessing",
    "describe",
    "load",
    "locate",
    "resolve",
    "zoo_table",
]


def locate(spec: ModelSpec, *, offline: bool) -> Path:
    """The weights of a checkpoint as a file on this machine; see ``weights.locate``."""
    from clipeval.models import weights

    return weights.locate(spec, offline=offline)


def describe(spec: ModelSpec, *, offline: bool) -> ModelInfo:
    """Facts about a checkpoint; see ``facts.describe``."""
    from clipeval.models import facts

    return facts.describe(spec, offline=offline)


def load(spec: ModelSpec, *, device: str, precision: str, offline: bool) -> OpenClipEncoder:
    """A checkpoint ready to embed; see ``loader.load``."""
    from clipeval.models import loader

    return loader.load(spec, device=device, precision=precision, offline=offline)
