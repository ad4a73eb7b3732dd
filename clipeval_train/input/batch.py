"""A batch of training samples, and its way to the device."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from clipeval_train.input.crops import crop_on_device

_READY = 2
"""Batches that wait on the device."""


@dataclass(frozen=True)
class Batch:
    """The samples of the stream positions [start, stop)."""

    start: int
    stop: int
    images: torch.Tensor
    """``[n, 3, size, size]`` uint8."""
    crops: torch.Tensor | None
    """``[n, 3]`` float32 in [0, 1): random crops that are still to be made (``crop_on_device``)."""
    tokens: torch.Tensor
    """``[n, context_length]`` int64."""
    keys: torch.Tensor
    """``[n]`` int64: the samples' numbers through all sources."""
    bad: dict[str, int] = field(default_factory=dict)
    """Samples that were met here and replaced, by reason."""
    wait_s: float = 0.0
    """Seconds for which the consumer waited for this batch."""

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a copy to a GPU runs beside other work."""
        crops = None if self.crops is None else self.crops.pin_memory()
        return dataclasses.replace(self, images=self.images.pin_memory(), crops=crops, tokens=self.tokens.pin_memory())


def to_input(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step takes, on ``device``: images ``[n, 3, size, size]`` from 0 to 255 and tokens.

    Images stay bytes, a quarter of what the towers take, unless they are cropped here.
    """
    images = batch.images.to(device, non_blocking=True)
    if batch.crops is not None:
        images = crop_on_device(images.float(), batch.crops.to(device, non_blocking=True))
    return images, batch.tokens.to(device, non_blocking=True)


def arranged(batches: Iterator[Batch], arrange: Callable[[torch.Tensor], Any]) -> Iterator[Batch]:
    """The batches with their tokens as the step wants them, made where batches are made."""
    for batch in batches:
        yield dataclasses.replace(batch, tokens=arrange(batch.tokens))


def prefetch(batches: Iterator[Batch], device: torch.device) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
    """Each batch with its ``to_input``. On CUDA a thread and a side stream make the next ones ready meanwhile."""
    if device.type != "cuda":
        for batch in batches:
            yield batch, *to_input(batch, device)
        return
    ready: queue.Queue = queue.Queue(maxsize=_READY)
    stopped = threading.Event()
    worker = threading.Thread(target=_make_ready, args=(batches, device, ready, stopped), daemon=True)
    worker.start()
    try:
        while True:
            began = time.monotonic()
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            batch, images, tokens, copied = item
            stream = torch.cuda.current_stream(device)
            stream.wait_event(copied)
            for tensor in (images, tokens):
                tensor.record_stream(stream)  # allocated on the side stream: not to be reused before this one is done
            yield dataclasses.replace(batch, wait_s=time.monotonic() - began), images, tokens
    finally:
        stopped.set()
        while worker.is_alive():  # it may be waiting for room
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.1)


def _make_ready(batches: Iterator[Batch], device: torch.device, ready: queue.Queue, stopped: threading.Event) -> None:
    try:
        side = torch.cuda.Stream(device)
        for batch in batches:
            with torch.cuda.stream(side):
                images, tokens = to_input(batch, device)
                copied = torch.cuda.Event()
                copied.record(side)
            ready.put((batch, images, tokens, copied))
            if stopped.is_set():
                return
        ready.put(None)
    except BaseException as error:  # raised again where the batches are used
        ready.put(error)
