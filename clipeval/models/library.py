"""What the installed open_clip knows and builds. The one room that asks it."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import convert
from open_clip.hf_configs import arch_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.tokenizer import HFTokenizer, default_bpe
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import TextTransformer
from torchvision.transforms import Normalize, ToTensor

from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import assembly, hub
from clipeval.models.base import Preprocessing
from clipeval.models.text_tower import CausalTextTower

VERSION: str = open_clip.__version__
_POOLED_AT_END_OF_TEXT = ("argmax", "eos")


# --- what it knows ---


def architecture_config(arch: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture. Raises ModelError for an unknown name."""
    config = open_clip.get_model_config(arch)
    if config is None:
        raise ModelError(f"'{arch}' is not an architecture of the installed open_clip {VERSION}.")
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


def common_settings(arch: str) -> dict[str, Any]:
    """The preprocessing on which all tags of an architecture agree; a bare weights file says nothing of its own."""
    every = [
        merge_preprocess_dict({}, tag_settings(arch, tag)) for tag in open_clip.list_pretrained_tags_by_model(arch)
    ]
    return every[0] if every and all(settings == every[0] for settings in every) else {}


def tag_of_weights(arch: str, sha256: str) -> str:
    """The tag whose weights have this digest, as far as their addresses tell it; empty where there is none."""
    for tag, address in _addresses(arch):
        known = _digest_in(address)
        if known and sha256.startswith(known):
            return tag
    return ""


def tag_of_file_name(arch: str, file_name: str) -> str:
    """The tag whose weights were published under this file name, without a digest that would tell them by content;
    empty where there is none."""
    for tag, address in _addresses(arch):
        if Path(address).name == file_name and not _digest_in(address):
            return tag
    return ""


def _addresses(arch: str) -> Iterator[tuple[str, str]]:
    for tag in open_clip.list_pretrained_tags_by_model(arch):
        yield tag, tag_settings(arch, tag).get("url") or ""


def _digest_in(address: str) -> str:
    """The SHA-256 of the file at an address, or its beginning, where open_clip expects one there."""
    if found := re.search(r"openaipublic.*/([0-9a-f]{64})/[^/]*$|mlfoundations.*-([0-9a-f]{8})\.\w+$", address):
        return str(found[1] or found[2])
    return ""


def full_preprocessing(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with open_clip's own where they say nothing."""
    return merge_preprocess_dict(asdict(PreprocessCfg()), settings)


def tower_kinds() -> list[str]:
    """The kinds of text towers of transformers that open_clip has a use for."""
    return list(arch_dict)


# --- what it builds ---


def build(model_cfg: dict[str, Any], tower: dict[str, Any] | None = None) -> Any:
    """An open_clip model with random weights on torch's default device; no pretrained towers are fetched.

    ``tower`` is the configuration of a text tower of transformers (``tower.of``). Raises ModelError when the
    configuration describes no model, MemoryError when there is no room for it.
    """
    cfg = copy.deepcopy(model_cfg)
    if (cfg["text_cfg"].get("hf_model_name") is None) != (tower is None):
        raise ModelError("text_cfg.hf_model_name and the configuration of that tower belong together.")
    with foreign(_not_built), _tower_folder(tower) as folder:
        is_custom = cfg.pop("custom_text", False) or bool(folder)
        kind: Any = open_clip.CLIP
        if is_custom:
            kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
        if "timm_model_name" in cfg["vision_cfg"]:
            cfg["vision_cfg"]["timm_model_pretrained"] = False
        if folder:
            cfg["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
        return kind(**cfg)


def _not_built(error: Exception) -> ModelError:
    return ModelError(f"open_clip cannot build this model configuration: {first_line(error):.300}")


def image_size(model: Any) -> tuple[int, int]:
    """(height, width) in pixels of a model's input."""
    return both_sides(model.visual.image_size)


def both_sides(size: Any) -> tuple[int, int]:
    """(height, width) of a configured size, which is one number where they are equal."""
    return (size[0], size[1]) if isinstance(size, tuple | list) else (size, size)


def simple_vocabulary() -> Path:
    """The vocabulary of open_clip's own tokenizer."""
    return Path(default_bpe())


def simple_tokenizer(**settings: Any) -> Any:
    """open_clip's own tokenizer."""
    return open_clip.SimpleTokenizer(**settings)


def is_simple(tokenizer: Any) -> bool:
    """Whether it is open_clip's own tokenizer."""
    return isinstance(tokenizer, open_clip.SimpleTokenizer)


def transformers_tokenizer(folder: Path, settings: dict[str, Any]) -> Any:
    """open_clip's wrapper of a tokenizer of transformers, from the files in ``folder`` alone."""
    with hub.closed():
        return HFTokenizer(str(folder), trust_remote_code=False, local_files_only=True, **settings)


def load_weights(model: Any, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Give ``model`` copies of the tensors of the file at ``path``, converted as by ``open_clip.load_checkpoint``,
    which would read it once more. Whatever does not fit raises some Exception."""
    state = convert.convert_state_dict(model, dict(weights))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and state[name].ndim != getattr(model, name).ndim:
            state[name] = state[name].reshape(getattr(model, name).shape)
    if "logit_bias" not in state and model.logit_bias is not None:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    ids = "text.transformer.embeddings.position_ids"  # transformers before 4.31 kept them
    if ids in state and not hasattr(model, ids):
        del state[ids]
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(assembly.own_copies(state, path), strict=True, assign=True)


def load_arrays(model: Any, path: Path) -> None:
    """Put the arrays of a ``.npz`` file of big_vision into ``model``. Whatever does not fit raises some Exception."""
    convert.load_big_vision_weights(model, str(path))


def pixel_steps(preprocessing: Preprocessing) -> Sequence[Callable[..., Any]]:
    """The part of the inference transform that works on PIL images."""
    settings = PreprocessCfg(**{**asdict(preprocessing), "size": preprocessing.size})
    steps = image_transform_v2(settings, is_train=False).transforms
    return [step for step in steps if not isinstance(step, ToTensor | Normalize)]


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


@contextmanager
def _tower_folder(tower: dict[str, Any] | None) -> Iterator[str]:
    """A folder with this configuration and nothing else, as transformers reads one from folders only; or nothing."""
    if tower is None:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="clipeval-tower-") as folder, hub.closed():
        (Path(folder) / "config.json").write_text(json.dumps(tower), "utf-8")
        yield folder
