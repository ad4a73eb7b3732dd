"""Images as a processor of transformers makes them: its resize and crop on the CPU, kept as uint8; the rest on the
device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import bounds, stripes
from clipeval.models.transformers.library import Kind

if TYPE_CHECKING:
    from PIL import Image

_SCALED_LATER = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_ODD_SIZES = ((40, 30), (30, 50))
_GRID = np.dtype("<u2")
Scaling = Callable[[torch.Tensor], torch.Tensor]


class Images(ABC):
    """The images of one checkpoint. ``record_shape`` is that of one image's pixels as they are kept."""

    record_shape: tuple[int, ...]

    def __init__(self, processor: Any, wanted_by: str) -> None:
        self._processor, self._wanted_by = processor, wanted_by
        bounds.check_processor(processor.to_dict(), wanted_by)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the processor says of itself, with its class and the shape of what it makes, as JSON values."""
        said = self._processor.to_dict() | {"processor": type(self._processor).__name__}
        return {key: said[key] for key in sorted(said) if not key.startswith("_")} | {"shape": list(self.record_shape)}

    @property
    def pixel_settings(self) -> dict[str, Any]:
        """Those that decide the uint8 pixels."""
        return {key: value for key, value in self.settings.items() if key not in _SCALED_LATER}

    @property
    def image_size(self) -> float:
        """The longer side of an image in pixels; of a square with as many patches where the shape is the image's."""
        return float(max(self.record_shape[:2]))

    @abstractmethod
    def pixels(self, image: Image.Image) -> np.ndarray:
        """``[*record_shape]`` uint8 of an RGB image."""

    @abstractmethod
    def inputs(self, pixels: torch.Tensor, scaled: Scaling) -> dict[str, torch.Tensor]:
        """What the model takes, of pixels ``[n, *record_shape]`` uint8, on their device, ``scaled`` by ``scaling``."""

    @abstractmethod
    def blank(self) -> dict[str, torch.Tensor]:
        """What the model takes of one image without content, on torch's default device."""

    def _made(self, image: Image.Image) -> Any:
        def told(error: Exception) -> ModelError:
            return ModelError(f"{self._wanted_by}: its image processor fails: {first_line(error):.300}")

        with foreign(told):
            made = self._processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
        if (found := made["pixel_values"].dtype) != np.uint8:
            raise ModelError(f"{self._wanted_by}: its image processor makes {found} of 8-bit pixels, and not those.")
        return made

    def scaling(self, device: str) -> Scaling:
        """From pixels on ``device`` whose last axis is the channel to values as the processor scales them, float32. Its
        numbers are there already: to bring them for each batch would wait for all batches before it."""
        said = self._processor
        named = (said.image_mean, said.image_std) if said.do_normalize else ()
        mean_and_std = [torch.tensor(part, device=device) for part in named]

        def scaled(values: torch.Tensor) -> torch.Tensor:
            values = values.to(torch.float32)
            if said.do_rescale:
                values = values * said.rescale_factor
            if mean_and_std:
                mean, std = mean_and_std
                values = (values - mean) / std
            return values

        return scaled


class WholeImages(Images):
    """Images of one size: pixels ``[H, W, 3]``."""

    def __init__(self, processor: Any, wanted_by: str) -> None:
        super().__init__(processor, wanted_by)
        from PIL import Image

        shapes = {self._made(Image.new("RGB", size))["pixel_values"].shape[1:] for size in _ODD_SIZES}
        if len(shapes) > 1:
            raise ModelError(
                f"{wanted_by}: its image processor makes images of different sizes, as {sorted(shapes)}. Its "
                "configuration must name a crop or a height and width."
            )
        channels, height, width = shapes.pop()
        self.record_shape = (height, width, channels)

    @property
    def pixel_settings(self) -> dict[str, Any]:
        """Those that decide the uint8 pixels, ``size`` in the words of all others."""
        return super().pixel_settings | {"resize": self.settings.get("size"), "size": list(self.record_shape[:2])}

    def pixels(self, image: Image.Image) -> np.ndarray:
        """``[H, W, 3]`` uint8."""
        made = self._made(stripes.shortened(image, self.record_shape[0]))["pixel_values"][0]
        return np.ascontiguousarray(made.transpose(1, 2, 0))

    def inputs(self, pixels: torch.Tensor, scaled: Scaling) -> dict[str, torch.Tensor]:
        """``[n, 3, H, W]`` float32."""
        return {"pixel_values": scaled(pixels).permute(0, 3, 1, 2).contiguous()}

    def blank(self) -> dict[str, torch.Tensor]:
        """``[1, 3, H, W]`` of zeros."""
        height, width, channels = self.record_shape
        return {"pixel_values": torch.zeros(1, channels, height, width)}


class PatchedImages(Images):
    """Images that keep their shape (NaFlex): at most P patches of q x q pixels, row by row. A record is their values,
    P * q * q * 3 of them, behind which the rows and columns of the grid are two 16-bit numbers."""

    def __init__(self, processor: Any, wanted_by: str) -> None:
        super().__init__(processor, wanted_by)
        self._patches, self._values = int(processor.max_num_patches), int(processor.patch_size) ** 2 * 3
        self.record_shape = (self._patches * self._values + 2 * _GRID.itemsize,)

    @property
    def image_size(self) -> float:
        """The side of a square with as many patches."""
        return math.sqrt(self._patches) * int(self._processor.patch_size)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """``[P * q * q * 3 + 4]`` uint8."""
        made = self._made(image)
        grid = made["spatial_shapes"][0].astype(_GRID).view(np.uint8)
        return np.concatenate([made["pixel_values"][0].ravel(), grid])

    def inputs(self, pixels: torch.Tensor, scaled: Scaling) -> dict[str, torch.Tensor]:
        """``[n, P, q * q * 3]`` float32 with zeros behind each image's own patches, which a mask tells, and the grids,
        which position embeddings are resampled to."""
        n = len(pixels)
        # not a view of uint16, which few devices know
        low, high = pixels[:, -4:].view(n, 2, 2).to(torch.int64).unbind(-1)
        grids = low + 256 * high
        own = torch.arange(self._patches, device=pixels.device) < grids.prod(1, keepdim=True)
        values = scaled(pixels[:, :-4].reshape(n, self._patches, -1, 3)).reshape(n, self._patches, -1)
        return {
            "pixel_values": values * own[..., None],
            "pixel_attention_mask": own.to(torch.int32),
            "spatial_shapes": grids,
        }

    def blank(self) -> dict[str, torch.Tensor]:
        """One row of all patches. Sizes of grids are read as numbers, which tensors without storage have not."""
        values = torch.zeros(1, self._patches, self._values)
        return {"pixel_values": values, "spatial_shapes": torch.tensor([[1, self._patches]], device="cpu")}


def images_of(processor: Any, kind: Kind, wanted_by: str) -> Images:
    """The images of a processor. Raises ModelError where it makes none of a size that is known."""
    return (PatchedImages if kind.patches else WholeImages)(processor, wanted_by)
