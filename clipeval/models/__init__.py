"""Checkpoints: what names them, what is known of them, and how they are loaded.

Naming and listing need no torch and no open_clip; they are imported when a checkpoint is described or loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval import machine
from clipeval.errors import ModelError, first_line
from clipeval.models import families
from clipeval.models.base import Encoder, ModelInfo, Preprocessing
from clipeval.models.spec import ModelSpec
from clipeval.models.specs import resolve
from clipeval.models.zoo import zoo_table

if TYPE_CHECKING:
    from clipeval.models.checkpoint import Checkpoint
    from clipeval.models.encoder import OpenClipEncoder
    from clipeval.models.opened import Opened

__all__ = [
    "Encoder",
    "ModelInfo",
    "ModelSpec",
    "Preprocessing",
    "describe",
    "expected",
    "load",
    "load_trainable",
    "locate",
    "open_checkpoint",
    "open_trainable",
    "resolve",
    "zoo_table",
]


def open_checkpoint(spec: ModelSpec, *, offline: bool) -> Opened:
    """A checkpoint with its files found, which knows its identity and its facts. Raises ModelError."""
    with _libraries():
        opener = families.opener(spec)
    opened: Opened = opener(spec, offline=offline)
    return opened


def locate(spec: ModelSpec, *, offline: bool) -> Path:
    """The weights of a checkpoint as a file on this machine, the first where there are several."""
    return open_checkpoint(spec, offline=offline).paths[0]


def describe(spec: ModelSpec, *, offline: bool) -> ModelInfo:
    """Facts about a checkpoint, its weights' SHA-256 among them; see ``opened.Opened.info``."""
    return open_checkpoint(spec, offline=offline).info


def expected(spec: ModelSpec) -> ModelInfo:
    """The facts of a checkpoint that is not here, as far as the shipped tables let expect them."""
    if spec.kind not in ("tag", "hub", "hf"):
        return ModelInfo(spec.name, spec.arch, spec.pretrained)
    from clipeval.models.checkpoint import expected as of_tables

    return of_tables(spec)


def load(spec: ModelSpec | Opened, *, device: str, precision: str, offline: bool) -> Encoder:
    """A checkpoint ready to embed. Raises ModelError, and UsageError for a device or precision that this machine cannot
    do."""
    with _libraries():
        machine.check_device(device, precision)
    opened = open_checkpoint(spec, offline=offline) if isinstance(spec, ModelSpec) else spec
    with _libraries():
        loader = families.loader(opened.spec)
    encoder: Encoder = loader(opened, device=device, precision=precision)
    return encoder


def open_trainable(spec: ModelSpec) -> Checkpoint:
    """``open_checkpoint`` for a trainer. Raises ModelError, also for a model that is none of open_clip."""
    opened = open_checkpoint(spec, offline=False)
    from clipeval.models.checkpoint import Checkpoint

    if not isinstance(opened, Checkpoint):
        raise ModelError(f"{spec.name}: only models of open_clip can be fine-tuned.")
    return opened


def load_trainable(checkpoint: Checkpoint, *, device: str, precision: str) -> OpenClipEncoder:
    """``load`` for a trainer."""
    encoder = load(checkpoint, device=device, precision=precision, offline=False)
    from clipeval.models.encoder import OpenClipEncoder

    assert isinstance(encoder, OpenClipEncoder)
    return encoder


@contextmanager
def _libraries() -> Iterator[None]:
    """Where torch cannot even be imported, as without memory, no checkpoint is to blame. Raises ModelError."""
    try:
        yield
    except (ImportError, OSError) as error:
        if str(getattr(error, "name", "")).startswith("clipeval"):
            raise
        raise ModelError(
            f"PyTorch or open_clip cannot be imported here: {first_line(error):.300}. This says nothing of the "
            "checkpoint: free memory, or repair the installation."
        ) from error
