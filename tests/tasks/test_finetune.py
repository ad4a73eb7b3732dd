"""``clipeval run -t finetune``: rows like any task's, from the trainer's own code."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.errors import UsageError

RECIPE = "ilharco2022 iterations=12 batch_size=16 lr=1e-3 warmup=2"


@pytest.fixture
def checkpoint(tmp_path):
    """A small checkpoint that tells class names apart."""
    path = tiny_checkpoint(tmp_path / "tiny.pt")
    content = torch.load(path)
    content["state_dict"]["token_embedding.weight"] *= 50
    torch.save(content, path)
    return str(path)


@pytest.fixture
def configured(tmp_path):
    """A configuration file with a recipe for the task."""

    def write(**settings):
        path = tmp_path / "benchmarks.yaml"
        path.write_text(yaml.safe_dump({"tasks": {"finetune": {"protocol": RECIPE, **settings}}}))
        return path

    return write


def accuracy(table: pd.DataFrame, task: str = "finetune") -> list[float]:
    """acc1 in the order of the table."""
    return table[(table.task == task) & (table.metric == "acc1")].value.tolist()


def test_rows_of_the_task(checkpoint, configured, tmp_path):
    folder = f"folder:{image_folder(tmp_path / 'colours')}"
    run = {"datasets": folder, "workers": 0, "config": configured()}
    table = clipeval.run(checkpoint, tasks=["classification", "finetune"], out=tmp_path / "a", **run)
    rows = table[table.task == "finetune"]
    assert rows.metric.tolist() == ["acc1", "acc5", "mean_per_class_recall"]
    assert set(rows.protocol) == {RECIPE}
    assert set(rows.status) == {"ok"}
    assert (rows.n == 31).all()
    notes = json.loads(rows.notes.iloc[0])
    assert notes["acc1_before"] == accuracy(table, "zeroshot_classification")[0], (
        "it starts as the zero-shot classifier"
    )
    assert notes["train_samples"] == 55
    assert notes["recipe"]["weight_decay"] == 0.1
    assert accuracy(table)[0] > notes["acc1_before"]
    samples = pd.concat(pd.read_parquet(path) for path in (tmp_path / "a/samples").rglob("*.parquet"))
    assert set(samples.groupby("id").size()) == {2}, "both tasks leave one outcome per image"

    again = clipeval.run(checkpoint, tasks="finetune", out=tmp_path / "b", **run)
    assert accuracy(again) == accuracy(table), "the same seed gives the same weights"
    other = clipeval.run(checkpoint, tasks="finetune", out=tmp_path / "c", seed=1, **run)
    assert other.seed.unique().tolist() == [1]


def test_the_checkpoint_is_left_as_it_was(checkpoint, configured, tmp_path):
    folder = f"folder:{image_folder(tmp_path / 'colours')}"
    before = clipeval.run(checkpoint, folder, "classification", out=tmp_path / "a", workers=0)
    both = clipeval.run(
        checkpoint, folder, ["finetune", "classification"], out=tmp_path / "b", workers=0, config=configured()
    )
    assert accuracy(both, "zeroshot_classification") == accuracy(before, "zeroshot_classification")


def test_the_recipe_is_part_of_a_cells_identity(checkpoint, configured, tmp_path):
    folder = f"folder:{image_folder(tmp_path / 'colours')}"
    run = {"models": checkpoint, "datasets": folder, "tasks": "finetune", "out": tmp_path / "out", "workers": 0}
    clipeval.run(config=configured(), **run)
    lines = (tmp_path / "out/ledger.jsonl").read_text().count("\n")
    clipeval.run(config=configured(), **run)
    assert (tmp_path / "out/ledger.jsonl").read_text().count("\n") == lines, "measured once"
    table = clipeval.run(config=configured(protocol=f"{RECIPE} label_smoothing=0.1"), **run)
    assert set(table.protocol) == {RECIPE, f"{RECIPE} label_smoothing=0.1"}


def test_few_shots(checkpoint, configured, tmp_path):
    folder = f"folder:{image_folder(tmp_path / 'colours')}"
    table = clipeval.run(
        checkpoint, folder, "finetune", out=tmp_path / "o", workers=0, shots=[2], config=configured(seeds=2)
    )
    rows = table[table.metric == "acc1"]
    assert rows.shots.tolist() == [2, 2]
    assert rows.seed.tolist() == [0, 1]
    assert [json.loads(note)["train_samples"] for note in rows.notes] == [12, 12]


def test_what_cannot_be_trained_on_says_why(checkpoint, configured, tmp_path):
    image_folder(tmp_path / "single", classes=1)
    image_folder(tmp_path / "untrained", per_class={"test": 3})
    caption_shards(tmp_path / "pairs")
    words = [f"folder:{tmp_path / 'single'}", f"folder:{tmp_path / 'untrained'}", f"wds:{tmp_path / 'pairs'}"]
    table = clipeval.run(checkpoint, words, "finetune", out=tmp_path / "o", workers=0, config=configured())
    reasons = dict(zip(table.dataset, zip(table.status, table.error, strict=True), strict=True))
    assert reasons["single"][0] == "failed"
    assert (
        "single (train): all images have the label 0; a classifier needs at least two classes" in reasons["single"][1]
    )
    assert reasons["untrained"][0] == "failed"
    assert "has no split 'train'" in reasons["untrained"][1]
    assert reasons["pairs"] == ("skipped", "pairs has no labels")


def test_without_a_training_split_it_is_skipped(checkpoint, configured, tmp_path):
    config = configured()
    folder = image_folder(tmp_path / "colours")
    content = yaml.safe_load(config.read_text())
    content["datasets"] = {"mine": {"spec": f"folder:{folder}", "train_split": None}}
    config.write_text(yaml.safe_dump(content))
    table = clipeval.run(checkpoint, "mine", "finetune", out=tmp_path / "o", workers=0, config=config)
    assert table[["status", "error"]].to_numpy().tolist() == [["skipped", "mine has no training split"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "joint9"}, r"tasks.finetune.protocol: preset: 'joint9' is not one. Did you mean 'joint8'\?"),
        ({"protocol": "ilharco2022 lrr=1"}, r"tasks.finetune.protocol: lrr: unknown key. Did you mean 'lr'\?"),
        (
            {"protocol": "ilharco2022 iterations=100"},
            "200 iterations of warm-up and 0 of cooldown leave nothing of 100",
        ),
        ({"shot": [1]}, r"tasks.finetune.shot: unknown key. Did you mean 'shots'\?"),
    ],
)
def test_a_wrong_recipe_stops_the_run_before_it_starts(settings, message, checkpoint, configured, tmp_path):
    with pytest.raises(UsageError, match=message):
        clipeval.run(checkpoint, "digits", "finetune", out=tmp_path / "o", config=configured(**settings))


def test_the_trainer_is_not_imported_for_other_tasks():
    code = (
        "import sys; from clipeval.tasks import TASKS, load_task\n"
        "for spec in TASKS.values(): spec.name == 'finetune' or load_task(spec)\n"
        "print([m for m in sys.modules if m.startswith('clipeval_train')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
