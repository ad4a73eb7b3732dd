"""Checkpoints as encoders. The one module that calls open_clip."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import TextTransformer
from torchvision.transforms import Normalize, ToTensor

from clipeval import digest
from clipeval.errors import ModelError, UsageError, first_line
from clipeval.models import facts, specs, weights, zoo
from clipeval.models.base import Preprocessing
from clipeval.models.encoder import PRECISIONS, OpenClipEncoder, PixelTransform
from clipeval.models.specs import ModelSpec
from clipeval.models.text_tower import CausalTextTower

_ENCODER_VERSION = 1
"""Raised whenever the same checkpoint would embed differently: it is part of every stored embedding's key."""
_POOLED_AT_END_OF_TEXT = ("argmax", "eos")


def load(spec: ModelSpec, *, device: str, precision: str, offline: bool) -> OpenClipEncoder:
    """Load a checkpoint for inference on ``device`` (``cpu``, ``cuda``, ``cuda:1``).

    ``precision`` is ``fp32``, or ``bf16``/``fp16`` by autocast with fp32 weights. Raises UsageError for a device or
    precision that this machine cannot do, and ModelError when the weights are missing, unsafe, broken, of another shape
    than the architecture, or trained with another activation than it computes. A weights file does not tell its
    activation; it is compared where it is on record: for tags, for files that still have the name a tag's weights were
    published under, and for files of clipeval-train.
    """
    _check_device(device, precision)
    info = facts.describe(spec, offline=offline)
    path = weights.locate(spec, offline=offline)
    content = weights.read(path)
    model_cfg, preprocess_cfg = _configuration(spec, content, path, offline)
    _check_activation(spec, model_cfg, content, path)
    with weights.hub_access(offline):
        model = build(model_cfg)
        tokenizer = _tokenizer(spec, model_cfg)
    _check_vocabulary(spec, model_cfg, tokenizer)
    _load_weights(model, spec, content, path)
    preprocessing, pixels = _preprocessing(model, preprocess_cfg)
    return OpenClipEncoder(
        model=model.to(device).eval().requires_grad_(False),
        text_tower=trimmable_tower(model),
        tokenizer=tokenizer,
        pixels=pixels,
        preprocessing=preprocessing,
        info=info,
        embed_dim=model_cfg["embed_dim"],
        identity={
            "version": _ENCODER_VERSION,
            "open_clip": open_clip.__version__,
            "weights": info.checkpoint_sha256,
            "model": digest.of_value(model_cfg),
            "tokenizer": [type(tokenizer).__name__, model_cfg["text_cfg"].get("hf_tokenizer_name")],
        },
        device=device,
        precision=precision,
    )


def configuration(spec: ModelSpec, *, offline: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's model configuration and preprocessing settings of a checkpoint. Raises ModelError."""
    path = weights.locate(spec, offline=offline)
    return _configuration(spec, weights.read(path), path, offline)


def build(model_cfg: dict[str, Any]) -> Any:
    """An open_clip model with random weights on torch's default device; no pretrained towers are fetched.

    Raises ModelError when the configuration describes no model.
    """
    cfg = copy.deepcopy(model_cfg)
    is_custom = cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]
    kind: Any = open_clip.CLIP
    if is_custom:
        kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in cfg["text_cfg"]:
        cfg["text_cfg"]["hf_model_pretrained"] = False
    try:
        return kind(**cfg)
    except (TypeError, ValueError, AssertionError, RuntimeError, OSError, ZeroDivisionError) as error:
        raise ModelError(f"open_clip cannot build this model configuration: {first_line(error)}") from error


def image_size(model: Any) -> tuple[int, int]:
    """(height, width) in pixels of a model's input."""
    size = model.visual.image_size
    return (size[0], size[1]) if isinstance(size, (tuple, list)) else (size, size)


def architecture_config(arch: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture. Raises ModelError for an unknown name."""
    config = open_clip.get_model_config(arch)
    if config is None:
        raise ModelError(f"'{arch}' is not an architecture of the installed open_clip {open_clip.__version__}.")
    return dict(config)


def list_architectures() -> list[str]:
    """Every architecture of the installed open_clip."""
    return open_clip.list_models()


def list_tags() -> list[tuple[str, str]]:
    """Every (architecture, tag) of the installed open_clip."""
    return open_clip.list_pretrained()


def tag_settings(arch: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag: preprocessing, ``quick_gelu`` and ``hub``, the weights' address there.

    Empty for an unknown tag.
    """
    settings = dict(open_clip.get_pretrained_cfg(arch, tag))
    return settings | {"hub": settings["hf_hub"]} if settings else {}


def is_known(arch: str, tag: str = "") -> bool:
    """Whether the installed open_clip has the architecture and, where given, this tag of it."""
    return open_clip.get_model_config(arch) is not None and (not tag or bool(tag_settings(arch, tag)))


def _check_device(device: str, precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}.")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device '{device}': expected cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{device}': torch finds {torch.cuda.device_count()} CUDA devices here. Use another.")
    if precision == "fp16" and wanted.type != "cuda":
        raise UsageError(f"precision 'fp16' needs a CUDA device, not '{device}'. Use bf16 or fp32.")


def _configuration(spec: ModelSpec, content: Any, path: Path, offline: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model configuration, preprocessing settings) of a checkpoint; settings that are not given are open_clip's."""
    default = asdict(PreprocessCfg())
    if spec.kind == "trained":
        content = weights.require_trained(content, path)
        return content["model_cfg"], merge_preprocess_dict(default, content.get("preprocess_cfg", {}))
    if spec.kind in ("hub", "local-dir"):
        config = facts.hub_config(spec, offline=offline)
        return config["model_cfg"], merge_preprocess_dict(default, config.get("preprocess_cfg", {}))
    row = zoo.checkpoints().get((spec.arch, spec.pretrained)) or zoo.by_file_name(spec.arch, path.name)
    tag = spec.pretrained
    if spec.kind != "tag":
        tag = row.preprocess_of if row else ""
    chosen = tag_settings(spec.arch, tag) if tag else _common_settings(spec.arch)
    return architecture_config(spec.arch), merge_preprocess_dict(default, chosen)


def _common_settings(arch: str) -> dict[str, Any]:
    """The preprocessing on which all tags of an architecture agree; a bare weights file says nothing of its own."""
    every = [
        merge_preprocess_dict({}, tag_settings(arch, tag)) for tag in open_clip.list_pretrained_tags_by_model(arch)
    ]
    return every[0] if every and all(settings == every[0] for settings in every) else {}


def _check_activation(spec: ModelSpec, model_cfg: dict[str, Any], content: Any, path: Path) -> None:
    trained_with: bool | None = None
    if row := zoo.checkpoints().get((spec.arch, spec.pretrained)):
        trained_with = row.quick_gelu
    elif spec.kind == "tag":
        trained_with = tag_settings(spec.arch, spec.pretrained).get("quick_gelu", False)
    elif weights.is_trained(content):
        trained_with = content["model_cfg"].get("quick_gelu", False)
    elif spec.kind == "file":
        for tag in open_clip.list_pretrained_tags_by_model(spec.arch):
            settings = tag_settings(spec.arch, tag)
            if settings["url"] and Path(settings["url"]).name == path.name:
                trained_with = settings.get("quick_gelu", False)
    if trained_with is not None and trained_with != model_cfg.get("quick_gelu", False):
        raise ModelError(specs.wrong_activation(spec.arch, spec.pretrained, trained_with))


def tokenizer_of(model_cfg: dict[str, Any], name: str) -> Any:
    """The tokenizer of a model configuration that has no name in open_clip. Raises ModelError when it is not to be had.

    ``name`` is the model's in that message.
    """
    text_cfg = model_cfg["text_cfg"]
    settings = {"context_length": text_cfg.get("context_length", 77), **(text_cfg.get("tokenizer_kwargs") or {})}
    try:
        if hub_name := text_cfg.get("hf_tokenizer_name"):
            return HFTokenizer(hub_name, tokenizer_mode=text_cfg.get("tokenizer_mode"), **settings)
        return open_clip.SimpleTokenizer(**settings)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(f"{name}: cannot get the tokenizer: {first_line(error)}") from error


def _tokenizer(spec: ModelSpec, model_cfg: dict[str, Any]) -> Any:
    if spec.kind == "trained":
        return tokenizer_of(model_cfg, spec.name)
    try:
        return open_clip.get_tokenizer(spec.pretrained if spec.kind in ("hub", "local-dir") else spec.arch)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(f"{spec.name}: cannot get the tokenizer: {first_line(error)}") from error


def _check_vocabulary(spec: ModelSpec, model_cfg: dict[str, Any], tokenizer: Any) -> None:
    size = model_cfg["text_cfg"].get("vocab_size")
    if size is not None and isinstance(tokenizer, open_clip.SimpleTokenizer) and tokenizer.vocab_size > size:
        raise ModelError(
            f"{spec.name}: text_cfg.vocab_size is {size}, but open_clip's tokenizer has {tokenizer.vocab_size} tokens."
        )


def _load_weights(model: Any, spec: ModelSpec, content: Any, path: Path) -> None:
    architecture = spec.arch or spec.name
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if content and spec.kind != "tag":  # open_clip would silently interpolate position embeddings of another size
        weights.check_shapes(content, expected, architecture, path)
    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # open_clip's conversions assume a checkpoint of theirs and may raise anything
        if content:
            weights.check_shapes(content, expected, architecture, path)
            weights.check_names(content, expected, architecture, path)
        raise ModelError(f"{path}: does not fit {architecture}: {error}") from error


def _preprocessing(model: Any, preprocess_cfg: dict[str, Any]) -> tuple[Preprocessing, PixelTransform]:
    settings = PreprocessCfg(**preprocess_cfg | {"size": image_size(model)})
    steps = image_transform_v2(settings, is_train=False).transforms
    preprocessing = Preprocessing(
        image_size(model),
        _per_channel(settings.mean),
        _per_channel(settings.std),
        settings.interpolation,
        settings.resize_mode,
        settings.fill_color,
    )
    return preprocessing, PixelTransform([step for step in steps if not isinstance(step, (ToTensor, Normalize))])


def trimmable_tower(model: Any) -> CausalTextTower | None:
    """The text tower if cutting its input behind the end of text is exact, else None.

    It is not for bidirectional attention, for pooling the last or all positions, for CoCa's class token behind the
    text, and unknown for text towers of other libraries.
    """
    if isinstance(model, open_clip.CLIP):
        module, pool_type, eos_id = model, model.text_pool_type, model.text_eos_id
    elif isinstance(model, open_clip.CustomTextCLIP) and isinstance(model.text, TextTransformer):
        module, pool_type, eos_id = model.text, model.text.pool_type, model.text.eos_id
    else:
        return None
    if (
        module.attn_mask is None
        or pool_type not in _POOLED_AT_END_OF_TEXT
        or getattr(module, "cls_emb", None) is not None
    ):
        return None
    return CausalTextTower(module, pool_type, eos_id)


def _per_channel(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, (tuple, list)) else (value,) * 3
    return float(red), float(green), float(blue)
