"""All pairs of a run: positions of the sample stream in, training batches out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError
from clipeval.machine import workers_per_rank
from clipeval_train import model
from clipeval_train.config import PretrainConfig
from clipeval_train.input import loader
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.batch import Batch
from clipeval_train.input.crops import CAPTION_ROW, crop_box, resized_crop, uniform
from clipeval_train.input.lanes import Lanes
from clipeval_train.input.memory import MemorySource
from clipeval_train.input.source import Source, open_source

_HOPELESS = 0.5
"""A share of bad samples at which a worker does not look for others, unless more are allowed."""


def open_corpus(config: PretrainConfig, architecture: model.Architecture, split: str = "train") -> Corpus:
    """Open every source, indexing what is new; ``split`` is that of built-in data sets.

    Raises UsageError or DataError that names the source.
    """
    sources: list[Source] = [open_source(entry, architecture.image_size, split) for entry in config.data]
    for source in sources:
        if source.tally.bad:
            left_out, found = source.tally.bad.total(), source.tally.read
            say(f"{source.name}: left out {left_out:,} of {found:,} samples ({source.tally})")
        source.tally.check(config.bad_samples)
    corpus = Corpus(config, architecture, sources)
    for kept in corpus.filtered:
        say(f"{kept['source']}: {kept['left']:,} of {kept['of']:,} samples are left where {kept['where']}")
    return corpus


class Corpus:
    """The samples of all sources, numbered through, and the order in which a run sees them."""

    def __init__(self, config: PretrainConfig, architecture: model.Architecture, sources: list[Source]) -> None:
        self._sources, self._seed = sources, config.seed
        self.image_shape = (3, architecture.image_size, architecture.image_size)
        self.context_length = architecture.context_length
        self._workers = config.workers
        self._budget = config.bad_samples
        weights = [entry.weight for entry in config.data]
        units = [source.units for source in sources]
        self._order = Lanes(units, weights, config.batch_size, config.seed, config.lanes)
        self._ends = np.cumsum([source.units.sum() for source in sources])
        self._tokenizer = model.tokenizer(architecture)
        self.sizes = dict.fromkeys((source.name for source in sources), 0)
        self.shares = dict.fromkeys(self.sizes, 0.0)
        """What part of the samples seen comes from each source."""
        for source, weight in zip(sources, weights, strict=True):  # several entries may be of one source
            self.sizes[source.name] += int(source.units.sum())
            self.shares[source.name] += weight / sum(weights)
        self.left_out = dict(sum((source.tally.bad for source in sources), Counter[str]()))
        """Samples and shards that were found bad when the sources were opened, by reason."""
        self.filtered = [
            {"source": source.name, "where": entry.where, "left": left, "of": left + source.dropped}
            for source, entry in zip(sources, config.data, strict=True)
            if entry.where and (left := int(source.units.sum()))
        ]
        """What the conditions of sources leave."""
        self.fingerprint = digest.of_value([source.fingerprint for source in sources])
        memory = [source for source in sources if isinstance(source, MemorySource)]
        self._all: tuple[torch.Tensor, torch.Tensor] | None = None
        if len(memory) == len(sources):
            images = np.concatenate([source.images for source in memory])
            captions = [caption for source in memory for caption in source.captions]
            self._all = torch.from_numpy(images), self._tokenizer(captions)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batches(
        self, start: int, stop: int, batch_size: int, rank: int = 0, world_size: int = 1, pin_memory: bool | None = None
    ) -> Iterator[Batch]:
        """The batches of stream positions [start, stop), and of each the part that is this rank's.

        Batch b holds positions start + b * batch_size and following; rank r has the r-th of ``world_size`` equal parts.
        ``pin_memory``: None where there is a CUDA device. Raises UsageError for sizes that cannot be divided, DataError
        for too many bad samples or a shard that is gone.
        """
        parts = loader.Parts(start, stop, batch_size, rank, world_size)
        pin = torch.cuda.is_available() if pin_memory is None else pin_memory
        if self._all:
            return (self._from_memory(*part, pin) for part in parts)
        workers = workers_per_rank() if self._workers is None else self._workers
        return loader.decoded(self, parts, workers, self._budget, pin)

    def _from_memory(self, start: int, stop: int, pin: bool) -> Batch:
        assert self._all is not None
        keys = torch.from_numpy(self._order.take(start, stop))
        crops = torch.from_numpy(uniform(self._seed, start, stop)[:, 0, :3].copy())
        batch = Batch(start, stop, self._all[0][keys], crops, self._all[1][keys], keys)
        return batch.pin_memory() if pin else batch

    def samples(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, Tally]:
        """Images, tokens and keys of a stretch as in ``Batch``, decoded, cropped and tokenised in this process.

        Raises DataError when most samples are bad or no substitute is left.
        """
        keys, draws = self._order.take(start, stop), uniform(self._seed, start, stop)
        images = torch.empty(stop - start, *self.image_shape, dtype=torch.uint8)
        captions, tally = [], Tally()
        for row, draw in enumerate(draws):
            which = float(draw[CAPTION_ROW, 1])
            keys[row], image, texts = self._first_usable(start + row, int(keys[row]), which, tally)
            images[row] = resized_crop(image, crop_box(image.shape[1], image.shape[2], draw), self.image_shape[1])
            captions.append(texts[int(draw[CAPTION_ROW, 0] * len(texts))])
        return images, self._tokenizer(captions), keys, tally

    def remote_units(self, parts: loader.Parts) -> Iterator[tuple[Source, Iterator[tuple[int, int]]]]:
        """The sources whose shards have to be fetched, each with what is read of it (``Lanes.units``)."""
        ranks = parts.batch_size, parts.rank, parts.world_size
        for number, source in enumerate(self._sources):
            if source.is_remote:
                yield source, self._order.units(number, parts.start, parts.stop, *ranks)

    def _first_usable(
        self, position: int, planned: int, draw: float, tally: Tally
    ) -> tuple[int, torch.Tensor, list[str]]:
        """The sample of a position, or the first of its substitutes that can be used: key, image, captions."""
        for key in self._candidates(position, planned):
            tally.read += 1
            source, index = self._place(key)
            try:
                return key, *source.read(index, draw)
            except BadSample as bad:
                tally.reject(str(bad), source.where(index))
                tally.check(max(self._budget, _HOPELESS))
        source, index = self._place(planned)
        raise DataError(
            f"data: {source.name}: {source.where(index)} cannot be used, and of {source.units.sum():,} samples none is "
            f"left to take its place ({tally}). Remove the bad samples, add data or lower batch_size."
        )

    def _candidates(self, position: int, planned: int) -> Iterator[int]:
        yield planned
        yield from self._order.substitutes(position).tolist()

    def _place(self, key: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self._ends, key, side="right"))
        return self._sources[number], int(key - self._ends[number] + self._sources[number].units.sum())
