"""Processes that decode images, for a whole run: started when first needed, and given one data set after another.

They are forked, so they have what this process has: data sets and functions of any kind reach them uncopied. What a
process was not forked with is sent to it where it is small and can be, else all are forked anew. Pixels come back in
memory that is shared, a piece of a batch at a time.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from clipeval.console import say
from clipeval.datasets.base import Dataset
from clipeval.embeddings.decoding import SIGNALS, Decoding, pixels_in, sent, work
from clipeval.errors import StoreError

_SLOT_BYTES = 4 << 20
"""Shared memory of a piece, of one image where that takes more: large against a message, small against a batch."""
_PIECES = 2
"""Pieces that a process has before it, so that it need not wait for the next one."""
_MOST_DEATHS = 3
"""Processes that may die of one piece before it is given up."""


@dataclass(eq=False)
class Piece:
    """Images of one batch that a process decodes into ``into``, at its ``rows``."""

    job: Decoding
    indices: np.ndarray
    into: np.ndarray
    rows: np.ndarray
    deaths: int = 0
    answer: str | Exception | None = None
    """What ``Decoding`` returned or raised; None: not done yet."""


@dataclass(eq=False)
class _Hand:
    """A process as its parent sees it: the pieces it has with their slots, in order, and the job it was told of."""

    process: BaseProcess
    pipe: connection.Connection
    pieces: deque[tuple[Piece, int]] = field(default_factory=deque)
    job: Decoding | None = None


class Decoders:
    """``workers`` processes. They live from the first ``begin`` to ``close``, whatever cannot be decoded; one that dies
    is replaced. For use by one thread at a time."""

    def __init__(self, workers: int, carried: Iterable[Dataset] = ()) -> None:
        """``carried`` are data sets that may come: if they are known here, they need no forking anew."""
        self.workers = workers
        self._carried: list[Any] = list(carried)
        self._hands: list[_Hand] = []
        self._slots: mmap.mmap | None = None
        self._slot_bytes = _SLOT_BYTES
        self._free: list[int] = []
        self._waiting: deque[Piece] = deque()
        self._job: Decoding | None = None
        self._message = b""

    def knows(self, dataset: Dataset) -> bool:
        """Whether processes are there that have a data set."""
        return bool(self._hands) and any(known is dataset for known in self._carried)

    def most_images(self, shape: tuple[int, ...]) -> int:
        """The most images of this shape that the processes have before them."""
        return self.workers * _PIECES * max(self._slot_bytes // int(np.prod(shape)), 1)

    def begin(self, job: Decoding) -> None:
        """Make ready for a job; what is left of the last one is dropped. Raises StoreError where no process can be
        started."""
        self._waiting.clear()
        self._job = job
        size = int(np.prod(job.shape))
        if size > self._slot_bytes:
            self._slot_bytes = size
            self.close()
        if not self.knows(job.dataset):
            self.close()
            if not any(known is job.dataset for known in self._carried):
                self._carried.append(job.dataset)
        try:
            self._message = sent(job, self._carried)
        except Exception:  # a class of somebody else's may fail in any way
            self.close()
            self._carried.append(job)
            self._message = sent(job, self._carried)
        if not self._hands:
            self._start()

    def _start(self) -> None:
        try:
            self._slots = mmap.mmap(-1, self.workers * _PIECES * self._slot_bytes)
            self._free = list(range(self.workers * _PIECES))
            for _ in range(self.workers):
                self._hands.append(self._forked())
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise StoreError(f"cannot start processes that decode images: {reason}. Use fewer --workers.") from error

    def end(self, job: Decoding) -> None:
        """A job is done or given up. Processes that were forked with it hold what it holds, and end with it."""
        self._waiting.clear()
        self._job = None
        if self._carried and self._carried[-1] is job:
            self._carried.pop()
            self.close()

    def pieces(self, job: Decoding, indices: np.ndarray, into: np.ndarray, rows: np.ndarray) -> list[Piece]:
        """Hand out images of a batch: pixels of those at ``indices`` will be in ``into`` at ``rows``."""
        size = self._slot_bytes // int(np.prod(job.shape))
        starts = range(0, len(indices), size)
        found = [Piece(job, indices[at : at + size], into, rows[at : at + size]) for at in starts]
        self._waiting.extend(found)
        self._hand_out()
        return found

    def wait(self, piece: Piece) -> str:
        """Until a piece is done: why its pixels were not kept, or nothing. Raises what decoding it raised, and
        StoreError where it is not to be decoded because processes die of it."""
        while piece.answer is None:
            if not self._hands:
                raise StoreError(f"{piece.job.dataset.name}: the processes that decode its images have been ended.")
            self._hand_out()
            ready = connection.wait([hand.pipe for hand in self._hands])
            for hand in [hand for hand in self._hands if hand.pipe in ready]:
                self._receive(hand)
        if isinstance(piece.answer, Exception):
            raise piece.answer
        return piece.answer

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        hands, self._hands = self._hands, []
        for hand in hands:
            hand.process.kill()
        for hand in hands:
            hand.process.join()
            hand.pipe.close()
        self._waiting.clear()
        self._slots = None

    def _forked(self) -> _Hand:
        ours, theirs = connection.Pipe()
        others = [hand.pipe for hand in self._hands]
        with _signals_held():
            process = multiprocessing.get_context("fork").Process(
                target=work,
                args=(theirs, [ours, *others], self._slots, self._slot_bytes, self._carried, os.getpid()),
                daemon=True,
            )
            process.start()
        theirs.close()
        return _Hand(process, ours)

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            hand = min(self._hands, key=lambda hand: len(hand.pieces))
            if len(hand.pieces) == _PIECES:
                break
            piece, slot = self._waiting.popleft(), self._free.pop()
            hand.pieces.append((piece, slot))
            told, hand.job = hand.job is piece.job, piece.job
            with suppress(OSError):  # it is dead, as ``wait`` will see
                hand.pipe.send((None if told else self._message, piece.indices, slot))

    def _receive(self, hand: _Hand) -> None:
        try:
            answer = hand.pipe.recv()
        except (EOFError, OSError):
            self._replace(hand)
            return
        piece, slot = hand.pieces.popleft()
        self._free.append(slot)
        if not isinstance(answer, Exception):
            piece.into[piece.rows] = pixels_in(self._slots, slot, self._slot_bytes, (len(piece.rows), *piece.job.shape))
        piece.answer = answer

    def _replace(self, hand: _Hand) -> None:
        """A process is dead: its pieces go to others, and a new one takes its place."""
        hand.process.join()
        hand.pipe.close()
        code = hand.process.exitcode or 0
        reason = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self._free += [slot for _, slot in hand.pieces]
        pieces = [piece for piece, _ in hand.pieces if piece.job is self._job]
        if pieces:
            pieces[0].deaths += 1
            if pieces[0].deaths == _MOST_DEATHS:
                lost = pieces.pop(0)
                lost.answer = _given_up(lost, reason)
        self._waiting.extendleft(reversed(pieces))
        say(f"an image decoding process died, {reason}; another takes its place")
        self._hands.remove(hand)
        self._hands.append(self._forked())


def _given_up(piece: Piece, reason: str) -> StoreError:
    names = [str(piece.job.dataset.ids[int(index)]) for index in (piece.indices[0], piece.indices[-1])]
    return StoreError(
        f"{piece.job.dataset.name}: {_MOST_DEATHS} processes that decoded the images '{names[0]}' to '{names[1]}' "
        f"died, the last one {reason}. Use fewer --workers where memory is short; else an image may be the cause."
    )


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals come after the block: in the middle of a fork they would be lost, and a new process is not ready for
    them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
