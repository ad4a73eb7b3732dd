"""Checkpoints on disk: written whole or not at all, and found again.

    OUT/checkpoints/samples_000000128000.pt    one file per saved point
    OUT/latest                                 path of the newest, relative to OUT

A file is a dictionary of tensors and plain Python values, so ``torch.load(weights_only=True)`` reads it:

    format        "clipeval-train-1"
    arch          the architecture's name
    model_cfg     its open_clip configuration: ``open_clip.CLIP(**model_cfg)`` takes ``state_dict``
    state_dict    weights in fp32
    metadata      source, source_family, unique_samples, samples_seen, seed, config, ...
    resume        what training goes on from; None in the last checkpoint of a run
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from clipeval.errors import StoreError
from clipeval.models import weights
from clipeval.results.files import write_atomically


def path_of(out: Path, samples: int) -> Path:
    """The file of the checkpoint that has seen this many samples."""
    return out / "checkpoints" / f"samples_{samples:012d}.pt"


def save(out: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint and point OUT/latest to it. Raises StoreError."""
    path = path_of(out, content["metadata"]["samples_seen"])
    write_atomically(path, partial(_write, {"format": weights.TRAINED_FORMAT, **content}))
    write_atomically(out / "latest", partial(_point, path.relative_to(out).as_posix()))


def newest(out: Path) -> Path | None:
    """The file OUT/latest points to, or None when the run has not saved yet. Raises StoreError."""
    try:
        return out / (out / "latest").read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{out / 'latest'}: cannot read: {error.strerror}. Choose another `out`.") from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; code inside is never executed. Raises ModelError when it is not one of ours."""
    return weights.require_trained(weights.read(path), path)


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:  # how torch reports a full disk
        raise OSError(str(error)) from error


def _point(target: str, path: Path) -> None:
    path.write_text(f"{target}\n", "utf-8")
