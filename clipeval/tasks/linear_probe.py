"""Linear probe: logistic regression on frozen image embeddings, with all training images or k per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from array_api_compat import array_namespace

from clipeval.datasets.draws import hold_out, sample
from clipeval.errors import DataError
from clipeval.metrics import normalise, require_finite
from clipeval.tasks import accuracy, adam_probe, softmax
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import Inputs, TaskResult
from clipeval.tasks.logistic import Fits, Fitted, ReferenceFits, array_api
from clipeval.tasks.softmax import SoftmaxRegression
from clipeval.tasks.training import labelled, taken, training_rows

if TYPE_CHECKING:
    from clipeval.config import LinearProbeEntry
    from clipeval.datasets.base import Dataset

C_PATH = np.logspace(-2, 6, 17)
"""Inverse regularisation strengths that are tried, strongest regularisation first."""
C_ONE_SHOT = 100.0
"""What a 1-shot probe uses: nothing is left to choose it on."""
_LARGE = 2e8
"""Rows x width x classes from which a problem is large: not scikit-learn's, and not on one thread."""
_SHARE, _LEAST, _ROUGHLY = 0.1, 40, 2e-3
"""Of each class of a large problem, and rows of it at least: what C is chosen with, and to which tolerance. With too
few rows for the width every weak regularisation looks alike."""
_PATIENCE = 6
"""The path ends after this many values (three decades) that did not beat the best validation accuracy: what follows
is ever weaker regularisation, and ever slower to fit."""
_MOVED = 5
"""Standard errors between the accuracies of a large problem's path, by which it has left where regularisation decides
all. It then ends where a decade gains less than one: the top is reached."""
_PASSES_OF_PATH, _PASSES_OF_FIT = 300, 50
"""What choosing and fitting take about, for an estimate."""
_LONG_SECONDS = 60

Say = Callable[[str], None]


class Work(Protocol):
    """As ``Inputs.work``."""

    def __call__(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Show what is being done."""
        ...


def _unseen(text: str, done: int = 0, total: int | None = None) -> None:
    pass


def texts(dataset: Dataset) -> list[str]:
    """A linear probe reads no text."""
    return []


def protocol(settings: LinearProbeEntry) -> str:
    """The protocol's name."""
    return settings.protocol


def run(inputs: Inputs) -> TaskResult:
    """Train on the ``train`` split and score ``inputs.dataset``. Raises DataError and MetricError.

    A k-shot probe sees only the drawn images, not the validation split: it is about k labels per class and no more.
    """
    test = _prepared(labelled(inputs))
    train, notes = training_rows(inputs)
    train = _prepared(train, in_place=True)
    val = inputs.split("val") if inputs.shots is None else None
    val_rows = _prepared(taken(val), in_place=True) if val else None
    result = _evaluate(train, test, val_rows, inputs.seed, inputs.protocol, inputs.say, inputs.work)
    return TaskResult(result.metrics, result.samples, result.notes | notes)


def evaluate(
    train: Labelled, test: Labelled, val: Labelled | None = None, *, seed: int = 0, protocol: str = "default"
) -> TaskResult:
    """acc1, acc5 and mean_per_class_recall on ``test`` of a classifier trained on ``train``.

    Embeddings are L2-normalised here. Labels are any integers.

    ``default``: logistic regression with an L2 penalty, by scikit-learn or, where rows x width x classes are many, by
    ``SoftmaxRegression``, whose optimum is the same. C is the value of ``C_PATH`` with the best accuracy on ``val``, or
    without ``val`` on ``hold_out`` of the training rows; ties go to the stronger regularisation, and the path ends
    after three decades without a better one. Of a large problem C is chosen with a tenth of each class's other rows,
    the first value within a standard error of the best, and the path ends where weaker regularisation gains less than
    one (``_MOVED``). The classifier is then fitted on all rows, validation
    included. Where every class has a single row and there is no ``val``, C is ``C_ONE_SHOT``. The test rows choose
    nothing. ``cherti2023``: see ``adam_probe.train_best``; ``val`` is not used there, and ``seed`` only there.

    The notes say what was chosen, on what, and whether C lies on an end of the path. Raises DataError when the training
    rows hold fewer than two classes, and MetricError for an embedding that is not finite.
    """
    return _evaluate(_prepared(train), _prepared(test), val and _prepared(val), seed, protocol, _unheard)


def _evaluate(
    train: Labelled, test: Labelled, val: Labelled | None, seed: int, protocol: str, say: Say, work: Work = _unseen
) -> TaskResult:
    if protocol == "cherti2023":
        _require_two_classes(train)
        return adam_probe.train_best(train, test, seed, work)
    classifier = _trained(train, val, say, work)
    work("scoring")
    result = classifier.score(test)
    return TaskResult(result.metrics, result.samples, result.notes | classifier.notes)


@dataclass(frozen=True)
class LinearClassifier:
    """``weights`` ``[K, D]`` and ``bias`` ``[K]`` for unit embeddings; ``classes`` ``[K]`` are the labels, ascending.

    ``notes`` say how it was chosen.
    """

    weights: Any
    bias: Any
    classes: np.ndarray
    notes: dict[str, object] = field(default_factory=dict)

    def accuracy(self, val: Labelled) -> float:
        """The share of unit embeddings whose class is right."""
        blocks = accuracy.linear_scores(val.embeddings, self.weights, self.bias)
        predictions = np.concatenate([scores.argmax(axis=1) for scores in blocks])
        return int((self.classes[predictions] == val.labels).sum()) / len(val.labels)

    def score(self, test: Labelled) -> TaskResult:
        """acc1, acc5 and mean_per_class_recall on unit embeddings."""
        blocks = accuracy.linear_scores(test.embeddings, self.weights, self.bias)
        return accuracy.score(blocks, self.classes, test.labels, test.ids)


def train_classifier(train: Labelled, val: Labelled | None = None) -> LinearClassifier:
    """The classifier of the ``default`` protocol (``evaluate``). Raises DataError and MetricError as there."""
    return _trained(_prepared(train), val and _prepared(val), _unheard)


def _require_two_classes(train: Labelled) -> None:
    n_classes = len(np.unique(train.labels))
    if n_classes < 2:
        raise DataError(f"the training rows hold {n_classes} class(es): a classifier needs at least two.")


def _prepared(split: Labelled, *, in_place: bool = False) -> Labelled:
    require_finite(split.embeddings, split.ids, "image")
    return Labelled(normalise(split.embeddings, in_place=in_place), split.labels, split.ids)


def _trained(train: Labelled, val: Labelled | None, say: Say, work: Work = _unseen) -> LinearClassifier:
    _require_two_classes(train)
    with array_api(train.embeddings), _one_thread_each() as threads:
        return _Training(train, val, threads, say, work).classifier()


@dataclass(frozen=True)
class _Training:
    """Unit embeddings to train on, and how many threads there are."""

    train: Labelled
    val: Labelled | None
    threads: int
    say: Say
    work: Work = _unseen

    def classifier(self) -> LinearClassifier:
        """Fitted at the C that is best where it has not been fitted."""
        held = hold_out(self.train.labels) if self.val is None else np.zeros(len(self.train.labels), bool)
        if self.val is None and not held.any():
            start: Fitted | None = None
            notes: dict[str, Any] = {"selected_on": "nothing", "C": C_ONE_SHOT}
        else:
            start, notes = self._choose_c(held)
        fits = self._fits([self.train] if self.val is None else [self.train, self.val])
        same = start is not None and len(start.classes) == len(fits.classes)
        self.work(f"fitting with C = {notes['C']:.4g}")
        fitted = fits.fit(notes["C"], start if same else None)
        return _linear(fitted, notes | {"protocol": "default", "converged": fitted.converged})

    @property
    def _shape(self) -> tuple[int, int, int]:
        labels = [part.labels for part in (self.train, self.val) if part]
        return sum(map(len, labels)), self.train.embeddings.shape[1], len(np.unique(np.concatenate(labels)))

    @property
    def _is_large(self) -> bool:
        return math.prod(self._shape) >= _LARGE

    def _fits(self, parts: list[Labelled], tolerance: float = softmax.TOLERANCE) -> Fits:
        fits = SoftmaxRegression(parts, self.threads, tolerance if self._is_large else softmax.TOLERANCE)
        return fits if self._is_large else ReferenceFits(_joined(parts), fits.tolerance)

    def _choose_c(self, held: np.ndarray) -> tuple[Fitted, dict[str, Any]]:
        """The fit at the C that is best by ``_best_of_path``, and notes."""
        chosen = sample(self.train.labels, _SHARE, _LEAST, held) if self._is_large else ~held
        fits = self._fits([self.train if chosen.all() else self.train.rows(chosen)], _ROUGHLY)
        if isinstance(fits, SoftmaxRegression):
            self._say_cost(fits)
        val = self.val or self.train.rows(held)
        start, notes = _best_of_path(fits, val, in_part=self._is_large, work=self.work)
        notes["selected_on"] = "val split" if self.val else "training rows held out"
        return start, notes | ({"selection_rows": int(chosen.sum())} if self._is_large else {})

    def _say_cost(self, fits: SoftmaxRegression) -> None:
        """What is to come, as far as a pass over the rows that C is chosen with shows it."""
        n, n_features, n_classes = self._shape
        seconds = fits.seconds_per_pass * (_PASSES_OF_PATH + _PASSES_OF_FIT * n / fits.shape[0])
        if seconds > _LONG_SECONDS:
            size = working_bytes(n, n_features, n_classes, self.threads) / 1e9
            self.say(
                f"fitting {n:,} embeddings of width {n_features:,} to {n_classes:,} classes: about "
                f"{seconds / 60:,.0f} minutes on {self.threads} threads, {size:,.1f} GB with the embeddings"
            )


def working_bytes(n: int, n_features: int, n_classes: int, threads: int) -> int:
    """Bytes of memory that a large problem takes: the embeddings, the three tenths that C is chosen with and on, the
    sums of every lane of rows, what L-BFGS remembers, and blocks of scores."""
    embeddings, weights = 4 * n * n_features, 8 * n_classes * (n_features + 1)
    return embeddings * 13 // 10 + softmax.working_bytes(weights, threads)


def _best_of_path(fits: Fits, val: Labelled, *, in_part: bool, work: Work = _unseen) -> tuple[Fitted, dict[str, Any]]:
    """The fit with the best accuracy on ``val``, of equals the first, and notes. The path ends as ``_PATIENCE`` says.

    ``in_part``: the fits are to a part of the rows. Then the first counts that lies within a standard error of the
    best, as few rows favour weak regularisation by next to nothing; and the path may end earlier, as ``_MOVED`` says.
    """
    accuracies: list[float] = []
    path: list[Fitted] = []
    for c in C_PATH:
        work(f"choosing C, {len(path) + 1} of at most {len(C_PATH)}", len(path), len(C_PATH))
        path.append(fits.fit(c, path[-1] if path else None))
        accuracies.append(_linear(path[-1], {}).accuracy(val))
        top = max(accuracies)
        error = math.sqrt(top * (1 - top) / len(val.labels)) if in_part else 0.0
        if len(path) - 1 - accuracies.index(top) >= _PATIENCE:
            break
        if in_part and top - min(accuracies) > _MOVED * error and accuracies[-1] < accuracies[-3:][0] + error:
            break
    chosen = next(place for place, value in enumerate(accuracies) if value >= top - error)
    notes = {
        "C": float(C_PATH[chosen]),
        "validation_accuracy": accuracies[chosen],
        "validation_samples": len(val.labels),
        "C_on_edge": chosen in (0, len(C_PATH) - 1),
    }
    unconverged = [float(c) for c, fitted in zip(C_PATH, path, strict=False) if not fitted.converged]
    return path[chosen], notes | ({"C_not_converged": unconverged} if unconverged else {})


def _joined(parts: list[Labelled]) -> Labelled:
    if len(parts) == 1:
        return parts[0]
    xp = array_namespace(parts[0].embeddings)
    embeddings = xp.concat([part.embeddings for part in parts], axis=0)
    return Labelled(
        embeddings, np.concatenate([part.labels for part in parts]), [i for part in parts for i in part.ids]
    )


def _linear(fitted: Fitted, notes: dict[str, object]) -> LinearClassifier:
    return LinearClassifier(fitted.weights, fitted.bias, fitted.classes, notes)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """One BLAS thread: L-BFGS works on vectors, where waking threads costs more than the sums, and large problems have
    threads of their own, as many as the number that this gives."""
    import sklearn.linear_model  # noqa: F401  loads SciPy's BLAS, which the limit has to find
    from threadpoolctl import threadpool_info, threadpool_limits

    threads = max((int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"):
        yield threads


def _unheard(sentence: str) -> None:
    pass
