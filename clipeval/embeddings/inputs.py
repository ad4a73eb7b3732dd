"""What a task sees of one data set under one checkpoint: embeddings made when first asked for, then kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset
from clipeval.embeddings import images
from clipeval.embeddings.images import LoaderSettings, Progress
from clipeval.embeddings.texts import TextStore, embed

if TYPE_CHECKING:
    from clipeval.models.base import Encoder


_BLOCK = 4096
_EQUAL = 1e-6
"""Relative difference below which two embeddings show nothing but the rounding of sums in another order."""


class EmbeddedInputs:
    """``clipeval.tasks.base.Inputs`` on top of the stores.

    ``open_split`` opens another split of the same data set, or returns None; ``dataset`` may be a Subset. ``start`` is
    told of every split before its images are embedded, with their number, ``say`` what a task has to tell, ``work``
    what it does. Embedding waits for its ``turn`` where several threads have inputs. ``remarks`` holds sentences on
    what was seen.
    """

    def __init__(
        self,
        encoder: Encoder,
        dataset: Dataset,
        text_store: TextStore,
        open_split: Callable[[str], Dataset | None],
        settings: LoaderSettings,
        progress: Progress,
        start: Callable[[str, int], None] = lambda split, images: None,
        say: Callable[[str], None] = lambda sentence: None,
        turn: AbstractContextManager[object] | None = None,
        work: Callable[..., None] = lambda text, done=0, total=None: None,
    ) -> None:
        self.dataset = dataset
        self.asked: list[str] = []
        """The texts that this cell has asked for."""
        self.shots: int | None = None
        self.seed = 0
        self.protocol = "default"
        self.encoder = encoder
        self.workers = settings.workers
        self._text_store = text_store
        self._open_split = open_split
        self._settings = settings
        self._progress = progress
        self._start = start
        self.say = say
        self.work = work
        self._turn = turn or nullcontext()
        self.remarks: list[str] = []
        self._all_images: np.ndarray | None = None
        self._splits: dict[str, EmbeddedInputs | None] = {}
        # before a task that trains reads from the stores by itself
        images.freshen(encoder, dataset.whole if isinstance(dataset, Subset) else dataset, settings)

    def with_parameters(self, shots: int | None, seed: int, protocol: str) -> EmbeddedInputs:
        """The same inputs for a cell with these parameters."""
        self.shots, self.seed, self.protocol = shots, seed, protocol
        self.asked = []
        return self

    def images(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Embeddings ``[n, D]`` of the samples at the ascending ``indices``, or of all."""
        if indices is None:
            if self._all_images is None:
                self._all_images = self._embed(np.arange(len(self.dataset)))
                different = len(set(self.dataset.digests or self.dataset.ids))
                self._remark_equal(self._all_images, "images", different)
            return self._all_images
        if self._all_images is not None:
            return self._all_images[indices]
        return self._embed(indices)

    def take_images(self) -> np.ndarray:
        """Embeddings ``[n, D]`` of all samples as the caller's own; the next to ask reads them from the store again."""
        found, self._all_images = self.images(), None
        return found

    def _remark_equal(self, embeddings: np.ndarray, what: str, different: int) -> None:
        """Whether a checkpoint has collapsed: embeddings of ``different`` things are all the same."""
        if different > 1 and _are_equal(embeddings):
            sentence = f"the embeddings of all {len(embeddings):,} {what} are equal: the checkpoint tells none apart"
            self.remarks += [sentence] if sentence not in self.remarks else []

    def _embed(self, indices: np.ndarray) -> np.ndarray:
        dataset = self.dataset
        with self._turn:
            self._start(dataset.split, len(indices))
            if isinstance(dataset, Subset):
                indices, dataset = dataset.indices[indices], dataset.whole
            return images.embed(self.encoder, dataset, indices, self._settings, self._progress)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embeddings ``[len(texts), D]``, those that are not stored made now. Raises ModelError for a text whose
        embedding is not finite."""
        self.asked += texts
        if missing := self._text_store.missing(texts):
            with self._turn:
                self._start("texts", len(missing))
                embed(self.encoder, self._text_store, missing, self._settings.batch_size, self._progress)
        embeddings = self._text_store.get(texts)
        self._remark_equal(embeddings, "texts", len(set(texts)))
        return embeddings

    def split(self, kind: str) -> EmbeddedInputs | None:
        """The ``train`` or ``val`` split; None when the data set has none by that name. Raises DataError."""
        if kind not in self._splits:
            dataset = self._open_split(kind)
            shared = (
                self._text_store,
                self._open_split,
                self._settings,
                self._progress,
                self._start,
                self.say,
                self._turn,
                self.work,
            )
            self._splits[kind] = None if dataset is None else EmbeddedInputs(self.encoder, dataset, *shared)
        return self._splits[kind]

    def on_device(self, array: np.ndarray) -> Any:
        """``array`` as a tensor of the accelerator in use; the array itself on a CPU."""
        if self.encoder.device == "cpu":
            return array
        import torch

        return torch.from_numpy(array).to(self.encoder.device)


def _are_equal(embeddings: np.ndarray) -> bool:
    """Whether all rows of ``[n, D]`` are the same."""
    first = embeddings[:1]
    most = _EQUAL * float(np.abs(first).max())
    return all(
        bool((np.abs(embeddings[start : start + _BLOCK] - first) <= most).all())
        for start in range(0, len(embeddings), _BLOCK)
    )
