"""What the tests of fine-tuning share: small runs on data made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from helpers import tiny_checkpoint

from clipeval_train.finetune.config import FinetuneConfig

NANO = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "patch_size": 4, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def base_checkpoint(path: Path, seed: int = 0, **metadata: Any) -> Path:
    """A random checkpoint that tells texts apart: fresh token embeddings are all but equal, and so would classes be."""
    content = torch.load(tiny_checkpoint(path, seed, NANO, **metadata))
    content["state_dict"]["token_embedding.weight"] *= 50
    torch.save(content, path)
    return path


def small_config(model: Path | str, data: list[str], out: Path, **changes: Any) -> FinetuneConfig:
    """Twelve iterations of a frozen zero-shot head, in this process."""
    settings: dict[str, Any] = {
        "model": str(model),
        "data": data,
        "train_head": False,
        "iterations": 12,
        "batch_size": 16,
        "lr": 1e-3,
        "warmup": 2,
        "workers": 0,
        "out": str(out),
    }
    return FinetuneConfig.model_validate(settings | changes)
