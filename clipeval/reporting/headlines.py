"""The order of data sets on the page: suites of the configuration, ImageNet, MS-COCO and Flickr30K, then those with the
most checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from clipeval.config import Config

_FIRST = ("imagenet1k", "mscoco_captions", "flickr30k")
_ALIKE = {"retrieval/mscoco_2014_5k_test_image_text_retrieval": "mscoco_captions", "retrieval/flickr30k": "flickr30k"}
"""Names of the same data set in other collections."""


def place(dataset: str, suite: bool, checkpoints: int, config: Config) -> tuple[int, int, int, str]:
    """Sort key of a data set, or of a ``suite``."""
    suites = list(config.suites)
    if suite:
        return 0, suites.index(dataset) if dataset in suites else len(suites), -checkpoints, dataset
    known = _ALIKE.get(dataset, dataset)
    return 1, _FIRST.index(known) if known in _FIRST else len(_FIRST), -checkpoints, dataset


def is_named(dataset: str, suite: bool) -> bool:
    """Whether the order names the data set, so that others give way to it."""
    return suite or _ALIKE.get(dataset, dataset) in _FIRST


def once(datasets: Iterable[str]) -> set[str]:
    """The data sets without those that another name stands for already."""
    seen: dict[str, str] = {}
    for dataset in datasets:
        seen.setdefault(_ALIKE.get(dataset, dataset), dataset)
    return set(seen.values())
