"""Configuration files: numbers as people write them, settings on the command line, errors that name the place."""

import math
from pathlib import Path

import pytest

from clipeval.errors import UsageError
from clipeval_train.config import EvaluateEntry, PretrainConfig, SourceEntry, load_pretrain
from clipeval_train.model import resolve

TEXT = """
model: ViT-B-32
data:
  - {source: a, shards: "builtin:digits", weight: 2}
  - {source: b, shards: "builtin:icons/material"}
samples: 3_000_000
batch_size: 64
lr: 1e-3
warmup: 1.0e5
out: runs/x
"""


@pytest.fixture
def load(tmp_path):
    def load(*settings, text=TEXT):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_pretrain(path, list(settings))

    return load


def test_numbers_with_exponents_and_underscores(load):
    config = load()
    assert (config.samples, config.lr, config.warmup) == (3_000_000, 0.001, 100_000)
    assert (config.weight_decay, config.betas, config.eps, config.precision) == (0.2, (0.9, 0.98), 1e-6, "auto")


def test_settings_win_and_reach_into_lists_and_mappings(load):
    config = load("lr=5e-4", "data.0.source=mine", "data.1.weight=0.5", "samples=4_000_000", "save_every=1e6")
    assert (config.lr, config.samples, config.save_every) == (5e-4, 4_000_000, 1_000_000)
    assert [(entry.source, entry.weight) for entry in config.data] == [("mine", 2.0), ("b", 0.5)]


def test_inline_models_take_settings_and_exponents(load):
    text = TEXT.replace("ViT-B-32", "{embed_dim: 8, vision_cfg: {width: 8}, text_cfg: {width: 8}}")
    config = load("model.embed_dim=32", "model.vision_cfg.ls_init_value=1e-5", text=text)
    assert config.model == {
        "embed_dim": 32,
        "vision_cfg": {"width": 8, "ls_init_value": 1e-5},
        "text_cfg": {"width": 8},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["batchsize=3"], r"run.yaml batchsize=3: batchsize: unknown key. Did you mean 'batch_size'\?"),
        (
            ["data.0.shard=x"],
            r"data\[0\].shard: unknown key. Did you mean 'shards'\? Keys here: source, shards, weight",
        ),
        (["lr=fast"], r"lr: expected a number.*found 'fast'"),
        (["lr=.inf"], r"lr: input should be a finite number"),
        (["samples=0"], r"samples: input should be greater than 0"),
        (["samples=1.5"], r"samples: expected a whole number"),
        (["precision=fp8"], r"precision: input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        (["data=[]"], r"data: the list should have at least 1 item"),
        (["data.0.weight=-1"], r"data\[0\].weight: input should be greater than 0"),
        (["warmup=3_000_000"], r"warmup: 3000000 samples of warm-up leave nothing of a run of 3000000"),
        (["cooldown=5"], r"cooldown: belongs to `schedule: constant`; the cosine ends at zero by itself"),
        (["schedule=constant", "cooldown=2_999_999"], r"cooldown: 100000 samples of warm-up and 2999999 of cooldown"),
        (["ema=1"], r"ema: input should be less than 1"),
        (["keep=0"], r"keep: input should be greater than 0"),
        (["evaluate.every=5"], r"evaluate.datasets: this key is required"),
        (
            ["evaluate.evry=5", "evaluate.datasets=[digits]"],
            r"evaluate.evry: unknown key. Did you mean 'every'\? Keys here: every, datasets, tasks",
        ),
        (["loggers=[tensorbord]"], r"loggers\[0\]: input should be 'tensorboard' or 'wandb'"),
        (["on_nonfinite=skip"], r"on_nonfinite: input should be 'stop' or 'rollback'"),
        (["lr"], r"'lr': expected KEY=VALUE"),
        (["model..x=1"], r"'model..x=1': expected KEY=VALUE"),
        (["data.2.source=x"], r"'data.2.source=x': data is a list of 2: name an entry by its number from 0"),
        (["data.first.source=x"], r"data is a list of 2"),
        (["model.embed_dim=8"], r"'model.embed_dim=8': model is 'ViT-B-32' in the file, which has no keys inside"),
        (["lr={"], r"'lr=\{':\d+:\d+: not valid YAML"),
    ],
)
def test_mistakes_are_named(load, settings, message):
    with pytest.raises(UsageError, match=message):
        load(*settings)


def test_a_missing_key_is_named(load):
    with pytest.raises(UsageError, match=r"run.yaml: out: this key is required"):
        load(text=TEXT.replace("out: runs/x", ""))


def test_a_file_that_is_missing_or_no_mapping(load, tmp_path):
    with pytest.raises(UsageError, match="cannot read the configuration"):
        load_pretrain(tmp_path / "none.yaml", [])
    with pytest.raises(UsageError, match="expected a mapping with the keys model, init, lock, arch, data"):
        load(text="- 1")


INLINE = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-B-23", r"model: 'ViT-B-23' is not an architecture of open_clip. Did you mean 'ViT-B-32'\?"),
        (INLINE | {"embed_dims": 3}, r"model.embed_dims: unknown key. Did you mean 'embed_dim'\?"),
        (INLINE | {"vision_cfg": {"layer": 3}}, r"model.vision_cfg.layer: unknown key. Did you mean 'layers'\?"),
        (INLINE | {"text_cfg": {"head": 3}}, r"model.text_cfg.head: unknown key. Did you mean 'heads'\?"),
        ({"embed_dim": 8, "vision_cfg": {}}, r"model.text_cfg: expected a mapping"),
        (INLINE | {"embed_dim": "x"}, r"model.embed_dim: expected the width of the shared space"),
        (INLINE | {"vision_cfg": {"image_size": [8, 16]}}, r"model.vision_cfg.image_size: expected one whole number"),
        (
            "coca_ViT-B-32",
            r"model: 'coca_ViT-B-32' needs multimodal_cfg, which a contrastive loss alone does not train",
        ),
    ],
)
def test_model_mistakes_are_named(model, message):
    with pytest.raises(UsageError, match=message):
        resolve(model, "custom")


def test_a_sigmoid_loss_begins_where_its_paper_does():
    config = resolve(INLINE, "custom", "siglip").config
    assert (config["init_logit_scale"], config["init_logit_bias"]) == (pytest.approx(math.log(10)), -10)
    assert resolve(INLINE | {"init_logit_bias": -5.0}, "custom", "siglip").config["init_logit_bias"] == -5
    assert "init_logit_bias" not in resolve(INLINE, "custom").config
    assert resolve("ViT-B-16-SigLIP", "", "siglip").config["custom_text"]


def test_there_are_fewer_than_fifty_options():
    models = (PretrainConfig, SourceEntry, EvaluateEntry)
    assert sum(len(model.model_fields) for model in models) < 50


def test_the_example_is_valid():
    config = load_pretrain(Path(__file__).parents[2] / "examples/pretrain.yaml", [])
    architecture = resolve(config.model, config.arch)
    assert architecture.name == "nano-64"
    assert architecture.config["embed_dim"] == 64
    assert config.lr == 2e-3


def test_a_source_is_written_as_before_where_younger_keys_change_nothing():
    """A checkpoint of an earlier version has an equal configuration: its run goes on."""
    entry = {"source": "s", "shards": "a.tar"}
    assert SourceEntry(**entry).model_dump(mode="json") == entry | {"weight": 1.0}
    assert SourceEntry(**entry, bad_shards=2).model_dump(mode="json") == entry | {"weight": 1.0, "bad_shards": 2}
