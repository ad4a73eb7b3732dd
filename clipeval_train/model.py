"""The model that is trained: open_clip's CLIP, from an architecture name or an inline configuration."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clipeval.errors import ModelError, UsageError, suggest
from clipeval.models import library, profile, tower
from clipeval.models import tokenizer as tokenizers
from clipeval.models.profile import Profile
from clipeval.remote.origin import is_offline

IMAGE_MEAN: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
IMAGE_STD: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD

_TOP_KEYS = (
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"),
    *("init_logit_scale", "init_logit_bias"),
)
_SIGLIP_START = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}
"""Where the sigmoid loss begins unless the configuration says otherwise (Zhai et al., arXiv 2303.15343)."""
_VISION_KEYS = tuple(field.name for field in dataclasses.fields(CLIPVisionCfg))
_TEXT_KEYS = tuple(field.name for field in dataclasses.fields(CLIPTextCfg))


@dataclass(frozen=True)
class Architecture:
    """A model's name in the results table and its open_clip configuration."""

    name: str
    config: dict[str, Any]
    preprocess_cfg: dict[str, Any] | None = None
    """How images become its input, in open_clip's words, where that is not as OpenAI's models have it."""

    @property
    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of pixels from 0 to 1, per channel."""
        settings = self.preprocess_cfg or {}
        return tuple(settings.get("mean", IMAGE_MEAN)), tuple(settings.get("std", IMAGE_STD))

    @property
    def image_size(self) -> int:
        """Side of the square input image in pixels."""
        return int(self.config["vision_cfg"].get("image_size", 224))

    @property
    def context_length(self) -> int:
        """Tokens per caption, start and end included."""
        return int(self.config["text_cfg"].get("context_length", 77))

    @cached_property
    def tower(self) -> dict[str, Any] | None:
        """The configuration of its text tower where that is one of transformers. Raises ModelError."""
        return tower.of(self.config["text_cfg"], self.name, offline=is_offline())

    @cached_property
    def profile(self) -> Profile:
        """Its size and cost. Raises ModelError."""
        return profile.of_config(self.config, self.tower)


def resolve(
    model: str | dict[str, Any] | None,
    name: str,
    loss: str = "clip",
    own: dict[str, Any] | None = None,
    preprocess_cfg: dict[str, Any] | None = None,
) -> Architecture:
    """The architecture that the configuration key ``model`` names; ``name`` is that of an inline one.

    An inline one may be changes of a named ``base``, or of ``own``, the configuration of the checkpoint that training
    begins with, whose it is where ``model`` is None. With the loss ``siglip`` it has a logit bias. Raises UsageError
    for an unknown architecture or key, and for models that a contrastive loss alone does not train.
    """
    if isinstance(model, dict):
        base = model.get("base")
        changes = {key: value for key, value in model.items() if key != "base"}
        _check_keys(changes, "model", _TOP_KEYS)
        for tower, keys in (("vision_cfg", _VISION_KEYS), ("text_cfg", _TEXT_KEYS)):
            if not isinstance(changes.get(tower, {}), dict):
                raise UsageError(f"model.{tower}: expected a mapping with open_clip's keys for this tower.")
            _check_keys(changes.get(tower, {}), f"model.{tower}", keys)
        config = _merged(_named(base) if base else own or {}, changes)
        for tower in ("vision_cfg", "text_cfg"):
            if tower not in config:
                raise UsageError(f"model.{tower}: expected a mapping with open_clip's keys for this tower.")
        if not isinstance(config.get("embed_dim"), int):
            raise UsageError("model.embed_dim: expected the width of the shared space, a whole number.")
        name = f"{base}-custom" if base and name == "custom" else name
    elif model is None:
        config = copy.deepcopy(own or {})
    else:
        name, config = model, _named(model)
    if other := sorted(set(config) - set(_TOP_KEYS)):
        raise UsageError(f"model: '{name}' needs {', '.join(other)}, which a contrastive loss alone does not train.")
    if not isinstance(config["vision_cfg"].get("image_size", 224), int):
        raise UsageError("model.vision_cfg.image_size: expected one whole number: images are square here.")
    return Architecture(name, _SIGLIP_START | config if loss == "siglip" else config, preprocess_cfg)


def _named(name: str) -> dict[str, Any]:
    names = open_clip.list_models()
    if name not in names:
        raise UsageError(
            f"model: '{name}' is not an architecture of open_clip.{suggest(str(name), names)} "
            "Give one of open_clip.list_models() or an inline configuration."
        )
    return dict(open_clip.get_model_config(name) or {})


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with other values for some of its keys, at any depth."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


def build(architecture: Architecture, seed: int) -> Any:
    """A freshly initialised model in fp32 on the CPU; equal for equal seeds.

    Raises UsageError when open_clip cannot build the configuration.
    """
    torch.manual_seed(seed)
    try:
        return library.build(architecture.config, architecture.tower)
    except ModelError as error:
        raise UsageError(f"model: '{architecture.name}': {error}") from error


def tokenizer(architecture: Architecture) -> Callable[[list[str]], torch.Tensor]:
    """Captions to ``[n, context_length]`` int64, longer ones cut: by CLIP's byte-pair encoding or the model's own.

    Raises UsageError when the model has fewer tokens than the encoding, or its tokenizer is not to be had.
    """
    text_cfg = architecture.config["text_cfg"]
    try:
        tokenizer = tokenizers.of(text_cfg, architecture.name, folder=None, offline=is_offline()).make()
    except ModelError as error:
        raise UsageError(f"model: {error}") from error
    size = text_cfg.get("vocab_size")
    if size is not None and library.is_simple(tokenizer) and tokenizer.vocab_size > size:
        raise UsageError(f"model.text_cfg.vocab_size: {size}, but CLIP's encoding has {tokenizer.vocab_size} tokens.")
    return tokenizer


def _check_keys(mapping: dict[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in mapping:
        if key not in known:
            raise UsageError(f"{where}.{key}: unknown key.{suggest(str(key), known)} Keys here: {', '.join(known)}.")
