"""No wrong or stale number stands in a table without a word: files that change between runs and during one, failures
that take the place of values, averages of different weights, facts that are corrected, runs that are cut off.

Every test goes through the commands, on small checkpoints whose true values come from a run of their own.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import image_folder, tiny_checkpoint, trained_checkpoint

import clipeval
from clipeval import models
from clipeval.evaluation.workbench import Workbench

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints of one architecture and size: A knows nothing, B knows the colours."""
    root = tmp_path_factory.mktemp("checkpoints")
    tiny_checkpoint(root / "a.pt")
    trained_checkpoint(root / "b.pt", image_folder(root / "colours", per_class={"test": 5}))
    return root


@pytest.fixture
def zoo(tmp_path, checkpoints):
    """The checkpoints, and pictures of colours."""
    for name in ("a.pt", "b.pt"):
        shutil.copyfile(checkpoints / name, tmp_path / name)
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 5})
    return tmp_path


@pytest.fixture
def run(zoo, command):
    """``clipeval run`` of m.pt into out: (exit code, table, stderr)."""

    def call(*words, task="classification", data=None, out="out", model="m.pt"):
        data = data or f"folder:{zoo}/colours"
        asked = ["-m", zoo / model, "-d", data, "-t", task, "-o", zoo / out, "--workers", "0", *words]
        code, _, err = command("clipeval", "run", *asked)
        return code, clipeval.read_results(zoo / out), err

    return call


def put(zoo: Path, name: str, at: str = "m.pt") -> None:
    """Another checkpoint at this place, as ``cp`` does."""
    (zoo / at).unlink(missing_ok=True)
    shutil.copyfile(zoo / f"{name}.pt", zoo / at)


def acc1(frame: pd.DataFrame, **where) -> float:
    """The one top-1 accuracy of a table."""
    chosen = frame[frame.metric == "acc1"]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.value.iloc[0]


@pytest.fixture
def truth(zoo, command, tmp_path_factory, monkeypatch):
    """``truth(name)``: the table of a checkpoint as it is now, measured elsewhere with a cache of its own."""

    def call(name, *words, task="classification", data=None):
        folder = tmp_path_factory.mktemp("truth")
        data = data or f"folder:{zoo}/colours"
        with monkeypatch.context() as patch:
            patch.setenv("CLIPEVAL_CACHE", str(folder / "cache"))
            asked = ["-m", zoo / f"{name}.pt", "-d", data, "-t", task, "-o", folder, "--workers", "0", *words]
            assert command("clipeval", "run", *asked)[0] == 0
        return clipeval.read_results(folder)

    return call


@pytest.fixture
def value(truth):
    """``value(name)``: its true top-1 accuracy."""
    return lambda *arguments, **more: acc1(truth(*arguments, **more))


def test_the_two_checkpoints_differ(value):
    assert value("a") < 0.5
    assert value("b") > 0.9


# W1: what was measured before comes back


def test_back_to_weights_that_were_measured_before(zoo, run, value, command):
    a, b = value("a"), value("b")
    for name, expected in (("a", a), ("b", b), ("a", a), ("b", b), ("b", b)):
        put(zoo, name)
        code, frame, _ = run()
        assert code == 0
        assert acc1(frame) == expected, name
    put(zoo, "a")
    assert acc1(run("--rerun", "always")[1]) == a
    assert acc1(run("--rerun", "never")[1]) == a


def test_the_gate_sees_a_checkpoint_that_came_back(zoo, run, command):
    """As a bisection does it, or a commit that is reverted."""
    put(zoo, "b")
    run(out="good")
    for name in ("a", "b", "a"):
        put(zoo, name)
        run()
    assert command("clipeval", "check", zoo / "out", "--against", zoo / "good")[0] == 1
    put(zoo, "b")
    run()
    assert command("clipeval", "check", zoo / "out", "--against", zoo / "good")[0] == 0


def test_back_to_class_names_that_were_measured_before(zoo, run):
    (zoo / "right.json").write_text(
        json.dumps({"classes": ["red", "green", "blue", "yellow", "magenta", "cyan"], "templates": ["{c}"]})
    )
    (zoo / "wrong.json").write_text(
        json.dumps({"classes": ["green", "blue", "yellow", "magenta", "cyan", "white"], "templates": ["{c}"]})
    )
    config = zoo / "b.yaml"
    config.write_text(f"datasets: {{x: {{spec: 'folder:{zoo}/colours', prompts: '{zoo}/p.json'}}}}\n")
    put(zoo, "b")
    found, digests = [], []
    for name in ("right", "wrong", "right"):
        shutil.copyfile(zoo / f"{name}.json", zoo / "p.json")
        _, frame, _ = run("-c", config, data="x")
        found.append(acc1(frame))
        digests.append(frame.prompts_digest[0])
    assert found[0] == found[2] != found[1]
    assert digests[0] == digests[2] != digests[1]


def test_the_same_weights_under_another_name_have_their_own_rows(zoo, run):
    put(zoo, "a")
    put(zoo, "a", "n.pt")
    run()
    _, frame, _ = run(model="n.pt")
    assert sorted(Path(name).name for name in frame.model.unique()) == ["m.pt", "n.pt"]
    assert frame.groupby("model").value.apply(list).map(str).nunique() == 1
    assert run()[1].equals(frame), "both are done"


# W4: a checkpoint is replaced during the run


def test_a_checkpoint_that_is_replaced_while_another_is_measured(zoo, run, value, monkeypatch):
    put(zoo, "b", "first.pt")
    put(zoo, "a")
    real = Workbench.measure

    def measure(bench, cell):
        put(zoo, "b")
        return real(bench, cell)

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "measure", measure)
        code, frame, err = run("-m", zoo / "first.pt", model="first.pt", out="x")
        assert code == 0
        put(zoo, "a")
        code, frame, err = run("-m", zoo / "m.pt", model="first.pt")
    assert code == 3
    assert "m.pt' changed since it was opened" in err
    mine = frame[frame.model == str(zoo / "m.pt")]
    assert set(mine.status) == {"failed"}
    put(zoo, "a")
    assert acc1(run()[1], model=str(zoo / "m.pt")) == value("a")


# W5: what is trained on changes


@pytest.mark.parametrize("split", ["train_split", "val_split"])
def test_changed_training_data_is_measured_again(zoo, run, truth, split):
    image_folder(zoo / "colours", per_class={"val": 2})
    config = zoo / "b.yaml"
    config.write_text(f"datasets: {{x: {{spec: 'folder:{zoo}/colours', val_split: val}}}}\n")
    put(zoo, "a")
    words = {"task": "probe", "data": "x"}
    code, before, _ = run("-c", config, "--shots", "full", **words)
    assert code == 0
    folder = zoo / "colours" / split.removesuffix("_split")
    (folder / "red").rename(zoo / "kept")
    (folder / "cyan").rename(folder / "red")
    (zoo / "kept").rename(folder / "cyan")
    code, after, _ = run("-c", config, "--shots", "full", **words)
    assert code == 0
    expected = truth("a", "-c", config, "--shots", "full", **words)
    assert after.value.tolist() == expected.value.tolist()
    assert before.train_fingerprint[0] != after.train_fingerprint[0] == expected.train_fingerprint[0]
    assert before.dataset_fingerprint[0] == after.dataset_fingerprint[0]
    if split == "train_split":
        assert after.value.tolist() != before.value.tolist()


def test_zero_shot_does_not_depend_on_training_data(zoo, run):
    put(zoo, "a")
    run()
    lines = (zoo / "out/ledger.jsonl").read_bytes()
    shutil.rmtree(zoo / "colours/train")
    code, frame, _ = run()
    assert code == 0
    assert frame.train_fingerprint.isna().all()
    assert (zoo / "out/ledger.jsonl").read_bytes() == lines


# W6: averages


def test_an_average_never_mixes_checkpoints(zoo, run, value, command):
    image_folder(zoo / "other", per_class={"train": 1, "test": 4})
    config = zoo / "b.yaml"
    config.write_text(
        f"datasets: {{one: 'folder:{zoo}/colours', two: 'folder:{zoo}/other'}}\nsuites: {{mine: [one, two]}}\n"
    )
    put(zoo, "b")
    _, frame, _ = run("-c", config, data="mine")
    pair = [acc1(frame, dataset=name) for name in ("one", "two")]
    assert acc1(frame, dataset="mine") == pytest.approx(sum(pair) / 2, abs=1e-12)
    put(zoo, "a")
    code, frame, _ = run("-c", config, data="one")
    assert code == 0
    [average] = frame[frame.dataset == "mine"].to_dict("records")
    assert average["status"] == "error"
    assert pd.isna(average["value"])
    assert pd.isna(average["checkpoint_sha256"])
    assert "measured with different weights: one with " in average["error"]
    assert "; two with " in average["error"]
    code, frame, _ = run("-c", config, data="mine")
    pair = [acc1(frame, dataset=name) for name in ("one", "two")]
    assert acc1(frame, dataset="mine") == pytest.approx(sum(pair) / 2, abs=1e-12)
    assert acc1(frame, dataset="one") == value("a")


# W7: a broken checkpoint in place of a good one


@pytest.mark.parametrize("how", ["nan", "truncated"])
def test_a_broken_checkpoint_has_no_value(zoo, run, command, value, how):
    put(zoo, "b")
    assert run(out="good")[0] == run()[0] == 0
    if how == "nan":
        content = torch.load(zoo / "b.pt", weights_only=True)
        content["state_dict"]["visual.proj"][0, 0] = float("nan")
        torch.save(content, zoo / "m.pt")
    else:
        (zoo / "m.pt").write_bytes((zoo / "b.pt").read_bytes()[:1000])
    code, frame, _ = run()
    assert code == 3
    assert set(frame.status) == {"failed"}
    assert frame.value.isna().all()
    found = clipeval.run([str(zoo / "m.pt")], [f"folder:{zoo}/colours"], "classification", out=zoo / "out", workers=0)
    assert set(found.status) == {"failed"}
    assert command("clipeval", "check", zoo / "out", "--against", zoo / "good")[0] != 0
    put(zoo, "b")
    assert acc1(run()[1]) == value("b")


def test_a_fault_of_the_machine_does_not_take_a_value_away(zoo, run, value, monkeypatch):
    from clipeval.errors import StoreError

    put(zoo, "b")
    run()

    def broken(*_):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "measure", broken)
        code, frame, err = run("--rerun", "always")
    assert code == 3
    assert "the disk is full" in err
    assert acc1(frame) == value("b")


# W8, W9: what lies beside the weights

configuration_counts = pytest.mark.skipif(
    not hasattr(models, "open_checkpoint"), reason="identities of checkpoints are weights alone"
)


@configuration_counts
@pytest.mark.parametrize("what", ["mean", "quick_gelu"])
def test_a_corrected_configuration_is_another_checkpoint(zoo, command, what):
    folder = zoo / "local"
    folder.mkdir()
    content = torch.load(zoo / "a.pt", weights_only=True)
    torch.save(content["state_dict"], folder / "open_clip_pytorch_model.bin")
    config = {"model_cfg": content["model_cfg"], "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}

    def measured(out):
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        asked = ["-m", f"local-dir:{folder}", "-d", f"folder:{zoo}/colours", "-t", "classification", "-o", zoo / out]
        assert command("clipeval", "run", *asked, "--workers", "0")[0] == 0
        return clipeval.read_results(zoo / out)

    before = measured("out")
    if what == "mean":
        config["preprocess_cfg"]["mean"] = [0.1, 0.9, 0.3]
    else:
        config["model_cfg"]["quick_gelu"] = True
    after, expected = measured("out"), measured("elsewhere")
    assert after.checkpoint_identity[0] == expected.checkpoint_identity[0] != before.checkpoint_identity[0]
    assert after.value.tolist() == expected.value.tolist()


# W11: facts are corrected


def facts_of(zoo, **facts):
    path = zoo / "b.yaml"
    entry = {"name": "mine", "spec": str(zoo / "m.pt"), **facts}
    path.write_text(json.dumps({"models": [entry], "datasets": {"one": f"folder:{zoo}/colours"}}))
    return path


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("source_family", "LAION", "DataComp"),
        ("unique_samples", 5e6, 7e6),
        ("source", "LAION-2B", "DataComp-1B"),
        ("samples_seen", 1e6, 2e6),
        ("samples_seen_from", "card", "paper"),
    ],
)
def test_a_corrected_fact_shows_and_measures_nothing(zoo, command, monkeypatch, name, old, new):
    put(zoo, "a")

    def run(*words, **facts):
        config = facts_of(zoo, **facts)
        assert command("clipeval", "run", "-c", config, *words, "-o", zoo / "out", "--workers", "0")[0] == 0
        return clipeval.read_results(zoo / "out")

    image_folder(zoo / "other", per_class={"train": 1, "test": 4})
    run("-d", f"folder:{zoo}/other", "-d", "one", **{name: old})
    monkeypatch.setattr(Workbench, "measure", lambda *_: pytest.fail("measured again"))
    frame = run("-d", "one", **{name: new})
    assert set(frame[name]) == {new}
    assert set(frame.dataset) == {"one", "other"}, "the correction shows where nothing was asked for now, too"
    if name == "samples_seen":
        assert (frame.gmacs_total == frame.gmacs * new).all()
    assert set(run("-d", "one", **{name: old})[name]) == {old}
    assert set(run("-d", "one")[name]) != {old}, "a fact that is taken back"


def test_facts_are_kept_once(zoo, run):
    put(zoo, "a")
    run("--shots", "1,2", task="probe")
    kinds = [json.loads(line) for line in (zoo / "out/ledger.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in kinds].count("checkpoint") == 1
    assert not any("source" in row for entry in kinds for row in entry.get("rows", ()))


# W12: the run is cut off between the ledger and the table


@pytest.fixture
def cut_off(zoo, run, value):
    """The table is of A, the ledger of B."""
    put(zoo, "a")
    run()
    tables = {name: (zoo / "out" / name).read_bytes() for name in ("results.parquet", "results.csv")}
    put(zoo, "b")
    run()
    for name, content in tables.items():
        (zoo / "out" / name).write_bytes(content)
    return value("b")


@pytest.mark.parametrize("name", ["", "results.parquet", "results.csv"])
def test_a_table_older_than_its_ledger_is_not_believed(zoo, cut_off, capsys, name):
    assert acc1(clipeval.read_results(zoo / "out" / name)) == cut_off
    assert capsys.readouterr().err.count("the table was not written from this ledger") == 1


def test_gate_and_report_read_the_ledger_then(zoo, cut_off, command, run):
    put(zoo, "b")
    run(out="b")
    put(zoo, "a")
    run(out="a")
    assert command("clipeval", "check", zoo / "a", "--against", zoo / "out")[0] == 1
    assert command("clipeval", "check", zoo / "b", "--against", zoo / "out")[0] == 0
    assert command("clipeval", "report", zoo / "out", "-o", zoo / "page")[0] == 0
    assert acc1(clipeval.read_results(zoo / "page/results.csv")) == cut_off


def test_a_first_run_that_wrote_no_table(zoo, run, value):
    put(zoo, "a")
    run()
    for name in ("results.parquet", "results.csv"):
        (zoo / "out" / name).unlink()
    assert acc1(clipeval.read_results(zoo / "out")) == value("a")


def test_a_table_that_another_program_has_changed_is_not_believed(zoo, run, value, capsys):
    put(zoo, "a")
    _, frame, _ = run()
    frame.assign(value=0.25).to_parquet(zoo / "out/results.parquet", index=False)
    found = acc1(clipeval.read_results(zoo / "out"))
    assert "another program" in capsys.readouterr().err
    assert found == value("a")


def test_a_table_beside_an_earlier_ledger_is_left_alone(zoo, run, capsys):
    put(zoo, "a")
    _, frame, _ = run()
    ledger = zoo / "out/ledger.jsonl"
    ledger.write_text(re.sub(r', "crc32": "\w+"}', "}", ledger.read_text()))
    frame.assign(value=0.25).to_parquet(zoo / "out/results.parquet", index=False)
    assert acc1(clipeval.read_results(zoo / "out")) == 0.25
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("failing", ["results.csv", "results.parquet"])
def test_two_renames_of_which_one_fails(zoo, run, value, monkeypatch, failing):
    put(zoo, "a")
    run()
    put(zoo, "b")
    real = Path.replace

    def replace(path, target):
        if target.name == failing:
            raise OSError(5, "Input/output error")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        assert run()[0] == 3
    for name in ("", "results.parquet", "results.csv"):
        assert acc1(clipeval.read_results(zoo / "out" / name)) == value("b"), name


# --rerun always


@pytest.mark.skipif(find_spec("clipeval.embeddings.entries") is None, reason="stores do not know runs")
def test_rerun_always_takes_nothing_from_the_cache(zoo, run, value, monkeypatch):
    """A cache filled by wrong code, with right checksums: the only way out is to measure anew."""
    from clipeval.models.encoder import OpenClipEncoder

    real = OpenClipEncoder.encode_images, OpenClipEncoder.encode_tokens
    put(zoo, "b")
    with monkeypatch.context() as patch:
        patch.setattr(OpenClipEncoder, "encode_images", lambda encoder, pixels: real[0](encoder, pixels).roll(9, 0))
        patch.setattr(OpenClipEncoder, "encode_tokens", lambda encoder, tokens: real[1](encoder, tokens).roll(1, 0))
        run(out="poisoned")
    assert acc1(run()[1]) < 0.7
    assert acc1(run("--rerun", "always")[1]) == value("b")
    assert acc1(run(out="later")[1]) == value("b"), "and the cache is right again"


# ledgers of the version before


def as_version_one(zoo: Path, facts=("source", "samples_seen")) -> None:
    """Rewrite OUT as clipeval wrote it before: facts in each row, no checksums, ids by the old formula."""
    from clipeval import config, datasets, digest

    frame = clipeval.read_results(zoo / "out")
    path = zoo / "out/ledger.jsonl"
    spec = models.resolve([str(zoo / "m.pt")], config.packaged())[0]
    info = models.describe(spec, offline=True)
    selection = datasets.resolve([f"folder:{zoo}/colours"], config.packaged())
    [(name, entry)] = selection.datasets.items()
    dataset = datasets.open_dataset(name, entry)
    lines = []
    for line in path.read_text().splitlines():
        old = json.loads(line)
        if old["kind"] != "cell":
            continue
        row = old["rows"][0]
        new = {"prompts_digest", "train_fingerprint", "checkpoint_identity"}
        rows = [vars(info) | {k: v for k, v in row.items() if k not in new} for row in old["rows"]]
        trains = row["task"] == "linear_probe"
        parts = {
            "model": row["model"],
            "weights": info.checkpoint_sha256,
            "metadata": info.samples_seen_from + repr((info.source, info.samples_seen, info.gmacs)),
            "dataset": row["dataset"],
            "split": row["split"],
            "other_splits": [entry.train_split, entry.val_split] if trains else None,
            "fingerprint": dataset.fingerprint,
            "prompts": digest.of_value([dataset.prompts.classes, dataset.prompts.templates]),
            "task": [row["task"], row["task_version"]],
            **{key: row[key] for key in ("shots", "seed", "protocol", "limit", "precision")},
        }
        cell = digest.of_value(parts)[:32]
        shutil.move(zoo / f"out/samples/{old['cell']}.parquet", zoo / f"out/samples/{cell}.parquet")
        lines.append(json.dumps({"kind": "cell", "cell": cell, "rows": rows}) + "\n")
    path.write_text("".join(lines))
    frame.drop(columns=["prompts_digest", "train_fingerprint", "checkpoint_identity"]).to_parquet(
        zoo / "out/results.parquet", index=False
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_an_earlier_version_called_fp32_on_a_gpu_is_measured_again(zoo, run, monkeypatch, precision):
    """Its convolutions were TF32; bf16 is what it was."""
    put(zoo, "a")
    run("--precision", precision)
    as_version_one(zoo)
    path = zoo / "out/ledger.jsonl"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    measured = []
    real = Workbench.measure
    monkeypatch.setattr(Workbench, "measure", lambda bench, cell: measured.append(cell.precision) or real(bench, cell))
    _, _, err = run("--precision", precision)
    assert measured == ["fp32"] * (precision == "fp32")
    assert ("computed fp32 with TF32 on a GPU" in err) == (precision == "fp32")


def test_an_earlier_ledger_is_read_and_kept_where_it_says_enough(zoo, run, monkeypatch):
    put(zoo, "a")
    _, before, _ = run("-t", "probe", "--shots", "full")
    as_version_one(zoo)
    measured = []
    real = Workbench.measure
    monkeypatch.setattr(Workbench, "measure", lambda bench, cell: measured.append(cell.task.short) or real(bench, cell))
    code, after, err = run("-t", "probe", "--shots", "full")
    assert code == 0
    assert measured == ["probe"], "what the training data were is not in the old id"
    assert "1 cells are measured again" in err
    columns = ["dataset", "task", "metric", "value", "n", "source", "samples_seen", "gmacs", "arch"]
    pd.testing.assert_frame_equal(after[columns], before[columns])
    measured.clear()
    run("-t", "probe", "--shots", "full")
    assert measured == []
    put(zoo, "b")
    run()
    assert measured == ["classification"], "other weights are other weights, whatever the formula"


def test_an_earlier_ledger_does_not_have_what_a_main_metric_asks_for_now(zoo, run):
    put(zoo, "a")
    run()
    as_version_one(zoo)
    asking = zoo / "asking.yaml"
    asking.write_text(f"datasets: {{colours: {{spec: 'folder:{zoo}/colours', main_metric: F1-macro_all}}}}")
    code, frame, _ = run("-c", asking, data="colours")
    assert code == 0
    assert set(frame.metric) == {"acc1", "acc5", "mean_per_class_recall", "F1-macro_all"}
