"""Tasks and metrics of other packages: what they are given, and what is taken of what they return.

Whatever their code raises becomes a message with the package's name, and what they are given they may change.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.datasets.subset import Subset
from clipeval.errors import MetricError, first_line
from clipeval.extensions import Extension, at_work
from clipeval.plain import printable
from clipeval.stats.intervals import percentile_interval
from clipeval.tasks.base import Inputs, Metric, TaskResult

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset

_SEED, _DRAWS = 0, 200
_MOST_RESAMPLED = 1 << 22
"""Scores beyond which a metric of another package has no interval: nobody knows how long it takes."""
_LONGEST_NAME, _MOST_METRICS = 200, 1000
_LARGEST = 1e300
"""What the results table takes for a number."""


class GivenInputs:
    """What a task of another package may ask for, as copies of its own."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.dataset = Subset(inputs.dataset, np.arange(len(inputs.dataset)))
        """The scored samples: ids, labels, prompts, captions, metadata, ``image(i)``..."""

    def images(self) -> np.ndarray:
        """Image embeddings ``[n, D]`` float32, not normalised."""
        return self._inputs.images().copy()

    def texts(self, texts: list[str]) -> np.ndarray:
        """Text embeddings ``[len(texts), D]`` float32, not normalised, of any texts."""
        asked = list(texts)
        if isinstance(texts, str) or not all(isinstance(text, str) for text in asked):
            raise TypeError("texts() takes a list of texts")
        return self._inputs.texts(asked)


@dataclass(frozen=True)
class ForeignTask:
    """A function of another package, (inputs) -> {metric: value}, as a task."""

    extension: Extension

    def texts(self, dataset: Dataset) -> list[str]:
        """None that is known before: they are encoded when the function asks for them."""
        return []

    def protocol(self, settings: Any) -> str:
        """It has no settings."""
        return "default"

    def run(self, inputs: Inputs) -> TaskResult:
        """Measure one cell. Raises MetricError for whatever the function raises and for what are no finite values."""
        with _called(self.extension):
            found = self.extension.function(MetricError)(GivenInputs(inputs))
        if not isinstance(found, Mapping) or not found:
            raise MetricError(f"{_who(self.extension)} gave {found!r:.80} and not {{metric: value}}.")
        if len(found) > _MOST_METRICS:
            raise MetricError(f"{_who(self.extension)} gave {len(found):,} values; at most {_MOST_METRICS:,} are kept.")
        n = len(inputs.dataset)
        return TaskResult([self._metric(name, value, n) for name, value in found.items()])

    def _metric(self, name: Any, value: Any, n: int) -> Metric:
        if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or printable(name) != name:
            raise MetricError(f"{_who(self.extension)} gave a value of {name!r:.80}, which is no name of a metric.")
        return Metric(name, _finite(self.extension, name, value), math.nan, math.nan, n)


def score(
    extension: Extension, scores: np.ndarray, labels: np.ndarray, metadata: Mapping[str, np.ndarray] | None
) -> Metric:
    """The metric of another package on scores ``[n, K]``, labels ``[n]`` and metadata of ``[n]`` per field.

    The interval is a bootstrap over samples, of draws on which the function gives a value; NaN where half of them have
    none, or there are more than four million scores. Raises MetricError for whatever the function raises.
    """
    with _called(extension):
        function = extension.function(MetricError)

    def value_of(rows: np.ndarray) -> float:
        own = {field: values[rows] for field, values in (metadata or {}).items()}
        with _called(extension):
            found = function(scores[rows], labels[rows], own)
        return _finite(extension, extension.name, found)

    value, n = value_of(np.arange(len(labels))), len(labels)
    draws = []
    generator = np.random.default_rng(_SEED)
    for _ in range(_DRAWS if scores.size <= _MOST_RESAMPLED else 0):
        try:
            draws.append(value_of(generator.integers(n, size=n)))
        except MetricError:  # of a sample without one of the classes, for example
            continue
    interval = percentile_interval(np.array(draws)) if len(draws) > _DRAWS / 2 else (math.nan, math.nan)
    return Metric(extension.name, value, *interval, n)


def _finite(extension: Extension, name: str, value: Any) -> float:
    with _called(extension):
        number = math.nan if isinstance(value, str | bytes | bool | np.bool_) else float(value)
    if not abs(number) < _LARGEST:
        raise MetricError(f"{_who(extension)} gave {name} = {value!r:.80}, which is no finite number.")
    return number


@contextmanager
def _called(extension: Extension) -> Iterator[None]:
    """Code of another package is at work: what it prints is no result."""

    def told(error: Exception) -> MetricError:
        return MetricError(f"{_who(extension)} failed: {type(error).__name__}: {first_line(error):.300}")

    with at_work(told), redirect_stdout(sys.stderr):
        yield


def _who(extension: Extension) -> str:
    return f"{extension.name}: {extension.address} of {extension.package}"
