"""Fine-tuning from end to end: what it starts from, what it changes, and that it can be cut off anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from finetune_runs import NANO, base_checkpoint, small_config
from helpers import image_folder, tiny_checkpoint
from safetensors.torch import save_file
from tiny_run import assert_weights_close

import clipeval
from clipeval import config, models
from clipeval.errors import DataError, UsageError
from clipeval_train import checkpoint
from clipeval_train.finetune import classification
from clipeval_train.finetune.classification import finetune
from clipeval_train.trainer import Trainer

DIGITS = ["builtin:digits"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random checkpoint."""
    return base_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", source="toy", source_family="toys")


@pytest.fixture
def colours(tmp_path):
    """A folder of pictures in six colours."""
    return f"folder:{image_folder(tmp_path / 'colours')}"


def evaluations(path: Path) -> dict[tuple[int, str], float]:
    """acc1 by iteration and data set, as the run itself has measured it."""
    rows = checkpoint.load(path)["metadata"]["evaluations"]
    return {(row["iteration"], row["dataset"]): row["acc1"] for row in rows}


def measured(model: Path, task: str, out: Path, data: list[str] = DIGITS) -> dict[str, float]:
    """Values by metric that ``clipeval run`` finds."""
    table = clipeval.run(str(model), data, task, out=out, workers=0)
    return dict(zip(table.metric, table.value, strict=True))


@pytest.mark.parametrize("train_head", [False, True])
def test_before_the_first_step_it_is_the_zero_shot_classifier(base, tmp_path, train_head):
    path = finetune(small_config(base, DIGITS, tmp_path / "ft", train_head=train_head, iterations=3))
    theirs = measured(base, "classification", tmp_path / "zeroshot")
    [first, _] = checkpoint.load(path)["metadata"]["evaluations"]
    assert {name: first[name] for name in theirs} == theirs
    assert first["split"] == "test"
    assert first["n"] == 355


def test_a_probe_head_starts_at_the_probes_accuracy(base, tmp_path):
    path = finetune(small_config(base, DIGITS, tmp_path / "ft", head="probe", train_head=True, iterations=3))
    [first, _] = checkpoint.load(path)["metadata"]["evaluations"]
    theirs = measured(base, "probe", tmp_path / "probe")
    assert {name: first[name] for name in theirs} == theirs
    assert first["acc1"] > 0.5, "the probe of random features is far above chance, so the comparison says something"


def test_accuracy_rises_and_clipeval_finds_the_same_one(base, tmp_path):
    path = finetune(small_config(base, DIGITS, tmp_path / "ft", iterations=120, batch_size=32, lr=5e-3, warmup=10))
    found = evaluations(path)
    assert found[0, "digits"] < 0.25
    assert found[120, "digits"] > 0.35
    assert measured(tmp_path / "ft", "classification", tmp_path / "out")["acc1"] == found[120, "digits"]
    lines = [json.loads(line) for line in (tmp_path / "ft/log.jsonl").read_text().splitlines()]
    assert lines[-1]["samples"] == 120 * 32
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_only_the_image_tower_changes(base, tmp_path, colours):
    path = finetune(small_config(base, [*DIGITS, colours], tmp_path / "ft"))
    before, after = torch.load(base)["state_dict"], checkpoint.load(path)["state_dict"]
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("visual.")}
    heads = checkpoint.load(path)["heads"]
    assert list(heads) == ["digits", "colours"]
    assert not any(head["trained"] for head in heads.values())


def test_the_checkpoint_tells_where_it_comes_from(base, tmp_path):
    finetune(small_config(base, DIGITS, tmp_path / "ft"))
    row = clipeval.run(str(tmp_path / "ft"), DIGITS, out=tmp_path / "out", workers=0).iloc[0]
    assert (row["source"], row["source_family"], row["samples_seen"]) == ("toy", "toys", 1234)
    assert (row["stage"], row["init"]) == ("finetune", base.as_posix())
    assert row["from_scratch_filter"] == "fine-tuned on digits", "no point of a from-scratch law"
    assert (row["arch"], row["gmacs_total"]) == ("tiny", row["gmacs"] * 1234)


def test_preprocessing_of_the_base_is_kept(tmp_path):
    weights = torch.load(tiny_checkpoint(tmp_path / "base.pt", cfg=NANO))["state_dict"]
    folder = tmp_path / "released"
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": NANO, "preprocess_cfg": preprocess}))
    save_file(weights, folder / "open_clip_model.safetensors")
    path = finetune(small_config(f"local-dir:{folder}", DIGITS, tmp_path / "ft", iterations=3))
    loaded = [
        models.load(models.resolve([word], config.packaged())[0], device="cpu", precision="fp32", offline=True)
        for word in (f"local-dir:{folder}", str(path))
    ]
    assert loaded[0].preprocessing == loaded[1].preprocessing
    assert loaded[1].preprocessing.mean == (0.5, 0.5, 0.5)
    texts = ["a photo of the digit seven", "x " * 40]
    assert torch.equal(*(encoder.tokenize(texts) for encoder in loaded))


@pytest.fixture
def rich(base, colours):
    """A configuration in which everything that draws or accumulates is at work."""

    def configure(out, **changes):
        settings = {"train_head": True, "ema": 0.9, "drop_path": 0.3, "layer_decay": 0.8, "label_smoothing": 0.1}
        settings |= {"flip": 0.5, "randaugment": "rand-m9-mstd0.5", "grad_clip": 1.0, "hold_out": 0.2, "eval_every": 5}
        return small_config(base, [*DIGITS, colours], out, **settings | {"save_every": 4} | changes)

    return configure


def before_iteration(patch, wanted, act):
    """``act()`` before the gradient of an iteration."""
    done = Trainer.gradient

    def gradient(self, images, columns):
        if columns.iteration == wanted:
            act()
        return done(self, images, columns)

    patch.setattr(Trainer, "gradient", gradient)


class Kill(BaseException):
    """Stands for the end of the process."""


def killed():
    raise Kill


def test_a_run_cut_off_anywhere_gives_the_same_weights(rich, tmp_path, monkeypatch):
    whole = checkpoint.load(finetune(rich(tmp_path / "whole")))
    for stop in (3, 6, 11):
        out = tmp_path / f"cut-{stop}"
        with monkeypatch.context() as patch:
            before_iteration(patch, stop, killed)
            with pytest.raises(Kill):
                finetune(rich(out))
        assert sorted(path.name for path in out.glob("checkpoints/*")) == [
            f"iteration_{saved:08d}.pt" for saved in (4, 8) if saved <= stop
        ]
        resumed = checkpoint.load(finetune(rich(out)))
        assert same(whole["state_dict"], resumed["state_dict"])
        assert same(whole["heads"], resumed["heads"])
        assert whole["metadata"]["evaluations"] == resumed["metadata"]["evaluations"]
        logged = [line["samples"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())]
        assert logged == [16 * iteration for iteration in range(1, 13)]


def same(one, other) -> bool:
    """Whether two values are equal, tensors inside bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def test_a_signal_ends_the_run_with_a_checkpoint(rich, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        before_iteration(patch, 6, lambda: os.kill(os.getpid(), 15))
        with pytest.raises(KeyboardInterrupt):
            finetune(rich(tmp_path / "ft"))
    assert checkpoint.newest(tmp_path / "ft").name == "iteration_00000007.pt"
    whole, resumed = (checkpoint.load(finetune(rich(tmp_path / name))) for name in ("whole", "ft"))
    assert same(whole["state_dict"], resumed["state_dict"])


def test_a_finished_run_is_left_alone(rich, tmp_path, monkeypatch):
    path = finetune(rich(tmp_path / "ft"))
    before = path.read_bytes()
    monkeypatch.setattr(classification.models, "load", lambda *a, **k: pytest.fail("nothing needs to be loaded"))
    assert finetune(rich(tmp_path / "ft", save_every=3)) == path
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match=r"holds a run with lr: 0.001, and this one says 0.1. Give another `out`"):
        finetune(rich(tmp_path / "ft", lr=0.1))


def test_a_run_of_an_earlier_version_goes_on(rich, tmp_path):
    """Its checkpoints knew of no clock, no generators and fewer settings."""
    whole = checkpoint.load(finetune(rich(tmp_path / "ft")))
    path = tmp_path / "ft/checkpoints/iteration_00000008.pt"
    saved = torch.load(path)
    for mapping, keys in (
        (saved["resume"], ("clock", "rng")),
        (saved["metadata"], ("left_out", "rollbacks", "bad_samples", "gpu_hours")),
        (saved["metadata"]["config"], ("keep", "save_minutes", "micro_batch", "compile", "loggers")),
    ):
        for key in keys:
            del mapping[key]
    torch.save(saved, path)
    (tmp_path / "ft/latest").write_text("checkpoints/iteration_00000008.pt\n")
    resumed = checkpoint.load(finetune(rich(tmp_path / "ft")))
    assert same(whole["state_dict"], resumed["state_dict"])
    assert same(whole["heads"], resumed["heads"])
    assert whole["metadata"]["evaluations"] == resumed["metadata"]["evaluations"]


def test_what_time_saved_makes_room_and_what_was_asked_for_stays(base, tmp_path):
    finetune(small_config(base, DIGITS, tmp_path / "ft", save_minutes=1e-9, save_every=4))
    names = sorted(int(path.stem[-8:]) for path in (tmp_path / "ft/checkpoints").iterdir())
    assert names == [4, 8, 9, 10, 11, 12], "three that time saved, at 9, 10 and 11"


def test_a_broken_batch_is_left_out_and_told(base, tmp_path, monkeypatch):
    """NaN in iteration 6: back to the checkpoint of 4, and the stream goes on at 7."""
    seen, done = [], Trainer.gradient

    def gradient(self, images, columns):
        loss, norm = done(self, images, columns)
        seen.append(columns.iteration)
        return loss + (float("nan") if columns.iteration == 6 else 0.0), norm

    monkeypatch.setattr(Trainer, "gradient", gradient)
    path = finetune(small_config(base, DIGITS, tmp_path / "ft", save_every=4, on_nonfinite="rollback"))
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7, *range(7, 15)]
    metadata = checkpoint.load(path)["metadata"]
    assert (metadata["iteration"], metadata["rollbacks"], metadata["left_out"]) == (12, 1, 3 * 16)


def test_micro_batches_and_recomputed_activations_learn_the_same(base, tmp_path):
    settings = {"train_head": True, "grad_clip": 1.0, "label_smoothing": 0.1}
    changes = {"micro_batch": 5, "activation_checkpointing": True}
    whole, parts = (
        checkpoint.load(finetune(small_config(base, DIGITS, tmp_path / name, iterations=4, **settings | more)))
        for name, more in (("whole", {}), ("parts", changes))
    )
    assert_weights_close(parts["state_dict"], whole["state_dict"], atol=2e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_blocks_learn_the_same(base, tmp_path, monkeypatch, capsys):
    in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: in_place(block, backend="eager"))
    whole, compiled = (
        checkpoint.load(finetune(small_config(base, DIGITS, tmp_path / str(c), iterations=3, compile=c)))["state_dict"]
        for c in (False, True)
    )
    assert "compile: 2 blocks of transformer.resblocks." in capsys.readouterr().err
    assert_weights_close(compiled, whole, atol=2e-5)


def test_average_of_the_weights_in_closed_form(base, tmp_path):
    """With a decay of d, the average after one step is d times the start and 1 - d times the weights."""
    plain, averaged = (
        checkpoint.load(finetune(small_config(base, DIGITS, tmp_path / str(ema), iterations=1, warmup=0, ema=ema)))
        for ema in (None, 0.75)
    )
    start = torch.load(base)["state_dict"]
    for name, tensor in averaged["state_dict"].items():
        expected = start[name] + 0.25 * (plain["state_dict"][name] - start[name])
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-7)


def test_checkpoints_hold_the_average_to_evaluate_and_the_weights_to_go_on_from(base, tmp_path):
    finetune(small_config(base, DIGITS, tmp_path / "ft", ema=0.5, save_every=6))
    saved = checkpoint.load(tmp_path / "ft/checkpoints/iteration_00000006.pt")
    resume = saved["resume"]
    for name, tensor in saved["state_dict"].items():
        if name.startswith("visual."):
            key = f"tower.{name.removeprefix('visual.')}"
            assert torch.equal(tensor, resume["ema"][key])
            assert not torch.equal(tensor, resume["trained"][key])


def test_two_processes_train_as_one_does(base, tmp_path):
    settings = small_config(base, DIGITS, tmp_path / "two", iterations=4, train_head=True, grad_clip=1.0)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "clipeval_train", "finetune", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=180
    )
    assert done.returncode == 0, done.stderr
    two = checkpoint.load(checkpoint.newest(tmp_path / "two"))
    one = checkpoint.load(finetune(settings.model_copy(update={"out": str(tmp_path / "one")})))
    assert_weights_close(two["state_dict"], one["state_dict"], atol=2e-5)
    for ours, theirs in zip(one["metadata"]["evaluations"], two["metadata"]["evaluations"], strict=True):
        assert ours["n"] == theirs["n"]
        assert abs(ours["acc1"] - theirs["acc1"]) <= 2 / ours["n"]


def test_changed_inputs_are_refused_on_resume(rich, tmp_path, base, monkeypatch):
    with monkeypatch.context() as patch:
        before_iteration(patch, 5, killed)
        with pytest.raises(Kill):
            finetune(rich(tmp_path / "ft"))
    image_folder(tmp_path / "colours", per_class={"train": 10, "test": 5})
    with pytest.raises(DataError, match="the data has changed since this run began"):
        finetune(rich(tmp_path / "ft"))


def test_a_loss_that_is_not_finite_ends_the_run(base, tmp_path):
    content = torch.load(base)
    content["state_dict"]["visual.proj"][0, 0] = float("nan")
    torch.save(content, tmp_path / "broken.pt")
    with pytest.raises(clipeval.errors.MeasureError, match="holds NaN or infinity"):
        finetune(small_config(tmp_path / "broken.pt", DIGITS, tmp_path / "ft"))
    with pytest.raises(clipeval.errors.MeasureError, match=r"loss (nan|inf), gradient norm .* Lower lr, raise warmup"):
        finetune(small_config(base, DIGITS, tmp_path / "hot", lr=1e30, iterations=30))


@pytest.fixture
def typed(tmp_path, command):
    """(exit code, stdout, stderr) of ``clipeval-train finetune`` with a file of these keys."""

    def run(*settings, **keys):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(keys))
        return command("clipeval-train", "finetune", path, *settings)

    return run


def test_the_command_continues_and_prints_the_checkpoint(base, tmp_path, typed):
    keys = {"model": str(base), "data": DIGITS, "preset": "ilharco2022", "out": str(tmp_path / "ft"), "workers": 0}
    settings = "iterations=4", "warmup=1", "batch_size=8"
    path = f"{tmp_path / 'ft/checkpoints/iteration_00000004.pt'}\n"
    code, printed, told = typed(*settings, **keys)
    assert (code, printed) == (0, path), told
    assert "iteration 0: digits acc1" in told
    assert "iteration 4: digits acc1" in told
    assert typed(*settings, **keys) == (0, path, f"{tmp_path / 'ft'}: already finished.\n")


def test_wrong_input_ends_in_the_right_exit_code(base, tmp_path, typed):
    keys = {"model": str(base), "data": DIGITS, "preset": "ilharco2022", "out": str(tmp_path / "ft")}
    code, _, told = typed(**keys | {"preset": "joint9"})
    assert code == 2
    assert "'joint9' is not one. Did you mean 'joint8'?" in told
    image_folder(tmp_path / "one", classes=1)
    code, _, told = typed(**keys | {"data": [f"folder:{tmp_path / 'one'}"]})
    assert code == 3
    assert "one (train): all images have the label 0; a classifier needs at least two classes" in told


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": ["imagenetv2"]}, DataError, r"imagenetv2: .* has no training split. Take it out of `data`"),
        ({"data": ["nothing"]}, UsageError, "'nothing' is neither a data set"),
        ({"data": ["builtin:icons/material"]}, DataError, "fine-tuning needs one label per image"),
        ({"layer_decay": 0.5, "word": "{resnet}"}, UsageError, "this image tower has no row of them"),
        (
            {"word": "{folder}/*.pt"},
            UsageError,
            r"model: '.*' names 2 checkpoints, '.*base.pt' first. Name exactly one",
        ),
        ({"epochs": 0.01, "iterations": None}, UsageError, r"0.01 epochs of 1,442 images: warmup: 2 iterations"),
        ({"precision": "fp16"}, UsageError, "precision fp16 needs a CUDA GPU"),
    ],
)
def test_wrong_input_is_refused(changes, error, message, base, tmp_path):
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
    places = {"folder": str(tmp_path), "resnet": str(tmp_path / "resnet.pt")}
    tiny_checkpoint(tmp_path / "base.pt", cfg=NANO)
    tiny_checkpoint(tmp_path / "resnet.pt", cfg={**NANO, "vision_cfg": resnet})
    word = changes.get("word", str(base)).format(**places)
    others = {key: value for key, value in changes.items() if key not in ("word", "data")}
    with pytest.raises(error, match=message):
        finetune(small_config(word, changes.get("data", DIGITS), tmp_path / "ft", **others))


def test_class_lists_must_agree(base, tmp_path, monkeypatch):
    image_folder(tmp_path / "set")
    from clipeval_train.finetune import data

    opened = data.datasets.open_dataset

    def shorter(name, entry, split=None, **options):
        dataset = opened(name, entry, split, **options)
        if split == "train":
            prompts = dataset.prompts
            cut = type(prompts)(prompts.name, (*prompts.classes, "orange"), prompts.templates)
            object.__setattr__(dataset, "prompts", cut)
        return dataset

    monkeypatch.setattr(data.datasets, "open_dataset", shorter)
    with pytest.raises(DataError, match=r"set: 'train' has 7 classes and 'test' 6, or they differ in names"):
        finetune(small_config(base, [f"folder:{tmp_path / 'set'}"], tmp_path / "ft"))


def test_zero_shot_heads_need_class_names(base, tmp_path, monkeypatch, colours):
    from clipeval_train.finetune import data

    opened = data.datasets.open_dataset

    def nameless(*arguments, **options):
        dataset = opened(*arguments, **options)
        object.__setattr__(dataset, "prompts", None)
        object.__setattr__(dataset, "labels", dataset.labels * 7 - 3)
        return dataset

    monkeypatch.setattr(data.datasets, "open_dataset", nameless)
    with pytest.raises(DataError, match=r"colours: it has no class names, .* Use head: probe"):
        finetune(small_config(base, [colours], tmp_path / "zero"))
    for head in ("probe", "random"):  # labels that are not 0..K-1
        path = finetune(small_config(base, [colours], tmp_path / head, head=head, train_head=True))
        assert checkpoint.load(path)["heads"]["colours"]["classes"] == [-3, 4, 11, 18, 25, 32]
        assert evaluations(path)[12, "colours"] > 1 / 6


def test_bfloat16_trains_too(base, tmp_path):
    path = finetune(
        small_config(base, DIGITS, tmp_path / "ft", precision="bf16", iterations=60, batch_size=32, lr=5e-3)
    )
    found = evaluations(path)
    assert found[60, "digits"] > found[0, "digits"] + 0.1
    assert {tensor.dtype for tensor in checkpoint.load(path)["state_dict"].values()} == {torch.float32}


def test_batch_norm_keeps_its_statistics(tmp_path):
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
    base = tiny_checkpoint(tmp_path / "resnet.pt", cfg={**NANO, "vision_cfg": resnet})
    path = finetune(small_config(base, DIGITS, tmp_path / "ft", iterations=3))
    before, after = torch.load(base)["state_dict"], checkpoint.load(path)["state_dict"]
    running = [name for name in before if "running_" in name]
    assert running
    assert all(torch.equal(before[name], after[name]) for name in running)
    assert np.isfinite(list(evaluations(path).values())).all()
