"""Size and cost of a model: parameters, multiply-accumulates and input size, from its configuration alone."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError, StoreError, first_line, foreign
from clipeval.files import write_json
from clipeval.paths import cache_dir

_VERSION = 1


@dataclass(frozen=True)
class Profile:
    """``params*`` are counts; ``gmacs*`` are 1e9 multiply-accumulates for one image, one text, or one pair of them;
    NaN with a text tower of transformers.

    ``params`` and ``gmacs`` are of the whole model: with CoCa's decoder, which neither tower includes. ``image_size``
    is the longer side in pixels.
    """

    params: float
    params_image: float
    params_text: float
    gmacs: float
    gmacs_image: float
    gmacs_text: float
    image_size: float


def of_config(model_cfg: dict[str, Any], tower: dict[str, Any] | None = None) -> Profile:
    """The profile of an open_clip model configuration, and that of its text tower (``tower.of``) where it has one of
    transformers, remembered under their digest.

    Raises ModelError when open_clip cannot build the model.
    """
    return remembered([model_cfg, tower] if tower else [model_cfg], lambda: measure(model_cfg, tower))


def remembered(key: list[Any], measured: Callable[[], Profile]) -> Profile:
    """What was ``measured`` once of the model that ``key``, JSON values, describes. Raises what ``measured`` does."""
    path = cache_dir() / "profiles" / f"{digest.of_value([_VERSION, *key])}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = json.loads(path.read_text("utf-8"))
        return Profile(**{name: math.nan if value is None else float(value) for name, value in known.items()})
    profile = measured()
    with contextlib.suppress(StoreError):  # the memory only saves time
        write_json(path, asdict(profile))
    return profile


def measure(model_cfg: dict[str, Any], tower: dict[str, Any] | None = None) -> Profile:
    """Build the model without storage and count one pair's forward pass.

    torch's counter reports floating point operations, two per multiply-accumulate, of convolutions and matrix products,
    attention included. It does not see the fused attention that torch takes in eval mode without gradients, so
    gradients stay on.
    """
    import torch

    from clipeval.models import library

    with torch.device("meta"):
        model = library.build(model_cfg, tower).eval()
        height, width = library.image_size(model)
        image = torch.zeros(1, 3, height, width)
        text = torch.zeros(1, model_cfg["text_cfg"].get("context_length", 77), dtype=torch.long)
    towers_only = "multimodal_cfg" not in model_cfg

    def told(error: Exception) -> ModelError:  # its parts do not fit each other
        return ModelError(f"open_clip cannot run this model configuration: {first_line(error):.300}")

    with foreign(told):
        gmacs_image = gmacs_of(lambda: model.encode_image(image))
        # towers of transformers look at values, and tensors without storage have none
        gmacs_text = math.nan if tower else gmacs_of(lambda: model.encode_text(text))
        gmacs = gmacs_image + gmacs_text if towers_only else gmacs_of(lambda: model(image, text))
    return Profile(
        params=_count(model),
        params_image=_count(model.visual),
        params_text=_params_text(model),
        gmacs=gmacs,
        gmacs_image=gmacs_image,
        gmacs_text=gmacs_text,
        image_size=max(height, width),
    )


def gmacs_of(forward: Callable[[], Any]) -> float:
    """The 1e9 multiply-accumulates of a forward pass, as torch's counter sees them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 2e9


def _params_text(model: Any) -> int:
    if hasattr(model, "text"):
        return _count(model.text)
    scales = [parameter for name, parameter in model.named_parameters() if name in ("logit_scale", "logit_bias")]
    return _count(model) - _count(model.visual) - sum(parameter.numel() for parameter in scales)


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
