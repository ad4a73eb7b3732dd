"""What a configuration in or beside a checkpoint may say: every key with its bounds, checked before anything is built.

A configuration comes from whoever made the checkpoint. Within these bounds a model is built in seconds; what has a
wrong type, or a size that no model has, is refused with the file, the key, the value and what is allowed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from clipeval.errors import ModelError
from clipeval.models import zoo
from clipeval.models.base import ORIGINS
from clipeval.models.rules import (
    ANY_MAPPING,
    FLAG,
    LAYERS,
    NONE,
    SIDE,
    Rule,
    check,
    check_patches,
    either,
    list_of,
    mapping,
    matching,
    one_of,
    real,
    require,
    text,
    whole,
)

_WORD = matching(r"[\w-]{0,64}", "a word of letters, digits, _ and -")
_WIDTH, _HEADS = whole(1, 1 << 14), whole(1, 1024)
_TOKENS, _TOKEN = whole(1, 10_000_000), whole(0, 10_000_000)
_SHARE, _RATIO = real(0, 1), real(0.01, 64)
_NAME = either(text(500), NONE)

_BLOCK = {
    "mlp_ratio": _RATIO,
    "ls_init_value": either(real(0, 1000), NONE),
    "act_kwargs": either(mapping({"approximate": one_of("none", "tanh")}), NONE),
    "norm_kwargs": either(mapping({"eps": real(0, 1)}), NONE),
    "block_type": either(_WORD, NONE),
    "output_tokens": FLAG,
    "final_ln_after_pool": FLAG,
    "pool_type": _WORD,
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"), FLAG),
    "scale_fc": FLAG,
}
_VISION = _BLOCK | {
    "layers": either(LAYERS, list_of(LAYERS, 4)),
    "width": _WIDTH,
    "head_width": _WIDTH,
    "patch_size": either(SIDE, NONE),
    "image_size": either(SIDE, list_of(SIDE, 2)),
    "patch_dropout": _SHARE,
    "attentional_pool": either(FLAG, _WORD),
    "attn_pooler_queries": whole(1, 8192),
    "attn_pooler_heads": _HEADS,
    "no_ln_pre": FLAG,
    "pos_embed_type": _WORD,
    # a name with a colon or a slash would be an address, from which timm reads
    "timm_model_name": either(matching(r"[\w-]+(\.[\w-]+)?", "a name of timm's own"), NONE),
    "timm_model_pretrained": FLAG,
    "timm_pool": _WORD,
    "timm_proj": either(_WORD, NONE),
    "timm_proj_bias": FLAG,
    "timm_drop": _SHARE,
    "timm_drop_path": either(_SHARE, NONE),
}
_TEXT = _BLOCK | {
    "context_length": whole(1, 8192),
    "vocab_size": _TOKENS,
    "hf_tokenizer_name": _NAME,
    "tokenizer_mode": either(one_of("", "clips"), NONE),
    "tokenizer_kwargs": either(ANY_MAPPING, NONE),
    "width": _WIDTH,
    "heads": _HEADS,
    "layers": LAYERS,
    "embed_cls": FLAG,
    "pad_id": _TOKEN,
    "eos_id": _TOKEN,
    "no_causal_mask": FLAG,
    "proj_bias": FLAG,
    "proj_type": either(_WORD, NONE),
    "hf_model_name": _NAME,
    "hf_model_pretrained": FLAG,
    "hf_proj_type": either(_WORD, NONE),
    "hf_pooler_type": either(_WORD, NONE),
}
_DECODER = _TEXT | {
    "dim_head": _WIDTH,
    "n_queries": whole(1, 8192),
    "attn_pooler_heads": _HEADS,
}
_MODEL = {
    "embed_dim": whole(1, 1 << 16),
    "vision_cfg": ANY_MAPPING,
    "text_cfg": ANY_MAPPING,
    "multimodal_cfg": ANY_MAPPING,
    "quick_gelu": FLAG,
    "custom_text": FLAG,
    "init_logit_scale": real(-1000, 1000),
    "init_logit_bias": either(real(-1000, 1000), NONE),
    "nonscalar_logit_scale": FLAG,
    "output_dict": FLAG,
    "cast_dtype": NONE,
    "pad_id": _TOKEN,
}
_TOWERS = {"vision_cfg": _VISION, "text_cfg": _TEXT, "multimodal_cfg": _DECODER}
_PREPROCESS = {
    "size": either(SIDE, list_of(SIDE, 2), NONE),
    "mode": either(one_of("RGB"), NONE),
    "mean": either(list_of(real(-1000, 1000), 3), real(1e-6, 1000), NONE),
    "std": either(list_of(real(1e-6, 1000), 3), real(1e-6, 1000), NONE),
    "interpolation": either(one_of("bicubic", "bilinear", "random"), NONE),
    "resize_mode": either(one_of("shortest", "longest", "squash"), NONE),
    "fill_color": either(whole(0, 255), NONE),
}
TOKENIZER = {
    "context_length": whole(1, 8192),
    "clean": one_of("canonicalize", "lower", "whitespace"),
    "strip_sep_token": FLAG,
    "language": either(_WORD, NONE),
}
"""The settings of a tokenizer. All others of its libraries are refused: some run code, some read other files."""
_COUNT = either(real(0, 1e18), Rule("NaN", lambda value: isinstance(value, float) and math.isnan(value)), NONE)
_FACT = either(text(2000), NONE)
_MIXTURE = Rule(
    "a mapping of at most 256 sources to shares that sum to 1",
    lambda value: (
        isinstance(value, dict)
        and len(value) <= 256
        and all(text(2000).holds(name) and real(0, 1).holds(share) for name, share in value.items())
        and (not value or math.isclose(sum(value.values()), 1, rel_tol=1e-6))
    ),
)
_METADATA = {
    **dict.fromkeys(("source", "source_family", "init", "stage", "from_scratch_filter"), _FACT),
    **dict.fromkeys(("unique_samples", "samples_seen", "gpu_hours", "energy_kwh"), _COUNT),
    "samples_seen_from": one_of(*ORIGINS, ""),
    "mixture": _MIXTURE,
}


def check_model_cfg(content: Any, where: object) -> dict[str, Any]:
    """``content["model_cfg"]``, an open_clip model configuration within bounds. Raises ModelError; ``where`` is the
    file in that message."""
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise ModelError(f"{where}: `model_cfg` with embed_dim, vision_cfg and text_cfg is missing.")
    check(config, _MODEL, f"{where}: model_cfg")
    for tower, rules in _TOWERS.items():
        if tower in config:
            check(config[tower], rules, f"{where}: model_cfg.{tower}")
    check_patches(config["vision_cfg"], f"{where}: model_cfg.vision_cfg")
    return config


def check_preprocess_cfg(content: dict[str, Any], where: object) -> dict[str, Any]:
    """``content["preprocess_cfg"]``, or nothing where there is none; keys that open_clip does not know are left out, as
    there. Raises ModelError."""
    config = content.get("preprocess_cfg")
    if config is None:
        return {}
    place = f"{where}: preprocess_cfg"
    check(config, {"preprocess_cfg": ANY_MAPPING} | _PREPROCESS, place, others=True)
    return {key: config[key] for key in _PREPROCESS if key in config}


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of its training, in the names and units of ``ModelInfo``; unknown: NaN or empty."""

    source: str = ""
    source_family: str = ""
    unique_samples: float = math.nan
    samples_seen: float = math.nan
    samples_seen_from: str = ""
    gpu_hours: float = math.nan
    energy_kwh: float = math.nan
    init: str = ""
    stage: str = ""
    from_scratch_filter: str = ""
    mixture: str = ""


def metadata(content: dict[str, Any], where: object) -> Metadata:
    """``content["metadata"]``, whose other keys stay unread. Raises ModelError."""
    found = content["metadata"]
    check(found, _METADATA, f"{where}: metadata", others=True)
    known = {key: found[key] for key in _METADATA if found.get(key) is not None}
    known |= {key: float(known[key]) for key, rule in _METADATA.items() if rule is _COUNT and key in known}
    shares = known.get("mixture", {})
    known["mixture"] = json.dumps(shares, sort_keys=True) if len(shares) > 1 else ""
    family = known.get("source_family") or zoo.family(known.get("source", ""))
    return Metadata(**{"samples_seen_from": "measured"} | known | {"source_family": family})


def arch(content: dict[str, Any], where: object) -> str:
    """``content["arch"]``, the architecture's name, or nothing. Raises ModelError."""
    require(content.get("arch"), _NAME, f"{where}: arch")
    return content.get("arch") or ""
