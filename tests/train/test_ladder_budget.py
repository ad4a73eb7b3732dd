"""The allocation of a budget, against the law that the results were made of."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_ladder import plan_file

from clipeval.errors import MeasureError, UsageError
from clipeval.models import profile
from clipeval_train.ladder import budget
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.grid import load_ladder

GMACS = {"xs": 0.001, "s": 0.004, "other": 0.016, "m": 0.06}
SEEN = (1e4, 4e4, 1.6e5, 6.4e5)


def error(gmacs, seen):
    return 0.05 + 0.02 * gmacs**-0.35 + 9.0 * seen**-0.3


@pytest.fixture
def results(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "model": f"{arch}-{seen:g}",
            "arch": arch,
            "source": "a",
            "source_family": "a",
            "gmacs": gmacs,
            "samples_seen": seen,
            "gmacs_total": gmacs * seen,
            "dataset": "toys",
            "split": "test",
            "task": "zeroshot_classification",
            "metric": "acc1",
            "value": 1 - error(gmacs, seen) * (1 + 1e-4 * rng.standard_normal()),
            "status": "ok",
        }
        for arch, gmacs in GMACS.items()
        for seen in SEEN
    ]
    path = tmp_path / "results.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_the_best_run_for_a_budget(tmp_path, results):
    runs = load_ladder(plan_file(tmp_path)).runs
    spend = 2000.0
    found = budget.allocate(runs, [str(results)], spend).set_index("arch")
    assert list(found.index) == ["", "xs", "s"]  # the optimum of the law, and the ladder's architectures
    for arch in ("xs", "s"):
        seen = spend / GMACS[arch]
        assert found.loc[arch, "samples_seen"] == pytest.approx(seen, rel=1e-12)
        assert found.loc[arch, "error"] == pytest.approx(error(GMACS[arch], seen), rel=2e-3)
    sizes = np.geomspace(GMACS["xs"], GMACS["m"], 2001)
    best = error(sizes, spend / sizes).min()
    assert found.loc["", "error"] == pytest.approx(best, rel=2e-3)
    assert found.loc["xs", "excess"] == pytest.approx(error(GMACS["xs"], spend / GMACS["xs"]) / best - 1, abs=5e-3)


def test_the_command(tmp_path, results, capsys):
    plan = plan_file(tmp_path)
    assert run_ladder(Request(plan, budget=2000.0, results=[str(results)], as_json=True)) == 0
    rows = json.loads(capsys.readouterr().out)["allocation"]
    assert [row["kind"] for row in rows] == ["optimum", "architecture", "architecture"]
    assert run_ladder(Request(plan, budget=2000.0, results=[str(results)])) == 0
    shown = capsys.readouterr().out
    assert "best run for 2000 GMACs" in shown
    assert error(GMACS["s"], 500_000) < error(GMACS["xs"], 2_000_000)
    assert "500,000" in shown
    assert "2,000,000" not in shown


def test_a_loss_is_no_percentage(tmp_path, results, capsys):
    """The same numbers as losses ten times as high: shown as they are."""
    table = pd.read_csv(results)
    table.assign(value=10 * (1 - table["value"]), metric="loss", higher_is_better=False).to_csv(results, index=False)
    assert run_ladder(Request(plan_file(tmp_path), budget=2000.0, results=[str(results)])) == 0
    shown = capsys.readouterr().out
    assert "loss (95 %)" in shown
    assert "%" not in shown.replace("(95 %)", "")
    assert f"{10 * error(GMACS['s'], 500_000):.1f}" in shown


def test_results_of_other_models_and_too_few_of_them(tmp_path, results):
    table = pd.read_csv(results)
    table[table["arch"] == "other"].to_csv(tmp_path / "few.csv", index=False)
    runs = load_ladder(plan_file(tmp_path)).runs
    with pytest.raises(MeasureError, match="nothing can be fitted"):
        budget.allocate(runs, [str(tmp_path / "few.csv")], 10.0)
    table.assign(arch="ViT-B-32").to_csv(tmp_path / "others.csv", index=False)
    with pytest.raises(UsageError, match=r"none of its checkpoints is of an architecture of this ladder \(xs, s\)"):
        budget.allocate(runs, [str(tmp_path / "others.csv")], 10.0)
    with pytest.raises(UsageError, match="must be a positive number"):
        budget.allocate(runs, [str(results)], -1.0)
    assert profile.of_config(runs[0].architecture.config).gmacs > 0
