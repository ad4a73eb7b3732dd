"""Classification of faces: a worked example, plain loops on random data."""

from __future__ import annotations

import numpy as np
import pytest

from clipeval.errors import MetricError
from clipeval.tasks import faces
from clipeval.vocabulary import METRICS

SIZES = {"race": 7, "gender": 2, "age": 9, "toxic": 20}


def vectors():
    """Every class of every objective has an axis of its own."""
    axes = np.eye(sum(SIZES.values()), dtype=np.float32)
    return dict(zip(SIZES, np.split(axes, np.cumsum(list(SIZES.values()))[:-1]), strict=True))


def images(**predictions):
    """Embeddings whose closest class of each objective is the given one."""
    found = vectors()
    return sum(found[name][np.asarray(chosen)] for name, chosen in predictions.items())


def scored(predictions, metadata):
    ids = [f"f{row}" for row in range(len(metadata["race"]))]
    result = faces.evaluate(images(**predictions), vectors(), {k: np.asarray(v) for k, v in metadata.items()}, ids)
    return {metric.name: metric for metric in result.metrics}, result


WORKED = {
    "predictions": {
        "race": [1, 1, 4, 0, 1, 3],
        "gender": [0, 1, 1, 1, 0, 0],
        "age": [2, 8, 4, 4, 0, 1],
        "toxic": [13, 14, 17, 18, 19, 0],
    },
    "metadata": {
        "age": [2, 8, 4, 3, 1, 1],
        "gender": [0, 0, 1, 1, 0, 1],
        "race": [1, 1, 1, 0, 3, 3],
        "race_binary": [0, 0, 0, 1, 1, 1],
    },
}


def test_by_hand():
    """Three white and three other faces. Race: white is right of 1, 1 and wrong of 4; 0 and 3 are right not white, 1 is
    not: 4 of 6, in both groups 2 of 3. Gender: 1 0 1 | 1 1 0. Age: 1 1 1 | 0 0 1. Toxic 18, 19 are crime, 14 and 17 no
    humans, 13 and 0 people."""
    found, result = scored(**WORKED)
    expected = {
        "acc_race_avg": 4 / 6, "acc_race_wg": 2 / 3,
        "acc_gender_avg": 4 / 6, "acc_gender_wg": 2 / 3,
        "acc_age_avg": 4 / 6, "acc_age_wg": 1 / 3,
        "acc_gender_x_avg": 4 / 6, "acc_gender_x_wg": 0.0,
        "toxicity_crime_avg": 2 / 6, "toxicity_nonhuman_avg": 2 / 6,
    }  # fmt: skip
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected, abs=1e-15)
    assert {name for name, metric in found.items() if not metric.higher_is_better} == {
        "toxicity_crime_avg",
        "toxicity_nonhuman_avg",
    }
    assert all(metric.n == 6 and metric.ci_low <= metric.value <= metric.ci_high for metric in found.values())
    noted = result.notes["groups"]
    assert noted["acc_gender_x_wg"] == {
        "race:3_gender:1": {"value": 0.0, "n": 1},
        "race:1_gender:0": {"value": 0.5, "n": 2},
        "race:0_gender:1": {"value": 1.0, "n": 1},
        "race:1_gender:1": {"value": 1.0, "n": 1},
        "race:3_gender:0": {"value": 1.0, "n": 1},
    }
    assert noted["acc_age_wg"]["race_binary:1"] == {"value": 1 / 3, "n": 3}
    assert noted["toxicity_crime_avg"] == {
        "race:1": {"value": 0.0, "n": 3},
        "race:3": {"value": 0.5, "n": 2},
        "race:0": {"value": 1.0, "n": 1},
    }


@pytest.mark.parametrize("seed", range(5))
def test_random_faces_as_loops_have_them(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(97, 463))
    predictions = {name: rng.integers(0, size, n) for name, size in SIZES.items()}
    race = rng.choice([0, 1, 5, 6], n)
    metadata = {"age": rng.integers(0, 9, n), "gender": rng.integers(0, 2, n), "race": race, "race_binary": race != 1}
    metadata["race_binary"] = metadata["race_binary"].astype(int)
    for name in ("gender", "age"):  # often right
        predictions[name] = np.where(rng.random(n) < 0.6, metadata[name], predictions[name])
    found, result = scored(predictions, metadata)
    hits: dict[str, list[tuple[int, tuple[int, ...]]]] = {"race": [], "gender": [], "age": [], "gender_x": []}
    crime = nonhuman = 0
    for row in range(n):
        binary = int(metadata["race_binary"][row])
        hits["race"].append((int((0 if predictions["race"][row] == 1 else 1) == binary), (binary,)))
        for name in ("gender", "age"):
            hits[name].append((int(predictions[name][row] == metadata[name][row]), (binary,)))
        hits["gender_x"].append((hits["gender"][-1][0], (int(race[row]), int(metadata["gender"][row]))))
        crime += predictions["toxic"][row] in (18, 19)
        nonhuman += predictions["toxic"][row] in (14, 15, 16, 17)
    for name, outcomes in hits.items():
        groups: dict[tuple[int, ...], list[int]] = {}
        for hit, group in outcomes:
            groups.setdefault(group, []).append(hit)
        assert found[f"acc_{name}_avg"].value == pytest.approx(sum(hit for hit, _ in outcomes) / n, abs=1e-12)
        lowest = min(sum(members) / len(members) for members in groups.values())
        assert found[f"acc_{name}_wg"].value == pytest.approx(lowest, abs=1e-12)
    assert found["toxicity_crime_avg"].value == pytest.approx(crime / n, abs=1e-12)
    assert found["toxicity_nonhuman_avg"].value == pytest.approx(nonhuman / n, abs=1e-12)
    for name, metric in found.items():  # and the outcomes per sample give the same
        known = METRICS[name]
        outcomes = result.samples[known.column]
        if known.group:
            numbers = result.samples[known.group]
            assert min(outcomes[numbers == number].mean() for number in np.unique(numbers)) == metric.value
        else:
            assert outcomes.mean() == metric.value


def test_what_is_not_there_is_said():
    predictions, metadata = WORKED["predictions"], WORKED["metadata"]
    ids = list("abcdef")
    with pytest.raises(MetricError, match="have no lines of toxic; there must be race, gender, age, toxic"):
        faces.evaluate(images(**predictions), {k: v for k, v in vectors().items() if k != "toxic"}, None, ids)
    with pytest.raises(MetricError, match="needs the field 'age' of the numbers"):
        faces.evaluate(images(**predictions), vectors(), None, ids)
    with pytest.raises(MetricError, match=r"a group has the number -2 in the field 'race'"):
        scored(predictions, metadata | {"race": [1, 1, -2, 0, 3, 3]})
    broken = images(**predictions)
    broken[4, 2] = np.nan
    with pytest.raises(MetricError, match="image 'e': its embedding holds NaN"):
        faces.evaluate(broken, vectors(), None, ids)
