"""Parameters and multiply-accumulates of a model of transformers, from its configuration alone."""

from __future__ import annotations

from typing import Any

import torch

from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import profile
from clipeval.models.profile import Profile
from clipeval.models.transformers import library
from clipeval.models.transformers.images import Images
from clipeval.models.transformers.library import Kind, Pieces

_TEXT = ("text_model", "text_projection")
_IMAGE = ("vision_model", "visual_projection")


def measured(pieces: Pieces, kind: Kind, images: Images) -> Profile:
    """Of the model without storage: one image, and one text of the longest length. A mask is not given: what it hides
    is computed all the same. Raises ModelError where the parts of the configuration do not fit each other."""

    def told(error: Exception) -> ModelError:
        return ModelError(f"transformers cannot run this model configuration: {first_line(error):.300}")

    model = library.empty(pieces.config, kind)
    length = library.text_length(pieces, kind)
    with foreign(told), torch.device("meta"):
        text, image = torch.zeros(1, length, dtype=torch.long), images.blank()
        gmacs_text = profile.gmacs_of(lambda: model.get_text_features(input_ids=text))
        gmacs_image = profile.gmacs_of(lambda: model.get_image_features(**image))
    return Profile(
        params=_count(model, ()),
        params_image=_count(model, _IMAGE),
        params_text=_count(model, _TEXT),
        gmacs=gmacs_image + gmacs_text,
        gmacs_image=gmacs_image,
        gmacs_text=gmacs_text,
        image_size=images.image_size,
    )


def _count(model: Any, parts: tuple[str, ...]) -> int:
    named = model.named_parameters()
    return sum(tensor.numel() for name, tensor in named if not parts or name.partition(".")[0] in parts)
