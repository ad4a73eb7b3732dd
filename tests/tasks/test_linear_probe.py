import tracemalloc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
import torch
from digits_rows import ODD_LABELS, labelled, splits, values
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from clipeval.datasets.base import Prompts
from clipeval.datasets.draws import sample, shot_indices
from clipeval.errors import DataError, MetricError
from clipeval.tasks import linear_probe as task
from clipeval.tasks import logistic, softmax
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.logistic import Fitted, ReferenceFits
from clipeval.tasks.softmax import SoftmaxRegression


@pytest.fixture(scope="module")
def digits():
    """A train and a test split of unit vectors, labelled with odd integers."""
    return splits(701, 601)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def exact_fit(split, c):
    """The optimum in float64, from scratch."""
    return LogisticRegression(C=c, tol=1e-7, max_iter=10_000).fit(unit(split.embeddings.astype(float)), split.labels)


def test_probe_agrees_with_exact_fits(digits):
    train, test = digits
    result = task.evaluate(train, test)
    held = task.hold_out(train.labels)
    fit, val = train.rows(~held), train.rows(held)
    validation = [exact_fit(fit, c).score(unit(val.embeddings), val.labels) for c in task.C_PATH]
    one_sample = 1.001 / len(val.labels)
    assert result.notes["validation_accuracy"] == pytest.approx(max(validation), abs=one_sample)
    assert validation[list(task.C_PATH).index(result.notes["C"])] >= max(validation) - one_sample
    predicted = exact_fit(train, result.notes["C"]).predict(unit(test.embeddings))
    assert (predicted != result.samples["prediction"]).sum() <= 2  # float32 and a looser stop
    assert values(result)["acc1"] > 0.95
    assert values(result)["acc1"] == (result.samples["prediction"] == test.labels).mean()
    assert values(result)["mean_per_class_recall"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(test.labels, result.samples["prediction"]), abs=1e-12
    )
    expected = {"selected_on": "training rows held out", "C_on_edge": False, "converged": True, "protocol": "default"}
    assert expected.items() <= result.notes.items()
    assert result.notes["validation_samples"] == held.sum()


def test_top_five_agree_with_the_probabilities(digits):
    train, test = digits
    result = task.evaluate(train, test)
    probabilities = exact_fit(train, result.notes["C"]).predict_proba(unit(test.embeddings))
    expected = sklearn.metrics.top_k_accuracy_score(test.labels, probabilities, k=5)
    assert values(result)["acc5"] == pytest.approx(expected, abs=2.001 / len(test.labels))


def test_scale_of_the_embeddings_does_not_matter(digits):
    train, test = digits
    scaled = Labelled(train.embeddings * 64, train.labels, train.ids)
    assert values(task.evaluate(scaled, test)) == values(task.evaluate(train, test))


def test_the_test_labels_choose_nothing(digits):
    train, test = digits
    shuffled = Labelled(test.embeddings, np.random.default_rng(1).permutation(test.labels), test.ids)
    one, other = task.evaluate(train, test), task.evaluate(train, shuffled)
    assert one.notes == other.notes
    assert (one.samples["prediction"] == other.samples["prediction"]).all()


def test_a_validation_split_chooses_c_and_joins_the_final_fit(digits):
    train, test = digits
    fit, val = train.rows(np.arange(701) < 97), train.rows(np.arange(701) >= 97)
    result = task.evaluate(fit, test, val)
    assert result.notes["selected_on"] == "val split"
    assert result.notes["validation_samples"] == 604
    scores = [exact_fit(fit, c).score(unit(val.embeddings), val.labels) for c in task.C_PATH]
    assert result.notes["validation_accuracy"] == pytest.approx(max(scores), abs=2.001 / 604)
    predicted = exact_fit(train, result.notes["C"]).predict(unit(test.embeddings))
    assert (predicted != result.samples["prediction"]).sum() <= 2


@pytest.mark.parametrize("classes", [ODD_LABELS, ODD_LABELS[:2], ODD_LABELS[3:6]])
@pytest.mark.parametrize("protocol", ["default", "cherti2023"])
def test_tensors_give_what_arrays_give(digits, classes, protocol):
    train, test = (split.rows(np.isin(split.labels, classes)) for split in digits)
    if protocol == "cherti2023":
        train = train.rows(np.arange(len(train.labels)) < 99)
    on_tensors = [Labelled(torch.tensor(split.embeddings), split.labels, split.ids) for split in (train, test)]
    one, other = task.evaluate(train, test, protocol=protocol), task.evaluate(*on_tensors, protocol=protocol)
    for mine, theirs in zip(one.metrics, other.metrics, strict=True):
        assert mine.value == pytest.approx(theirs.value, abs=3.5 / len(test.labels), nan_ok=True)
    assert isinstance(other.samples["prediction"], np.ndarray)
    assert (one.samples["prediction"] != other.samples["prediction"]).sum() <= 3  # of 601: the sums round otherwise
    assert one.notes.get("C") == other.notes.get("C")


def test_tied_accuracies_take_the_stronger_regularisation():
    rng = np.random.default_rng(2)
    centres = np.eye(6)[[0, 1, 2]] * 5
    train = labelled(centres[np.arange(60) % 3] + rng.normal(size=(60, 6)) * 0.01, np.arange(60) % 3)
    result = task.evaluate(train, train)
    assert result.notes["validation_accuracy"] == 1
    assert result.notes["C"] == task.C_PATH[0]
    assert result.notes["C_on_edge"] is True


def test_classes_absent_from_training_count_as_wrong(digits):
    train, test = digits
    result = task.evaluate(train.rows(train.labels != 41), test)
    assert not result.samples["correct"][test.labels == 41].any()
    assert not result.samples["correct5"][test.labels == 41].any()
    assert 41 not in result.samples["prediction"]
    assert values(result)["acc5"] < 0.95


def test_classes_absent_from_the_test_set_are_counted(digits):
    train, test = digits
    assert task.evaluate(train, test.rows(test.labels > 4)).notes["classes_without_samples"] == 3


def test_thousand_classes_do_not_stop_before_the_first_step():
    """At zero weights no gradient entry reaches scikit-learn's default tolerance of 1e-4."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(1000, 64))
    train, test = (
        labelled(np.tile(centres, (2, 1)) + rng.normal(size=(2000, 64)) * 0.3, np.tile(np.arange(1000), 2))
        for _ in range(2)
    )
    unit_rows = task._prepared(train)
    tolerance = SoftmaxRegression([unit_rows]).tolerance
    gradient = (np.eye(1000)[train.labels] - 1e-3).T @ unit_rows.embeddings / 2000
    assert tolerance == pytest.approx(1e-4 * np.abs(gradient).max(), rel=1e-4)
    assert tolerance < 1e-5
    fitted = ReferenceFits(unit_rows, tolerance).fit(100.0)
    assert task._linear(fitted, {}).score(task._prepared(test)).metrics[0].value > 0.95


def test_lack_of_convergence_is_noted(digits, monkeypatch):
    train, test = digits
    monkeypatch.setattr(logistic, "_ITERATIONS", (2, 3))
    result = task.evaluate(train, test)
    assert result.notes["converged"] is False
    assert task.C_PATH[5] in result.notes["C_not_converged"]


def test_a_second_run_continues_the_first(digits, monkeypatch):
    train = task._prepared(digits[0])
    monkeypatch.setattr(logistic, "_ITERATIONS", (20, 2000))
    estimator = LogisticRegression(C=10.0, tol=1e-6, warm_start=True)
    assert logistic._fit(estimator, train)
    assert estimator.max_iter == 2000


def test_other_warnings_of_a_fit_are_passed_on(digits):
    train = task._prepared(digits[0])

    class Noisy(LogisticRegression):
        def fit(self, x, y):
            warnings.warn("look here", UserWarning, stacklevel=1)
            warnings.warn("slow", ConvergenceWarning, stacklevel=1)
            return self

    with pytest.warns(UserWarning, match="look here"):
        assert logistic._fit(Noisy(), train) is False


def test_non_finite_embeddings_and_single_classes_are_errors(digits):
    train, test = digits
    broken = train.embeddings.copy()
    broken[5, 1] = np.nan
    with pytest.raises(MetricError, match="image 'image-5'"):
        task.evaluate(Labelled(broken, train.labels, train.ids), test)
    with pytest.raises(MetricError, match="image 'image-5'"):
        task.evaluate(train, Labelled(broken, train.labels, train.ids))
    with pytest.raises(MetricError, match="image 'image-5'"):
        task.evaluate(train, test, Labelled(broken, train.labels, train.ids))
    with pytest.raises(DataError, match=r"the training rows hold 1 class"):
        task.evaluate(train.rows(train.labels == 3), test)


# --- k-shot ---------------------------------------------------------------------------------------------------------


def test_shots_are_k_per_class_nested_and_a_function_of_labels_and_seed():
    labels = np.random.default_rng(4).choice(ODD_LABELS, 503)
    for seed in range(3):
        previous = np.array([], dtype=int)
        for k in (1, 2, 7, 20):
            rows = shot_indices(labels, k, seed)
            assert (np.unique(labels[rows], return_counts=True)[1] == k).all()
            assert len(np.unique(labels[rows])) == len(ODD_LABELS)
            assert (np.diff(rows) > 0).all()
            assert set(previous) <= set(rows)
            previous = rows
    assert set(shot_indices(labels, 5, 0)) != set(shot_indices(labels, 5, 1))
    # pinned: the same rows on every machine and with every version
    assert shot_indices(np.arange(12) % 3, 2, 0).tolist() == [2, 4, 6, 9, 10, 11]


def test_shots_are_drawn_evenly():
    labels = np.repeat([5, 9], [4, 6])
    drawn = np.bincount(np.concatenate([shot_indices(labels, 2, seed) for seed in range(2000)]), minlength=10)
    assert drawn / 2000 == pytest.approx(np.repeat([2 / 4, 2 / 6], [4, 6]), abs=0.05)  # 4 sigma is 0.045


def test_too_few_shots_name_the_class_and_what_to_do():
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    with pytest.raises(DataError) as error:
        shot_indices(labels, 4, 0, ("cat", "dog", "emu"))
    assert str(error.value) == (
        "class 1 ('dog') has 3 training images, fewer than the 4 of a 4-shot probe (2 of 3 classes have too few). "
        "Choose at most 2 shots."
    )
    with pytest.raises(DataError, match=r"class -7 has 1 training images"):
        shot_indices(np.array([-7, 3, 3]), 2, 0)


@pytest.mark.parametrize(("size", "held"), [(1, 0), (2, 1), (4, 1), (7, 1), (8, 2), (10, 2), (25, 5), (101, 20)])
def test_hold_out_takes_a_fifth_of_each_class(size, held):
    labels = np.random.default_rng(size).permutation(np.repeat(ODD_LABELS, size))
    mask = task.hold_out(labels)
    assert [mask[labels == label].sum() for label in ODD_LABELS] == [held] * 10
    assert (mask == task.hold_out(labels)).all()


def test_one_shot_uses_the_fixed_c(digits):
    train, test = digits
    rows = shot_indices(train.labels, 1, 0)
    result = task.evaluate(train.rows(np.isin(np.arange(701), rows)), test)
    assert result.notes["C"] == task.C_ONE_SHOT
    assert result.notes["selected_on"] == "nothing"
    assert "validation_accuracy" not in result.notes
    assert 0.4 < values(result)["acc1"] < 0.9


# --- what a run hands over ------------------------------------------------------------------------------------------


class FakeInputs:
    protocol = "default"

    def __init__(self, split, shots=None, seed=0, **others):
        self.dataset = SimpleNamespace(name="digits", split="s", labels=split.labels, ids=split.ids, prompts=None)
        self.dataset.prompts = Prompts("default", tuple("0123456789"), ("{c}",))
        self._split, self.shots, self.seed, self._others = split, shots, seed, others
        self.asked = []
        self.worked = []

    def images(self, indices=None):
        self.asked.append(indices)
        return self._split.embeddings if indices is None else self._split.embeddings[indices]

    def take_images(self):
        return self.images().copy()

    def say(self, sentence):
        raise AssertionError("nothing is long here")

    def work(self, text, done=0, total=None):
        self.worked.append((text, done, total))

    def split(self, kind):
        return self._others.get(kind)

    def on_device(self, array):
        return array


def test_run_on_the_full_training_split(digits):
    train, test = digits
    inputs = FakeInputs(test, train=FakeInputs(train))
    assert task.texts(inputs.dataset) == []
    result = task.run(inputs)
    assert values(result) == values(task.evaluate(train, test))
    assert result.samples["id"].tolist() == test.ids
    first, *_, last = inputs.worked
    assert (first, last) == (("choosing C, 1 of at most 17", 0, 17), ("scoring", 0, None))
    assert f"fitting with C = {result.notes['C']:.4g}" in [text for text, _, _ in inputs.worked]
    part, rest = train.rows(np.arange(701) < 300), train.rows(np.arange(701) >= 300)
    with_val = task.run(FakeInputs(test, train=FakeInputs(part), val=FakeInputs(rest)))
    assert values(with_val) == values(task.evaluate(part, test, rest))


def test_run_with_shots_embeds_only_those_and_leaves_the_validation_split_alone(digits):
    train, test = digits
    of_train, val = FakeInputs(train), FakeInputs(test)
    result = task.run(FakeInputs(test, shots=5, seed=3, train=of_train, val=val))
    rows = shot_indices(train.labels, 5, 3)
    (asked,) = of_train.asked
    assert asked.tolist() == rows.tolist()
    assert val.asked == []
    assert result.notes["validation_samples"] == 10
    expected = task.evaluate(train.rows(np.isin(np.arange(701), rows)), test)
    assert values(result) == values(expected)
    other = task.run(FakeInputs(test, shots=5, seed=4, train=of_train))
    assert other.notes["train_rows_sha256"] != result.notes["train_rows_sha256"]


def test_run_without_training_split_or_single_labels_is_an_error(digits):
    train, test = digits
    with pytest.raises(DataError, match="digits: it has no training split"):
        task.run(FakeInputs(test))
    inputs = FakeInputs(test, train=FakeInputs(train))
    inputs.dataset.labels = np.zeros((len(test.labels), 4), bool)
    with pytest.raises(MetricError, match=r"digits \(s\): this task needs one label per image"):
        task.run(inputs)


# --- large problems -------------------------------------------------------------------------------------------------


@pytest.fixture
def all_large(monkeypatch):
    """What large problems are is a matter of scale: here all are."""
    monkeypatch.setattr(task, "_LARGE", 1)


def noisy(n, seed=0, classes=6, width=20, noise=1.0):
    """Centres with noise around them: of few rows per class the best C is in the middle of the path."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(classes, width)) + 2
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, classes, n)
    return labelled(centres[columns] + rng.normal(size=(n, width)) * noise * 2, ODD_LABELS[columns])


def test_a_large_problem_gives_what_the_reference_gives(digits, monkeypatch):
    train, test = digits
    reference = task.evaluate(train, test)
    monkeypatch.setattr(task, "_LARGE", 1)
    large = task.evaluate(train, test)
    assert large.notes["selection_rows"] == sum(min(40, (train.labels == c).sum() * 4 // 5 + 1) for c in ODD_LABELS)
    predicted = exact_fit(train, large.notes["C"]).predict(unit(test.embeddings))
    assert (predicted != large.samples["prediction"]).sum() <= 2
    assert values(large)["acc1"] == pytest.approx(values(reference)["acc1"], abs=0.01)


@pytest.mark.usefixtures("all_large")
def test_the_c_of_a_large_problem_is_the_first_within_an_error_of_the_best():
    train, test = noisy(3001), noisy(4001, seed=1)
    result = task.evaluate(train, test)
    held = task.hold_out(train.labels)
    part = sample(train.labels, 0.1, 40, held)
    assert not (part & held).any()
    assert result.notes["selection_rows"] == part.sum()
    validation = np.array(
        [exact_fit(train.rows(part), c).score(unit(train.embeddings[held]), train.labels[held]) for c in task.C_PATH]
    )
    error = np.sqrt(validation.max() * (1 - validation.max()) / held.sum())
    place = list(task.C_PATH).index(result.notes["C"])
    one_sample = 2.001 / held.sum()  # fits are to a tolerance
    assert validation[place] >= validation.max() - error - one_sample
    assert all(validation[:place] < validation.max() - error + one_sample)
    everything = [exact_fit(train, c).score(unit(test.embeddings), test.labels) for c in task.C_PATH]
    assert values(result)["acc1"] >= max(everything) - 0.02


class Planted:
    """Fits that have the accuracies they are told to have."""

    def __init__(self, accuracies):
        self.classes, self.accuracies, self.asked = np.array([0, 1]), accuracies, []

    def fit(self, c, start=None):
        assert (start is None) == (not self.asked)
        self.asked.append(c)
        wrong = round(1000 * (1 - self.accuracies[len(self.asked) - 1]))
        return Fitted(np.array([[-1.0], [1.0]]), np.array([wrong - 0.5, 0.5 - wrong]), self.classes, True)


@pytest.mark.parametrize(
    ("accuracies", "chosen", "fits"),
    [
        ([0.1, 0.3, 0.5, 0.7, 0.8, 0.79, 0.75, 0.7, 0.9], 4, 7),  # it falls twice
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.6, 0.8, 0.86, 0.87, 0.865, 0.9], 8, 11),  # flat first, which ends nothing
        ([0.5, 0.501, 0.5, 0.499, 0.5, 0.5, 0.5, 0.5, 0.9], 0, 8),  # three decades of nothing
        ([0.9, 0.7, 0.5, 0.3, 0.1], 0, 2),  # it falls from the start
        ([0.1 + 0.05 * place for place in range(17)], 16, 17),
    ],
)
def test_where_a_path_ends_and_what_is_chosen(accuracies, chosen, fits):
    val = labelled(np.arange(1000)[:, None], np.ones(1000, int))
    planted = Planted(accuracies)
    _, notes = task._best_of_path(planted, val, in_part=True)
    assert notes["C"] == task.C_PATH[chosen]
    assert notes["validation_accuracy"] == pytest.approx(accuracies[chosen], abs=1e-9)
    assert len(planted.asked) == fits
    assert notes["C_on_edge"] == (chosen in (0, 16))


@pytest.mark.usefixtures("all_large")
def test_a_large_problem_with_a_validation_split_is_fitted_to_both(digits):
    train, test = digits
    fit, val = train.rows((np.arange(701) < 397) & (train.labels != 41)), train.rows(np.arange(701) >= 397)
    result = task.evaluate(fit, test, val)  # a class that only the validation split has
    assert result.notes["selected_on"] == "val split"
    assert result.notes["validation_samples"] == 304
    both = task._joined([fit, val])
    predicted = exact_fit(both, result.notes["C"]).predict(unit(test.embeddings))
    assert (predicted != result.samples["prediction"]).sum() <= 2
    assert 41 in result.samples["prediction"]


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("classes", [ODD_LABELS, ODD_LABELS[:2]])
def test_large_problems_on_tensors(digits, classes):
    train, test = (split.rows(np.isin(split.labels, classes)) for split in digits)
    on_tensors = [Labelled(torch.tensor(split.embeddings), split.labels, split.ids) for split in (train, test)]
    one, other = task.evaluate(train, test), task.evaluate(*on_tensors)
    assert (one.samples["prediction"] != other.samples["prediction"]).sum() <= 3
    assert one.notes["C"] == other.notes["C"]


@pytest.mark.usefixtures("all_large")
def test_large_problems_of_one_row_per_class_use_the_fixed_c(digits):
    rows = shot_indices(digits[0].labels, 1, 0)
    result = task.evaluate(digits[0].rows(np.isin(np.arange(701), rows)), digits[1])
    assert (result.notes["C"], result.notes["selected_on"]) == (task.C_ONE_SHOT, "nothing")


def test_no_array_of_rows_by_classes_is_made(monkeypatch):
    """Not even one of a byte per row and class."""
    n, classes = 40_000, 300
    rng = np.random.default_rng(6)
    train = labelled(rng.normal(size=(n, 24)) + 1, np.arange(n) % classes)
    monkeypatch.setattr(softmax, "_BLOCK", 1 << 16)
    monkeypatch.setattr(softmax, "_ITERATIONS", 2)
    monkeypatch.setattr(task.accuracy, "_CHUNK_ELEMENTS", 1 << 16)
    task.train_classifier(noisy(300))  # libraries are loaded
    tracemalloc.start()
    try:
        task.train_classifier(train)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert train.embeddings.nbytes < peak < n * classes


def test_what_takes_long_is_said_first(digits, monkeypatch):
    train, test = digits
    inputs, said = FakeInputs(test, train=FakeInputs(train)), []
    inputs.say = said.append
    monkeypatch.setattr(task, "_LARGE", 1)
    monkeypatch.setattr(task, "_LONG_SECONDS", 0)
    task.run(inputs)
    (sentence,) = said
    assert sentence.startswith("fitting 701 embeddings of width 64 to 10 classes: about 0 minutes on ")
    assert sentence.endswith(" GB with the embeddings")


def test_memory_at_the_size_of_imagenet():
    assert 3.93e9 < task.working_bytes(1_281_167, 768, 1000, 16) < 6e9


def test_a_run_normalises_its_own_copies_only(digits, monkeypatch):
    train, test = (Labelled(split.embeddings.copy(), split.labels, split.ids) for split in digits)
    given = [split.embeddings.copy() for split in (train, test)]
    task.evaluate(train, test, test)
    task.run(FakeInputs(test, train=FakeInputs(train), val=FakeInputs(test)))
    assert (train.embeddings == given[0]).all()
    assert (test.embeddings == given[1]).all()
