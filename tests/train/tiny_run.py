"""A run that trains in a second: scikit-learn's digits on a CLIP of width 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clipeval_train.config import PretrainConfig

MODEL = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 8, "layers": 1, "head_width": 4},
    "text_cfg": {"context_length": 12, "width": 8, "heads": 2, "layers": 1},
}


def tiny_config(out: Path, **changes: Any) -> PretrainConfig:
    """13 batches of 32 and a last one of 7."""
    settings: dict[str, Any] = {
        "model": MODEL,
        "data": [{"source": "digits", "shards": "builtin:digits"}],
        "samples": 423,
        "batch_size": 32,
        "lr": 1e-2,
        "warmup": 100,
        "out": str(out),
    }
    return PretrainConfig.model_validate(settings | changes)


def assert_weights_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float, rtol: float = 0
) -> None:
    """Where weights may differ at all, those of attention's key biases may by anything: these have no gradient, as
    they move all scores of a query alike, and Adam makes whole steps of their rounding errors."""
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        mine, theirs = found[key], tensor
        if atol and key.endswith("in_proj_bias"):
            mine, theirs = (torch.cat([part.chunk(3)[0], part.chunk(3)[2]]) for part in (mine, theirs))
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
