"""What a decoding process does, and how it is told: a job comes once, then pieces of it as indices and a place in
shared memory."""

from __future__ import annotations

import gc
import io
import mmap
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from typing import Any

import numpy as np

from clipeval.datasets.base import Dataset
from clipeval.embeddings.records import RecordFile
from clipeval.errors import StoreError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a new process is not ready for."""
_LARGEST_JOB = 1 << 20
"""Bytes that are sent to each process; what takes more is forked."""
_LOOK_SECONDS = 5.0
"""How often a process without work looks whether its parent still lives."""


class Decoding:
    """What is to be done with the images of a data set: decode, resize and crop, and keep the pixels in ``file``, if
    that is given. A file that takes nothing is no fault: pixels only save time."""

    def __init__(
        self,
        dataset: Dataset,
        to_pixels: Callable[[Any], np.ndarray],
        shape: tuple[int, ...],
        file: RecordFile | None,
    ) -> None:
        self.dataset, self.shape = dataset, shape
        self._to_pixels, self._file = to_pixels, file

    def __call__(self, indices: np.ndarray, into: np.ndarray) -> str:
        """Put the pixels of the images at ``indices`` into ``[k, *shape]`` uint8; why they were not kept, or nothing.

        Raises DataError, and whatever a function of another package raises; then nothing of them is kept.
        """
        for row, index in enumerate(indices.tolist()):
            into[row] = self._to_pixels(self.dataset.image(index))
        if self._file is not None:
            try:
                self._file.write(indices, into)
            except StoreError as error:
                self._file = None
                return str(error)
        return ""


def pixels_in(slots: Any, slot: int, slot_bytes: int, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels ``shape`` uint8 at a place in shared memory."""
    return np.frombuffer(slots, np.uint8, int(np.prod(shape)), slot * slot_bytes).reshape(shape)


class _Sender(pickle.Pickler):
    """Pickles what is not ``carried``, and names what is by its place."""

    def __init__(self, file: io.BytesIO, carried: list[Any]) -> None:
        super().__init__(file)
        self._places = {id(known): place for place, known in enumerate(carried)}

    def persistent_id(self, value: Any) -> int | None:
        return self._places.get(id(value))


class _Receiver(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, carried: list[Any]) -> None:
        super().__init__(file)
        self._carried = carried

    def persistent_load(self, place: int) -> Any:
        return self._carried[place]


class _Bounded(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(memoryview(data)) > _LARGEST_JOB:
            raise ValueError("too large to be sent")
        return super().write(data)


def sent(job: Decoding, carried: list[Any]) -> bytes:
    """The job as a message to processes that were forked with what is ``carried``.

    Raises ValueError for what is too large, and anything for what cannot be pickled.
    """
    file = _Bounded()
    _Sender(file, carried).dump(job)
    return file.getvalue()


def work(
    pipe: connection.Connection,
    of_others: list[connection.Connection],
    slots: mmap.mmap,
    slot_bytes: int,
    carried: list[Any],
    parent: int,
) -> None:
    """What a process does: decode pieces until its parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for other in of_others:
        other.close()  # else the death of the parent would not be seen
    gc.freeze()  # what is shared with the parent stays so
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its threads do not outlive a fork
    with suppress(EOFError, OSError):  # the parent is gone
        _serve(pipe, slots, slot_bytes, carried, parent)


def _serve(pipe: connection.Connection, slots: mmap.mmap, slot_bytes: int, carried: list[Any], parent: int) -> None:
    job: Decoding | None = None
    while True:
        while not pipe.poll(_LOOK_SECONDS):
            if os.getppid() != parent:
                return
        message, indices, slot = pipe.recv()
        answer: str | Exception
        try:
            if message is not None:
                job = _Receiver(io.BytesIO(message), carried).load()
            assert job is not None
            answer = job(indices, pixels_in(slots, slot, slot_bytes, (len(indices), *job.shape)))
        except Exception as error:
            answer = _sendable(error)
        pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """An error as it is, with its traceback in a note; one that cannot be pickled as its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"In a decoding process:\n{trace}")
    return copy
