"""Prompts in files, with the prompts that CLIP_benchmark encodes as the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shard_writer as writer
import torch
from clip_benchmark.datasets.builder import build_dataset
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier

from clipeval import config, datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
FEELINGS = ["cross", "sick", "afraid", "glad", "calm", "low", "{odd} awed"]


class Listener:
    """Stands for a model: keeps the texts that it is asked to encode."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []

    def __call__(self, texts: list[str]) -> torch.Tensor:
        self.texts.append(list(texts))
        return torch.zeros(len(texts), 1)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(tokens), 2)


def spoken(source: Any) -> list[list[str]]:
    """The prompts per class that CLIP_benchmark encodes for a data set of its own."""
    listener = Listener()
    zero_shot_classifier(listener, listener, source.classes, source.templates, "cpu", amp=False)
    return listener.texts


def fer2013(root: Path) -> Path:
    for label, name in enumerate(["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"]):
        (root / "test" / name).mkdir(parents=True)
        writer.picture(label).save(root / "test" / name / "0.png")
    return root


FILES = {
    "custom_classname_file": {"fer2013": FEELINGS, "pets": ["cat"]},
    "custom_template_file": {"fer2013": ["a {c}.", "{c}, {c}", "two {{braces}} {c}"], "imagenet1k": ["not {c}"]},
    "templates_of_imagenet": {"imagenet1k": ["taken for those without, {c}"], "pets": ["not {c}"]},
    "cupl": {"fer2013": {name: [f"{name} as it is {{c}}", "{}"][: 1 + k % 2] for k, name in enumerate(
        ["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"])}},
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("through", ["clip_benchmark", "folder"])
def test_files_of_clip_benchmark_give_its_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, through: str
) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path))
    root = fer2013(tmp_path / "fer2013")
    file = tmp_path / f"{kind}.json"
    file.write_text(json.dumps(FILES[kind]))
    option = "custom_classname_file" if kind == "custom_classname_file" else "custom_template_file"
    theirs = build_dataset("fer2013", root=str(root), download=False, **{option: str(file)})
    spec = "clip_benchmark:fer2013" if through == "clip_benchmark" else f"folder:{root}"
    ours = datasets.open_dataset("fer2013", DatasetEntry(spec=spec, prompts=str(file)), offline=True)
    assert ours.prompts is not None
    assert ours.prompts.texts() == spoken(theirs)
    assert ours.prompts.name == kind


def test_its_own_file_of_cupl_prompts_needs_no_path() -> None:
    """For the class names as they are in CLIP_benchmark, two of which our default set corrects."""
    folder = Path(build_dataset.__code__.co_filename).parent
    classes = json.loads((folder / "en_classnames.json").read_text())["imagenet1k"]
    cupl = json.loads((folder / "cupl_prompts.json").read_text())["imagenet1k"]
    prompts = load_prompts("imagenet1k", "cupl_prompts.json")
    assert prompts is not None
    assert prompts.texts() == [cupl[name] for name in classes]
    assert prompts.name == "cupl_prompts"


def test_a_language_and_templates_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text('{"imagenet1k": ["una foto: {c}"]}')
    found, plain = (load_prompts("imagenet1k@it", name, "it") for name in (str(file), None))
    assert found is not None
    assert plain is not None
    assert (found.classes, found.templates) == (plain.classes, ("una foto: {c}",))
    file.write_text(json.dumps({"imagenet1k": ["x"] * 1000}))
    with pytest.raises(UsageError, match=r"language: has no effect beside the file of prompts"):
        load_prompts("imagenet1k@it", str(file), "it")


def test_names_of_the_vtab(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text('{"pets": ["pet {c}"], "wds/vtab/dtd": ["texture {c}"], "imagenet1k": ["else {c}"]}')
    for name, expected in (("vtab/pets", "pet a"), ("vtab/dtd", "texture a"), ("vtab/svhn", "else a")):
        prompts = load_prompts(name, str(file), classes=["a"])
        assert prompts is not None
        assert prompts.texts() == [[expected]]


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ({"pets": ["a", "b"]}, DataError, r"mine: .*says nothing of this data set: it is about pets\."),
        ({"imagenet1k": ["a", "b"]}, DataError, r"says nothing of this data set"),
        ({"mine": ["a"]}, DataError, r"names 1 classes, the data set has 2"),
        (
            {"mine": {"cat": ["x"], "dgo": ["y"]}},
            DataError,
            r"prompts for 1 of 2 classes: 'dog'\. Did you mean 'dgo'",
        ),
        (
            {"mine": {"cat": [], "dog": ["y"]}},
            UsageError,
            r"mine: expected class names, templates with \{c\}, or",
        ),
        ({"mine": {}}, UsageError, r"mine: expected class names"),
        ({"mine": ["a {c}", "no place"]}, UsageError, r"mine: templates\[1\]: 'no place' must hold \{c\}"),
        ({"mine": ["a", " "]}, UsageError, r"mine: class name 2 of 2 is empty"),
        ({"mine": [1, 2]}, UsageError, r"mine: expected class names"),
        ({"classes": ["a"]}, UsageError, r'expected \{"classes"'),
        ({}, UsageError, r'expected \{"classes"'),
        ([], UsageError, r'expected \{"classes"'),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, document: Any, error: type[Exception], message: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(document))
    with pytest.raises(error, match=message):
        load_prompts("mine", str(file), classes=["cat", "dog"])


def test_a_set_for_all_data_sets_of_a_run(tmp_path: Path) -> None:
    selection = datasets.resolve(["vtab/pets", "imagenet1k", "digits"], config.packaged())
    assert selection.with_prompts(None) is selection
    chosen = selection.with_prompts("clip_benchmark")
    assert {entry.prompts for entry in chosen.datasets.values()} == {"clip_benchmark"}
    assert chosen.datasets["digits"].spec == selection.datasets["digits"].spec
    with pytest.raises(UsageError, match=r"there is no file 'clip_bench'.*Did you mean 'clip_benchmark'\?"):
        selection.with_prompts("clip_bench")
