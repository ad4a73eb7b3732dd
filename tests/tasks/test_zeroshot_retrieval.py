import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

from clipeval.errors import MetricError
from clipeval.stats.intervals import wilson_interval
from clipeval.tasks import zeroshot_retrieval as task


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def captioned_images(n, d, seed, noise):
    """Images with 1 to 7 captions each, in no order."""
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(n, d)))
    text_to_image = rng.permutation(np.repeat(np.arange(n), rng.integers(1, 8, n)))
    texts = unit(images[text_to_image] + noise * rng.normal(size=(len(text_to_image), d)))
    return images, texts, text_to_image, [f"{n - i:04d}.jpg" for i in range(n)]


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


def clip_benchmark_recalls(images, texts, text_to_image):
    scores = torch.tensor(texts) @ torch.tensor(images).T
    positive = torch.zeros_like(scores, dtype=bool)
    positive[torch.arange(len(texts)), torch.tensor(text_to_image)] = True
    recalls = {}
    for k in (1, 5, 10):
        image, text = ((scores, positive), (scores.T, positive.T))
        recalls[f"image_retrieval_recall@{k}"] = (batchify(recall_at_k, *image, 64, "cpu", k=k) > 0).float().mean()
        recalls[f"text_retrieval_recall@{k}"] = (batchify(recall_at_k, *text, 64, "cpu", k=k) > 0).float().mean()
    return {name: recall.item() for name, recall in recalls.items()}


@pytest.mark.parametrize(("n", "d", "noise"), [(11, 5, 0.5), (207, 16, 0.3), (1003, 33, 0.25)])
@pytest.mark.parametrize("blocks", [(500, 5000), (37, 101)])
def test_recalls_are_clip_benchmarks_to_the_last_digit(n, d, noise, blocks, monkeypatch):
    monkeypatch.setattr(task, "_BLOCK_TEXTS", blocks[0])
    monkeypatch.setattr(task, "_BLOCK_IMAGES", blocks[1])
    images, texts, text_to_image, ids = captioned_images(n, d, n, noise)
    result = task.evaluate(images, texts, text_to_image, ids)
    expected = clip_benchmark_recalls(images, texts, text_to_image)
    assert {name: np.float32(value) for name, value in values(result).items()} == expected
    assert 0.02 < result.metrics[0].value < 0.98  # a case that can tell
    for metric in result.metrics:
        assert isinstance(metric.value, float)
        assert metric.ci_low <= metric.value <= metric.ci_high
        assert metric.n == (len(texts) if metric.name.startswith("image") else n)


def test_recalls_by_hand():
    # Texts 0, 1 belong to image 0, text 2 to image 1. Cosines: text 0 is nearest to image 1, text 2 to image 0.
    images = np.array([[1, 0], [0, 1]], np.float32)
    texts = np.array([[0.6, 0.8], [1, 0.1], [0.9, 0.5]], np.float32)
    result = task.evaluate(3 * images, 7 * texts, np.array([0, 0, 1]), ["a", "b"])
    assert values(result)["image_retrieval_recall@1"] == pytest.approx(1 / 3, abs=1e-15)
    assert values(result)["text_retrieval_recall@1"] == 0.5  # image 1 is nearest to text 0
    assert result.samples["id"].tolist() == ["a#0", "a#1", "b#0", "a", "b"]
    assert result.samples["direction"].tolist() == ["text_to_image"] * 3 + ["image_to_text"] * 2
    assert result.samples["hit@1"].tolist() == [0, 1, 0, 1, 0]
    assert result.samples["top1"].tolist() == ["b", "a", "a", "a#1", "a#0"]
    assert result.samples["top2"].tolist() == ["a", "b", "b", "b#0", "b#0"]
    assert result.samples["top3"].tolist() == ["", "", "", "a#0", "a#1"]
    assert result.samples["top4"].tolist() == [""] * 5


def test_k_beyond_the_candidates_is_skipped_alone():
    images, _, _, ids = captioned_images(4, 6, 0, 0.1)
    texts = np.repeat(images, 5, axis=0)
    result = task.evaluate(images, texts, np.repeat(np.arange(4), 5), ids)
    by_name = {metric.name: metric for metric in result.metrics}
    skipped = {name for name, metric in by_name.items() if metric.status == "skipped"}
    assert {metric.status for metric in result.metrics} == {"ok", "skipped"}
    assert skipped == {"image_retrieval_recall@5", "image_retrieval_recall@10"}
    assert by_name["image_retrieval_recall@10"].error == (
        "recall@10 needs at least 10 candidate images; the data set has 4"
    )
    assert np.isnan(by_name["image_retrieval_recall@10"].value)
    assert by_name["image_retrieval_recall@1"].value == 1
    assert by_name["text_retrieval_recall@10"].value == 1
    assert np.isnan(result.samples["hit@10"][:20]).all()
    assert (result.samples["hit@10"][20:] == 1).all()
    few = task.evaluate(images[:2], texts[[0, 5]], np.array([0, 1]), ids[:2])
    assert {m.error for m in few.metrics if m.name == "text_retrieval_recall@5"} == {
        "recall@5 needs at least 5 candidate captions; the data set has 2"
    }


def test_per_sample_outcomes_add_up_and_name_what_was_found():
    images, texts, text_to_image, ids = captioned_images(53, 8, 3, 0.4)
    result = task.evaluate(images, texts, text_to_image, ids)
    samples = result.samples
    towards_images = samples["direction"] == "text_to_image"
    for k in (1, 5, 10):
        assert samples[f"hit@{k}"][towards_images].mean() == pytest.approx(
            values(result)[f"image_retrieval_recall@{k}"], abs=1e-6
        )
        assert samples[f"hit@{k}"][~towards_images].mean() == pytest.approx(
            values(result)[f"text_retrieval_recall@{k}"], abs=1e-6
        )
    assert len(set(samples["id"])) == len(texts) + len(images)
    order = np.argsort(-(texts @ images.T), axis=1)
    for place in range(5):
        assert samples[f"top{place + 1}"][towards_images].tolist() == [ids[i] for i in order[:, place]]
    text_ids = np.array([f"{ids[i]}#{(text_to_image[:row] == i).sum()}" for row, i in enumerate(text_to_image)])
    assert samples["id"][towards_images].tolist() == text_ids.tolist()
    best_text = np.argmax(images @ texts.T, axis=1)
    assert samples["top1"][~towards_images].tolist() == text_ids[best_text].tolist()


def test_intervals_are_over_images():
    images, texts, text_to_image, ids = captioned_images(301, 12, 4, 0.35)
    result = task.evaluate(images, texts, text_to_image, ids)
    by_name = {metric.name: metric for metric in result.metrics}
    text = by_name["text_retrieval_recall@5"]
    assert (text.ci_low, text.ci_high) == wilson_interval(text.value * 301, 301)
    again = {m.name: (m.ci_low, m.ci_high) for m in task.evaluate(images, texts, text_to_image, ids).metrics}
    assert again == {m.name: (m.ci_low, m.ci_high) for m in result.metrics}


def test_ties_keep_the_best_scores_and_repeat(monkeypatch):
    corners = np.array([[a, b, c, d] for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)], np.float32)
    images, texts = np.tile(corners, (3, 1)), np.repeat(corners, 5, axis=0)  # exact in float32, full of ties
    found = task.search(images / 2, texts / 2, 10)
    monkeypatch.setattr(task, "_BLOCK_TEXTS", 7)
    monkeypatch.setattr(task, "_BLOCK_IMAGES", 11)
    again = task.search(images / 2, texts / 2, 10)
    scores = texts @ images.T / 4
    for (one, other), matrix in zip(zip(found, again, strict=True), (scores, scores.T), strict=True):
        assert (np.sort(np.take_along_axis(matrix, one, 1)) == np.sort(np.take_along_axis(matrix, other, 1))).all()
        best = -np.sort(-matrix, axis=1)[:, :10]
        assert (np.take_along_axis(matrix, one, 1) == best).all()
    assert (task.search(images / 2, texts / 2, 10)[0] == again[0]).all()


def test_images_without_captions_and_non_finite_embeddings_name_the_sample():
    images, texts, text_to_image, ids = captioned_images(5, 4, 5, 0.1)
    kept = text_to_image != 2
    with pytest.raises(MetricError, match=r"image '0003.jpg' has no caption \(1 of 5 images have none\)"):
        task.evaluate(images, texts[kept], text_to_image[kept], ids)
    with pytest.raises(MetricError, match="the split is empty"):
        task.evaluate(images[:0], texts[:0], text_to_image[:0], [])
    texts[-1] = np.nan
    with pytest.raises(MetricError, match=f"caption '{ids[text_to_image[-1]]}#"):
        task.evaluate(images, texts, text_to_image, ids)


def test_memory_stays_far_below_the_score_matrix():
    rng = np.random.default_rng(6)
    images = unit(rng.normal(size=(4000, 32)))
    texts = np.repeat(images, 5, axis=0)
    tracemalloc.start()
    task.search(images, texts, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(images) * len(texts) / 8  # an eighth of the matrix alone


def test_run_collects_captions_in_the_order_of_their_images():
    rng = np.random.default_rng(7)
    captions = [("a", "b"), ("c",), ("a", "d", "e")]  # one text is a caption of two images
    by_text = {text: rng.normal(size=6).astype(np.float32) for text in "abcde"}
    images = rng.normal(size=(3, 6)).astype(np.float32)
    dataset = SimpleNamespace(name="flickr", captions=captions, ids=["x", "y", "z"])
    inputs = SimpleNamespace(
        dataset=dataset,
        images=lambda: images,
        texts=lambda texts: np.stack([by_text[text] for text in texts]),
    )
    assert task.texts(dataset) == list("abcade")
    expected = task.evaluate(images, inputs.texts(list("abcade")), np.array([0, 0, 1, 2, 2, 2]), dataset.ids)
    result = task.run(inputs)
    assert values(result)["text_retrieval_recall@1"] == values(expected)["text_retrieval_recall@1"]
    assert result.samples["top1"].tolist() == expected.samples["top1"].tolist()
    dataset.captions = None
    with pytest.raises(MetricError, match="flickr: it has no captions"):
        task.run(inputs)
