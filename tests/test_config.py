"""benchmarks.yaml: what is wrong in it is named with its path, and with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipeval import config, yaml_file
from clipeval.errors import UsageError


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "benchmarks.yaml"
        path.write_text(text, "utf-8")
        return path

    return _write


def test_one_line_adds_a_data_set(write):
    loaded = config.load(write("datasets: {mine: 'folder:/data/mine'}"))
    assert loaded.datasets["mine"].spec == "folder:/data/mine"
    assert loaded.own_datasets == ("mine",)
    assert "digits" in loaded.datasets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {}", r"dataset: unknown key. Did you mean 'datasets'\?"),
        ("datasets: {a: {spec: x, splt: test}}", r"datasets\.a\.splt: unknown key. Did you mean 'split'\?"),
        ("models: [{arch: a, pretrain: b}]", r"models\[0\]\.pretrain: unknown key. Did you mean 'pretrained'\?"),
        ("zoos: {z: [{nam: b}]}", r"zoos\.z\[0\]\.nam: unknown key. Did you mean 'name'\?"),
        ("suites: {s: {member: [b]}}", r"suites\.s\.member: unknown key. Did you mean 'members'\?"),
        ("tasks: {linear_probe: {shot: [1]}}", r"tasks\.linear_probe\.shot: unknown key. Did you mean 'shots'\?"),
        ("tasks: {linear_prob: {}}", r"tasks\.linear_prob: unknown key. Did you mean 'linear_probe'\?"),
        ("datasets: {a: {spec: x, n: -1}}", r"datasets\.a\.n: input should be greater than 0 \(found -1\)"),
        ("datasets: [1]", r"datasets: expected a mapping \(found \[1\]\)"),
        ("datasets: {a: }", r"datasets\.a: expected a mapping with the keys spec, split.*\(found nothing\)"),
        ("datasets: {a: {spec: x, tasks: probe}}", r"a\.tasks: expected a list: \[probe\] \(found 'probe'\)"),
        ("datasets: {a: {spec: [x]}}", r"datasets\.a\.spec: expected text \(found \['x'\]\)"),
        ("datasets: {a: {spec: x, n: many}}", r"datasets\.a\.n: expected a whole number \(found 'many'\)"),
        ("rules: [{complete: 1}]", r"rules\[0\]\.complete: expected true or false \(found 1\)"),
        ("datasets:\n  no: builtin:digits", r"yaml:2:3: .*the key 'no' is read as false: write it in quotes"),
        ("suites: {2024: [a]}", r"yaml:1:10: .*the key '2024' is read as 2024: write it in quotes"),
        ("datasets: {~: x}", "the key '~' is read as nothing: write it in quotes"),
        (
            "models: [{spec: x, preprocess: {men: 1}}]",
            r"models\[0\]\.preprocess\.men: unknown key. Did you mean 'mean",
        ),
        ("models: [{spec: x, preprocess: {mean: [1, 2]}}]", r"models\[0\]\.preprocess\.mean"),
        ("models: [{spec: x, preprocess: {std: 0}}]", r"models\[0\]\.preprocess\.std"),
        ("models: [{spec: x, image_size: 0}]", r"models\[0\]\.image_size"),
        ("- 1", "expected a mapping"),
        ("path: x", "path: unknown key"),
        ("a: [1\n", "benchmarks.yaml:2:1: not valid YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system ['false']", "could not determine a constructor"),
        ("datasets: {d: {spec: x, metadata: region}}", r"datasets\.d\.metadata: expected a list: \[region\]"),
        ("datasets: {d: {spec: x, metadata: [a, b, a]}}", r"datasets\.d\.metadata: a field is named twice"),
        ("datasets: {d: {spec: x, metadata: []}}", r"datasets\.d\.metadata: the list should have at least 1 item"),
        ("datasets: {d: {spec: x, metadata: [a, no]}}", r"datasets\.d\.metadata\[1\]: expected text \(found false\)"),
    ],
)
def test_wrong_files_name_the_place(write, text, message):
    with pytest.raises(UsageError, match=message):
        config.load(write(text))


def test_missing_file():
    with pytest.raises(UsageError, match=r"nothing\.yaml: cannot read the configuration: No such file"):
        config.load("nothing.yaml")


def test_no_file_gives_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "vtab+" in config.load().suites


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 0x" + "f" * 5000, "a number of"),
        ("a: " + "9" * 5000, "a number of"),
        ("a: " + ":".join(["1"] * 200_000), "a number of"),
        ("a: " + ":".join(["1"] * 400) + ".5", "a number of"),
        ("? 0x" + "f" * 5000 + "\n: 1", "a number of"),
        ("!!int ''", "'' is not of the type int"),
        ("a: !!timestamp 'x'", "1:4: not valid YAML: 'x' is not of the type timestamp"),
        ("a: !!bool 'x'", "'x' is not of the type bool"),
        ("a: 2001-99-99", "'2001-99-99' is not of the type timestamp"),
        ("models: []\nmodels: [x]", "2:1: not valid YAML: the key 'models' is there twice"),
        ("datasets: {a: {spec: x, spec: y}}", "the key 'spec' is there twice"),
    ],
)
def test_what_yaml_makes_of_odd_scalars_and_double_keys(text, said):
    with pytest.raises(UsageError) as error:
        yaml_file.parse_yaml(text, "c.yaml")
    assert str(error.value).startswith("c.yaml:")
    assert said in str(error.value)
    assert len(str(error.value)) < 200


def test_long_keys_are_shortened():
    with pytest.raises(UsageError) as error:
        config._parse({"datasets": {"x": {"k" * 100_000: 1}}}, "c.yaml")
    assert len(str(error.value)) < 1000


def test_numbers_of_any_use_stay():
    assert yaml_file.parse_yaml("[0x10, 1:30, 1e400, .inf, 12345678901234567890]", "c.yaml")[:2] == [16, 90]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "datasets: {a: x}\nmodels: []\ndatasets: {b: y}",
            r"yaml:3:1: not valid YAML: the key 'datasets' is there twice",
        ),
        ("datasets:\n  a: {spec: 'folder:x', n: 1, n: 2}", r"yaml:2:31: .* the key 'n' is there twice"),
        ("datasets: {a: x, 'a': y}", r"the key 'a' is there twice"),
        (f"datasets: {{a: {{spec: x, n: {'9' * 5000}}}}}", r"yaml:1:28: not valid YAML: a number of 5,000 characters"),
        (f"datasets: {{a: {{spec: x, n: 0x{'f' * 5000}}}}}", r"a number of 5,002 characters"),
        (f"datasets: {{a: {{spec: x, n: {'1:' * 2500}1}}}}", r"a number of 5,001 characters"),
        (f"datasets: {{a: {{spec: x, n: {'1:' * 2500}1.5}}}}", r"a number of 5,003 characters"),
        (f"n: !!int {'1' * 5000}", r"a number of 5,000 characters"),
        (f"a: {'x' * (9 << 20)}", r"not a configuration: more than 8,388,608 characters"),
        ("datasets: {a: {spec: x, fingerprint: abc}}", r"datasets\.a\.fingerprint: string should match pattern"),
    ],
)
def test_what_would_be_dropped_or_takes_long_is_an_error(write, text, message):
    with pytest.raises(UsageError, match=message):
        config.load(write(text))


def test_a_byte_order_mark_is_no_part_of_a_key(write):
    assert "mine" in config.load(write("\ufeffdatasets: {mine: 'folder:/data/mine'}")).datasets


def test_an_endless_file_is_no_configuration():
    with pytest.raises(UsageError, match="/dev/zero: "):
        config.load("/dev/zero")


def test_a_name_with_a_character_of_code_0():
    with pytest.raises(UsageError, match="cannot read the configuration"):
        yaml_file.read_yaml(Path("a\0b"))
