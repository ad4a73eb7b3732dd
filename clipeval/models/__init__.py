"""Checkpoints: what names them, what is known of them, and how they are loaded.

Naming and listing need no torch and no open_clip; they are imported when a checkpoint is described or loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.errors import ModelError, first_line
from clipeval.models.base import Encoder, ModelInfo, Preprocessing
from clipeval.models.specs import ModelSpec, resolve
from clipeval.models.zoo import zoo_table

if TYPE_CHECKING:
    from clipeval.models.checkpoint import Checkpoint
    from clipeval.models.encoder import OpenClipEncoder

__all__ = [
    "Encoder",
    "ModelInfo",
    "ModelSpec",
    "Preprocessing",
    "describe",
    "load",
    "locate",
    "open_checkpoint",
    "resolve",
    "zoo_table",
]


def open_checkpoint(spec: ModelSpec, *, offline: bool) -> Checkpoint:
    """A checkpoint with its file found, which knows its identity and its facts; see ``checkpoint.opened``."""
    with _libraries():
        from clipeval.models import checkpoint
    return checkpoint.opened(spec, offline=offline)


def locate(spec: ModelSpec, *, offline: bool) -> Path:
    """The weights of a checkpoint as a file on this machine; see ``checkpoint.opened``."""
    return open_checkpoint(spec, offline=offline).path


def describe(spec: ModelSpec, *, offline: bool) -> ModelInfo:
    """Facts about a checkpoint, its weights' SHA-256 among them; see ``checkpoint.Checkpoint.info``."""
    return open_checkpoint(spec, offline=offline).info


def load(spec: ModelSpec | Checkpoint, *, device: str, precision: str, offline: bool) -> OpenClipEncoder:
    """A checkpoint ready to embed; see ``loader.load``. Raises UsageError for a device or precision that this machine
    cannot do."""
    with _libraries():
        from clipeval.models import loader
    loader.check_device(device, precision)
    checkpoint = open_checkpoint(spec, offline=offline) if isinstance(spec, ModelSpec) else spec
    return loader.load(checkpoint, device=device, precision=precision)


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
