"""What configurations of transformers may say, so that its own code meets nothing that no model has, and no code of
others."""

from __future__ import annotations

from typing import Any

from clipeval.errors import ModelError
from clipeval.models.rules import (
    ANY_MAPPING,
    FLAG,
    LAYERS,
    MOST_PATCHES,
    NONE,
    SIDE,
    check,
    check_patches,
    check_size,
    either,
    is_whole,
    list_of,
    mapping,
    one_of,
    real,
    require,
    whole,
)

_SIDES = either(
    mapping(
        dict.fromkeys(
            ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"), either(SIDE, NONE)
        )
    ),
    SIDE,
    NONE,
)
_PROCESSOR = {
    **dict.fromkeys(("size", "crop_size", "pad_size"), _SIDES),
    **dict.fromkeys(
        ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), either(FLAG, NONE)
    ),
    "resample": either(whole(0, 5), NONE),
    "rescale_factor": either(real(1e-9, 1e9), NONE),
    "image_mean": either(list_of(real(-1000, 1000), 3), real(-1000, 1000), NONE),
    "image_std": either(list_of(real(1e-6, 1000), 3), real(1e-6, 1000), NONE),
    "patch_size": SIDE,
    "max_num_patches": whole(1, MOST_PATCHES),
}


def check_processor(settings: dict[str, Any], where: object) -> None:
    """Raises ModelError unless what an image processor of transformers says of sizes and scales is within bounds."""
    check(settings, _PROCESSOR, f"{where}: image processor", others=True)


def check_tower(config: dict[str, Any], kinds: list[str], where: object) -> None:
    """Raises ModelError unless ``config`` describes one of the text towers of transformers that open_clip has a use
    for, in sizes that can be built."""
    require(config.get("model_type"), one_of(*kinds), f"{where}: model_type")
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
        require(tower, ANY_MAPPING, f"{where}: {name}")
        _check_numbers(tower, f"{where}: {name}")
    _check_numbers(config, where)
    vision = {key: config.get("vision_config", {}).get(key, 1) for key in ("image_size", "patch_size")}
    if all(map(is_whole, vision.values())):
        check_patches(vision, f"{where}: vision_config")


def _check_numbers(config: dict[str, Any], where: object) -> None:
    for key, value in config.items():
        if is_whole(value):
            require(value, LAYERS if "layers" in key else whole(-(10**7), 10**7), f"{where}: {key:.100}")


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
