"""A plan of tiny runs, for the tests of the ladder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clipeval_train.ladder.grid import Ladder, load_ladder


def tower(width: int) -> dict[str, Any]:
    """A CLIP that trains in a second."""
    return {
        "embed_dim": width,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": width, "layers": 1, "head_width": 4},
        "text_cfg": {"context_length": 12, "width": width, "heads": 2, "layers": 1},
    }


def document(out: Path, **changes: Any) -> dict[str, Any]:
    """2 architectures x 2 sources x 2 lengths on scikit-learn's digits."""
    return {
        "grid": {"model": ["xs", "s"], "source": ["a", "b"], "samples": [64, 128]},
        "models": {"xs": tower(4), "s": tower(8)},
        "sources": {"a": {"shards": "builtin:digits"}, "b": [{"source": "digits", "shards": "builtin:digits"}]},
        "defaults": {"batch_size": 32, "lr": 1e-2, "warmup": 8},
        "out": str(out / "runs"),
        **changes,
    }


def plan_file(folder: Path, **changes: Any) -> Path:
    """The plan as a file."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(document(folder, **changes), sort_keys=False))
    return path


def ladder(folder: Path, **changes: Any) -> Ladder:
    """The plan, read."""
    return load_ladder(plan_file(folder, **changes))
