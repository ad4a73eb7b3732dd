"""``NAME@LANGUAGE`` and ``language:``, by every adapter: the language's prompts or captions, or an error that says
which languages there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clip_benchmark
import pytest
import shard_writer as writer
from helpers import image_folder

from clipeval import config, datasets
from clipeval.config import Config, DatasetEntry, SuiteEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError
from clipeval.results import suites

FOLDER = Path(clip_benchmark.__file__).parent / "datasets"
ITALIAN = {kind: json.loads((FOLDER / f"it_{kind}.json").read_text())["imagenet1k"] for kind in (
    "classnames", "zeroshot_classification_templates")}  # fmt: skip


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def copy_of_imagenet(folder: Path) -> Path:
    writer.classification(folder)
    (folder / "classnames.txt").write_text("\n".join(f"name {number}" for number in range(1000)))
    return folder


def opened(word: str, settings: Config) -> Dataset:
    [(name, entry)] = datasets.resolve([word], settings).datasets.items()
    return datasets.open_dataset(name, entry.model_copy(update={"n": None}), offline=True)


def of_classes(folder: Path) -> str:
    """A thousand class folders, one image in all."""
    for number in range(1000):
        (folder / "test" / f"c{number:04d}").mkdir(parents=True)
    writer.picture(0).save(folder / "test/c0007/x.png")
    return f"folder:{folder}"


def of_table(folder: Path) -> str:
    import datasets as hf

    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=[f"c{k}" for k in range(1000)])})
    cells = [{"bytes": writer.encoded(writer.picture(k), "png"), "path": None} for k in range(3)]
    folder.mkdir()
    hf.Dataset.from_dict({"image": cells, "label": [0, 1, 2]}, features=features).to_parquet(folder / "test-0.parquet")
    return f"hf:{folder}"


SPECS = {
    "clip_benchmark": lambda root: f"clip_benchmark:wds/{copy_of_imagenet(root / 'data/wds_imagenet1k').name[4:]}",
    "wds": lambda root: f"wds:{copy_of_imagenet(root / 'copy')}",
    "folder": lambda root: of_classes(root / "folder"),
    "hf": lambda root: of_table(root / "table"),
}


@pytest.mark.parametrize("kind", SPECS)
def test_class_names_and_templates_of_a_language(tmp_path: Path, kind: str) -> None:
    spec = SPECS[kind](tmp_path)
    named = Config(datasets={"imagenet1k": DatasetEntry(spec=spec)})
    keyed = Config(datasets={"imagenet1k": DatasetEntry(spec=spec, language="it")})
    for found in (opened("imagenet1k@it", named), opened("imagenet1k", keyed)):
        assert found.prompts is not None
        assert list(found.prompts.classes) == ITALIAN["classnames"]
        assert list(found.prompts.templates) == ITALIAN["zeroshot_classification_templates"]
    plain = opened("imagenet1k", named)
    assert plain.prompts is not None
    assert plain.prompts.classes[0] in ("name 0", "c0000", "c0")
    assert plain.fingerprint == opened("imagenet1k@it", named).fingerprint
    assert opened("imagenet1k@it", named).name == "imagenet1k@it"
    with pytest.raises(DataError, match=r"no class names in the language 'xx'.*It has: ar, cn, en, it, jp"):
        opened("imagenet1k@xx", named)


def test_a_set_that_has_no_names_in_any_other_language(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "colours", per_class={"test": 1})
    settings = Config(datasets={"colours": DatasetEntry(spec=f"folder:{folder}")})
    with pytest.raises(DataError, match=r"colours@it: .*no class names of it in the language 'it', only in: en"):
        opened("colours@it", settings)
    with pytest.raises(UsageError, match="'colors@it' is neither a data set"):
        opened("colors@it", settings)


def test_captions_in_a_language_are_other_data(data: Path) -> None:
    writer.retrieval(data / "wds_flickr8k", [["a"], ["b"]])
    with pytest.raises(UsageError, match=r"'zh' means nothing here.*are captions in it: clip_benchmark:flickr8k@zh"):
        opened("flickr8k@zh", config.packaged())
    with pytest.raises(UsageError, match=r"'de' means nothing here: there are no class names\.$"):
        opened("flickr8k@de", config.packaged())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("xtd10@xx", r"xtd10 is not there in the language 'xx'\. It is in: de, en, es, fr, .* and 1 more"),
        ("babel_imagenet@br", r"babel_imagenet is not there in the language 'br'"),
        ("xtd200@zul_latn", r"Did you mean 'zul_Latn'\?"),
        ("clip_benchmark:xtd10@xx", r"xtd10 is not there in the language 'xx'"),
        ("clip_benchmark:mnist@it", r"mnist is not there in the language 'it'\. It is in: en\."),
        ("clip_benchmark:cifar10@it", r"cifar10 is not there in the language 'it'"),
        ("clip_benchmark:sugar_crepe/add_att@de", r"sugar_crepe/add_att is not there in the language 'de'"),
        ("clip_benchmark:flickr30k@fr", r"It is in: en, zh\."),
    ],
)
def test_unknown_languages_name_those_there_are(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(word, config.packaged())


def test_two_languages_at_once() -> None:
    with pytest.raises(UsageError, match="the language is 'de' in clip_benchmark:xtd10@de and 'fr' beside it"):
        datasets.open_dataset("x", DatasetEntry(spec="clip_benchmark:xtd10@de", language="fr"))


def test_what_is_known_of_a_set_holds_in_its_languages() -> None:
    packaged = config.packaged()
    named, spelled = (
        datasets.resolve([word], packaged).datasets["crossmodal3600@quz"]
        for word in ("crossmodal3600@quz", "clip_benchmark:crossmodal3600@quz")
    )
    for entry in (named, spelled):
        assert (entry.n, entry.main_metric, entry.train_split) == (3600, "image_retrieval_recall@5", None)
    assert named.language == "quz"
    assert packaged.dataset("nothing@it") is None
    assert packaged.dataset("@it") is None


SMALL: dict[str, Any] = {
    "two": DatasetEntry(spec="folder:x", languages=("de", "fr"), main_metric="acc1"),
    "own@x": DatasetEntry(spec="folder:y"),
}


def test_suites_over_languages() -> None:
    several = SuiteEntry(members=("two@*", "own@x"), metric=("acc1",))
    settings = Config(datasets=SMALL, suites={"all": several, "two": SuiteEntry(members=("two@*",))})
    assert settings.members("all") == ("two@de", "two@fr", "own@x")
    selection = datasets.resolve(["all"], settings)
    assert list(selection.datasets) == ["two@de", "two@fr", "own@x"]
    assert selection.datasets["two@fr"].language == "fr"
    assert datasets.resolve(["two"], settings).suites == ("two",)  # the set in all its languages, not in English
    [asked] = suites.requests(settings, ["all"], ["zeroshot_classification"])
    assert asked.members == (("two@de", "acc1"), ("two@fr", "acc1"), ("own@x", "acc1"))
    [by_main] = suites.requests(settings, ["two"], ["zeroshot_classification"])
    assert by_main.members == (("two@de", "acc1"), ("two@fr", "acc1"))
    row = next(row for row in datasets.list_datasets(settings) if row["name"] == "two")
    assert (row["suites"], row["languages"]) == (["all", "two"], ["de", "fr"])
    assert datasets.list_suites(settings)[0]["members"] == ["two@de", "two@fr", "own@x"]
    with pytest.raises(UsageError, match=r"suites\.s\.members\[0\]: 'own@\*' is not a data set"):
        datasets.resolve(["s"], Config(datasets=SMALL, suites={"s": SuiteEntry(members=("own@*",))}))


def test_an_entry_of_the_user_keeps_the_languages_of_the_one_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text('datasets: {xtd10: {spec: "clip_benchmark:xtd10", n: 5}}')
    settings = config.load(file)
    found = datasets.resolve(["multilingual_retrieval"], settings).datasets
    assert sum(name.startswith("xtd10@") for name in found) == 11
    assert found["xtd10@de"].n == 5
