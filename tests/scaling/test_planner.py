"""``clipeval design``: from a table and a budget to the runs of a ladder."""

from __future__ import annotations

import json
import re
from collections import Counter
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import yaml
from tables import table
from typer.testing import CliRunner

from clipeval.cli import app
from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.planner import design, ladder
from clipeval_train.ladder.grid import load_ladder

SIZES = {"xs": 1e-4, "s": 4e-4, "m": 1.6e-3}
TOWER = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 8, "layers": 1, "head_width": 4},
    "text_cfg": {"context_length": 12, "width": 8, "heads": 2, "layers": 1},
}
PLAN = {
    "grid": {"model": ["xs"], "source": ["a"], "samples": [64]},
    "models": {name: deepcopy(TOWER) for name in SIZES},
    "sources": {source: {"shards": "builtin:digits"} for source in "ab"},
    "defaults": {"batch_size": 32, "lr": 1e-3, "seed": 5},
    "out": "runs",
}


def results(lengths=(8_000, 16_000, 32_000, 64_000), noise=0.02, sources="ab"):
    """A ladder of three architectures on planted joint laws, one run of each length."""
    rng = np.random.default_rng(0)
    rows = []
    for source in sources:
        for arch, gmacs in SIZES.items():
            for samples in lengths:
                error = 0.1 + 0.02 * gmacs**-0.3 + (4 if source == "a" else 6) * samples**-0.35
                rows.append({"model": f"{arch}-{source}-{samples}", "arch": arch, "source": source, "gmacs": gmacs})
                rows[-1] |= {"samples_seen": samples, "dataset": "birds", "task": "zeroshot_classification"}
                rows[-1] |= {"metric": "acc1", "value": 1 - error * np.exp(rng.normal(0, noise))}
    return pd.DataFrame(rows)


def key(run):
    return run.arch, run.source, run.samples


def test_a_plan_for_a_forecast_spends_the_budget_and_narrows_the_answer():
    spent = sum(gmacs * samples for gmacs in SIZES.values() for samples in (8e3, 16e3, 32e3, 64e3))
    found = design(results(), spent, "forecast:m:1M")
    assert 0.9 * spent < found.cost <= spent
    for run in found.runs:
        assert run.gmacs == SIZES[run.arch]
        assert run.cost == pytest.approx(run.gmacs * run.samples)
        assert 8_000 // 4 <= run.samples <= 4 * 64_000
        assert run.there == (run.samples in (8_000, 16_000, 32_000, 64_000))
        assert 1 <= run.count <= 3
    assert found.sd_after < found.sd_largest < found.sd_before
    assert len(set(map(key, found.runs))) == len(found.runs)
    assert found.scatter == pytest.approx(0.02, rel=0.5)
    more = design(results(), 4 * spent, "forecast:m:1M")
    assert more.sd_after < found.sd_after
    assert not any("it is not to be planned with" in note for note in found.notes)


def test_the_difference_of_two_exponents_and_a_crossover():
    """By power laws: the standard deviation before is that of two straight lines."""
    rows = results()
    found = design(rows, 100, "difference")
    squares = 0.0
    residuals, freedom = 0.0, 0
    for _, group in rows.groupby("source"):
        x, y = np.log(group["gmacs"] * group["samples_seen"]), np.log(1 - group["value"])
        _, (rss, *_), *_ = np.polyfit(x, y, 1, full=True)
        residuals, freedom = residuals + rss, freedom + len(x) - 2
        squares += 1 / ((x - x.mean()) ** 2).sum()
    assert found.scatter == pytest.approx(np.sqrt(residuals / freedom))
    assert found.sd_before == pytest.approx(found.scatter * np.sqrt(squares), rel=1e-2)
    crossing = table(n=8, arch="ViT-B-32")  # of exponents -.12 and -.20 that meet where both are 3
    met = design(crossing, 1e12, "crossover")
    at = float(re.search(r"([\d.e+-]+) GMACs", met.what)[1])
    assert abs(np.log(at)) < 2
    assert met.sd_after < met.sd_before
    same = rows[rows["source"] == "a"]
    with pytest.raises(MeasureError, match="the laws are parallel"):
        design(pd.concat([same, same.assign(source="b")]), 100, "crossover")
    with pytest.raises(UsageError, match="no architecture in the column arch"):
        design(table(), 1e12, "crossover")


def test_trunks_are_paid_once():
    """The cost of the plan by a plain sum: every trunk to its end, and each branch's cooldown."""
    found = design(results(), 300, "difference", cooldown=0.25)
    trunks: dict[tuple[str, str, int], float] = {}
    branches = 0.0
    for run in found.runs:
        for number in range(run.count):
            place = run.arch, run.source, number
            trunks[place] = max(trunks.get(place, 0), 0.75 * run.samples * run.gmacs)
            branches += 0.25 * run.samples * run.gmacs
    assert found.cost == pytest.approx(sum(trunks.values()) + branches)
    assert 0.9 * 300 < found.cost <= 300
    assert len(found.runs) > len(design(results(), 300, "difference").runs)


def test_the_plan_of_a_ladder_trains_them(tmp_path):
    """Seeds go on where those of the table end."""
    found = design(results(), 300, "forecast:m:1M")
    path = tmp_path / "next.yaml"
    path.write_text(yaml.safe_dump(ladder(found, PLAN, "plan.yaml"), sort_keys=False))
    runs = load_ladder(path).runs
    counts = Counter((run.config.arch, run.config.data[0].source, run.config.samples) for run in runs)
    assert counts == {key(run): run.count for run in found.runs}
    assert len({run.name for run in runs}) == len(runs)
    for run in found.runs:
        seeds = [r.config.seed for r in runs if (r.config.arch, r.config.data[0].source, r.config.samples) == key(run)]
        assert seeds == [5 + run.there + number for number in range(run.count)]
    branched = design(results(), 300, "difference", cooldown=0.25)
    path.write_text(yaml.safe_dump(ladder(branched, PLAN, "plan.yaml"), sort_keys=False))
    trained = load_ladder(path).runs  # trunks in stretches, and branches
    cost = sum(SIZES[run.config.arch] * (run.config.samples - run.seen_before) for run in trained)
    assert cost == pytest.approx(branched.cost, rel=0.02), "stretches end with a batch"
    with pytest.raises(UsageError, match=r"--ladder plan.yaml: models: m, .*xs are not there"):
        ladder(found, PLAN | {"models": {}}, "plan.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aim": "forecasts:m:1M"}, r"--for forecasts:m:1M: expected .*Did you mean 'forecast'"),
        ({"aim": "forecast"}, "--for forecast: expected forecast:ARCHITECTURE:SAMPLES"),
        ({"aim": "difference:m"}, "--for difference:m: expected"),
        ({"aim": "forecast:xl:1M"}, "--for forecast:xl: not an architecture of open_clip or of the table"),
        ({"aim": "difference", "sources": ["a"]}, r"is of two sources, and there are 1: a\. Name two with --source"),
        ({"aim": "difference", "sources": ["c"]}, "--source c: there are a, b"),
        ({"aim": "difference", "cooldown": 1.5}, "--cooldown 1.5: expected the share of a run"),
        ({"aim": "difference", "budget": 1e-9}, "the budget 1e-09 buys none of the runs: the cheapest costs"),
    ],
)
def test_what_cannot_be_planned(options, message):
    with pytest.raises(UsageError, match=message):
        design(**{"table": results(), "budget": 100, **options})


def test_a_table_of_several_answers_or_too_few_points():
    rows = results()
    with pytest.raises(
        UsageError, match=r"there are 2: choose one of -t zeroshot_classification -d birds --metric acc1"
    ):
        design(pd.concat([rows, rows.assign(dataset="cats")]), 100, "difference")
    with pytest.raises(MeasureError, match="leave nothing over beside the 5 parameters of the law joint_nd"):
        design(results(lengths=(8_000, 64_000), sources="a")[:5], 100, "forecast:m:1M")


def test_compute_without_what_it_is_made_of_gives_no_plan():
    """A law of total compute can be fitted, and no plan of runs. One such row among others is no run."""
    rows = results()
    rows = rows.assign(gmacs_total=rows["gmacs"] * rows["samples_seen"])
    with pytest.raises(UsageError, match="a plan needs gmacs and samples_seen, and no checkpoint of a has both"):
        design(rows.assign(samples_seen=np.nan), 100, "difference")
    there = design(rows, 100, "difference")
    odd = design(
        rows.assign(samples_seen=rows["samples_seen"].mask(rows["model"] == rows["model"].iloc[0])), 100, "difference"
    )
    assert odd.sd_before == pytest.approx(there.sd_before)
    assert {run.samples for run in odd.runs} <= {run.samples for run in there.runs}


def test_the_command(tmp_path):
    rows, plan, out = tmp_path / "rows.csv", tmp_path / "plan.yaml", tmp_path / "next.yaml"
    results().to_csv(rows, index=False)
    plan.write_text(yaml.safe_dump(PLAN))
    words = ["design", str(rows), "--budget", "300", "--for", "forecast:m:1M"]
    shown = CliRunner().invoke(app, [*words, "--ladder", str(plan), "-o", str(out)], catch_exceptions=False)
    assert "The next runs for 300 GMACs, to know ln E of m:1M" in shown.output
    assert f"clipeval-train ladder {out}" in shown.output.replace("\n", "")
    assert load_ladder(out).runs
    as_json = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).output)
    assert as_json["sd_after"] < as_json["sd_before"]
    assert sum(run["count"] for run in as_json["runs"]) == len(load_ladder(out).runs)
    with pytest.raises(UsageError, match="give -o, too"):
        CliRunner().invoke(app, [*words, "--ladder", str(plan)], catch_exceptions=False)


def test_a_plan_without_a_ladder_wants_its_data(tmp_path):
    """Its architectures are open_clip's; what is not known is named, and can be given on the command line."""
    out = tmp_path / "next.yaml"
    words = ["design", "--budget", "1e12", "-d", "imagenet1k", "-t", "classification", "--source", "LAION"]
    done = CliRunner().invoke(app, [*words, "--for", "forecast:ViT-H-14:34B", "-o", str(out)], catch_exceptions=False)
    assert "give its sources `shards` and its defaults batch_size, lr and warmup" in done.output.replace("\n", "")
    with pytest.raises(UsageError, match=r"sources\.LAION\.shards"):
        load_ladder(out)
    given = [
        "sources.LAION.shards=d/{000..007}.tar",
        "defaults.batch_size=256",
        "defaults.lr=1e-3",
        "defaults.warmup=9",
    ]
    runs = load_ladder(out, given).runs
    assert runs
    assert {run.architecture.name for run in runs} <= {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14"}


def test_a_task_of_somebody_elses_table():
    """A study of language models, whose task is none of clipeval's, and whose metric is a loss."""
    words = ["design", "gadre2024", "-t", "language_modeling", "--by", "source", "--source", "rpj"]
    done = CliRunner().invoke(app, [*words, "--budget", "1e12", "--for", "forecast:open_lm_7b:1T"])
    assert done.exit_code == 0
    assert "to know ln E of open_lm_7b:1T" in done.output
