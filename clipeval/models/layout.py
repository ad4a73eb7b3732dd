"""Where the weights are in what a checkpoint file holds, and under which names: training scripts wrap both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval.errors import ModelError, few
from clipeval.models.rules import shortened

if TYPE_CHECKING:
    import torch

_PLACES = ("state_dict", "model_state_dict", "model", "module")
"""Entries that hold a model's weights. open_clip's own, the first, stands before the others."""
_DEEPEST, _MOST_ENTRIES = 4, 1_000_000
_WRAPPERS = ("module", "model")
"""What DDP, DeepSpeed and Lightning put before every name."""
_INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere."""
_TOWERS = {"visual", "image_encoder"}
_OWN = {
    *("visual", "text", "text_decoder", "transformer", "token_embedding", "positional_embedding", "ln_final"),
    *("text_projection", "logit_scale", "logit_bias"),
}
"""First parts of the names in open_clip's models."""


@dataclass(frozen=True)
class Weights:
    """A model's ``tensors`` under open_clip's names, and those ``beside`` it in the same dictionary, such as the head
    of a classifier. ``remarks`` say what is not used."""

    tensors: dict[str, torch.Tensor]
    beside: dict[str, torch.Tensor]
    remarks: tuple[str, ...]


def weights_in(content: Any, path: Path) -> Weights:
    """The weights in a checkpoint's content. Raises ModelError where there are none, or two that could be meant."""
    import torch

    from clipeval.models.unpickling import as_tensor

    found, said = _dictionary(content, path)
    values = {name: as_tensor(value) for name, value in found.items() if isinstance(name, str)}
    tensors = {name: value for name, value in values.items() if torch.is_tensor(value)}
    if not tensors:
        there = few(shortened(key) for key in found) or "nothing"
        raise ModelError(
            f"{path}: holds no model weights (a dictionary of tensors, or one under 'state_dict'); it has {there}."
        )
    tensors, beside = _unwrapped(tensors, path)
    if beside:
        said.append(f"tensors beside the model's weights are not used ({len(beside)}): {few(beside, 3)}")
    return Weights(tensors, beside, tuple(said))


def remarks(content: Any, path: Path) -> tuple[str, ...]:
    """What is to be said of the weights in a checkpoint's content; nothing where there are none."""
    try:
        return weights_in(content, path).remarks if content else ()
    except ModelError:
        return ()


def _dictionary(content: Any, path: Path) -> tuple[dict[Any, Any], list[str]]:
    """The dictionary of the model's weights, and what is to be said of the choice."""
    said: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            break
        inside = [key for key, value in content.items() if isinstance(value, dict) and _has_tensors(value)]
        places = [place for place in _PLACES if place in inside]
        averages = [key for key in inside if _is_average(key)]
        if not places and len(averages) == 1:
            said.append(f"its only weights are a running average ('{averages[0]}'): they are used")
            places = averages
        elif places and averages:
            said.append(f"the weights under '{places[0]}' are used, not their running average under '{averages[0]}'")
        if not places:
            break
        if len(places) > 1 and places[0] != _PLACES[0]:
            names = " and ".join(f"'{place}'" for place in places)
            raise ModelError(f"{path}: holds weights under {names}: which are meant? Keep those alone.")
        content = content[places[0]]
    return (content if isinstance(content, dict) else {}), said


def _has_tensors(value: dict[Any, Any]) -> bool:
    """Whether there are tensors in a dictionary or in those that it holds."""
    import torch

    from clipeval.models.unpickling import as_tensor

    waiting, left = [(value, _DEEPEST)], _MOST_ENTRIES
    while waiting and left > 0:
        found, depth = waiting.pop()
        left -= len(found)
        if any(torch.is_tensor(as_tensor(item)) for item in found.values()):
            return True
        waiting += [(item, depth - 1) for item in found.values() if isinstance(item, dict) and depth > 1]
    return False


def _is_average(key: Any) -> bool:
    return isinstance(key, str) and "ema" in re.split(r"[._-]", key.lower())


def _unwrapped(tensors: dict[str, torch.Tensor], path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors under the names that they have in the model, and those that are not of it."""
    names = {name: ".".join(part for part in name.split(".") if part not in _INSIDE) for name in tensors}
    if len(set(names.values())) < len(names):
        raise ModelError(f"{path}: holds the same weights twice, with and without a wrapper's name in theirs.")
    inner, beside = {name: full for full, name in names.items()}, list[str]()
    while not _TOWERS & (roots := {name.partition(".")[0] for name in inner}):
        wrappers = [wrapper for wrapper in _WRAPPERS if wrapper in roots]
        if len(wrappers) != 1:
            break
        prefix = f"{wrappers[0]}."
        beside += [full for name, full in inner.items() if not name.startswith(prefix)]
        inner = {name.removeprefix(prefix): full for name, full in inner.items() if name.startswith(prefix)}
    if "visual" in roots:
        beside += [full for name, full in inner.items() if name.partition(".")[0] not in _OWN]
        inner = {name: full for name, full in inner.items() if name.partition(".")[0] in _OWN}
    return {name: tensors[full] for name, full in inner.items()}, {full: tensors[full] for full in beside}
