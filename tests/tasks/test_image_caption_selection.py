from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import image_caption_selection as clip_benchmark

from clipeval.errors import MetricError
from clipeval.stats.intervals import wilson_interval
from clipeval.tasks import image_caption_selection as task


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


def clip_benchmark_accuracies(images, texts):
    """Its evaluate on embeddings ``[items, images, D]`` and ``[items, captions, D]``, passed through as pixels."""
    items, per_item, d = images.shape
    flat = torch.tensor(texts).reshape(-1, d)
    model = SimpleNamespace(
        encode_image=lambda pixels: pixels.reshape(len(pixels), d), encode_text=lambda tokens: flat[tokens]
    )
    width = texts.shape[1]
    loader = [
        (
            torch.tensor(images[i : i + 3]).reshape(-1, per_item, d, 1, 1),
            [[i + j] * width for j in range(len(images[i : i + 3]))],
        )
        for i in range(0, items, 3)
    ]

    def tokenizer(rows):
        return torch.tensor([row * width + place % width for place, row in enumerate(rows)])

    return clip_benchmark.evaluate(model, loader, tokenizer, "cpu", amp=False)


def test_items_of_two_images_score_as_in_clip_benchmark():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(101, 2, 12)).astype(np.float32)
    texts = (images + rng.normal(size=images.shape) * 1.5).astype(np.float32)
    choices = [np.array([2 * i + j, 2 * i + 1 - j]) for i in range(101) for j in range(2)]
    order = rng.permutation(202)  # images of an item need not be neighbours
    groups = np.repeat(np.arange(101) * 7 - 5, 2)
    ids = [f"{i}" for i in range(202)]
    result = task.evaluate(
        images.reshape(202, 12)[order], texts.reshape(202, 12), [choices[i] for i in order], groups[order], ids
    )
    theirs = clip_benchmark_accuracies(images, texts)
    assert {name: np.float32(value) for name, value in values(result).items()} == pytest.approx(theirs, abs=0)
    assert 0.1 < theirs["acc"] < theirs["text_acc"] < 0.95
    assert result.notes == {"ties": {"text_acc": 0, "image_acc": 0, "acc": 0}}
    assert set(result.samples) == {"id", "text_correct", "image_correct", "correct"}
    assert (result.samples["correct"] == (result.samples["text_correct"] & result.samples["image_correct"])).all()
    metric = result.metrics[0]
    assert (metric.ci_low, metric.ci_high) == wilson_interval(round(metric.value * 101), 101)
    assert metric.n == 101


def test_items_of_one_image_have_text_acc_alone():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(57, 1, 9)).astype(np.float32)
    texts = rng.normal(size=(57, 2, 9)).astype(np.float32)
    texts[:, 0] += images[:, 0] * 0.4
    choices = [np.array([2 * i, 2 * i + 1]) for i in range(57)]
    result = task.evaluate(images[:, 0], texts.reshape(114, 9), choices, None, [f"{i}" for i in range(57)])
    theirs = clip_benchmark_accuracies(images, texts)
    assert list(values(result)) == ["text_acc"]
    assert np.float32(values(result)["text_acc"]) == np.float32(theirs["text_acc"])
    assert theirs["image_acc"] == 1
    assert theirs["acc"] == theirs["text_acc"]


def test_a_tie_counts_as_wrong_and_is_counted():
    rng = np.random.default_rng(2)
    caption = rng.normal(size=17)
    texts = np.stack([caption, caption * 2, caption * 0 - 1, caption]).astype(np.float32)
    image = (texts[:1] + 0.1).astype(np.float32)
    images = np.repeat(image, 3, axis=0)
    choices = [np.array([0, 2, 3]), np.array([0, 2]), np.array([2, 0, 3])]
    result = task.evaluate(images, texts, choices, None, ["equal", "right", "wrong"])
    assert result.samples["text_correct"].tolist() == [False, True, False]
    assert result.notes == {"ties": {"text_acc": 1}}


def test_same_images_tie_in_image_acc():
    rng = np.random.default_rng(3)
    image, texts = rng.normal(size=(1, 5)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)
    result = task.evaluate(
        np.repeat(image, 2, axis=0), texts, [np.array([0, 1]), np.array([1, 0])], np.array([4, 4]), ["a", "b"]
    )
    assert values(result) == {"text_acc": 0, "image_acc": 0, "acc": 0}
    assert result.notes["ties"]["image_acc"] == 1
    assert result.samples["id"].tolist() == ["a"]


def test_run_and_errors():
    rng = np.random.default_rng(4)
    by_text = {text: rng.normal(size=6).astype(np.float32) for text in ("yes", "no", "maybe")}
    images = np.stack([by_text["yes"], by_text["no"], by_text["maybe"]])
    dataset = SimpleNamespace(
        name="sugar_crepe", ids=["x", "y", "z"], groups=None, choices=[("yes", "no"), ("maybe", "no"), ("maybe", "yes")]
    )
    inputs = SimpleNamespace(
        dataset=dataset, images=lambda: images, texts=lambda texts: np.stack([by_text[text] for text in texts])
    )
    assert task.texts(dataset) == ["yes", "no", "maybe"]
    assert task.run(inputs).samples["text_correct"].tolist() == [True, False, True]
    images[1, 0] = np.inf
    with pytest.raises(MetricError, match="image 'y'"):
        task.run(inputs)
    dataset.choices = None
    with pytest.raises(MetricError, match="sugar_crepe: it has no candidate captions"):
        task.run(inputs)
    with pytest.raises(MetricError, match="the split is empty"):
        task.evaluate(images[:0], images, [], None, [])
