"""What a checkpoint is to the rest of clipeval: facts about it, and two functions that embed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clipeval.identity import CheckpointIdentity

if TYPE_CHECKING:
    import torch
    from PIL import Image


ORIGINS = ("measured", "tag", "epochs", "card", "paper")
"""Where samples seen are known from: ``card`` is what anyone says of a checkpoint, its user too."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one checkpoint, in the names of the results table.

    ``params*`` are counts, ``gmacs*`` are 1e9 multiply-accumulates for one image-text pair, ``samples_seen`` counts
    image-text pairs of pre-training (unknown: NaN), ``samples_seen_from`` is one of ORIGINS, or empty where
    nobody says how many. ``source`` is the upstream data set and ``source_family`` its family.
    ``mixture`` is JSON of the shares of several sources in the samples seen, empty for one.
    ``gpu_hours`` and ``energy_kwh`` are what the training has cost. ``init`` is the checkpoint that training began
    with, ``stage`` what was done to it (``finetune``, ``patch``), ``from_scratch_filter`` why it is no point of a
    from-scratch law; empty for one trained from scratch.
    """

    model: str
    arch: str = ""
    pretrained: str = ""
    checkpoint_sha256: str = ""
    source: str = ""
    source_family: str = ""
    unique_samples: float = float("nan")
    samples_seen: float = float("nan")
    samples_seen_from: str = ""
    params: float = float("nan")
    params_image: float = float("nan")
    params_text: float = float("nan")
    gmacs: float = float("nan")
    gmacs_image: float = float("nan")
    gmacs_text: float = float("nan")
    gmacs_total: float = float("nan")
    image_size: float = float("nan")
    gpu_hours: float = float("nan")
    energy_kwh: float = float("nan")
    init: str = ""
    stage: str = ""
    from_scratch_filter: str = ""
    mixture: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input: the spatial part runs on PIL, the rest on the device.

    ``size`` is (height, width) in pixels; ``mean`` and ``std`` apply to values in [0, 1], per channel.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    fill_color: int = 0

    def spatial_key(self) -> dict[str, Any]:
        """The part that decides the uint8 pixels, and so the identity of the pixel cache."""
        return {
            "size": list(self.size),
            "interpolation": self.interpolation,
            "resize_mode": self.resize_mode,
            "fill_color": self.fill_color,
        }


@dataclass(frozen=True)
class PixelRecords:
    """The uint8 pixels that a model takes of an image: the shape of one record, and what decides them (see
    ``Encoder.pixel_settings``)."""

    shape: tuple[int, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Tokenized:
    """Texts that are ready to be embedded: ``lengths`` ``[n]``, by which batches are sorted, and ``encode``, from rows
    ``[m]`` of them to ``[m, embed_dim]`` float32 on the model's device."""

    lengths: np.ndarray
    encode: Callable[[np.ndarray], torch.Tensor]


class Encoder(Protocol):
    """A loaded checkpoint. Embeddings leave it as float32, not normalised, whatever the precision inside."""

    info: ModelInfo
    embed_dim: int
    context_length: int
    """Tokens of a text that are seen; 0 where that is not known."""
    record_shape: tuple[int, ...]
    """The shape of one image's pixels as they are kept: uint8, ``[H, W, 3]`` for most."""
    pixel_settings: dict[str, Any]
    """What decides those pixels, beside the packages that decode and resize, as JSON values."""
    device: str
    """``cpu``, ``cuda``, ``cuda:1``..."""
    identity: CheckpointIdentity
    precision: str
    remarks: tuple[str, ...]
    """Sentences on what was seen when it was loaded."""

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop on the CPU: ``[*record_shape]`` uint8, exactly what the model's own transform would scale."""
        ...

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[n, *record_shape]`` uint8 (any device) -> ``[n, embed_dim]`` float32 on the model's device."""
        ...

    def tokenized(self, texts: list[str]) -> Tokenized:
        """``texts`` ready to be embedded in batches of any rows. Raises ModelError."""
        ...

    def are_cut(self, texts: list[str]) -> np.ndarray:
        """``[n]`` bool: which texts have more tokens than the context holds, so that some are left out."""
        ...
