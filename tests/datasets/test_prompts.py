"""Prompt sets against CLIP_benchmark's own files."""

from __future__ import annotations

import json
from pathlib import Path

import clip_benchmark
import pytest

from clipeval.datasets.prompts import GENERIC_TEMPLATES, load_prompts
from clipeval.errors import DataError, UsageError

FOLDER = Path(clip_benchmark.__file__).parent / "datasets"
CLASSES = json.loads((FOLDER / "en_classnames.json").read_text())
TEMPLATES = json.loads((FOLDER / "en_zeroshot_classification_templates.json").read_text())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_clip_benchmark_set_is_theirs_and_default_differs_only_in_corrections(name: str) -> None:
    theirs = load_prompts(name, "clip_benchmark")
    default = load_prompts(name)
    assert theirs is not None
    assert default is not None
    assert (theirs.name, default.name) == ("clip_benchmark", "default")
    assert list(theirs.classes) == CLASSES[name]
    assert list(theirs.templates) == TEMPLATES.get(name, TEMPLATES["imagenet1k"])
    if name in TEMPLATES:
        assert default.templates == theirs.templates
    changed = {
        index: new for index, (old, new) in enumerate(zip(theirs.classes, default.classes, strict=True)) if old != new
    }
    expected = {
        "imagenet1k": {744: "projectile", 836: "sunglass"},
        "clevr_closest_object_distance": {3: "moderately distant"},
    }
    assert changed == expected.get(name, {})
    assert len(set(default.classes)) == len(default.classes)
    assert all(default.classes)


def test_where_a_list_has_another_name() -> None:
    for name in ("imagenetv2", "imagenet_sketch", "imagenet1k-unverified"):
        assert load_prompts(name) == load_prompts("imagenet1k")
    prompts = load_prompts("vtab/caltech101")
    assert prompts is not None
    assert list(prompts.classes) == CLASSES["caltech101_vtab"]
    assert list(prompts.templates) == TEMPLATES["caltech101"]
    assert load_prompts("vtab/svhn") == load_prompts("svhn")
    assert load_prompts("cifar10") is None  # its class names come with the data


def test_other_languages() -> None:
    prompts = load_prompts("imagenet1k", language="it")
    assert prompts is not None
    assert list(prompts.classes) == json.loads((FOLDER / "it_classnames.json").read_text())["imagenet1k"]
    with pytest.raises(DataError, match=r"no class names in the language 'xx'.* It has: ar, cn, en, it, jp"):
        load_prompts("imagenet1k", language="xx")


def test_what_the_data_set_brings_comes_first() -> None:
    own = load_prompts("mnist", classes=["a", "b"], templates=["<{c}>"])
    assert own is not None
    assert own.texts() == [["<a>"], ["<b>"]]
    named = load_prompts("mnist", classes=["a", "b"])
    assert named is not None
    assert list(named.templates) == TEMPLATES["mnist"]
    unknown = load_prompts("my photos", classes=["a"])
    assert unknown is not None
    assert unknown.templates == GENERIC_TEMPLATES
    assert load_prompts("my photos") is None
    imagenet_a = load_prompts("imagenet-a", classes=["missile"] * 200)
    assert imagenet_a is not None
    assert list(imagenet_a.templates) == TEMPLATES["imagenet1k"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot be read as JSON"),
        ("[]", r'expected \{"classes": \["'),
        ('{"classes": [], "templates": ["{c}"]}', r'expected \{"classes": \["'),
        ('{"classes": ["a", 1], "templates": ["{c}"]}', r'expected \{"classes": \["'),
        (
            '{"classes": ["a"], "templates": ["a photo of a {}"]}',
            r"templates\[0\]: 'a photo of a \{\}' must hold \{c\}",
        ),
        ('{"classes": ["a"], "templates": ["{c}", "{c} of {d}"]}', r"templates\[1\]: .* must hold \{c\}"),
        ('{"classes": ["a"], "templates": ["{c"]}', r"must hold \{c\}"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_prompts("x", str(path))


def test_files_and_unknown_sets(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"classes": ["ä", "b"], "templates": ["{c}", "two {{braces}} {c}"]}')
    prompts = load_prompts("x", str(path))
    assert prompts is not None
    assert prompts.name == "mine"
    assert prompts.texts()[0] == ["ä", "two {braces} ä"]
    with pytest.raises(DataError, match=r"class list and labels disagree: .* names 2 classes, the data set has 3"):
        load_prompts("x", str(path), classes=["a", "b", "c"])
    with pytest.raises(UsageError, match=r"there is no file 'defaults'\. Or name .*Did you mean 'default'\?"):
        load_prompts("x", "defaults")


@pytest.mark.parametrize("template", ["a {c:1000000000}", "a {c!r:>99}", "a {c!r}", "a {c.real}", "a {c[0]}"])
def test_a_template_holds_the_class_name_as_it_is(template):
    with pytest.raises(DataError, match="no other braces"):
        load_prompts("x", classes=["cat", "dog"], templates=["a {c}", template])
