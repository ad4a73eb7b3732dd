"""The configuration of a pre-training run: a YAML file, with ``key=value`` settings on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clipeval.config import explain, parse_yaml, read_yaml
from clipeval.errors import UsageError

_EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+")


def _numbers(value: Any) -> Any:
    """``1e-3`` as a number, at any depth: YAML 1.1 reads it as text because it has no dot."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return value


_Real = Annotated[float, BeforeValidator(_numbers), Field(allow_inf_nan=False)]
_Count = Annotated[int, BeforeValidator(_numbers)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceEntry(_Frozen):
    """An upstream data set that takes part in the training."""

    source: str
    """Its name in the results table."""
    shards: str
    """Where its image-text pairs are: ``builtin:icons/material+phosphor`` or ``builtin:digits``."""
    weight: _Real = Field(1.0, gt=0)
    """Its share of the samples seen, relative to the weights of the other sources."""


class PretrainConfig(_Frozen):
    """Everything a pre-training run can be told. Sizes and times are counted in samples (image-text pairs)."""

    model: str | dict[str, Any]
    """An architecture name of open_clip, or an inline open_clip model configuration."""
    arch: str = "custom"
    """Name of an inline model in the results table."""
    data: tuple[SourceEntry, ...] = Field(min_length=1)
    samples: _Count = Field(gt=0)
    """Samples seen at the end, exactly: the last batch is cut to fit."""
    batch_size: _Count = Field(ge=2)
    lr: _Real = Field(gt=0)
    """Peak learning rate."""
    warmup: _Count = Field(0, ge=0)
    """Samples of linear warm-up, before the cosine decay to zero."""
    weight_decay: _Real = Field(0.2, ge=0)
    betas: tuple[_Real, _Real] = (0.9, 0.98)
    eps: _Real = Field(1e-6, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: _Count = Field(0, ge=0)
    save_every: _Count | None = Field(None, gt=0)
    """Save a checkpoint at the first batch end past every multiple of this many samples; None: only at the end."""
    out: str
    resume: Literal["auto"] = "auto"


def load_pretrain(path: Path, settings: list[str]) -> PretrainConfig:
    """Read and validate a configuration. Each of ``settings`` is ``key=value``, dots leading into nested keys.

    Raises UsageError that names the file, the settings and the key.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping with the keys {', '.join(PretrainConfig.model_fields)}.")
    for setting in settings:
        _apply(document, setting)
    origin = " ".join([str(path), *settings])
    if isinstance(document.get("model"), dict):
        document["model"] = _numbers(document["model"])
    try:
        config = PretrainConfig.model_validate(document)
    except ValidationError as error:
        raise UsageError(explain(error, origin, _model_at)) from error
    if config.warmup >= config.samples:
        raise UsageError(
            f"{origin}: warmup: {config.warmup} samples of warm-up leave nothing of a run of {config.samples}. "
            "Give fewer than `samples`; a tenth is common."
        )
    return config


def _model_at(location: list[Any]) -> type[BaseModel]:
    return SourceEntry if location[:1] == ["data"] else PretrainConfig


def _apply(document: dict[str, Any], setting: str) -> None:
    """Set one ``key=value`` in the document, creating mappings on the way where the file has none."""
    key, equals, text = setting.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise UsageError(f"'{setting}': expected KEY=VALUE, for example lr=1e-3 or model.embed_dim=32.")
    node: Any = document
    for depth, name in enumerate(parents):
        if isinstance(node, dict):
            node = node.setdefault(name, {})
        else:
            node = node[_index(node, name, ".".join(parents[:depth]), setting)]
    if isinstance(node, dict):
        node[last] = parse_yaml(text, f"'{setting}'")
    else:
        node[_index(node, last, ".".join(parents), setting)] = parse_yaml(text, f"'{setting}'")


def _index(node: Any, name: str, where: str, setting: str) -> int:
    if not isinstance(node, list):
        raise UsageError(f"'{setting}': {where} is {node!r:.60} in the file, which has no keys inside.")
    if not name.isdecimal() or int(name) >= len(node):
        raise UsageError(f"'{setting}': {where} is a list of {len(node)}: name an entry by its number from 0.")
    return int(name)
