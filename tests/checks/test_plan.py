"""``--plan``: sizes by hand, from tables, outcomes and the catalogue."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from folders import NEW, folder, row, scored
from scipy.stats import norm

from clipeval.checks.plan import plan
from clipeval.errors import UsageError


@pytest.fixture
def check(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(command, "clipeval", "check")


def chance(share, *counts, allowed=0.01):
    """By hand: the mean of k data sets has the variance sum(share / n) / k^2."""
    return norm.cdf(allowed / np.sqrt(share * sum(1 / n for n in counts)) * len(counts) - 1.644854)


def test_equal_sizes_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = folder(tmp_path / "before", *(row(dataset=f"d{i}", n=360) for i in range(9)))
    [planned] = plan("nothing", before).planned
    assert (planned.where, planned.outcomes, planned.allowed) == (
        *("mean of 9 data sets · zeroshot_classification · acc1", 3240, 1.0),
    )
    assert [(found.share, found.outcomes_needed, found.source) for found in planned.prospects] == [
        *((0.02, 1713, ""), (0.05, 4282, ""), (0.1, 8564, ""), (0.15, 12846, "")),
    ]
    assert [found.pass_chance for found in planned.prospects] == pytest.approx(
        [chance(share, *[360] * 9) for share in (0.02, 0.05, 0.1, 0.15)], abs=1e-5
    )


def test_unequal_sizes_rules_and_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{task: linear_probe, max_drop: 2}]\n")
    tasks = "zeroshot_classification", "linear_probe"
    rows = [[row(dataset=d, metric=m, task=t, n=n) for m in ("acc1", "acc5")] for t in tasks for d, n in SIZES]
    first, second = plan("nothing", folder(tmp_path / "before", *rows), rules=rules).planned
    assert (first.where, second.where) == (
        "mean of 2 data sets · linear_probe · acc1",
        "mean of 2 data sets · zeroshot_classification · acc1",
    )
    assert first.allowed == 2
    assert first.prospects[3].pass_chance == pytest.approx(chance(0.15, 400, 9000, allowed=0.02), abs=1e-5)
    assert second.prospects[3].pass_chance == pytest.approx(chance(0.15, 400, 9000), abs=1e-5)
    needed = 9400 * 8.563847 * 0.15 * (1 / 400 + 1 / 9000) / 4 / 1e-4
    assert second.prospects[3].outcomes_needed == np.ceil(needed)


SIZES = (("d", 400), ("e", 9000))


def test_where_no_drop_is_allowed_it_is_never(tmp_path, monkeypatch, check):
    (tmp_path / "benchmarks.yaml").write_text("rules: [{max_drop: 0}]\n")
    code, out, _ = check("nothing", "--against", folder(tmp_path / "before", row()), "--plan")
    assert code == 0
    assert out.count("never") == 4


def test_what_differs_is_measured_where_it_can_be(tmp_path, monkeypatch):
    """Of 500 outcomes 40 differ between the baseline's two checkpoints, 10 between the current one and the first."""
    monkeypatch.chdir(tmp_path)
    hits = np.arange(500) % 2 == 0
    other, new = hits.copy(), hits.copy()
    other[:40], new[:10] = ~hits[:40], ~hits[:10]
    before = folder(tmp_path / "before", scored(hits), scored(other, model="other", checkpoint_sha256="c" * 64))
    found = plan("nothing", before).planned[0].prospects[-1]
    assert (found.share, found.source) == (0.08, "other against m")
    assert found.pass_chance == pytest.approx(chance(0.08, 500), abs=1e-5)
    now = folder(tmp_path / "now", scored(new, **NEW))
    found = plan(now, before).planned[0].prospects[-1]
    assert (found.share, found.source) == (0.02, "m against m")
    same = plan(folder(tmp_path / "same", scored(hits)), folder(tmp_path / "one", scored(hits))).planned[0]
    assert not same.is_measured


def test_captions_count_by_image(tmp_path, monkeypatch):
    """200 images of five captions each: by the outcomes, and without them by the catalogue."""
    monkeypatch.chdir(tmp_path)
    ids = [f"im{i}#{k}" for i in range(200) for k in range(5)]
    rng = np.random.default_rng(0)
    sides = [rng.random(1000) < 0.5 for _ in range(2)]

    def cell(hits, **more):
        columns = {"id": ids, "direction": ["text_to_image"] * 1000, "hit@5": hits}
        known = {"task": "zeroshot_retrieval", "metric": "image_retrieval_recall@5", "n": 1000}
        return row(value=float(hits.mean()), **known, **more), columns

    before, now = folder(tmp_path / "a", cell(sides[0])), folder(tmp_path / "b", cell(sides[1], **NEW))
    assert plan(now, before).planned[0].outcomes == 200
    (tmp_path / "r.yaml").write_text("datasets: {d: {spec: 'wds:x', n: 200}}\n")
    assert plan("nothing", before, rules=tmp_path / "r.yaml").planned[0].outcomes == 200


def test_of_the_catalogue_before_there_is_a_baseline(check):
    code, out, _ = check("nothing", "--against", "vtab+", "--plan", "--format", "json")
    assert code == 0
    [planned] = json.loads(out)["plan"]
    assert (len(planned["members"]), planned["outcomes"]) == (35, sum(planned["counts"]))
    assert planned["prospects"][3]["pass_chance"] > 0.99
    code, out, _ = check("nothing", "--against", "digits", "--plan")
    assert "355 outcomes, 1 allowed" in out
    for words, message in (
        (["--against", "vtabb"], "no data set or suite is called so. Did you mean 'vtab'?"),
        (["--against", "digits", "--format", "junit"], "--format junit: --plan is shown as text or json"),
    ):
        code, out, err = check("nothing", *words, "--plan")
        assert (code, out) == (2, "")
        assert message in err


def test_sizes_that_nobody_knows_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = pd.DataFrame([row(dataset="d", n=None), row(dataset="e", n=90)])
    path = tmp_path / "before.csv"
    before.to_csv(path, index=False)
    found = plan("nothing", path)
    assert [planned.where for planned in found.planned] == ["e · zeroshot_classification · acc1"]
    assert found.notes == ["not known, how many samples there are: d"]
    before[:1].to_csv(path, index=False)
    with pytest.raises(UsageError, match="nothing to plan"):
        plan("nothing", path)


def test_the_plan_in_a_file(check, tmp_path):
    before = folder(tmp_path / "before", row())
    assert check("nothing", "--against", before, "--plan", "--output", "plan.txt")[1] == ""
    assert "10 outcomes, 1 allowed" in (tmp_path / "plan.txt").read_text()
    check("nothing", "--against", before, "--plan", "--output", "plan.json", "--format", "json")
    assert json.loads((tmp_path / "plan.json").read_text())["plan"][0]["outcomes"] == 10
