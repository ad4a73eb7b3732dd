"""The k-nearest-neighbour probe against a second implementation and scikit-learn's own classifier."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from digits_rows import labelled, splits, values
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from clipeval.config import KnnProbeEntry
from clipeval.errors import DataError, MetricError, UsageError
from clipeval.tasks import knn_probe as task


@pytest.fixture(scope="module")
def digits():
    return splits(301, 257, less=4)


def by_hand(train, test, k, weighted):
    """Votes per query and class in plain loops over float64 cosines."""
    classes = sorted(set(train.labels.tolist()))
    found = []
    for query in test.embeddings.astype(float):
        cosines = [float(row @ query / np.linalg.norm(row) / np.linalg.norm(query)) for row in train.embeddings]
        nearest = sorted(range(len(cosines)), key=lambda row: (-round(cosines[row], 12), row))[:k]
        votes = dict.fromkeys(classes, 0.0)
        for row in nearest:
            votes[int(train.labels[row])] += math.exp(cosines[row] / 0.07) if weighted else 1.0
        found.append(sorted(classes, key=lambda label: (-votes[label], label)))
    return found


@pytest.mark.parametrize(("k", "weighted"), [(20, True), (1, True), (7, False), (10_000, True)])
def test_votes_are_those_of_a_second_implementation(digits, k, weighted):
    train, test = digits
    ranked = by_hand(train, test, k, weighted)
    result = task.evaluate(train, test, k=k, weighted=weighted)
    assert result.samples["prediction"].tolist() == [order[0] for order in ranked]
    top5 = [label in order[:5] for label, order in zip(test.labels, ranked, strict=True)]
    assert result.samples["correct5"].tolist() == top5
    assert values(result) == {
        "acc1": (result.samples["prediction"] == test.labels).mean(),
        "acc5": np.mean(top5),
        "mean_per_class_recall": pytest.approx(balanced_accuracy_score(test.labels, result.samples["prediction"])),
    }
    assert result.notes["neighbours"] == min(k, 301)
    assert values(result)["acc1"] > 0.9 or k > 300


@pytest.mark.parametrize("weighted", [True, False])
def test_scikit_learn_agrees(digits, weighted):
    train, test = digits
    weights = (lambda distances: np.exp((1 - distances) / 0.07)) if weighted else "uniform"
    theirs = KNeighborsClassifier(20, weights=weights, metric="cosine", algorithm="brute")
    theirs.fit(train.embeddings.astype(float), train.labels)
    ours = task.evaluate(train, test, weighted=weighted).samples["prediction"]
    assert (ours == theirs.predict(test.embeddings.astype(float))).all()


def test_scores_do_not_depend_on_blocks(digits, monkeypatch):
    train, test = digits
    whole = task.evaluate(train, test)
    monkeypatch.setattr(task, "_BLOCK", 64 * 40 * 10)
    parts = task.evaluate(train, test)
    assert {name: column.tolist() for name, column in whole.samples.items()} == {
        name: column.tolist() for name, column in parts.samples.items()
    }


def test_of_equally_close_rows_the_earlier_count_and_of_equal_votes_the_lower_class_wins():
    same = np.random.default_rng(0).normal(size=13)
    far = np.random.default_rng(1).normal(size=(3, 13))
    train = labelled([same, same, same, *far], [9, 5, 5, 2, 2, 2])
    assert task.evaluate(train, labelled([same], [9]), k=1).samples["prediction"].tolist() == [9]
    assert task.evaluate(train, labelled([same], [9]), k=2).samples["prediction"].tolist() == [5]  # one vote each
    assert task.evaluate(train, labelled([2 * same], [9]), k=3).samples["prediction"].tolist() == [5]


def test_the_vote_weighs_closeness():
    """One neighbour at cosine 1 against two at 0.94: 1 against 2 exp(-0.06 / 0.07) = 0.849; the majority says two."""
    away = [0.94, math.sqrt(1 - 0.94**2)]
    train, test = labelled([[1, 0], away, away], [0, 1, 1]), labelled([[5, 0]], [0])
    assert task.evaluate(train, test).samples["prediction"].tolist() == [0]
    assert task.evaluate(train, test, weighted=False).samples["prediction"].tolist() == [1]


class Inputs:
    def __init__(self, split, train=None, shots=None, protocol="default"):
        prompts = SimpleNamespace(classes=())
        self.dataset = SimpleNamespace(name="d", split="s", labels=split.labels, ids=split.ids, prompts=prompts)
        self._split, self._train = split, train
        self.shots, self.seed, self.protocol = shots, 0, protocol

    def images(self, rows=None):
        return self._split.embeddings if rows is None else self._split.embeddings[rows]

    take_images = images

    def on_device(self, array):
        return array

    def split(self, kind):
        return Inputs(self._train) if kind == "train" and self._train else None


def test_run(digits):
    train, test = digits
    assert task.texts(None) == []
    found = task.run(Inputs(test, train))
    assert values(found) == values(task.evaluate(train, test))
    majority = task.run(Inputs(test, train, protocol="majority k=7"))
    assert values(majority) == values(task.evaluate(train, test, k=7, weighted=False))
    few = task.run(Inputs(test, train, shots=2))
    assert (few.notes["neighbours"], len(few.notes["train_rows_sha256"])) == (20, 64)
    with pytest.raises(DataError, match="d: it has no training split"):
        task.run(Inputs(test))
    with pytest.raises(UsageError, match="'nearest' is not a protocol"):
        task.run(Inputs(test, train, protocol="nearest"))
    broken = labelled(np.full((2, 64), np.nan), [3, 4])
    with pytest.raises(MetricError, match="image 'image-0': its embedding holds NaN"):
        task.evaluate(train, broken)


def test_protocols():
    names = [
        task.protocol(KnnProbeEntry(**settings)) for settings in ({}, {"k": 20}, {"k": 5}, {"protocol": "majority"})
    ]
    assert names == ["default", "default", "default k=5", "majority k=20"]
