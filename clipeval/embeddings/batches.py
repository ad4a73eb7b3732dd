"""Batches through a model: how large they are, what is done where one does not fit, and the device kept at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from clipeval.console import say
from clipeval.errors import is_no_memory
from clipeval.models import stream

if TYPE_CHECKING:
    import torch

    from clipeval.models.base import Encoder

K = TypeVar("K")

TOKENS = 77
"""A batch of n images stands for n times so many tokens of texts: of short texts more go together."""
_ON_A_CPU, _MOST = 64, 256
"""Images at once. A CPU gains nothing by more; on a GPU 256 take a ViT-B/32 longer than starting its kernels does, and
decoders hold a few batches each."""
_TRIED = 8
_SHARE = 0.5
_IN_FLIGHT = 2
"""Batches that a GPU has been given while one before them is stored: with two it has work when the next is late."""


@dataclass
class _Fit:
    """What is known to fit into the memory of a device at once; None: nothing was refused yet."""

    most: int | None = None


_fits: WeakKeyDictionary[Any, dict[str, _Fit]] = WeakKeyDictionary()
"""By loaded checkpoint, of images and of tokens. It goes with the checkpoint."""


@dataclass(frozen=True)
class Batch:
    """``rows`` ``[n, ...]``, a tensor or an array, of which each takes ``each`` of what a batch is measured in."""

    rows: Any
    each: int = 1


def images_at_once(encoder: Encoder) -> int:
    """A batch size by the device: on a GPU the largest power of two of at most 256 images, of which half of its free
    memory holds as many, by what a small batch was seen to take."""
    import torch

    if not encoder.device.startswith("cuda"):
        return _ON_A_CPU
    device = torch.device(encoder.device)
    try:
        taken = _bytes_per_image(encoder, device)
    except Exception as error:
        if not is_no_memory(error):
            raise
        return _TRIED  # and then what the first batch shows
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return power_of_two(_SHARE * (torch.cuda.mem_get_info(device)[0] + unused) / max(taken, 1.0))


def power_of_two(fitting: float) -> int:
    """The largest power of two of at most ``fitting`` and 256, at least 1."""
    return 1 << (int(min(max(fitting, 1), _MOST)).bit_length() - 1)


def _bytes_per_image(encoder: Encoder, device: torch.device) -> float:
    import torch
    from PIL import Image

    blank = encoder.pixels(Image.new("RGB", (224, 224)))
    pixels = torch.from_numpy(np.stack([blank] * _TRIED))
    encoder.encode_images(pixels)  # libraries take room of their own the first time
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    encoder.encode_images(pixels)
    return (torch.cuda.max_memory_allocated(device) - before) / _TRIED


def encoded(
    encoder: Encoder, unit: str, batches: Iterable[tuple[K, Batch]], encode: Callable[[Any], torch.Tensor]
) -> Iterator[tuple[K, np.ndarray]]:
    """``encode`` of each batch's rows, in order, with what came with it: ``[n, embed_dim]`` float32.

    A GPU works on later batches while one is handed out. A batch that finds no memory is done again in halves, and
    later ones are cut to what fitted; ``unit`` (``images``, ``tokens``) is what they are measured in. Raises the error
    for a single row without room, as whatever it was.
    """
    fit = _fits.setdefault(encoder, {}).setdefault(unit, _Fit())
    ahead = _IN_FLIGHT if encoder.device.startswith("cuda") else 0
    waiting: deque[tuple[K, list[Callable[[], np.ndarray]]]] = deque()
    for key, batch in batches:
        waiting.append((key, _begun(encoder, unit, fit, batch, encode)))
        if len(waiting) > ahead:
            yield _ended(*waiting.popleft())
    while waiting:
        yield _ended(*waiting.popleft())


def _ended(key: K, parts: list[Callable[[], np.ndarray]]) -> tuple[K, np.ndarray]:
    found = [wait() for wait in parts]
    return key, found[0] if len(found) == 1 else np.concatenate(found)


def _begun(
    encoder: Encoder, unit: str, fit: _Fit, batch: Batch, encode: Callable[[Any], torch.Tensor]
) -> list[Callable[[], np.ndarray]]:
    """The parts of a batch, under way on the device: one where it fits."""
    parts: list[Callable[[], np.ndarray]] = []
    start = 0
    while start < len(batch.rows):
        count = len(batch.rows) - start
        if fit.most is not None:
            count = min(count, max(1, fit.most // batch.each))
        part = _attempt(encode, batch.rows[start : start + count])
        if part is not None:
            parts.append(part)
            start += count
            continue
        _forget_unused(encoder.device)
        fit.most = count // 2 * batch.each
        refused = f"{count * batch.each:,} {unit} at once do not fit into the memory of {encoder.device}"
        say(f"{encoder.info.model}: {refused}: {fit.most:,} from here on.")
    return parts


def _attempt(encode: Callable[[Any], torch.Tensor], rows: Any) -> Callable[[], np.ndarray] | None:
    """None where there is no memory for these rows. Then what the attempt has taken is free again: the error, which
    holds it, is gone."""
    try:
        return stream.received(encode(rows))
    except Exception as error:
        if not is_no_memory(error) or len(rows) == 1:
            raise
        return None


def _forget_unused(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
