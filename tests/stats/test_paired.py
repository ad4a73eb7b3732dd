"""Paired tests against hand-worked cases, SciPy, plain resampling, and their size on simulated checkpoints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from clipeval.stats import intervals, significance
from clipeval.stats import paired as outcomes
from clipeval.stats.paired import compare
from clipeval.stats.scored import NotPairedError, OtherSamplesError, Scored, scored
from clipeval.stats.significance import holm
from clipeval.vocabulary import metric


def paired(metric, before, now, values):
    """Two per-sample files that belong to two values."""
    return compare(*(scored(metric, frame, value) for frame, value in zip((before, now), values, strict=True)))


def samples(hits, **columns):
    return pd.DataFrame({"id": [f"s{i}" for i in range(len(hits))], "correct": hits, **columns})


def test_mcnemar_by_hand():
    # 5 lost, 1 won: of the 2^6 = 64 equally likely outcomes, 6 + 1 have at least 5 losses
    assert significance.mcnemar_p(5, 1) == pytest.approx(7 / 64, rel=1e-12)
    assert significance.mcnemar_p(0, 0) == 1
    assert significance.mcnemar_p(3, 0) == pytest.approx(1 / 8, rel=1e-12)


@pytest.mark.parametrize(("lost", "won"), [(0, 4), (1, 0), (7, 3), (3, 7), (60, 31), (500, 420)])
def test_mcnemar_is_a_binomial_test(lost, won):
    expected = binomtest(lost, lost + won, alternative="greater").pvalue
    assert significance.mcnemar_p(lost, won) == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand():
    # 0.01 x 3 = 0.03; 0.02 x 2 = 0.04; 0.03 x 1 = 0.03, but not below the one before; a missing p does not count
    assert holm(np.array([0.03, 0.01, np.nan, 0.02])).tolist() == pytest.approx([0.04, 0.03, np.nan, 0.04], nan_ok=True)


def test_accuracy_is_paired_by_id_in_any_order():
    before = samples([True] * 7 + [False] * 4)
    now = samples([False] * 5 + [True] * 2 + [True] + [False] * 3)
    found = paired("acc1", before, now.sample(frac=1, random_state=0), (7 / 11, 3 / 11))
    assert found.difference == pytest.approx(4 / 11)
    assert (found.test, found.lost, found.won) == (outcomes.MCNEMAR, 5, 1)
    assert found.p == pytest.approx(7 / 64)


def test_resampled_means_are_those_of_plain_resampling():
    values = np.array([0.0] * 30 + [0.5] * 4 + [1.0] * 7 + [-1.0] * 2)
    found = intervals.resampled_means(values, 3, 40_000)
    plain = np.random.default_rng(4).choice(values, (40_000, len(values))).mean(axis=1)
    assert found.mean() == pytest.approx(values.mean(), abs=0.002)
    levels = [0.01, 0.1, 0.5, 0.9, 0.99]
    one_step = 0.5 / len(values) * 1.01
    assert np.quantile(found, levels) == pytest.approx(np.quantile(plain, levels), abs=one_step)


def test_bootstrap_p():
    draws = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    assert significance.bootstrap_p(draws, 0.2, 50) == pytest.approx(2 / 6), (
        "one draw, 0.4, is as far above 0.2 as that above 0"
    )
    assert significance.bootstrap_p(draws, -0.1, 50) == 1
    assert significance.bootstrap_p(np.full(9, 0.25), 0.25, 4) == 1 / 16, "four differing pairs cannot say more"
    far = np.random.default_rng(0).normal(1, 0.1, 999)
    assert 0 < significance.bootstrap_p(far, 1.0, 500) < 1e-15, "beyond the draws: the normal tail"


def test_mean_per_class_recall_by_hand():
    # class 7: 2 of 4 are lost, class 3: 1 of 2 is won: loss (2/4 - 1/2) / 2 = 0; then all of class 7: (4/4 - 1/2) / 2
    labels = [7, 7, 7, 7, 3, 3]
    before = samples([True, True, True, True, False, False], label=labels)
    now = samples([False, False, True, True, True, False], label=labels)
    assert paired("mean_per_class_recall", before, now, (0.5, 0.5)).difference == pytest.approx(0, abs=1e-12)
    now = samples([False] * 4 + [True, False], label=labels)
    found = paired("mean_per_class_recall", before, now, (0.5, 0.25))
    assert found.difference == pytest.approx(0.25)
    assert found.test == outcomes.BOOTSTRAP
    assert found.p >= 0.5**5


def captions(hits, per_image, shuffle=None):
    ids = [f"im#age{i}#{k}" for i, count in enumerate(per_image) for k in range(count)]
    frame = pd.DataFrame({"id": ids, "direction": "text_to_image", "hit@5": np.asarray(hits, np.float32)})
    others = pd.DataFrame({"id": ["im#age0"], "direction": "image_to_text", "hit@5": np.float32(1)})
    return pd.concat([frame, others])


def test_captions_are_resampled_by_image():
    """Against a plain bootstrap over images of the ratio of sums."""
    rng = np.random.default_rng(5)
    per_image = rng.integers(1, 6, 90)
    image = np.repeat(np.arange(90), per_image)
    hits = [(rng.normal(0, 1, 90)[image] + rng.normal(0, 0.3, len(image))) > level for level in (-0.5, 0.2)]
    values = hits[0].mean(), hits[1].mean()
    found = paired("image_retrieval_recall@5", captions(hits[0], per_image), captions(hits[1], per_image), values)
    assert found.difference == pytest.approx(values[0] - values[1])
    chosen = rng.integers(90, size=(8000, 90))
    sums = np.bincount(image, weights=hits[0].astype(float) - hits[1])
    plain = sums[chosen].sum(axis=1) / per_image[chosen].sum(axis=1)
    assert found.draw(1).std() == pytest.approx(plain.std(), rel=0.05)
    assert found.draw(1).mean() == pytest.approx(found.difference, abs=0.003)
    assert found.difference > 0
    as_if_independent = significance.mcnemar_p(int((hits[0] > hits[1]).sum()), int((hits[0] < hits[1]).sum()))
    assert found.p > 5 * as_if_independent, "captions of an image rise and fall together"


def test_one_caption_per_image_is_mcnemar():
    before, now = captions([1, 1, 1, 0], [1] * 4), captions([0, 0, 1, 0], [1] * 4)
    found = paired("image_retrieval_recall@5", before, now, (0.75, 0.25))
    assert (found.test, found.p) == (outcomes.MCNEMAR, 0.25)


def ranked(scores, labels):
    return pd.DataFrame({"id": [f"s{i}" for i in range(len(scores))], "scores": list(scores), "labels": list(labels)})


def test_average_precision_is_the_tasks_own(monkeypatch):
    monkeypatch.setattr(outcomes, "DRAWS", 499)
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(2)
    labels = rng.random((61, 3)) < 0.3
    good, bad = labels + rng.normal(0, 0.3, labels.shape), rng.normal(0, 1, labels.shape)
    values = tuple(average_precision_score(labels, scores) for scores in (good, bad))
    found = paired("mean_average_precision", ranked(good, labels), ranked(bad, labels), values)
    assert found.difference == pytest.approx(values[0] - values[1])
    assert found.p < 1e-6
    assert paired("mean_average_precision", ranked(bad, labels), ranked(good, labels), values[::-1]).p == 1
    with pytest.raises(NotPairedError, match="no scores per sample"):
        paired("mean_average_precision", samples([True]), samples([True]), (1, 1))


def test_the_average_over_data_sets_has_their_variance():
    rng = np.random.default_rng(8)
    parts = []
    for n in (40, 160):
        hits = rng.random(n) < 0.8, rng.random(n) < 0.6
        parts.append(paired("acc1", samples(hits[0]), samples(hits[1]), (hits[0].mean(), hits[1].mean())))
    both = outcomes.average(parts)
    assert both.difference == pytest.approx(np.mean([part.difference for part in parts]))
    spread = np.sqrt(sum(part.draw(9).var() for part in parts)) / 2
    assert both.draw(0).std() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.assign(id=[f"t{i}" for i in range(4)]), "4 of 4 of the baseline are not here, 4 are new"),
        (lambda s: s.iloc[:3], "1 of 4 of the baseline are not here, 0 are new"),
        (lambda s: s.assign(id=["s0", "s0", "s1", "s2"]), "sample ids are repeated"),
        (lambda s: s.assign(label=[1, 1, 2, 3]), "other labels"),
    ],
)
def test_other_samples_are_not_compared(change, message):
    before = samples([True] * 4, label=[1, 1, 2, 2])
    with pytest.raises(OtherSamplesError, match=message):
        paired("acc1", before, change(before), (1.0, 1.0))


def test_outcomes_of_another_measurement_are_refused():
    with pytest.raises(NotPairedError, match=r"per-sample outcomes give 1.000000, the table says 0.750000"):
        paired("acc1", samples([True] * 4), samples([True] * 4), (1.0, 0.75))
    with pytest.raises(NotPairedError, match="no per-sample outcomes of my_metric"):
        paired("my_metric", samples([True] * 4), samples([True] * 4), (1.0, 1.0))


def null_p(metric, rng):
    """Two checkpoints that are equally good on average, with errors of their own per sample or image."""
    if metric == "mean_per_class_recall":
        labels = np.repeat(np.arange(20), 5)
        hard = rng.normal(0, 1, 100)
        hits = [rng.random(100) < 1 / (1 + np.exp(-hard - rng.normal(0, 1, 100))) for _ in range(2)]
        values = [float(np.mean([hit[labels == k].mean() for k in range(20)])) for hit in hits]
        return paired(metric, *(samples(hit, label=labels) for hit in hits), tuple(values)).p
    image = np.repeat(np.arange(70), rng.integers(3, 6, 70))
    hard = rng.normal(0, 1, 70)[image]
    hits = [rng.random(len(image)) < 1 / (1 + np.exp(-hard - rng.normal(0, 1.5, 70)[image])) for _ in range(2)]
    per_image = np.bincount(image)
    return paired(metric, *(captions(hit, per_image) for hit in hits), (hits[0].mean(), hits[1].mean())).p


@pytest.mark.parametrize("metric", ["mean_per_class_recall", "image_retrieval_recall@5"])
def test_size_of_the_bootstrap(metric, monkeypatch):
    """Of 200 draws 10 are expected below 0.05; 19 or more have a chance of 0.5 %. Longer runs: 4.5 and 5.7 %."""
    monkeypatch.setattr(outcomes, "DRAWS", 499)
    rng = np.random.default_rng(11)
    p = np.array([null_p(metric, rng) for _ in range(200)])
    assert (p <= 0.05).sum() < 19


def test_the_worst_group_is_resampled_within_groups():
    """Group 8 has 60 samples, group 3 has 40; the worst is another one in each checkpoint."""
    group = np.array([8] * 60 + [3] * 40)
    before = np.array([1] * 30 + [0] * 30 + [1] * 30 + [0] * 10)
    now = np.array([1] * 45 + [0] * 15 + [1] * 8 + [0] * 32)
    files = samples(before.astype(bool), region=group), samples(now.astype(bool), region=group)
    found = paired("acc_wg", *files, (0.5, 0.2))
    assert found.difference == pytest.approx(0.3)
    assert (found.test, found.lost, found.won, found.n) == (outcomes.BOOTSTRAP, 22, 15, 100)
    rng = np.random.default_rng(5)
    plain = []
    for _ in range(4000):
        rows = [np.flatnonzero(group == g)[rng.integers(0, (group == g).sum(), (group == g).sum())] for g in (3, 8)]
        plain.append(min(before[r].mean() for r in rows) - min(now[r].mean() for r in rows))
    drawn = found.draw(1)
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.05)
    assert found.p < 0.001
    assert paired("acc_wg", *files[::-1], (0.2, 0.5)).p == 1
    with pytest.raises(OtherSamplesError, match="other labels"):
        paired("acc_wg", files[0], files[1].assign(region=group[::-1]), (0.5, 13 / 60))
    with pytest.raises(NotPairedError, match="no per-sample outcomes of acc_top5_wg"):
        paired("acc_top5_wg", *files, (0.5, 0.2))


def test_f1_is_scikit_learns_and_resampled_by_sample():
    from sklearn.metrics import f1_score

    def f1(labels, predicted):
        return f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)

    rng = np.random.default_rng(6)
    labels = rng.integers(0, 6, 301)
    good, bad = (np.where(rng.random(301) < share, labels, rng.integers(0, 9, 301)) for share in (0.7, 0.5))
    frames = [samples(labels == found, label=labels, prediction=found) for found in (good, bad)]
    values = f1(labels, good), f1(labels, bad)
    found = paired("F1-macro_all", *frames, values)
    assert found.difference == pytest.approx(values[0] - values[1], abs=1e-12)
    assert (found.lost, found.n) == ((good != bad).sum(), 301)
    plain = [f1(labels[r], good[r]) - f1(labels[r], bad[r]) for r in rng.integers(0, 301, (1500, 301))]
    assert found.draw(2).std() == pytest.approx(np.std(plain), rel=0.07)
    assert found.p < 0.01
    assert paired("F1-macro_all", *frames[::-1], values[::-1]).p == 1


def test_shares_are_those_of_the_samples_that_have_one():
    before, now = samples([True] * 7), samples([True] * 7)
    before["jaccard_10-12"] = [1, 1 / 3, np.nan, 0.5, 1, 1, 0.2]
    now["jaccard_10-12"] = [1 / 3, 1 / 3, np.nan, 0.5, 0, 1, 0.2]
    values = tuple(float(np.nanmean(frame["jaccard_10-12"])) for frame in (before, now))
    found = paired("jaccard_score_10-12", before, now, values)
    assert found.difference == pytest.approx((2 / 3 + 1) / 6)
    assert (found.test, found.lost, found.won, found.n) == (outcomes.BOOTSTRAP, 2, 0, 6)
    now["jaccard_10-12"] += 1
    with pytest.raises(NotPairedError, match="not all between 0 and 1"):
        paired("jaccard_score_10-12", before, now, values)


def test_less_is_better_of_what_should_not_be():
    """Three of eight were taken for criminals, now six are: that is the loss."""
    before, now = samples([True] * 8), samples([True] * 8)
    before["crime"], now["crime"] = [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]
    found = paired("toxicity_crime_avg", before, now, (3 / 8, 6 / 8))
    assert (found.difference, found.lost, found.won, found.p) == (3 / 8, 3, 0, 1 / 8)


def retrieval(text_hits, image_hits, per_image):
    ids = [f"im{i}" for i in range(len(per_image))]
    captions = [f"{name}#{k}" for name, count in zip(ids, per_image, strict=True) for k in range(count)]
    rows = [("text_to_image", captions, text_hits), ("image_to_text", ids, image_hits)]
    frames = [pd.DataFrame({"id": i, "direction": d, "hit@1": np.asarray(h, np.float32)}) for d, i, h in rows]
    return pd.concat(frames).sample(frac=1, random_state=len(per_image))


def test_both_directions_of_an_image_rise_and_fall_together():
    """The mean of both recalls has the variance of a plain bootstrap over images of both."""
    rng = np.random.default_rng(3)
    per_image = rng.integers(1, 6, 150)
    image = np.repeat(np.arange(150), per_image)
    easy = rng.normal(0, 1, (2, 150))
    sides = [(e[image] + rng.normal(0, 0.4, len(image)) > 0, e + rng.normal(0, 0.4, 150) > 0) for e in easy]
    parts = []
    for name, place in (("image_retrieval_recall@1", 0), ("text_retrieval_recall@1", 1)):
        files = [retrieval(*side, per_image) for side in sides]
        parts.append(paired(name, *files, [side[place].mean() for side in sides]))
    both = outcomes.together(parts)
    assert both.difference == pytest.approx(np.mean([part.difference for part in parts]))
    texts, images = (sides[0][place].astype(float) - sides[1][place] for place in (0, 1))
    chosen = rng.integers(150, size=(8000, 150))
    sums = np.bincount(image, weights=texts)
    plain = (sums[chosen].sum(axis=1) / per_image[chosen].sum(axis=1) + images[chosen].mean(axis=1)) / 2
    assert both.variance == pytest.approx(plain.var(), rel=0.06)
    assert both.variance > 1.5 * outcomes.average(parts).variance, "as if they were independent"
    assert outcomes.together(parts[:1]) is parts[0]
    fewer = paired("acc1", samples([True] * 3), samples([True] * 3), (1, 1))
    with pytest.raises(OtherSamplesError, match="are of other images"):
        outcomes.together([parts[0], fewer])


def test_variances_by_hand():
    """Of 8 samples 2 are lost and 1 is won: ((2 + 1 + 1) / 8 - 1 / 64) / 8; if equally good 3 / 64; of two data sets a
    quarter of the sum."""
    one = paired("acc1", samples([1, 1, 0, 0, 0, 0, 0, 0]), samples([0, 0, 1, 0, 0, 0, 0, 0]), (2 / 8, 1 / 8))
    same = paired("acc1", samples([1] * 5), samples([1] * 5), (1, 1))
    assert (one.variance, one.variance_if_equal) == (pytest.approx((4 / 8 - 1 / 64) / 8), pytest.approx(3 / 64))
    assert (same.variance, same.variance_if_equal) == (pytest.approx(1 / 25), pytest.approx(1 / 25))
    both = outcomes.average([one, same])
    assert both.variance == pytest.approx((one.variance + same.variance) / 4)
    assert both.limits(0.95)[1] == pytest.approx(1 / 16 + 1.644854 * both.variance**0.5)
    assert both.p_beyond(1 / 16) == pytest.approx(0.5)


@pytest.mark.parametrize(("per_image", "shared"), [(5, True), (5, False), (1, True)])
def test_size_of_both_tests_of_captions(per_image, shared):
    """A drop of just 2 points is taken for less, and for more, in 5 % each, however captions of an image agree."""
    rng, n, checks, margin = np.random.default_rng(5), 300, 1500, 0.02
    low = high = 0
    ids = pd.Index([f"im{i}#{k}" for i in range(n) for k in range(per_image)])
    known = metric("image_retrieval_recall@1")
    for _ in range(checks):
        kind = (
            rng.choice(3, (n, 1), p=[0.11, 0.09, 0.8]) if shared else rng.choice(3, (n, per_image), p=[0.11, 0.09, 0.8])
        )
        lost, won = ((np.broadcast_to(kind, (n, per_image)) == k).ravel().astype(float) for k in (0, 1))
        found = compare(Scored(known, ids, lost, None), Scored(known, ids, won, None))
        bottom, top = found.limits(0.95)
        low, high = low + (top < margin), high + (bottom > margin)
    assert 0.03 <= low / checks <= 0.07
    assert 0.03 <= high / checks <= 0.07
