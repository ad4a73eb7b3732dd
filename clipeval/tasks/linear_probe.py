"""Linear probe: logistic regression on frozen image embeddings, with all training images or k per class."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from clipeval.datasets.draws import hold_out
from clipeval.errors import DataError
from clipeval.metrics import normalise, require_finite
from clipeval.tasks import accuracy, adam_probe
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import Inputs, TaskResult
from clipeval.tasks.training import labelled, training_rows

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

    from clipeval.config import LinearProbeEntry
    from clipeval.datasets.base import Dataset

C_PATH = np.logspace(-2, 6, 17)
"""Inverse regularisation strengths that are tried, strongest regularisation first."""
C_ONE_SHOT = 100.0
"""What a 1-shot probe uses: nothing is left to choose it on."""
_TOLERANCE = 1e-4
_ONE_THREAD_BELOW = 2e8
"""Multiply-adds per L-BFGS iteration."""
_PATIENCE = 6
"""The path ends after this many values (three decades) that did not beat the best validation accuracy: what follows
is ever weaker regularisation, and ever slower to fit."""
_ITERATIONS = (1_000, 10_000)
"""L-BFGS iterations allowed, and the second allowance for a fit that has not converged by then."""


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
    test = labelled(inputs)
    train, notes = training_rows(inputs)
    val = inputs.split("val") if inputs.shots is None else None
    val_rows = labelled(val) if val else None
    result = evaluate(train, test, val_rows, seed=inputs.seed, protocol=inputs.protocol)
    return TaskResult(result.metrics, result.samples, result.notes | notes)


def evaluate(
    train: Labelled, test: Labelled, val: Labelled | None = None, *, seed: int = 0, protocol: str = "default"
) -> TaskResult:
    """acc1, acc5 and mean_per_class_recall on ``test`` of a classifier trained on ``train``.

    Embeddings are L2-normalised here. Labels are any integers.

    ``default``: scikit-learn's LogisticRegression (L-BFGS, L2 penalty). C is the value of ``C_PATH`` with the best
    accuracy on ``val``, or without ``val`` on ``hold_out`` of the training rows; ties go to the stronger
    regularisation, and the path ends after three decades without a better one. The classifier is then fitted on all
    rows, validation included. Where every class has a single row and there is no ``val``, C is ``C_ONE_SHOT``. The test
    rows choose nothing. ``cherti2023``: see ``adam_probe.train_best``; ``val`` is not used there, and ``seed`` only
    there.

    The notes say what was chosen, on what, and whether C lies on an end of the path. Raises DataError when the training
    rows hold fewer than two classes, and MetricError for an embedding that is not finite.
    """
    _require_two_classes(train)
    test = _prepared(test)
    if protocol == "cherti2023":
        return adam_probe.train_best(_prepared(train), test, seed)
    classifier = train_classifier(train, val)
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

    def score(self, test: Labelled) -> TaskResult:
        """acc1, acc5 and mean_per_class_recall on unit embeddings."""
        blocks = accuracy.linear_scores(test.embeddings, self.weights, self.bias)
        return accuracy.score(blocks, self.classes, test.labels, test.ids)


def train_classifier(train: Labelled, val: Labelled | None = None) -> LinearClassifier:
    """The classifier of the ``default`` protocol (``evaluate``). Raises DataError and MetricError as there."""
    _require_two_classes(train)
    train = _prepared(train)
    with _array_api(train.embeddings), _few_threads(train, len(np.unique(train.labels))):
        return _logistic_regression(train, val and _prepared(val))


def _require_two_classes(train: Labelled) -> None:
    n_classes = len(np.unique(train.labels))
    if n_classes < 2:
        raise DataError(f"the training rows hold {n_classes} class(es): a classifier needs at least two.")


def _prepared(split: Labelled) -> Labelled:
    require_finite(split.embeddings, split.ids, "image")
    return Labelled(normalise(split.embeddings), split.labels, split.ids)


def _logistic_regression(train: Labelled, val: Labelled | None) -> LinearClassifier:
    held = hold_out(train.labels)
    if val:
        c, start, notes = _choose_c(train, val)
        notes["selected_on"] = "val split"
        train = _joined(train, val)
    elif held.any():
        c, start, notes = _choose_c(train.rows(~held), train.rows(held))
        notes["selected_on"] = "training rows held out"
    else:
        c, start, notes = C_ONE_SHOT, None, {"selected_on": "nothing"}
    estimator = _estimator(train)
    if start is not None and len(start.classes_) == len(np.unique(train.labels)):
        estimator.coef_, estimator.intercept_ = start.coef_, start.intercept_
    notes |= {"protocol": "default", "C": c, "converged": _fit(estimator, train, c)}
    return _linear(estimator, notes)


def _joined(one: Labelled, other: Labelled) -> Labelled:
    xp = array_namespace(one.embeddings)
    embeddings = xp.concat([one.embeddings, other.embeddings], axis=0)
    return Labelled(embeddings, np.concatenate([one.labels, other.labels]), [*one.ids, *other.ids])


def _choose_c(fit: Labelled, val: Labelled) -> tuple[float, LogisticRegression, dict[str, object]]:
    """The C with the best validation accuracy, the smallest of equals; its fit; and what to note of the choice."""
    estimator = _estimator(fit)
    accuracies: list[float] = []
    unconverged = []
    best, best_estimator = 0, estimator
    for place, c in enumerate(C_PATH):
        if not _fit(estimator, fit, c):
            unconverged.append(float(c))
        accuracies.append(_linear(estimator, {}).score(val).metrics[0].value)
        if place == 0 or accuracies[place] > accuracies[best]:
            best, best_estimator = place, copy.deepcopy(estimator)
        elif place - best >= _PATIENCE:
            break
    notes = {
        "validation_accuracy": accuracies[best],
        "validation_samples": len(val.labels),
        "C_on_edge": best in (0, len(C_PATH) - 1),
    }
    return float(C_PATH[best]), best_estimator, notes | ({"C_not_converged": unconverged} if unconverged else {})


def _estimator(train: Labelled) -> LogisticRegression:
    """A classifier that stops when the gradient's largest entry is a ten-thousandth of that at zero weights.

    A fixed tolerance would not do: entries at zero weights are of order 1 / (K sqrt(D)), below scikit-learn's default
    for a thousand classes, where a fit would stop before it began.
    """
    from sklearn.linear_model import LogisticRegression

    x = train.embeddings
    xp = array_namespace(x)
    classes, index = np.unique(train.labels, return_inverse=True)
    columns = xp.arange(len(classes), device=device(x))
    is_class = xp.astype(xp.asarray(index, device=device(x))[:, None] == columns[None, :], x.dtype)
    gradient = (1 / len(classes) - is_class).T @ x / x.shape[0]
    return LogisticRegression(solver="lbfgs", warm_start=True, tol=_TOLERANCE * float(xp.max(xp.abs(gradient))))


def _fit(estimator: LogisticRegression, train: Labelled, c: float) -> bool:
    """Fit with this C from where the estimator stands. False where L-BFGS did not converge even in a second run."""
    from sklearn.exceptions import ConvergenceWarning

    estimator.C = float(c)
    for iterations in _ITERATIONS:
        estimator.max_iter = iterations
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "The number of unique classes")  # 1-shot probes are meant
            estimator.fit(train.embeddings, train.labels)
        for warning in caught:
            if not issubclass(warning.category, ConvergenceWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if not any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            return True
    return False


def _linear(estimator: LogisticRegression, notes: dict[str, object]) -> LinearClassifier:
    weights, bias = estimator.coef_, estimator.intercept_
    if len(estimator.classes_) == 2:  # one row, for the second class against the first
        xp = array_namespace(weights)
        weights, bias = xp.concat([-weights, weights], axis=0), xp.concat([-bias, bias], axis=0)
    return LinearClassifier(weights, bias, estimator.classes_, notes)


@contextmanager
def _array_api(array: Any) -> Iterator[None]:
    """Let scikit-learn compute where ``array`` lives. It refuses to unless SciPy was told of it by this variable."""
    if isinstance(array, np.ndarray):
        yield
        return
    import sklearn

    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        yield


@contextmanager
def _few_threads(train: Labelled, n_classes: int) -> Iterator[None]:
    """One BLAS thread for small problems: L-BFGS works on vectors, where waking threads costs more than the sums."""
    import sklearn.linear_model  # noqa: F401  loads SciPy's BLAS, which the limit has to find
    from threadpoolctl import threadpool_limits

    multiplications = math.prod(train.embeddings.shape) * n_classes
    with threadpool_limits(1 if multiplications < _ONE_THREAD_BELOW else None, user_api="blas"):
        yield
