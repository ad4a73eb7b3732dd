"""Recipes: presets, what wins over them, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from clipeval.errors import UsageError
from clipeval_train.finetune.config import load_finetune, load_patch, parse_recipe
from clipeval_train.finetune.presets import PRESETS


@pytest.fixture
def file(tmp_path):
    """A configuration file with the given keys."""

    def write(**keys):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({"model": "m.pt", "out": "runs/ft", **keys}))
        return path

    return write


def test_joint8_is_the_papers():
    # Cherti et al. 2023 (arXiv 2212.07143), section 4.4 and B.2.2
    recipe = parse_recipe("joint8", "test")
    assert (recipe.iterations, recipe.batch_size, recipe.lr, recipe.warmup) == (2000, 128, 1e-5, 200)
    assert (recipe.weight_decay, recipe.grad_clip, recipe.crop) == (0.1, 1.0, (0.9, 1.0))
    assert (recipe.head, recipe.train_head) == ("zeroshot", False)
    assert len(set(PRESETS["joint8"]["data"])) == 8


def test_joint8_names_data_sets_that_clipeval_knows():
    from clipeval import config, datasets

    assert list(datasets.resolve(PRESETS["joint8"]["data"], config.packaged()).datasets) == list(
        PRESETS["joint8"]["data"]
    )


def test_wise_ft_is_the_authors():
    # Wortsman et al. 2022 (arXiv 2109.01903)
    recipe = parse_recipe("wise-ft", "test")
    assert (recipe.lr, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (3e-5, 0.1, 512, 10)
    assert (recipe.warmup, recipe.grad_clip, recipe.train_head) == (500, 1.0, True)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_recipe(preset, file):
    config = load_finetune(file(preset=preset, data=["digits"]), [])
    assert config.data == ("digits",), "the file's data wins"
    assert all(getattr(config, key) == value for key, value in PRESETS[preset].items() if key != "data")


def test_settings_win_over_the_file_and_the_file_over_the_preset(file):
    config = load_finetune(file(preset="joint8", lr=1e-4, batch_size=64), ["batch_size=32", "data.0=digits"][:1])
    assert (config.lr, config.batch_size, config.warmup) == (1e-4, 32, 200)
    assert config.data == PRESETS["joint8"]["data"]


def test_a_length_of_the_file_replaces_the_presets_in_either_unit(file):
    assert load_finetune(file(preset="wise-ft", data=["digits"], iterations=900), []).epochs is None
    assert load_finetune(file(preset="joint8", epochs=2), []).iterations is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"preset": "joint-8"}, r"preset: 'joint-8' is not one. Did you mean 'joint8'\? Presets: ilharco2022, joint8"),
        (
            {"preset": "joint8", "learning_rate": 1},
            r"run.yaml: learning_rate: unknown key. Keys here: head, train_head",
        ),
        ({"preset": "joint8", "warm_up": 1}, r"warm_up: unknown key. Did you mean 'warmup'\?"),
        ({"preset": "ilharco2022"}, r"data: this key is required"),
        ({"preset": "joint8", "iterations": 5, "epochs": 1}, "give either `iterations` or `epochs`"),
        ({"preset": "joint8", "iterations": 200}, "200 iterations of warm-up and 0 of cooldown leave nothing of 200"),
        ({"preset": "joint8", "head": "random"}, "stays at chance"),
        ({"preset": "joint8", "crop": [0.5, 1.5]}, "crop: .* expected two shares"),
        ({"preset": "joint8", "randaugment": "rand-x9"}, "randaugment: 'rand-x9': expected timm's words"),
        ({"preset": "joint8", "randaugment": [2, 24]}, r"randaugment: expected text \(found \[2, 24\]\)"),
        ({"preset": "joint8", "lr": -1}, r"lr: input should be greater than 0 \(found -1"),
    ],
)
def test_wrong_recipes_are_refused(keys, message, file):
    with pytest.raises(UsageError, match=message):
        load_finetune(file(**keys), [])


def test_a_recipe_in_one_line():
    assert parse_recipe("ilharco2022  iterations=500 lr=3e-5", "x").lr == 3e-5
    with pytest.raises(UsageError, match=r"x: preset: '' is not one"):
        parse_recipe(" ", "x")
    with pytest.raises(UsageError, match=r"x: hold_out: unknown key"):
        parse_recipe("ilharco2022 hold_out=0.1", "x")


def test_patch_keys(tmp_path):
    path = tmp_path / "patch.yaml"
    path.write_text("{model: a.pt, finetuned: b.pt, data: [digits], out: o}")
    config = load_patch(path, ["control=icons"])
    assert config.alphas == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    assert (config.max_drop, config.control) == (1.0, "icons")
    with pytest.raises(UsageError, match=r"alphas: 1.5 is not between 0 and 1"):
        load_patch(path, ["alphas=[0, 1.5]"])
    with pytest.raises(UsageError, match=r"max_dro: unknown key. Did you mean 'max_drop'\?"):
        load_patch(path, ["max_dro=1"])
