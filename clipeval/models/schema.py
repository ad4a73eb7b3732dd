"""What a configuration in or beside a checkpoint may say: every key with its bounds, checked before anything is built.

A configuration comes from whoever made the checkpoint. Within these bounds a model is built in seconds; what has a
wrong type, or a size that no model has, is refused with the file, the key, the value and what is allowed.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval.errors import ModelError, first_line
from clipeval.regular import read_regular

_CONFIG_BYTES = 1 << 24
_MOST_NODES, _DEEPEST = 1_000_000, 64
_MOST_PATCHES = 1 << 14
_MOST_LAYERS = 100


@dataclass(frozen=True)
class Rule:
    """What a key may hold, in words and as a test."""

    allowed: str
    holds: Callable[[Any], bool]


def _whole(least: int, most: int) -> Rule:
    return Rule(f"a whole number from {least:,} to {most:,}", lambda value: _is_whole(value) and least <= value <= most)


def _real(least: float, most: float) -> Rule:
    return Rule(f"a number from {least:g} to {most:g}", lambda value: _is_real(value) and least <= value <= most)


def _text(most: int) -> Rule:
    return Rule(f"a text of at most {most:,} characters", lambda value: isinstance(value, str) and len(value) <= most)


def _one_of(*values: str) -> Rule:
    return Rule(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def _matching(pattern: str, allowed: str) -> Rule:
    return Rule(allowed, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def _list_of(rule: Rule, length: int) -> Rule:
    return Rule(
        f"a list of {length}, each {rule.allowed}",
        lambda value: isinstance(value, list | tuple) and len(value) == length and all(map(rule.holds, value)),
    )


def _either(*rules: Rule) -> Rule:
    allowed = ", or ".join(rule.allowed for rule in rules)
    return Rule(allowed, lambda value: any(rule.holds(value) for rule in rules))


def _mapping(rules: dict[str, Rule]) -> Rule:
    inside = "; ".join(f"{key}: {rule.allowed}" for key, rule in rules.items())
    return Rule(
        f"a mapping ({inside})",
        lambda value: (
            isinstance(value, dict) and all(key in rules and rules[key].holds(item) for key, item in value.items())
        ),
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_NONE = Rule("nothing (null)", lambda value: value is None)
_FLAG = Rule("true or false", lambda value: isinstance(value, bool))
_WORD = _matching(r"[\w-]{0,64}", "a word of letters, digits, _ and -")
_ANY_MAPPING = Rule("a mapping", lambda value: isinstance(value, dict))
_WIDTH, _HEADS, _LAYERS = _whole(1, 1 << 14), _whole(1, 1024), _whole(1, _MOST_LAYERS)
_SIDE = _whole(1, 4096)
_TOKENS, _TOKEN = _whole(1, 10_000_000), _whole(0, 10_000_000)
_SHARE, _RATIO = _real(0, 1), _real(0.01, 64)
_NAME = _either(_text(500), _NONE)

_BLOCK = {
    "mlp_ratio": _RATIO,
    "ls_init_value": _either(_real(0, 1000), _NONE),
    "act_kwargs": _either(_mapping({"approximate": _one_of("none", "tanh")}), _NONE),
    "norm_kwargs": _either(_mapping({"eps": _real(0, 1)}), _NONE),
    "block_type": _either(_WORD, _NONE),
    "output_tokens": _FLAG,
    "final_ln_after_pool": _FLAG,
    "pool_type": _WORD,
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"), _FLAG),
    "scale_fc": _FLAG,
}
_VISION = _BLOCK | {
    "layers": _either(_LAYERS, _list_of(_LAYERS, 4)),
    "width": _WIDTH,
    "head_width": _WIDTH,
    "patch_size": _either(_SIDE, _NONE),
    "image_size": _either(_SIDE, _list_of(_SIDE, 2)),
    "patch_dropout": _SHARE,
    "attentional_pool": _either(_FLAG, _WORD),
    "attn_pooler_queries": _whole(1, 8192),
    "attn_pooler_heads": _HEADS,
    "no_ln_pre": _FLAG,
    "pos_embed_type": _WORD,
    # a name with a colon or a slash would be an address, from which timm reads
    "timm_model_name": _either(_matching(r"[\w-]+(\.[\w-]+)?", "a name of timm's own"), _NONE),
    "timm_model_pretrained": _FLAG,
    "timm_pool": _WORD,
    "timm_proj": _either(_WORD, _NONE),
    "timm_proj_bias": _FLAG,
    "timm_drop": _SHARE,
    "timm_drop_path": _either(_SHARE, _NONE),
}
_TEXT = _BLOCK | {
    "context_length": _whole(1, 8192),
    "vocab_size": _TOKENS,
    "hf_tokenizer_name": _NAME,
    "tokenizer_mode": _either(_one_of("", "clips"), _NONE),
    "tokenizer_kwargs": _either(_ANY_MAPPING, _NONE),
    "width": _WIDTH,
    "heads": _HEADS,
    "layers": _LAYERS,
    "embed_cls": _FLAG,
    "pad_id": _TOKEN,
    "eos_id": _TOKEN,
    "no_causal_mask": _FLAG,
    "proj_bias": _FLAG,
    "proj_type": _either(_WORD, _NONE),
    "hf_model_name": _NAME,
    "hf_model_pretrained": _FLAG,
    "hf_proj_type": _either(_WORD, _NONE),
    "hf_pooler_type": _either(_WORD, _NONE),
}
_DECODER = _TEXT | {
    "dim_head": _WIDTH,
    "n_queries": _whole(1, 8192),
    "attn_pooler_heads": _HEADS,
}
_MODEL = {
    "embed_dim": _whole(1, 1 << 16),
    "vision_cfg": _ANY_MAPPING,
    "text_cfg": _ANY_MAPPING,
    "multimodal_cfg": _ANY_MAPPING,
    "quick_gelu": _FLAG,
    "custom_text": _FLAG,
    "init_logit_scale": _real(-1000, 1000),
    "init_logit_bias": _either(_real(-1000, 1000), _NONE),
    "nonscalar_logit_scale": _FLAG,
    "output_dict": _FLAG,
    "cast_dtype": _NONE,
    "pad_id": _TOKEN,
}
_TOWERS = {"vision_cfg": _VISION, "text_cfg": _TEXT, "multimodal_cfg": _DECODER}
_PREPROCESS = {
    "size": _either(_SIDE, _list_of(_SIDE, 2), _NONE),
    "mode": _either(_one_of("RGB"), _NONE),
    "mean": _either(_list_of(_real(-1000, 1000), 3), _real(1e-6, 1000), _NONE),
    "std": _either(_list_of(_real(1e-6, 1000), 3), _real(1e-6, 1000), _NONE),
    "interpolation": _either(_one_of("bicubic", "bilinear", "random"), _NONE),
    "resize_mode": _either(_one_of("shortest", "longest", "squash"), _NONE),
    "fill_color": _either(_whole(0, 255), _NONE),
}
_SIDES = _either(
    _mapping(
        dict.fromkeys(
            ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"), _either(_SIDE, _NONE)
        )
    ),
    _SIDE,
    _NONE,
)
_PROCESSOR = {
    **dict.fromkeys(("size", "crop_size", "pad_size"), _SIDES),
    **dict.fromkeys(
        ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), _either(_FLAG, _NONE)
    ),
    "resample": _either(_whole(0, 5), _NONE),
    "rescale_factor": _either(_real(1e-9, 1e9), _NONE),
    "image_mean": _either(_list_of(_real(-1000, 1000), 3), _real(-1000, 1000), _NONE),
    "image_std": _either(_list_of(_real(1e-6, 1000), 3), _real(1e-6, 1000), _NONE),
    "patch_size": _SIDE,
    "max_num_patches": _whole(1, _MOST_PATCHES),
}
TOKENIZER = {
    "context_length": _whole(1, 8192),
    "clean": _one_of("canonicalize", "lower", "whitespace"),
    "strip_sep_token": _FLAG,
    "language": _either(_WORD, _NONE),
}
"""The settings of a tokenizer. All others of its libraries are refused: some run code, some read other files."""
_COUNT = _either(_real(0, 1e18), Rule("NaN", lambda value: isinstance(value, float) and math.isnan(value)), _NONE)
_FACT = _either(_text(2000), _NONE)
_METADATA = {
    **dict.fromkeys(("source", "source_family", "init", "stage", "from_scratch_filter"), _FACT),
    **dict.fromkeys(("unique_samples", "samples_seen", "gpu_hours", "energy_kwh"), _COUNT),
    "samples_seen_from": _one_of("measured", "tag", "epochs", "card", "paper", ""),
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
    _check_patches(config["vision_cfg"], f"{where}: model_cfg.vision_cfg")
    return config


def check_preprocess_cfg(content: dict[str, Any], where: object) -> dict[str, Any]:
    """``content["preprocess_cfg"]``, or nothing where there is none; keys that open_clip does not know are left out, as
    there. Raises ModelError."""
    config = content.get("preprocess_cfg")
    if config is None:
        return {}
    place = f"{where}: preprocess_cfg"
    check(config, {"preprocess_cfg": _ANY_MAPPING} | _PREPROCESS, place, others=True)
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


def metadata(content: dict[str, Any], where: object) -> Metadata:
    """``content["metadata"]``, whose other keys stay unread. Raises ModelError."""
    found = content["metadata"]
    check(found, _METADATA, f"{where}: metadata", others=True)
    known = {key: found[key] for key in _METADATA if found.get(key) is not None}
    known |= {key: float(known[key]) for key, rule in _METADATA.items() if rule is _COUNT and key in known}
    family = known.get("source_family") or known.get("source", "")
    return Metadata(**{"samples_seen_from": "measured"} | known | {"source_family": family})


def arch(content: dict[str, Any], where: object) -> str:
    """``content["arch"]``, the architecture's name, or nothing. Raises ModelError."""
    _require(content.get("arch"), _NAME, f"{where}: arch")
    return content.get("arch") or ""


def check_processor(settings: dict[str, Any], where: object) -> None:
    """Raises ModelError unless what an image processor of transformers says of sizes and scales is within bounds."""
    check(settings, _PROCESSOR, f"{where}: image processor", others=True)


def check_tower(config: dict[str, Any], kinds: list[str], where: object) -> None:
    """Raises ModelError unless ``config`` describes one of the text towers of transformers that open_clip has a use
    for, in sizes that can be built."""
    _require(config.get("model_type"), _one_of(*kinds), f"{where}: model_type")
    _check_numbers(config, where)


def check_towers(config: dict[str, Any], where: object) -> None:
    """Raises ModelError unless ``config`` of transformers describes two towers in sizes that can be built."""
    check_size(config, where)
    if "quantization_config" in config:
        raise ModelError(
            f"{where}: `quantization_config`: quantised weights are not read; give those they are made of."
        )
    for name in ("text_config", "vision_config"):
        tower = config.get(name, {})
        _require(tower, _ANY_MAPPING, f"{where}: {name}")
        _check_numbers(tower, f"{where}: {name}")
    _check_numbers(config, where)
    vision = {key: config.get("vision_config", {}).get(key, 1) for key in ("image_size", "patch_size")}
    if all(map(_is_whole, vision.values())):
        _check_patches(vision, f"{where}: vision_config")


def _check_numbers(config: dict[str, Any], where: object) -> None:
    for key, value in config.items():
        if _is_whole(value):
            _require(value, _LAYERS if "layers" in key else _whole(-(10**7), 10**7), f"{where}: {key:.100}")


def check(config: Any, rules: dict[str, Rule], where: str, *, others: bool = False) -> None:
    """Raises ModelError for the first key of ``config`` that breaks its rule, or has none unless ``others`` may be."""
    if not isinstance(config, dict):
        raise ModelError(f"{where}: {shortened(config)}; expected a mapping.")
    check_size(config, where)
    for key, value in config.items():
        rule = rules.get(key)
        if rule is None and not others:
            raise ModelError(f"{where}.{shortened(key).strip(chr(39))}: unknown key. Allowed: {', '.join(rules)}.")
        if rule is not None:
            _require(value, rule, f"{where}.{key}")


def _require(value: Any, rule: Rule, place: str) -> None:
    if not rule.holds(value):
        raise ModelError(f"{place}: {shortened(value)}; expected {rule.allowed}.")


def check_size(value: Any, where: object) -> None:
    """Raises ModelError for a value of so many or so deeply nested parts that walking through it would not end: a list
    that holds itself twice, 27 times over, has 2^27."""
    left, waiting = _MOST_NODES, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        parts = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple | set) else ()
        left -= len(parts)
        if left < 0 or depth > _DEEPEST:
            raise ModelError(
                f"{where}: {shortened(value)} has more than {_MOST_NODES:,} parts, or more than {_DEEPEST} levels."
            )
        waiting.extend((part, depth + 1) for part in parts)


def refuse_code(config: Any, where: object) -> None:
    """Raises ModelError for a configuration of transformers that names code to run: of a repository (``auto_map``), or
    of a kernel (``*implementation``)."""
    check_size(config, where)
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if named := next((key for key, value in item.items() if _is_code(key, value)), None):
                raise ModelError(
                    f"{where}: `{named}` names code to run; refused, nothing was executed. "
                    "Only models and tokenizers that are part of transformers itself are read."
                )
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _is_code(key: str, value: Any) -> bool:
    return key == "auto_map" or (key.endswith("implementation") and value not in (None, "eager", "sdpa"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ModelError, also for one that is too large or no regular file."""
    try:
        return read_json_text(read_regular(path, _CONFIG_BYTES), path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}.") from error


def read_json_text(data: bytes, path: Path) -> dict[str, Any]:
    """``data``, the bytes of ``path``, as a JSON mapping. Raises ModelError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable JSON file: {first_line(error):.200}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {shortened(content)}; expected a mapping.")
    return content


def _check_patches(vision: dict[str, Any], where: str) -> None:
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16) or 32
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if (patches := (height // patch) * (width // patch)) > _MOST_PATCHES:
        raise ModelError(f"{where}: image_size {size} makes {patches:,} patches; expected at most {_MOST_PATCHES:,}.")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong = 3, 80, 40

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no number of more than 4,300 digits
            return "a number of thousands of digits"

    def repr_instance(self, x: Any, level: int) -> str:
        return repr(x) if isinstance(x, bool | float | type(None)) else f"<{type(x).__name__}>"


def shortened(value: Any) -> str:
    """Any value for a message, in a few words."""
    return _Short().repr(value)
