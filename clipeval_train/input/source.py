"""What the samples of an upstream data set are read from: which kinds there are, and what they have in common."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from clipeval.errors import UsageError
from clipeval.remote.origin import public
from clipeval_train.config import SourceEntry
from clipeval_train.input.bad import Tally
from clipeval_train.input.counted_shards import CountedShardSource
from clipeval_train.input.files import is_list, patterns
from clipeval_train.input.memory import MemorySource
from clipeval_train.input.shards import ShardSource


class Source(Protocol):
    """An upstream data set: samples 0, 1, ... in units that are read together."""

    name: str
    units: np.ndarray
    """Usable samples per unit."""
    fingerprint: str
    is_remote: bool
    """Whether its units have to be fetched before they can be read."""
    tally: Tally
    """What was found unusable when the source was opened."""

    dropped: int
    """Usable samples that ``where`` leaves out."""

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and at least one caption; where several places of captions have shares,
        those of the place that ``draw`` in [0, 1) chooses. Raises BadSample."""

    def where(self, index: int) -> str:
        """How messages call a sample."""


def open_source(entry: SourceEntry, size: int, split: str = "train") -> Source:
    """Open what ``entry`` names, of a built-in data set the ``split``; images that are made in memory get the side
    ``size``. Raises UsageError, DataError."""
    if entry.shards.startswith("builtin:"):
        return MemorySource(entry, size, split)
    if entry.shards.startswith("hf:"):
        from clipeval_train.input.hub import hub_lists
        from clipeval_train.input.lists import ListSource

        return ListSource(entry, *hub_lists(entry))
    parts = patterns(entry.source, entry.shards)
    kinds = {is_list(part): part for part in parts}
    if len(kinds) > 1:
        raise UsageError(
            f"data: {entry.source}: '{public(kinds[True])}' is a list and '{public(kinds[False])}' is not, and one "
            "source is of one kind. Make them two entries of `data`; they may have the same name."
        )
    if True in kinds:
        from clipeval_train.input.lists import ListSource

        return ListSource(entry)
    return CountedShardSource(entry) if entry.counts == "stats" else ShardSource(entry)
