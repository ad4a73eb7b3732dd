"""The kinds of checkpoints that there are, by the address of the code that opens and loads them.

``opened(spec, offline=...)`` gives an ``Opened``, ``load(opened, device=..., precision=...)`` its ``Encoder``. Models
of other packages are functions (``functions``), which need neither.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from clipeval.models.spec import ModelSpec

_OPEN_CLIP = "open_clip"
FAMILIES = {
    _OPEN_CLIP: ("clipeval.models.checkpoint:opened", "clipeval.models.loader:load"),
    "transformers": ("clipeval.models.transformers.checkpoint:opened", "clipeval.models.transformers.encoder:load"),
    "python": ("clipeval.models.own_encoder:opened", "clipeval.models.own_encoder:load"),
}
"""Family -> module:function that opens, module:function that loads; imported when first used."""


def family(spec: ModelSpec) -> str:
    """The family that a spec is of: open_clip has most kinds."""
    return spec.kind if spec.kind in FAMILIES else _OPEN_CLIP


def opener(spec: ModelSpec) -> Callable[..., Any]:
    """The function that opens the checkpoint of a spec."""
    return _imported(FAMILIES[family(spec)][0])


def loader(spec: ModelSpec) -> Callable[..., Any]:
    """The function that makes an encoder of the opened checkpoint of a spec."""
    return _imported(FAMILIES[family(spec)][1])


def _imported(address: str) -> Callable[..., Any]:
    module, _, function = address.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
