"""Which verdict a cell gets, and how often the gate as a whole is wrong."""

from __future__ import annotations

import math
import os

import numpy as np
import pandas as pd
import pytest
from folders import NEW, folder, row, scored

import clipeval
from clipeval.checks import measured
from clipeval.errors import UsageError
from clipeval.stats import paired as outcomes
from clipeval.stats import scored as per_sample

GOOD, BAD = [True] * 90 + [False] * 11, [True] * 60 + [False] * 41


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """Check two lists of cells under YAML rules; the packaged configuration has none."""
    monkeypatch.chdir(tmp_path)

    def check(before, now, rules="", **more):
        file = None
        if rules:
            file = tmp_path / "rules.yaml"
            file.write_text(f"rules: {rules}\n")
        count = sum(path.is_dir() for path in tmp_path.iterdir())
        sides = [folder(tmp_path / f"{side}{count}", *cells) for side, cells in (("now", now), ("before", before))]
        return clipeval.check(*sides, rules=file, **more)

    return check


def only(result):
    [cell] = result.cells
    return cell.verdict, cell.reason, result.exit_code


def test_a_large_drop_fails(gate):
    verdict, reason, code = only(gate([scored(GOOD)], [scored(BAD, **NEW)]))
    assert (verdict, code) == ("fail", 1)
    assert reason == "drop 29.70 points, at least 22.83, 1 allowed, p 4.2e-08"  # by the test of score_z
    assert only(gate([scored(BAD)], [scored(GOOD, **NEW)])) == ("pass", "better by at least 22.83 points", 0)


def test_the_order_of_samples_does_not_matter(gate):
    order = np.random.default_rng(0).permutation(101)
    now = scored(np.array(BAD)[order], ids=[f"s{i}" for i in order], **NEW)
    assert only(gate([scored(GOOD)], [now]))[1] == "drop 29.70 points, at least 22.83, 1 allowed, p 4.2e-08"


def answers(right, of):
    return [True] * right + [False] * (of - right)


def test_a_drop_that_is_surely_within_the_allowance_passes(gate):
    now = scored(answers(8_990, 10_000), **NEW)
    assert only(gate([scored(answers(9_000, 10_000))], [now])) == (
        *("pass", "drop 0.10 points, at most 0.17, 1 allowed", 0),
    )
    assert only(gate([scored(GOOD)], [scored(BAD, **NEW)], "[{max_drop: 45}]"))[0] == "pass"
    assert only(gate([scored(GOOD)], [scored(BAD, **NEW)], "[{max_drop: null}]"))[1] == "drop 29.70 points, any allowed"


def test_what_may_be_chance_is_not_a_pass(gate):
    """Small samples exclude little: also where fewer are lost than allowed, or none."""
    for lost, shown in ((3, "7.20"), (1, "4.32"), (0, "2.61")):
        result = gate([scored(GOOD)], [scored(answers(90 - lost, 101), **NEW)])
        assert only(result) == ("cannot-tell", f"no loss shown; could be up to {shown} points, 1 allowed", 3)
        assert "to decide at M = 1 with" in result.notes[0]
    assert only(gate([scored(GOOD)], [scored(answers(89, 101), **NEW)], "[{max_drop: 5}]"))[0] == "pass"
    assert only(gate([scored(GOOD)], [scored(answers(89, 101), **NEW)], "[{max_drop: 5, alpha: 0.02}]"))[0] == (
        "cannot-tell"
    )


def test_a_loss_that_may_be_within_the_allowance_is_suspect(gate):
    result = gate([scored(answers(900, 1000))], [scored(answers(885, 1000), **NEW)])
    assert only(result) == ("cannot-tell", "suspect: drop 1.50 points (p 3.1e-05), 0.99 to 2.28, 1 allowed", 3)
    result = gate([scored(answers(900, 1000))], [scored(answers(892, 1000), **NEW)])
    assert only(result) == ("cannot-tell", "drop 0.80 points; could be up to 1.41 points, 1 allowed", 3)


def test_where_no_drop_is_allowed_only_a_gain_passes(gate):
    result = gate([scored(GOOD)], [scored(GOOD, **NEW)], "[{max_drop: 0}]")
    assert result.exit_code == 3
    assert "only a gain that is shown passes" in result.notes[0]
    assert result.to_dict()["cells"][0]["outcomes_needed"] is None
    assert gate([scored(BAD)], [scored(GOOD, **NEW)], "[{max_drop: 0}]").exit_code == 0


def test_undecided_may_be_a_warning(gate):
    def codes(*cells, rules=""):
        return [gate(cells, [scored(GOOD, **NEW)], rules, undecided=word).exit_code for word in ("fail", "warn")]

    assert codes(scored(GOOD)) == [3, 0]
    assert codes(scored(GOOD), row(dataset="e")) == [3, 3], "what is missing was not measured"
    assert codes(scored(GOOD, split="val")) == [3, 3], "not comparable"
    assert codes(scored(GOOD), rules="[{min: 0.95}]") == [1, 1]
    assert codes(scored(GOOD), rules="[{on_trend: true}]") == [3, 0]
    warned = gate([scored(GOOD)], [scored(GOOD, **NEW)], undecided="warn")
    assert warned.summary.startswith("check NOT DECIDED (exit 0: --undecided warn): 1 cannot-tell")
    assert warned.to_dict()["verdict"] == "cannot-tell"
    with pytest.raises(UsageError, match=r"--undecided wran: unknown. Did you mean 'warn'"):
        gate([scored(GOOD)], [scored(GOOD, **NEW)], undecided="wran")


def test_without_outcomes_nothing_passes_but_the_same_value(gate):
    for value in (0.6, 0.895, 0.95):
        verdict, reason, code = only(gate([row(value=0.9)], [row(value=value, **NEW)]))
        assert (verdict, code) == ("cannot-tell", 3)
        assert "but no paired test: " in reason
        assert "there are no per-sample outcomes of it" in reason
    assert only(gate([row(value=0.9)], [row(value=0.9, **NEW)]))[0] == "cannot-tell"
    assert only(gate([row(value=0.9)], [row(value=0.9, checkpoint_sha256=None)]))[0] == "pass"
    assert only(gate([row(value=0.9)], [row(value=0.9001, checkpoint_sha256=None)]))[0] == "cannot-tell"


def test_files_of_any_kind(tmp_path):
    """A file in a results folder finds the outcomes beside it; elsewhere there are none."""
    before, now = folder(tmp_path / "a", scored(GOOD)), folder(tmp_path / "b", scored(BAD, **NEW))
    assert clipeval.check(now / "results.csv", before / "results.parquet").exit_code == 1
    (tmp_path / "alone.csv").write_bytes((before / "results.csv").read_bytes())
    assert only(clipeval.check(now, tmp_path / "alone.csv"))[0] == "cannot-tell"
    assert clipeval.check(clipeval.read_results(now), clipeval.read_results(before)).exit_code == 3


def test_the_same_checkpoint_is_held_to_a_tolerance_only(gate):
    """A difference that no test would find significant fails, in either direction; a hundredth of a point passes."""
    many = {"n": 10_000}
    for change in (-0.002, 0.002):
        verdict, reason, code = only(gate([row(value=0.5, **many)], [row(value=0.5 + change, **many)]))
        assert (verdict, code) == ("fail", 1)
        assert f"measured again is {100 * change:+.2f} points away, 0.1 allowed: the evaluation changed" in reason
    assert only(gate([row(value=0.5, **many)], [row(value=0.5001, **many)]))[::2] == ("pass", 0)
    assert only(gate([row(value=0.5, **many)], [row(value=0.51, **many)], "[{tolerance: 1}]"))[0] == "pass"
    assert only(gate([scored(GOOD)], [scored(BAD)], "[{max_drop: 50}]"))[0] == "fail", (
        "max_drop is of other checkpoints"
    )


def flipped(hits, lost, won):
    hits = np.array(hits)
    right, wrong = np.flatnonzero(hits), np.flatnonzero(~hits)
    hits[right[:lost]], hits[wrong[:won]] = False, True
    return hits


@pytest.mark.parametrize(
    ("lost", "won", "n", "verdict"),
    [
        (1, 0, 887, "pass"),
        (2, 0, 887, "pass"),
        (0, 2, 90, "pass"),
        (3, 0, 887, "fail"),
        (2, 2, 887, "pass"),
        (3, 2, 887, "fail"),  # 5 of 887 differ, 4.435 are allowed
        (10, 0, 10_000, "pass"),
        (11, 0, 10_000, "fail"),
        (25, 25, 10_000, "pass"),
        (26, 25, 10_000, "fail"),
        (2, 1, 90, "fail"),
    ],
)
def test_the_same_checkpoint_is_compared_by_its_outcomes(gate, lost, won, n, verdict):
    """Net 2 outcomes or a tenth of a point; 2 outcomes or half a percent may differ."""
    before = answers(n // 2, n)
    found = only(gate([scored(before)], [scored(flipped(before, lost, won))]))
    assert found[::2] == (verdict, {"pass": 0, "fail": 1}[verdict])
    assert f"{lost + won} of {n:,} outcomes differ" in found[1] or verdict == "fail"


def test_the_same_checkpoint_by_class_and_without_outcomes(gate):
    """One answer in a class of three is 11 points of the mean over three classes, and still one answer; two of a
    thousand are no change of a bare table either."""
    labels = [0] * 3 + [1] * 48 + [2] * 49

    def side(hits):
        hits = np.array(hits)
        value = float(np.mean([hits[np.array(labels) == k].mean() for k in range(3)]))
        columns = {"id": [f"s{i}" for i in range(100)], "correct": hits, "label": labels}
        return row(metric="mean_per_class_recall", value=value, n=100), columns

    assert only(gate([side([True] * 100)], [side([False] + [True] * 99)]))[0] == "pass"
    assert only(gate([side([True] * 100)], [side([False] * 3 + [True] * 97)]))[0] == "fail"
    assert only(gate([row(value=0.5, n=1000)], [row(value=0.502, n=1000)]))[0] == "pass"
    assert only(gate([row(value=0.5, n=1000)], [row(value=0.503, n=1000)]))[0] == "fail"


def test_lower_is_better(gate):
    lower = {"metric": "perplexity", "higher_is_better": False}
    verdict, reason, _ = only(gate([row(value=0.9, **lower)], [row(value=0.6, **lower, **NEW)]))
    assert (verdict, reason.partition(",")[0]) == ("cannot-tell", "no drop")
    assert "drop 30.00 points" in only(gate([row(value=0.6, **lower)], [row(value=0.9, **lower, **NEW)]))[1]
    assert "better when lower" in only(gate([row(**lower)], [row(**lower)], "[{min: 0.1}]"))[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset_fingerprint": "e" * 64}, "dataset_fingerprint eeeeeeeeeeee… here, ffffffffffff… in the baseline"),
        ({"split": "val"}, "split val here, test in the baseline"),
        ({"task_version": 2}, "task_version 2 here, 1 in the baseline"),
        ({"limit": 5, "status": "limited"}, "limit 5 here, none in the baseline"),
        ({"n": 11}, "n 11 here, 10 in the baseline"),
        ({"precision": "bf16"}, "precision bf16 here, fp32 in the baseline"),
        ({"higher_is_better": False}, "higher_is_better False here, True in the baseline"),
    ],
)
@pytest.mark.parametrize("checkpoint", [{}, NEW])
def test_values_of_other_measurements_are_not_compared(gate, changes, reason, checkpoint):
    assert only(gate([row()], [row(value=0.9, **changes, **checkpoint)])) == ("not-comparable", reason, 3)


@pytest.mark.parametrize("column", ["train_fingerprint", "prompts_digest"])
def test_other_training_data_or_prompts_are_not_compared(column):
    """Columns of newer tables: compared where both sides have them."""
    before, now = (pd.DataFrame([row(value=value, **{column: digest})]) for value, digest in ((0.5, "a"), (0.9, "b")))
    (cell,) = clipeval.check(now, before).cells
    assert (cell.verdict, cell.reason) == ("not-comparable", f"{column} b here, a in the baseline")
    (cell,) = clipeval.check(now.drop(columns=column), before.assign(value=0.9)).cells
    assert cell.verdict == "pass"


def test_the_same_weights_in_other_surroundings():
    """A corrected model configuration or another library is named as a cause; the tolerance stays."""
    before, now = (pd.DataFrame([row(value=v, checkpoint_identity=i, n=99)]) for v, i in ((0.5, "a"), (0.6, "b")))
    (cell,) = clipeval.check(now, before).cells
    assert cell.verdict == "fail"
    assert "the same weights measured again are +10.00 points away" in cell.reason
    assert "(checkpoint_identity)" in cell.reason
    (cell,) = clipeval.check(now.assign(checkpoint_identity="a"), before).cells
    assert "the evaluation changed, not the checkpoint" in cell.reason


def _not_parquet(file):
    file.write_bytes(b"no")


def _columns(**columns):
    return lambda file: pd.DataFrame(columns).to_parquet(file)


def _folder(file):
    file.unlink()
    file.mkdir()


def _pipe(file):
    file.unlink()
    os.mkfifo(file)


BROKEN = {
    "not Parquet": _not_parquet,
    "a folder": _folder,
    "a pipe": _pipe,
    "no ids": _columns(correct=[True] * 101),
    "no column": _columns(id=[f"s{i}" for i in range(101)]),
    "repeated ids": _columns(id=["s"] * 101, correct=[True] * 101),
    "texts": _columns(id=[f"s{i}" for i in range(101)], correct=["yes"] * 101),
    "lists": _columns(id=[f"s{i}" for i in range(101)], correct=[[1.0]] * 101),
    "not 0 or 1": _columns(id=[f"s{i}" for i in range(101)], correct=[0.5] * 101),
    "missing": _columns(id=[f"s{i}" for i in range(101)], correct=[None] * 101),
    "nothing": _columns(id=[], correct=[]),
    "another value": _columns(id=[f"s{i}" for i in range(101)], correct=[True] * 101),
    "ids that are lists": _columns(id=[[i] for i in range(101)], correct=BAD),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_outcomes_are_a_sentence(tmp_path, what):
    """In check a drop cannot be judged; the report and a check of what did not drop do without."""
    before, now = folder(tmp_path / "before", scored(GOOD)), folder(tmp_path / "now", scored(BAD, **NEW))
    BROKEN[what](next((now / "samples").iterdir()))
    (cell,) = clipeval.check(now, before).cells
    assert cell.verdict in ("cannot-tell", "not-comparable"), cell.reason
    clipeval.report([now, before], tmp_path / "page")
    assert clipeval.check(before, before).exit_code == 0


def test_versions_may_differ_where_a_rule_says_so(gate):
    assert only(gate([row()], [row(task_version=2)], "[{same_version: false}]"))[0] == "pass"


def test_other_sample_ids_are_not_compared(gate):
    now = scored(GOOD, ids=[f"t{i}" for i in range(101)], **NEW)
    verdict, reason, code = only(gate([scored(GOOD)], [now]))
    assert (verdict, code) == ("not-comparable", 3)
    assert reason == "sample ids: 101 of 101 of the baseline are not here, 101 are new"


def test_missing_cells(gate):
    before = [row(), row(dataset="e"), row(dataset="g")]
    now = [row(), row(dataset="e", status="failed", value=float("nan"), error="out of memory")]
    result = gate(before, now)
    assert {cell.dataset: (cell.verdict, cell.reason) for cell in result.cells} == {
        "d": ("pass", "the same checkpoint: 0.00 points apart, 20 allowed"),
        "e": ("cannot-tell", "missing: failed: out of memory"),
        "g": ("cannot-tell", "missing: there is no such row"),
    }
    assert result.exit_code == 3
    assert [cell.verdict for cell in result.cells] == ["cannot-tell", "cannot-tell", "pass"], "the gravest first"
    result = gate(before, now, "[{dataset: '[eg]', complete: false}]")
    assert result.exit_code == 0
    assert any(note.startswith("2 cells of the baseline are not in") for note in result.notes)


def test_a_regression_wins_over_missing_cells(gate):
    assert gate([scored(GOOD), row(dataset="e")], [scored(BAD, **NEW)]).exit_code == 1


def test_a_checkpoint_that_could_not_be_measured_at_all(gate):
    failed = row(value=float("nan"), status="failed", error="m: the weights are broken", **NEW)
    result = gate([row()], [failed])
    assert (result.exit_code, [cell.verdict for cell in result.cells]) == (3, ["cannot-tell"])
    assert "the weights are broken" in result.cells[0].reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(gate, value):
    assert only(gate([row()], [row(value=value), row(dataset="other")]))[:2] == (
        "cannot-tell",
        f"missing: its value is {'empty' if math.isnan(value) else value}",
    )
    with pytest.raises(UsageError, match="no measured value"):
        gate([row(value=value)], [row()])
    with pytest.raises(UsageError, match="no measured value"):
        gate([row()], [row(value=value)])


def test_rows_of_the_baseline_without_a_value_are_counted(gate):
    skipped = row(metric="acc5", status="skipped", value=float("nan"), error="few classes")
    result = gate([[row(), skipped]], [row()])
    assert result.exit_code == 0
    assert any("1 rows of" in note and "have no value" in note for note in result.notes)


def test_repeated_rows(tmp_path):
    """The same value twice is one value; different values are not comparable."""
    twice = pd.concat([pd.DataFrame([row(value=0.5)])] * 2)
    assert only(clipeval.check(twice, twice))[0] == "pass"
    two = pd.DataFrame([row(value=0.5), row(value=0.6)])
    verdict, reason, code = only(clipeval.check(twice, two))
    assert (verdict, reason, code) == (
        "not-comparable",
        "the baseline has 2 different values (0.5, 0.6) for this cell",
        3,
    )
    assert only(clipeval.check(two, twice))[1] == "there are 2 different values (0.5, 0.6) for this cell"


def test_a_limited_and_a_full_run_in_one_table_find_their_own(gate):
    limited = {"limit": 5, "status": "limited", "value": 0.4, "n": 5}
    result = gate([row(), row(**limited)], [row(**limited), row()])
    assert [cell.verdict for cell in result.cells] == ["pass", "pass"]


def test_shots_and_seeds_are_cells_of_their_own(gate):
    draws = [row(task="linear_probe", shots=shots, seed=seed) for shots in (5, 10) for seed in (0, 1)]
    assert len(gate(draws, draws).cells) == 4
    assert gate([row(seed=0)], [row(seed=3)]).exit_code == 0, "no images are drawn for zero-shot"
    assert gate(draws[:1], draws[1:2]).exit_code == 3


def test_minimum(gate):
    assert only(gate([row(value=0.5)], [row(value=0.5)], "[{min: 0.6}]"))[::2] == ("fail", 1)
    assert only(gate([row(value=0.5)], [row(value=0.5)], "[{min: 0.5}]"))[::2] == ("pass", 0)
    result = gate([row()], [row(), row(dataset="new", value=0.1)], "[{min: 0.2}]")
    assert (result.cells[0].dataset, result.cells[0].reason) == ("new", "0.1000 < min 0.2")
    assert result.cells[0].verdict == "fail"
    assert np.isnan(result.cells[0].baseline)
    result = gate([row()], [row(), row(dataset="new", value=0.1)])
    assert "1 cells are not in the baseline and no rule judges them" in result.notes


def test_models_pair_by_name(gate):
    before = [scored(GOOD, model="a"), scored(GOOD, model="b")]
    result = gate(before, [scored(GOOD, model="a"), scored(BAD, model="b", **NEW), row(model="c")])
    assert {cell.model: cell.verdict for cell in result.cells} == {"a": "pass", "b": "fail"}
    assert any("1 checkpoints of" in note and note.endswith("are not compared: c") for note in result.notes)
    assert gate(before, [scored(GOOD, model="a"), row(model="c")]).exit_code == 3, "b is missing"


def test_one_checkpoint_on_either_side_is_a_pair(gate):
    [cell] = gate([scored(GOOD, model="v1")], [scored(BAD, model="v2", **NEW)]).cells
    assert (cell.verdict, cell.who) == ("fail", "v2 (baseline: v1)")


def test_models_pair_as_told(gate):
    before = [scored(GOOD, model="a=1"), scored([False] * 101, model="b")]
    now = [scored(BAD, model="new", **NEW), scored(BAD, model="other", **NEW)]
    result = gate(before, now, models=["new=a=1", "new=b"])
    assert {cell.baseline_model: cell.verdict for cell in result.cells} == {"a=1": "fail", "b": "pass"}
    with pytest.raises(UsageError, match=r"-m neu=b: 'neu' is not a checkpoint of the current results .*Did you mean"):
        gate(before, now, models=["neu=b"])
    with pytest.raises(UsageError, match="'c' is not a checkpoint of the baseline"):
        gate(before, now, models=["new=c"])
    with pytest.raises(UsageError, match=r"Say which belong together with -m NEW=OLD"):
        gate(before, now)


def test_suite_average_is_tested_through_its_members(gate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = {
        "name": "pair",
        "metric": "acc1",
        "members": [["d", "acc1"], ["e", "acc1"]],
        "tasks": ["zeroshot_classification"],
    }
    interval = {"ci_low": 0.0, "ci_high": 1.0}

    def side(name, hits, **changes):
        cells = [scored(hits, dataset=dataset, **interval, **changes) for dataset in "de"]
        return folder(tmp_path / name, *cells, suites=[suite])

    before, now = side("a", GOOD), side("b", [True] * 82 + [False] * 19, **NEW)
    cells = {cell.dataset: cell for cell in clipeval.check(now, before).cells}
    assert cells["pair"].verdict == "fail"
    assert cells["pair"].test == outcomes.NORMAL
    assert cells["pair"].members == ("d", "e")
    assert cells["pair"].p < min(cells["d"].p, cells["e"].p), "two data sets say more than one"
    (next((now / "samples").iterdir())).unlink()
    cells = {cell.dataset: cell for cell in clipeval.check(now, before).cells}
    assert "1 of its 2 data sets have no paired test" in cells["pair"].reason
    other = side("c", [True] * 82 + [False] * 19, **NEW, split="val")
    assert clipeval.check(other, before).counts["not-comparable"] == 3


def test_one_outcome_of_each_data_set_is_no_change_of_their_average(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = [["d", "acc1"], ["e", "acc1"]]
    suite = {"name": "pair", "metric": "acc1", "members": members, "tasks": ["zeroshot_classification"]}
    interval = {"ci_low": 0.0, "ci_high": 1.0}

    def side(name, lost):
        cells = [scored(flipped(GOOD, lost, 0), dataset=dataset, **interval) for dataset in "de"]
        return folder(tmp_path / name, *cells, suites=[suite])

    before = side("a", 0)
    assert clipeval.check(side("b", 1), before).exit_code == 0
    assert clipeval.check(side("c", 2), before).exit_code == 0
    assert clipeval.check(side("d", 3), before).counts == {"fail": 3, "not-comparable": 0, "cannot-tell": 0, "pass": 0}


def pair_of(gate, losses, rules="", n=3000, differ=100, **more):
    """A check of data sets a, b ... of which each loses so many outcomes more than it wins."""
    before = answers(n // 2, n)
    now = [
        scored(flipped(before, (differ + lost) // 2, (differ - lost) // 2), dataset=name, **NEW)
        for name, lost in zip("abcdefgh", losses, strict=False)
    ]
    return gate([scored(before, dataset=name) for name in "abcdefgh"[: len(losses)]], now, rules, **more)


def test_a_cell_of_a_mean_that_passes_need_not_be_decided(gate):
    """Lost 6, 20 and -8 of 3,000: drops of .2, .67 and -.27 points, mean .2; by hand its variance is that of the three:
    sum((101) / 3000 - d^2) / 3000 / 9 = 3.74e-6, so at most .2 + 1.645 x .1934 = .518 points."""
    result = pair_of(gate, (6, 20, -8))
    assert result.exit_code == 0
    assert {cell.dataset: cell.verdict for cell in result.cells} == {"a": "pass", "b": "cannot-tell", "c": "pass"}
    [mean] = result.means
    assert (mean.verdict, mean.reason) == ("pass", "drop 0.20 points, at most 0.52, 1 allowed")
    assert mean.members == ("a", "b", "c")
    assert [cell.decides for cell in result.cells if cell.dataset == "b"] == [False]
    assert result.summary.startswith("check passed: 1 cannot-tell, 2 pass (3 cells, ")
    assert result.summary.endswith("; means: 1 pass")
    document = result.to_dict()
    assert document["verdict"] == "pass"
    assert document["counts"]["cannot-tell"] == 1
    assert document["suites"][0]["drop_high"] == pytest.approx(0.2 + 1.644854 * 0.19339, abs=1e-3)
    assert document["suites"][0]["outcomes"] == 9000
    assert pair_of(gate, (20,)).exit_code == 3, "by itself it has to pass by itself"


def test_a_suspect_keeps_its_mean_undecided_and_comes_first(gate):
    result = pair_of(gate, (0, 0, 0, 0, 0, 42))
    assert result.exit_code == 3
    assert [cell.dataset for cell in result.lines][:2] == ["f", "mean of 6 data sets"]
    assert (result.cells[0].dataset, result.cells[0].is_suspect) == ("f", True)
    [mean] = result.means
    assert mean.reason == "drop 0.23 points, at most 0.46, 1 allowed; suspect: f"
    assert [cell["suspect"] for cell in result.to_dict()["cells"]] == [True, *[False] * 5]
    failed = pair_of(gate, (0, 0, 0, 0, 0, 90))
    assert failed.exit_code == 1
    assert failed.means[0].reason == "lost more than is allowed: f"


def both(hits, datasets="de", **more):
    """Cells of acc1 and acc5, the latter a third as often wrong."""
    found = []
    for name in datasets:
        often = np.array(hits) | (np.arange(len(hits)) % 3 > 0)
        rows = [scored(h, dataset=name, metric=m, **more)[0] for h, m in ((hits, "acc1"), (often, "acc5"))]
        found.append((rows, scored(hits)[1] | {"correct5": often}))
    return found


def test_the_main_metric_decides_and_the_others_may_fail(gate):
    """One mean per checkpoint and task. A metric beside it is told, and stops the check where it shows a loss."""
    result = gate(both(answers(1800, 3000)), both(answers(1799, 3000), **NEW))
    assert [(mean.metric, mean.verdict, mean.members) for mean in result.means] == [("acc1", "pass", ("d", "e"))]
    result = gate(both(GOOD), both(GOOD, **NEW), "[{metric: acc1, max_drop: 60}]")
    assert result.exit_code == 0
    assert {(cell.metric, cell.verdict, cell.decides) for cell in result.cells} == {
        *(("acc1", "pass", True), ("acc5", "cannot-tell", False)),
    }
    assert gate(both(GOOD), both(BAD, **NEW), "[{metric: acc1, max_drop: 60}]").exit_code == 1, "acc5 lost"
    one = gate(both(GOOD, "d"), both(GOOD, "d", **NEW), "[{metric: acc1, max_drop: 60}]")
    assert (one.exit_code, one.means) == (0, [])
    result = gate(both(GOOD), both(GOOD, **NEW), "[{metric: acc1, max_drop: null}]")
    assert [mean.metric for mean in result.means] == ["acc5"]
    two = [cell for name in ("m", "w") for cell in both(GOOD, model=name)]
    other = [cell for name in ("m", "w") for cell in both(GOOD, model=name, **NEW)]
    assert [mean.model for mean in gate(two, other).means] == ["m", "w"]


def test_metrics_beside_a_suite_that_was_asked_for_need_not_be_decided(gate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = [["d", "acc1"], ["e", "acc1"]]
    suite = {"name": "pair", "metric": "acc1", "members": members, "tasks": ["zeroshot_classification"]}
    (tmp_path / "rules.yaml").write_text("rules: [{metric: acc1, max_drop: 60}]\n")

    def side(name, third, **more):
        interval = {"ci_low": 0.0, "ci_high": 1.0}
        cells = both(GOOD, **interval, **more) + (both(GOOD, "g", **more) if third else [])
        return folder(tmp_path / name, *cells, suites=[suite])

    result = clipeval.check(side("b", False, **NEW), side("a", False), rules=tmp_path / "rules.yaml")
    assert result.exit_code == 0
    assert (result.means, [cell.dataset for cell in result.suites]) == ([], ["pair"])
    assert {cell.metric for cell in result.cells if not cell.decides} == {"acc5"}
    (tmp_path / "strict.yaml").write_text("rules: [{dataset: g}, {metric: acc1, dataset: '[!g]*', max_drop: 60}]\n")
    result = clipeval.check(side("d", True, **NEW), side("c", True), rules=tmp_path / "strict.yaml")
    assert result.exit_code == 3, "the data set beside the suite has to pass by itself"
    assert [(cell.dataset, cell.metric) for cell in result.cells if cell.decides and cell.verdict != "pass"] == [
        ("g", "acc1")
    ]


def test_both_directions_of_retrieval_are_one_mean(gate):
    """300 images, whose captions and images are lost and won together: by hand the variance is that of 300 units."""
    ids = [f"im{i}" for i in range(300)]

    def side(hits, **more):
        columns = {
            "id": [f"{name}#0" for name in ids] + ids,
            "direction": ["text_to_image"] * 300 + ["image_to_text"] * 300,
            "hit@5": np.concatenate([hits, hits]).astype(np.float32),
        }
        known = {"task": "zeroshot_retrieval", "value": float(np.mean(hits)), "n": 300, **more}
        return [row(metric=f"{way}_retrieval_recall@5", **known) for way in ("image", "text")], columns

    before = np.array(answers(150, 300))
    result = gate([side(before)], [side(flipped(before, 6, 3), **NEW)], "[{max_drop: 4}]")
    [mean] = result.means
    assert (mean.dataset, mean.metric) == ("d", "mean_recall@5")
    assert mean.drop.test.variance == pytest.approx((10 / 300 - 0.01**2) / 300)
    assert (mean.verdict, result.exit_code) == ("pass", 0)


def test_a_mean_is_allowed_the_mean_of_what_its_data_sets_are(gate):
    result = pair_of(gate, (0, 0), "[{dataset: a, max_drop: 3}, {alpha: 0.01}]")
    assert result.means[0].drop.allowed == 2
    assert result.means[0].drop.alpha == 0.01


def simulated(rng, loss, monkeypatch, n=150):
    """A check of two checkpoints on five data sets; the second loses ``loss`` of what it has right on the first one."""
    rows, kept = {"a": [], "b": []}, {}
    for dataset in "defgh":
        hard = rng.normal(0.5, 1, n)
        for checkpoint in "ab":
            hits = rng.random(n) < 1 / (1 + np.exp(-hard - rng.normal(0, 0.5, n)))
            if (checkpoint, dataset) == ("b", "d"):
                hits &= rng.random(n) >= loss
            cell, columns = scored(hits, dataset=dataset, checkpoint_sha256=checkpoint)
            rows[checkpoint].append(cell)
            kept[checkpoint, dataset] = pd.DataFrame(columns)

    def find(self, row):
        return per_sample.scored(row["metric"], kept[row["checkpoint_sha256"], row["dataset"]], row["value"])

    monkeypatch.setattr(measured.Results, "scored", find)
    return clipeval.check(pd.DataFrame(rows["b"]), pd.DataFrame(rows["a"]), rules="no_drop.yaml")


def test_false_and_missed_failures(tmp_path, monkeypatch):
    """With no true loss and no allowance every failure in the family of five is false: at most 5 % of 100 checks.
    12 or more have a chance of 0.4 % at that rate. A planted loss of a half is always found, and only where it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no_drop.yaml").write_text("rules: [{max_drop: 0}]\n")
    rng = np.random.default_rng(1)
    assert sum(simulated(rng, 0, monkeypatch).exit_code == 1 for _ in range(100)) < 12
    found = [simulated(rng, 1 / 2, monkeypatch).cells[0] for _ in range(10)]
    assert [(cell.verdict, cell.dataset) for cell in found] == [("fail", "d")] * 10


def ladder(values, **changes):
    return [
        row(model=f"x{i}", checkpoint_sha256=f"{i}" * 64, gmacs_total=10.0 ** (i + 1), value=value, **changes)
        for i, value in enumerate(values)
    ]


def test_on_trend_against_linregress(gate):
    """Below the classical prediction interval of the line through ln E is a failure; within and above are not."""
    from scipy.stats import linregress, t

    from clipeval.checks.trend import prediction_interval

    rng = np.random.default_rng(3)
    x = 10.0 ** np.arange(1, 8)
    error = 0.9 * x**-0.1 * np.exp(rng.normal(0, 0.05, 7))
    low, high = prediction_interval(x, error, 3e5)
    line = linregress(np.log(x), np.log(error))
    rest = np.log(error) - line.intercept - line.slope * np.log(x)
    spread = np.sqrt(rest @ rest / 5)
    away = np.log(3e5) - np.log(x).mean()
    half = t.ppf(0.975, 5) * spread * np.sqrt(1 + 1 / 7 + away**2 / np.sum((np.log(x) - np.log(x).mean()) ** 2))
    centre = np.exp(line.intercept + line.slope * np.log(3e5))
    assert (low, high) == pytest.approx((centre * np.exp(-half), centre * np.exp(half)), rel=1e-9)
    before = ladder(1 - error)
    for value, verdict, words in (
        (1 - high - 1e-6, "fail", "is below the trend: the law of 7 checkpoints of toy in baseline predicts"),
        (1 - high + 1e-6, "pass", "on the trend"),
        (1 - low + 1e-6, "pass", "above the trend"),
    ):
        new = row(model="new", gmacs_total=3e5, value=value, **NEW)
        result = gate(before, [*before, new], "[{on_trend: true}]", models=["new=x3"])
        [finding] = [f for f in result.cells[0].findings if f.rule == "on_trend"]
        assert finding.verdict == verdict
        assert words in finding.reason


def test_on_trend_needs_a_law(gate):
    before = ladder([0.1, 0.2])
    assert "no scaling law in baseline: " in only(gate(before, before, "[{on_trend: true}]", models=["x0"]))[1]
    unknown = [row(value=0.5)]
    result = gate(ladder([0.1, 0.2, 0.25, 0.3]), unknown, "[{on_trend: true}]", models=["m=x0"])
    assert "compute (gmacs_total) is not known" in result.cells[0].reason
    with pytest.raises(UsageError, match="not a published study"):
        gate(before, before, "[{on_trend: cherti2024}]", models=["x0"])


def test_on_trend_of_a_published_study(gate):
    place = {"dataset": "imagenet1k", "source": "LAION-2B", "source_family": "LAION", "gmacs_total": 2.6e11}
    result = gate([row(value=0.3, **place)], [row(value=0.3, **place)], "[{on_trend: cherti2023}]")
    assert "is below the trend: the law of 29 checkpoints of LAION in cherti2023 predicts" in only(result)[1]
    assert gate([row(value=0.66, **place)], [row(value=0.66, **place)], "[{on_trend: cherti2023}]").exit_code == 0
