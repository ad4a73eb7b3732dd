"""What a configuration file may say, for people and for editors."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from imports import ROOT

from clipeval import keys
from clipeval.config import Config
from clipeval.explained import user_keys
from clipeval_train.configurations import of_command
from clipeval_train.finetune.presets import PRESETS

COMMANDS = ("pretrain", "finetune", "patch", "ladder")
MODELS = [Config, *(of_command(name)[0] for name in COMMANDS)]


@pytest.mark.parametrize("model", MODELS)
def test_every_key_has_a_meaning(model):
    found = keys.rows(model)
    assert [row["name"] for row in found if "." not in row["name"]] == user_keys(model)
    assert [row["name"] for row in found if len(row["meaning"]) < 8] == []
    assert all("``" not in row["meaning"] and "None" not in row["meaning"] for row in found)


def test_types_and_defaults_are_in_the_words_of_a_file():
    found = {row["name"]: (row["type"], row["default"]) for row in keys.rows(of_command("pretrain")[0])}
    assert found["lr"] == ("number", "required")
    assert found["seed"] == ("whole number", "0")
    assert found["compile"] == ("true or false", "false")
    assert found["betas"] == ("[number, number]", "[0.9, 0.98]")
    assert found["loggers"] == ("list of tensorboard | wandb", "[]")
    assert found["model"] == ("text or mapping", "")
    assert found["data[].caption"] == ("mapping of names to number", "")
    assert found["evaluate.every"] == ("whole number", "required")
    assert "validate.data[].source" not in found  # they are those of data[]


def test_presets_are_named():
    [meaning] = [row["meaning"] for row in keys.rows(of_command("finetune")[0]) if row["name"] == "preset"]
    assert all(name in meaning for name in PRESETS)


@pytest.mark.parametrize("command_name", COMMANDS)
def test_on_the_command_line(command, command_name):
    code, out, err = command("clipeval-train", command_name, "--keys")
    assert (code, err) == (0, "")
    assert out.rstrip().endswith(f"{len(keys.rows(of_command(command_name)[0]))} keys")
    code, out, _ = command("clipeval-train", command_name, "--schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


def test_keys_of_benchmarks_yaml(command):
    code, out, _ = command("clipeval", "list", "keys", "rules")
    assert code == 0
    assert "rules[].max_drop" in out
    assert "datasets.NAME.spec" not in out
    assert json.loads(command("clipeval", "list", "keys", "--json")[1]) == keys.schema(Config)


EXAMPLES = {"pretrain.yaml": "pretrain", "finetune.yaml": "finetune", "patch.yaml": "patch", "ladder.yaml": "ladder"}


@pytest.mark.parametrize(("file", "name"), EXAMPLES.items())
def test_an_editor_accepts_the_examples_and_marks_mistakes(file, name):
    schema = jsonschema.Draft202012Validator(keys.schema(*of_command(name)))
    document = yaml.safe_load((ROOT / "examples" / file).read_text("utf-8"))
    schema.validate(document)
    assert [error.message for error in schema.iter_errors(document | {"sampels": 1})]
    assert [error.message for error in schema.iter_errors({key: document[key] for key in document if key != "out"})]


@pytest.mark.parametrize("file", ["benchmarks.yaml", "examples/icons.yaml"])
def test_an_editor_accepts_benchmarks(file):
    schema = jsonschema.Draft202012Validator(keys.schema(Config))
    schema.validate(yaml.safe_load((ROOT / file).read_text("utf-8")))
    short = "datasets: {b: 'folder:/b'}\nsuites: {s: [b]}\nmodels: ['RN50,cc12m', {spec: x, preprocess: {mean: 0.5}}]\n"
    schema.validate(yaml.safe_load(short + "rules: [{on_trend: true}]"))
    for wrong in ("datasets: {b: {spce: x}}", "own_datasets: [b]", "rules: [{max_drop: much}]"):
        assert not schema.is_valid(yaml.safe_load(wrong)), wrong
