import math
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
import torch
from clip_benchmark.metrics import zeroshot_classification as clip_benchmark

from clipeval.datasets.base import Prompts
from clipeval.errors import MetricError
from clipeval.stats.intervals import wilson_interval
from clipeval.tasks import accuracy
from clipeval.tasks import zeroshot_classification as task


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


def ids_of(rows):
    return [f"image-{row}" for row in range(len(rows))]


def test_class_vectors_are_clip_benchmarks():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 3, 17)).astype(np.float32) * 4
    flat = embeddings.reshape(15, 17)
    order = rng.permutation(15)  # unique prompts in any order
    place = np.argsort(order).reshape(5, 3)
    ours = task.class_vectors(flat[order], list(place))
    model = SimpleNamespace(encode_text=lambda tokens: torch.tensor(flat)[tokens])
    names, templates = list("abcde"), ["0{c}", "1{c}", "2{c}"]

    def tokenizer(texts):
        return torch.tensor([names.index(text[1]) * 3 + int(text[0]) for text in texts])

    theirs = clip_benchmark.zero_shot_classifier(model, tokenizer, names, templates, "cpu", amp=False)
    assert np.abs(ours - theirs.numpy().T).max() <= 1e-6


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize(("n", "k", "d"), [(997, 41, 33), (63, 5, 8), (1501, 103, 64)])
def test_single_label_metrics_are_clip_benchmarks(n, k, d, monkeypatch):
    monkeypatch.setattr(accuracy, "_CHUNK_ELEMENTS", 37 * k)  # several ragged blocks
    rng = np.random.default_rng(n)
    classes, labels = unit(rng, k, d), rng.integers(0, k, n)
    images = (classes[labels] + rng.normal(size=(n, d)) * 0.4).astype(np.float32)
    labels[labels == 3] = 4  # a class without samples
    result = task.evaluate(images, classes, labels, ids_of(images))

    logits = 100.0 * torch.nn.functional.normalize(torch.tensor(images), dim=-1) @ torch.tensor(classes).T
    target = torch.tensor(labels)
    # clip_benchmark.accuracy, without its float() of an array that NumPy 2.4 refuses
    hit = logits.topk(5, 1, True, True)[1].t().eq(target.view(1, -1))
    expected = {
        "acc1": float(hit[:1].sum()) / n,
        "acc5": float(hit[:5].sum()) / n,
        "mean_per_class_recall": sklearn.metrics.balanced_accuracy_score(target, logits.argmax(axis=1)),
    }
    assert values(result) == expected
    assert result.notes == {"classes_without_samples": 1}
    assert (result.samples["prediction"] == logits.argmax(axis=1).numpy()).all()
    assert result.samples["correct5"].sum() == hit.sum()
    acc1 = result.metrics[0]
    assert (acc1.ci_low, acc1.ci_high) == wilson_interval(result.samples["correct"].sum(), n)
    for metric in result.metrics:
        assert isinstance(metric.value, float)
        assert 0 <= metric.ci_low <= metric.value <= metric.ci_high <= 1
        assert metric.n == n


def test_ties_go_to_the_lower_class():
    images, classes = np.eye(4, dtype=np.float32)[[0, 0, 1]], np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2, 3]]
    result = task.evaluate(images, classes, np.array([0, 2, 3]), ["a", "b", "c"])
    assert result.samples["prediction"].tolist() == [0, 0, 1]
    assert result.samples["correct"].tolist() == [True, False, False]
    assert result.samples["correct5"].tolist() == [True, True, True]
    last = task.evaluate(images[:1], classes, np.array([5]), ["a"])  # five others tie or lead
    assert last.samples["correct5"].tolist() == [False]


def test_acc5_of_fewer_than_five_classes_is_skipped():
    rng = np.random.default_rng(1)
    result = task.evaluate(unit(rng, 9, 6), unit(rng, 4, 6), rng.integers(0, 4, 9), ids_of(range(9)))
    acc5 = result.metrics[1]
    assert (acc5.name, acc5.status, math.isnan(acc5.value)) == ("acc5", "skipped", True)
    assert acc5.error == "acc5 needs at least 5 classes; there are 4"
    assert "correct5" not in result.samples


@pytest.mark.parametrize("label", [-1, 6])
def test_labels_beyond_the_class_list_are_an_error(label):
    rng = np.random.default_rng(2)
    with pytest.raises(MetricError, match=f"image 'image-2' has label {label}, but the class list has 6 names"):
        task.evaluate(unit(rng, 3, 4), unit(rng, 6, 4), np.array([0, 5, label]), ids_of(range(3)))


def test_non_finite_embeddings_and_empty_splits_are_errors():
    rng = np.random.default_rng(3)
    images = unit(rng, 3, 4)
    images[1, 2] = np.nan
    with pytest.raises(MetricError, match="image 'image-1'"):
        task.evaluate(images, unit(rng, 5, 4), np.array([0, 1, 2]), ids_of(images))
    with pytest.raises(MetricError, match="the split is empty"):
        task.evaluate(images[:0], unit(rng, 5, 4), np.array([], dtype=np.int64), [])


def test_mean_average_precision_is_clip_benchmarks_and_sklearns():
    rng = np.random.default_rng(4)
    images, classes = unit(rng, 501, 24), unit(rng, 19, 24)
    labels = images @ classes.T + rng.normal(size=(501, 19)) * 0.3 > 0.4
    result = task.evaluate(images, classes, labels, ids_of(images))
    scores = images @ classes.T
    theirs = clip_benchmark.average_precision_per_class(torch.tensor(scores), torch.tensor(labels)).mean().item()
    (metric,) = result.metrics
    assert metric.value == pytest.approx(sklearn.metrics.average_precision_score(labels, scores), abs=1e-7)
    assert abs(metric.value - theirs) <= 2 * np.finfo(np.float32).eps  # theirs is summed in float32
    assert (metric.name, metric.n) == ("mean_average_precision", 501)
    assert metric.ci_low < metric.value < metric.ci_high
    assert metric.ci_high - metric.ci_low < 0.1
    assert (result.samples["correct"] == labels[np.arange(501), scores.argmax(axis=1)]).all()


def test_multi_label_class_without_positives_is_left_out_and_noted():
    rng = np.random.default_rng(5)
    images, classes = unit(rng, 51, 8), unit(rng, 4, 8)
    labels = rng.random((51, 4)) < 0.3
    labels[:, 2] = False
    result = task.evaluate(images, classes, labels, ids_of(images))
    kept = [0, 1, 3]
    expected = sklearn.metrics.average_precision_score(labels[:, kept], (images @ classes.T)[:, kept])
    assert result.metrics[0].value == pytest.approx(expected, abs=1e-7)
    assert result.notes == {"classes_without_positives": [2]}
    with pytest.raises(MetricError, match="no image has any of the classes"):
        task.evaluate(images, classes, np.zeros((51, 4), bool), ids_of(images))
    with pytest.raises(MetricError, match="5 classes per image, but the class list has 4"):
        task.evaluate(images, classes, np.zeros((51, 5), bool), ids_of(images))


@pytest.mark.parametrize(("n", "share", "apart"), [(200, 0.07, 0.0), (300, 0.05, 1.0)])
def test_intervals_of_average_precision_hold_that_of_a_large_population(n, share, apart):
    """Of few positives per class: without the reflection two of ten held it."""
    rng = np.random.default_rng(11)

    def drawn(size):
        labels = rng.random((size, 16)) < share
        return labels, rng.normal(size=(size, 16)) + apart * labels

    labels, scores = drawn(100_000)
    truth = sklearn.metrics.average_precision_score(labels, scores)
    held = []
    for _ in range(60):
        labels, scores = drawn(n)
        (metric,) = task._multi_label(scores, labels, range(n)).metrics
        held.append(metric.ci_low <= truth <= metric.ci_high)
        assert metric.ci_low <= metric.value <= metric.ci_high
    assert np.mean(held) >= 0.9


def test_bootstrap_draws_without_any_positive_are_left_out():
    images, classes = unit(np.random.default_rng(6), 3, 8), unit(np.random.default_rng(7), 1, 8)
    (metric,) = task.evaluate(images, classes, np.array([[True], [False], [False]]), list("abc")).metrics
    assert 0 <= metric.ci_low <= metric.ci_high <= 1


class FakeInputs(SimpleNamespace):
    def images(self, indices=None):
        return self.embeddings

    def texts(self, texts):
        assert len(set(texts)) == len(texts)
        return np.stack([self.by_text[text] for text in texts])


def test_run_deduplicates_prompts_and_scores_the_data_set():
    rng = np.random.default_rng(8)
    prompts = Prompts("default", ("cat", "dog", "cat"), ("a {c}", "the {c}"))  # the same name twice
    by_text = {text: rng.normal(size=6).astype(np.float32) for texts in prompts.texts() for text in texts}
    dataset = SimpleNamespace(name="pets", prompts=prompts, labels=np.array([0, 1, 2, 1]), ids=list("wxyz"))
    assert task.texts(dataset) == ["a cat", "the cat", "a dog", "the dog"]
    inputs = FakeInputs(dataset=dataset, embeddings=rng.normal(size=(4, 6)).astype(np.float32), by_text=by_text)
    prompt_embeddings = np.stack([by_text[text] for texts in prompts.texts() for text in texts])
    vectors = task.class_vectors(prompt_embeddings, [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])])
    expected = task.evaluate(inputs.embeddings, vectors, dataset.labels, dataset.ids)
    assert task.run(inputs).samples["prediction"].tolist() == expected.samples["prediction"].tolist()
    by_text["the dog"][0] = np.inf
    with pytest.raises(MetricError, match="prompt 'the dog'"):
        task.run(inputs)
    dataset.prompts = None
    with pytest.raises(MetricError, match="pets: it has no class names"):
        task.run(inputs)
