"""Patching: exact ends, the choice of alpha by hand, and honesty about what it was chosen on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from finetune_runs import base_checkpoint, small_config
from helpers import image_folder

import clipeval
from clipeval.errors import ModelError
from clipeval_train import checkpoint
from clipeval_train.cli import main
from clipeval_train.finetune.classification import finetune
from clipeval_train.finetune.config import PatchConfig
from clipeval_train.finetune.patch import CONTROL, TARGET, Patched, Point, choose, interpolated, patch, print_curve


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base, what fine-tuning on digits made of it with and without held-out samples, and a control data set."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLIPEVAL_CACHE", str(root / "cache"))
        base = base_checkpoint(root / "base.pt", source="toy")
        for name, share in (("plain", 0.0), ("held", 0.1)):
            finetune(small_config(base, ["digits"], root / name, iterations=60, batch_size=32, lr=5e-3, hold_out=share))
        image_folder(root / "colours")
    return root


def patch_config(runs, out, **changes) -> PatchConfig:
    """Digits as target, colours as control, ends and middle."""
    settings = {"model": str(runs / "base.pt"), "finetuned": str(runs / "plain"), "data": ["digits"], "workers": 0}
    settings |= {"control": f"folder:{runs / 'colours'}", "alphas": [0.5, 1.0], "max_drop": 100.0, "out": str(out)}
    return PatchConfig.model_validate(settings | changes)


def weights(path):
    """A checkpoint's weights."""
    return torch.load(path)["state_dict"]


def zero_shot(model, data, out):
    """acc1 by ``clipeval run``."""
    table = clipeval.run(str(model), data, "classification", out=out, workers=0)
    return table.loc[table.metric == "acc1"].set_index("dataset").value.to_dict()


@pytest.mark.parametrize(("alpha", "end"), [(0.0, "base.pt"), (1.0, "plain/checkpoints/iteration_00000060.pt")])
def test_both_ends_are_exact(alpha, end, runs, tmp_path):
    found = patch(patch_config(runs, tmp_path / "out", alphas=[alpha]))
    assert found.alpha == alpha, "fine-tuning has helped"
    ours, theirs = weights(found.path), weights(runs / end)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    data = ["digits", f"folder:{runs / 'colours'}"]
    accuracies = {point.dataset: point.acc1 for point in found.points if point.alpha == alpha}
    assert accuracies == zero_shot(runs / end, data, tmp_path / "theirs")
    assert accuracies == zero_shot(tmp_path / "out", data, tmp_path / "ours"), "the patched run is a MODEL spec"


def test_between_the_ends_only_the_image_tower_is_mixed():
    start = {"visual.a": torch.tensor([1.0, -3.0]), "visual.n": torch.tensor(3), "text": torch.tensor([5.0])}
    end = {"visual.a": torch.tensor([2.0, 1.0]), "visual.n": torch.tensor(4), "text": torch.tensor([9.0])}
    mixed = interpolated(start, end, 0.25)
    assert mixed["visual.a"].tolist() == [1.25, -2.0]
    assert mixed["text"].tolist() == [5.0]
    negative_zero = interpolated({"visual.a": torch.tensor(-0.0)}, {"visual.a": torch.tensor(1.0)}, 0.0)["visual.a"]
    assert torch.signbit(negative_zero), "bit for bit"


def curve(targets, controls, n=1000, chosen_on=True):
    """Points of two targets and one control at alpha 0, 0.1, ..."""
    points = []
    for step, (pair, control) in enumerate(zip(targets, controls, strict=True)):
        named = [*((f"t{k}", TARGET, value) for k, value in enumerate(pair)), ("c", CONTROL, control)]
        points += [Point(step / 10, name, role, "test", value, n, chosen_on) for name, role, value in named]
    return points


@pytest.mark.parametrize(
    ("targets", "controls", "max_drop", "alpha"),
    [
        ([(0.2, 0.4), (0.5, 0.5), (0.9, 0.3)], [0.700, 0.695, 0.690], 1.0, 0.2),  # means 0.3, 0.5, 0.6
        ([(0.2, 0.4), (0.5, 0.5), (0.9, 0.3)], [0.700, 0.695, 0.689], 1.0, 0.1),  # 0.2 loses 1.1 points
        ([(0.2, 0.4), (0.5, 0.5), (0.9, 0.3)], [0.700, 0.699, 0.699], 0.0, 0.0),  # not a single image may be lost
        ([(0.2, 0.4), (0.5, 0.5), (0.9, 0.3)], [0.700, 0.800, 0.500], 5.0, 0.1),  # gains are welcome
        ([(0.2, 0.4), (0.6, 0.4), (0.4, 0.6)], [0.700, 0.700, 0.700], 1.0, 0.1),  # of equal means the smallest alpha
        ([(0.6, 0.4), (0.5, 0.5), (0.4, 0.6)], [0.700, 0.700, 0.700], 1.0, 0.0),
    ],
)
def test_choice_by_hand(targets, controls, max_drop, alpha):
    better_on_test = curve([(1.0, 1.0)] * 3, [1.0] * 3, chosen_on=False)
    assert choose(curve(targets, controls) + better_on_test, max_drop) == alpha


def test_a_drop_of_exactly_the_bound_is_allowed_whatever_the_rounding():
    for before in range(100, 1000, 7):
        points = curve([(0.1, 0.1), (0.9, 0.9)], [before / 1000, (before - 10) / 1000])
        assert choose(points, 1.0) == 0.1


def test_alpha_is_chosen_on_held_out_samples_where_there_are_some(runs, tmp_path):
    found = patch(patch_config(runs, tmp_path / "held", finetuned=str(runs / "held")))
    used = {(point.dataset, point.split, point.chosen_on, point.n) for point in found.points}
    assert used == {
        ("digits", "train (held out)", True, 143),
        ("digits", "test", False, 355),
        ("colours", "test", True, 31),
    }
    assert {point.alpha for point in found.points if not point.chosen_on} == {0.0, found.alpha, 1.0}
    held = json.loads((tmp_path / "held/patch.json").read_text())
    assert held["alpha"] == found.alpha

    plain = patch(patch_config(runs, tmp_path / "plain"))
    assert {(point.dataset, point.split, point.chosen_on) for point in plain.points} == {
        ("digits", "test", True),
        ("colours", "test", True),
    }


def test_held_out_samples_were_not_trained_on(runs):
    from clipeval.config import packaged
    from clipeval_train.finetune.data import open_sets, without_held_out

    [trained], [everything] = (open_sets(["digits"], packaged(), share) for share in (0.1, 0.0))
    _, held = without_held_out(everything.train, 0.1)
    assert not set(trained.train.ids) & set(held.ids)
    assert {*trained.train.ids, *held.ids} == set(everything.train.ids)
    fingerprint = checkpoint.load(checkpoint.newest(runs / "held"))["metadata"]["data"]["digits"]
    assert fingerprint.endswith(f":{len(trained.train)}")


def test_validation_split_goes_first(runs, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    image_folder(folder, per_class={"train": 4, "test": 3, "val": 2})
    (tmp_path / "benchmarks.yaml").write_text(
        yaml.safe_dump({"datasets": {"mine": {"spec": f"folder:{folder}", "val_split": "val"}}})
    )
    monkeypatch.chdir(tmp_path)
    found = patch(patch_config(runs, tmp_path / "out", data=["mine"], control=None))
    assert {(point.split, point.chosen_on) for point in found.points} == {("val", True), ("test", False)}


@pytest.mark.parametrize("width", range(40, 201, 20))
def test_a_curve_fits_into_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    kinds = [(f"data-set-{n}", "control" if n else "target", "train (held out)", True) for n in range(6)]
    points = [
        Point(alpha, name, role, split, 0.01 * n + alpha / 2, 100, on)
        for alpha in (0.0, 0.2, 1.0)
        for n, (name, role, split, on) in enumerate(kinds)
    ]
    print_curve(Patched(0.2, points, Path("x")))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > width or line != line.rstrip()] == []
    text = " ".join(lines)
    assert all(f"{100 * point.acc1:.2f}" in text for point in points)
    assert "→ 0.2" in text
    if width == 200:
        assert [line.split()[0] for line in lines[1:4]] == ["data-set-0", "train", "alpha"], "heads of three lines"


def test_curve_and_table(runs, tmp_path, monkeypatch, capsys):
    path = tmp_path / "patch.yaml"
    path.write_text(yaml.safe_dump(patch_config(runs, tmp_path / "out").model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["clipeval-train", "patch", str(path), "alphas=[0.25]"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out.splitlines()
    table = pd.read_csv(tmp_path / "out/curve.csv")
    assert table.alpha.tolist() == [0, 0, 0.25, 0.25]
    assert np.isfinite(table.acc1).all()
    for row in table.itertuples():
        line = next(
            line for line in printed if line.split()[-3:][0:1] == [f"{row.alpha:g}"] or f" {row.alpha:g} " in line
        )
        assert f"{100 * row.acc1:.2f}" in line
    assert printed[-1].startswith(str(tmp_path / "out/checkpoints/alpha_"))
    facts = checkpoint.load(checkpoint.newest(tmp_path / "out"))["metadata"]
    assert facts["stage"] == "patch"
    assert facts["from_scratch_filter"] == "patched on digits"
    assert facts["source"] == "toy"


def test_what_does_not_belong_together_is_refused(runs, tmp_path):
    other = base_checkpoint(tmp_path / "other.pt", seed=1)
    with pytest.raises(ModelError, match=r"was made from '.*base.pt', whose weights are not those of '.*other.pt'"):
        patch(patch_config(runs, tmp_path / "a", model=str(other)))
    with pytest.raises(ModelError, match=r"has another 'positional_embedding' than '.*base.pt'. Only the image tower"):
        patch(patch_config(runs, tmp_path / "b", finetuned=str(other)))
    from helpers import tiny_checkpoint

    tiny = tiny_checkpoint(tmp_path / "tiny.pt")
    with pytest.raises(ModelError, match="is of another architecture than"):
        patch(patch_config(runs, tmp_path / "c", finetuned=str(tiny)))


def test_one_tower_file_of_other_makes_can_be_patched(runs, tmp_path):
    """A checkpoint without a record of its origin is fine as long as everything but the image tower agrees."""
    content = torch.load(checkpoint.newest(runs / "plain"))
    del content["metadata"]["init_sha256"]
    torch.save(content, tmp_path / "unknown.pt")
    found = patch(patch_config(runs, tmp_path / "out", finetuned=str(tmp_path / "unknown.pt")))
    assert found.points == patch(patch_config(runs, tmp_path / "again")).points
