"""What is known of one checkpoint, as it stands in the results table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError
from clipeval.models import profile, weights, zoo
from clipeval.models.base import ModelInfo
from clipeval.models.specs import HUB_PREFIX, ModelSpec


def describe(spec: ModelSpec, *, offline: bool) -> ModelInfo:
    """Facts about a checkpoint, its weights' SHA-256 among them, so the weights are downloaded where they are not here.

    Public checkpoints are described by the shipped tables, those of clipeval-train by what is written in the file, any
    other by its configuration; ``spec.overrides`` win. What nothing says is NaN or empty. Raises ModelError when the
    weights or the configuration cannot be had or read.
    """
    path = weights.locate(spec, offline=offline)
    with weights.hub_access(offline):
        found = _find_out(spec, path, offline)
    info = replace(
        found,
        model=spec.name,
        pretrained=spec.pretrained,
        checkpoint_sha256=digest.of_file(path),
        **dict(spec.overrides),
    )
    return replace(info, gmacs_total=info.gmacs * info.samples_seen)


def _find_out(spec: ModelSpec, path: Path, offline: bool) -> ModelInfo:
    if spec.kind == "trained":
        content = weights.require_trained(weights.read(path), path)
        return _trained(content, ModelInfo("", arch=str(content.get("arch", "")), **_profiled(content["model_cfg"])))
    if spec.kind == "local-dir":
        config = hub_config(spec, offline=offline)
        info = ModelInfo("", arch=str(config.get("arch", "")), **_profiled(config["model_cfg"]))
        return _trained(config, info) if isinstance(config.get("metadata"), dict) else info
    if spec.kind == "hub":
        row = zoo.by_hub(spec.pretrained.removeprefix(HUB_PREFIX))
        return zoo.info_of(row) if row else ModelInfo("", **_profiled(hub_config(spec, offline=offline)["model_cfg"]))
    row = zoo.checkpoints().get((spec.arch, spec.pretrained)) or zoo.by_file_name(spec.arch, path.name)
    if row:
        return zoo.info_of(row)
    info = zoo.info_of_architecture(spec.arch)
    if math.isnan(info.params):  # an architecture of a newer open_clip than the tables
        from clipeval.models import loader

        info = replace(info, **_profiled(loader.architecture_config(spec.arch)))
    content = weights.read(path) if path.suffix == ".pt" else {}
    return _trained(weights.require_trained(content, path), info) if weights.is_trained(content) else info


def hub_config(spec: ModelSpec, *, offline: bool) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a ``hub`` or ``local-dir`` checkpoint. Raises ModelError."""
    if spec.kind == "hub":
        repository = spec.pretrained.removeprefix(HUB_PREFIX)
        path = weights.fetch(repository, (weights.CONFIG_FILE,), spec.name, offline=offline)
    else:
        path = Path(spec.path) / weights.CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable JSON file: {error}") from error
    weights.check_model_cfg(config, path)
    return dict(config)


def _profiled(model_cfg: dict[str, Any]) -> dict[str, Any]:
    return asdict(profile.of_config(model_cfg))


def _trained(content: dict[str, Any], info: ModelInfo) -> ModelInfo:
    metadata = content["metadata"]
    return replace(
        info,
        source=metadata.get("source") or "",
        source_family=metadata.get("source_family") or metadata.get("source") or "",
        unique_samples=_number(metadata.get("unique_samples")),
        samples_seen=_number(metadata.get("samples_seen")),
        samples_seen_from=metadata.get("samples_seen_from", "measured"),
        gpu_hours=_number(metadata.get("gpu_hours")),
        energy_kwh=_number(metadata.get("energy_kwh")),
        init=metadata.get("init") or "",
        stage=metadata.get("stage") or "",
        from_scratch_filter=metadata.get("from_scratch_filter") or "",
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
