"""``clipeval check`` as it is typed: real runs of real checkpoints, exit codes, files, and the baseline's renewal."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
import yaml
from folders import NEW, folder, row, scored
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.errors import StoreError, UsageError

GOOD, BAD = [True] * 90 + [False] * 11, [True] * 60 + [False] * 41


@pytest.fixture
def check(command, monkeypatch, tmp_path):
    """Run ``clipeval check`` in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return partial(command, "clipeval", "check")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Results of a checkpoint with a k-shot probe, of one with slightly other weights, and of one whose image tower
    sees nothing."""
    root = tmp_path_factory.mktemp("measured")
    image_folder(root / "colours", per_class={"train": 4, "test": 20})
    caption_shards(root / "pairs")
    old = tiny_checkpoint(root / "v1.pt")
    content = torch.load(old, weights_only=True)
    for name, change in (("v2", lambda w: w * (1 + 1e-6)), ("blind", torch.zeros_like)):
        state = {k: change(v) if k.startswith("visual.") else v for k, v in content["state_dict"].items()}
        torch.save({**content, "state_dict": state}, root / f"{name}.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(root / "cache"))
        for name in ("v1", "v2", "blind"):
            clipeval.run(
                str(root / f"{name}.pt"),
                [f"folder:{root}/colours", f"wds:{root}/pairs"],
                ["classification", "retrieval", "probe"],
                shots=[2],
                out=root / name,
                workers=0,
            )
    return root


def test_the_same_checkpoint_again(check, measured):
    code, out, _ = check(measured / "v1", "--against", measured / "v1")
    assert code == 0
    assert "check passed: 18 pass (18 cells, " in out
    assert "the same checkpoint: 0.00 points apart" in out


def test_a_checkpoint_that_is_as_good(check, measured, tmp_path):
    """Of few images none differs: that excludes a drop of 60 points, not one of 1."""
    (tmp_path / "rules.yaml").write_text("rules: [{max_drop: 60}]\n")
    code, out, _ = check(measured / "v2", "--against", measured / "v1", "--rules", "rules.yaml")
    assert code == 0
    assert "(baseline: " in out, "two names, paired because either side has one checkpoint"
    assert "no drop, at most " in out
    code, out, _ = check(measured / "v2", "--against", measured / "v1")
    assert code == 3
    assert "no loss shown; could be up to " in out
    assert "at equal quality)" in out
    code, out, _ = check(measured / "v2", "--against", measured / "v1", "--undecided", "warn")
    assert code == 0
    assert "check NOT DECIDED (exit 0: --undecided warn): " in out


def test_a_checkpoint_that_is_worse(check, measured):
    code, out, err = check(measured / "blind", "--against", measured / "v1", "--format", "json")
    assert code == 1
    failed = {(c["task"], c["metric"]) for c in json.loads(out)["cells"] if c["verdict"] == "fail"}
    assert ("linear_probe", "acc1") in failed
    assert ("linear_probe", "mean_per_class_recall") in failed
    assert err.startswith("check FAILED: ")


def test_exit_codes(check, tmp_path):
    good, bad = folder(tmp_path / "good", scored(GOOD)), folder(tmp_path / "bad", scored(BAD, **NEW))
    bare = folder(tmp_path / "bare", row(value=0.5, **NEW))
    assert check(good, "--against", good)[0] == 0
    assert check(bad, "--against", good)[0] == 1
    assert check(bare, "--against", good)[0] == 3
    assert check(bare / "results.csv", "--against", good)[0] == 3
    for words, message in (
        ([tmp_path / "none", "--against", good], "no results table here"),
        ([good], "Missing option '--against'"),
        ([good, "--against", good, "--format", "xml"], "--format xml: unknown"),
        ([good, "--against", good, "-m", "x"], "-m x: 'x' is not a checkpoint"),
        ([good, "--against", good, "--rules", "none.yaml"], "none.yaml: cannot read"),
    ):
        code, out, err = check(*words)
        assert (code, out) == (2, "")
        assert message in err


def test_rules_of_the_configuration_here_and_of_a_file(check, tmp_path):
    good, bad = folder(tmp_path / "good", scored(GOOD)), folder(tmp_path / "bad", scored(BAD, **NEW))
    (tmp_path / "loose.yaml").write_text("rules: [{max_drop: 50}]\n")
    assert check(bad, "--against", good, "--rules", "loose.yaml")[0] == 0
    (tmp_path / "benchmarks.yaml").write_text("rules: [{min: 0.5, max_drop: 40}]\n")
    assert check(bad, "--against", good)[0] == 0
    (tmp_path / "benchmarks.yaml").write_text("rules: [{min: 0.5, max_dorp: 40}]\n")
    code, _, err = check(bad, "--against", good)
    assert code == 2
    assert "benchmarks.yaml: rules[0].max_dorp: unknown key. Did you mean 'max_drop'?" in err


def test_output_to_a_file(check, tmp_path):
    good, bad = folder(tmp_path / "good", scored(GOOD)), folder(tmp_path / "bad", scored(BAD, **NEW))
    code, out, err = check(bad, "--against", good, "--format", "junit", "--output", "check.xml")
    assert (code, out) == (1, "")
    assert err.startswith("check FAILED: 1 fail")
    assert ElementTree.parse(tmp_path / "check.xml").getroot()[0].get("failures") == "1"
    assert check(bad, "--against", good, "--format", "github", "--output", "table.md")[1].startswith("::error ")
    assert "| fail |" in (tmp_path / "table.md").read_text()


def test_update_baseline(check, tmp_path):
    good = folder(tmp_path / "good", scored(GOOD), scored(GOOD, dataset="e"))
    bad = folder(tmp_path / "bad", scored(BAD, **NEW), scored(GOOD, dataset="g", **NEW))
    base = tmp_path / "base"
    code, _, err = check(good, "--against", base, "--update-baseline")
    assert code == 0
    assert err == f"{base}: updated from {good}: 2 values: 2 new\n"
    (base / "README.md").write_text("kept")
    assert check(bad, "--against", base)[0] == 1
    code, out, err = check(bad, "--against", base, "--update-baseline")
    assert code == 0
    assert "check FAILED" in out
    assert (
        err
        == f"{base}: updated from {bad}: 2 values: 1 lower, 1 new, 1 gone (m · e · zeroshot_classification · acc1)\n"
    )
    assert (base / "README.md").read_text() == "kept"
    assert sorted(path.name for path in base.rglob("*.*")) == sorted(
        ["README.md", *(path.name for path in bad.rglob("*.*"))]
    )
    pd.testing.assert_frame_equal(clipeval.read_results(base), clipeval.read_results(bad))
    assert check(bad, "--against", base)[0] == 0
    assert check(good, "--against", base)[0] == 3, "the outcomes came along: g is missing, d is better"


def test_update_of_a_file_and_refusals(check, tmp_path):
    from clipeval.checks.baseline import update

    good = folder(tmp_path / "good", scored(GOOD))
    for name in ("base.csv", "base.parquet"):
        update(good, tmp_path / name)
        pd.testing.assert_frame_equal(clipeval.read_results(tmp_path / name), clipeval.read_results(good))
    update(tmp_path / "base.csv", good_copy := folder(tmp_path / "copy", scored(BAD)))
    assert not (good_copy / "samples").exists(), "a bare table leaves no outcomes of another one"
    assert not (good_copy / "ledger.jsonl").exists()
    assert check(good, "--against", good, "--update-baseline")[2].count("are the same") == 1
    empty = folder(tmp_path / "empty", row(value=float("nan")))
    with pytest.raises(UsageError, match="The baseline stays as it is"):
        update(empty, good)


def test_an_update_that_is_cut_off_never_gives_a_wrong_verdict(tmp_path, monkeypatch):
    """After any number of its writes the old or the new baseline stands, or outcomes and values are seen to differ; and
    the same command again completes it."""
    from clipeval.checks import baseline
    from clipeval.results import table

    good = folder(tmp_path / "good", scored(GOOD))
    bad = folder(tmp_path / "bad", scored(BAD, **NEW))
    seen = set()
    for writes in range(5):
        base = shutil.copytree(good, tmp_path / f"base{writes}")
        left = [writes]

        def cut_off(path, write, left=left, real=table.write_atomically):
            if not left[0]:
                raise StoreError("killed")
            left[0] -= 1
            real(path, write)

        with monkeypatch.context() as patch:
            patch.setattr(baseline, "write_atomically", cut_off)
            patch.setattr(table, "write_atomically", cut_off)
            try:
                baseline.update(bad, base)
            except StoreError:
                assert writes < 4
        codes = clipeval.check(good, base).exit_code, clipeval.check(bad, base).exit_code
        seen.add(codes)
        assert codes in {(0, 1), (0, 3), (0, 0)}, writes
        baseline.update(bad, base)
        assert (clipeval.check(good, base).exit_code, clipeval.check(bad, base).exit_code) == (0, 0)
    assert {(0, 1), (0, 0)} <= seen


BASELINE = Path(__file__).parents[2] / "results" / "baseline"


def test_the_baseline_of_the_demo_holds(check):
    """The gate on the measured table of the demo's checkpoints: it passes against itself."""
    code, out, _ = check(BASELINE, "--against", BASELINE)
    assert code == 0
    assert "check passed" in out


@pytest.mark.parametrize(("lost", "expected"), [(0.5, 1), (0.0, 0)])
def test_a_planted_regression_of_the_demo_is_found(check, tmp_path, lost, expected):
    """The demo's checkpoints with other weights: half of the right answers of one cell become wrong."""
    copy = shutil.copytree(BASELINE, tmp_path / "now")
    text = (copy / "ledger.jsonl").read_text()
    digests = clipeval.read_results(copy).checkpoint_sha256.dropna().unique()
    for digest in digests:
        text = text.replace(digest, digest[::-1])
    entries = [json.loads(line) for line in text.splitlines()]
    target = next(
        entry for entry in entries if entry["kind"] == "cell"
        and entry["rows"][0]["task"] == "zeroshot_classification" and entry["rows"][0]["dataset"] == "icons-40"
    )  # fmt: skip
    samples = copy / "samples" / f"{target['cell']}.parquet"
    frame = pd.read_parquet(samples)
    hits = frame.index[frame.correct]
    frame.loc[hits[: int(lost * len(hits))], "correct"] = False
    frame.to_parquet(samples)
    next(row for row in target["rows"] if row["metric"] == "acc1")["value"] = float(frame.correct.mean())
    (copy / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    from clipeval.results import table
    from clipeval.results.ledger import Ledger

    table.write(copy, table.current_rows(Ledger(copy)))
    code, out, _ = check(copy, "--against", BASELINE)
    assert code == expected
    if lost:
        assert " fail " in out
        assert "icons-40 · top-1" in out


@pytest.mark.parametrize(("seed", "codes"), [(0, [0, 0, 0]), (1, [0, 0, 0]), (None, [3, 3, 3])])
def test_the_example_workflow_runs(command, tmp_path, monkeypatch, seed, codes):
    """Its commands as they stand, by a shell's rules, without extras: of the released checkpoint, of another one that
    knows as little, and of a file that is none. Every step runs, so the last say why the first could not measure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", _without("qtawesome", importlib.util.find_spec))
    workflow = yaml.safe_load((BASELINE.parents[1] / "examples" / "check-workflow.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    programs = [step for step in steps if step.get("run", "").startswith("clipeval ")]
    assert ["cancelled()" in step.get("if", "") for step in programs] == [False, True, True]
    measure, *checks = [shlex.split(step["run"]) for step in programs]
    candidate = tmp_path / "runs" / "candidate" / "checkpoints" / "a.pt"
    tiny_checkpoint(candidate)
    (candidate.parents[1] / "latest").write_text("checkpoints/a.pt\n")
    code, _, err = command(*measure)
    assert code == 0, err
    (tmp_path / "results" / "candidate").rename(tmp_path / "results" / "baseline")
    if seed is None:
        candidate.write_bytes(b"none")
    else:
        tiny_checkpoint(candidate, seed=seed)
    assert [command(*words)[0] for words in (measure, *checks)] == codes
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### check passed" if seed == 0 else "### check NOT DECIDED")
    assert ElementTree.parse(tmp_path / "check.xml").getroot()[0].get("failures") == "0"


def _without(name, real):
    return lambda word, *more: None if word == name else real(word, *more)


def test_the_readme_shows_the_workflow_as_it_is():
    root = Path(__file__).parents[2]
    assert (root / "examples/check-workflow.yml").read_text().strip() in (root / "README.md").read_text()
