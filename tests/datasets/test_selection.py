"""Which data sets words name."""

from __future__ import annotations

import pytest

from clipeval import datasets
from clipeval.config import Config, DatasetEntry, SuiteEntry, packaged
from clipeval.errors import UsageError

CONFIG = Config(
    datasets={
        "imagenet1k": DatasetEntry(spec="clip_benchmark:wds/imagenet1k", n=50000, main_metric="acc1"),
        "vtab/pets": DatasetEntry(spec="clip_benchmark:wds/vtab/pets"),
        "sun397": DatasetEntry(spec="clip_benchmark:wds/sun397", train_split=None),
        "mine": DatasetEntry(spec="folder:photos"),
    },
    suites={"small": SuiteEntry(members=("vtab/pets", "mine")), "broken": SuiteEntry(members=("mine", "vtab/pet"))},
    path="my.yaml",
)


def names(*words: str) -> list[str]:
    return list(datasets.resolve(words, CONFIG).datasets)


def test_names_suites_and_specs_in_order_without_duplicates() -> None:
    selection = datasets.resolve(["mine", "small", "imagenet1k", "small", "folder:cats"], CONFIG)
    assert list(selection.datasets) == ["mine", "vtab/pets", "imagenet1k", "cats"]
    assert selection.suites == ("small",)
    assert selection.datasets["imagenet1k"] == CONFIG.datasets["imagenet1k"]
    assert datasets.resolve([], CONFIG) == datasets.Selection({}, ())


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("builtin:digits", "digits"),
        ("builtin:icons/material+remix", "icons/material+remix"),
        ("clip_benchmark:imagenet1k", "imagenet1k"),
        ("clip_benchmark:wds/vtab/pets", "vtab/pets"),
        ("clip_benchmark:babel_imagenet@de", "babel_imagenet@de"),
        ("clip_benchmark:flickr30k@en", "flickr30k"),
        ("wds:https://huggingface.co/datasets/clip-benchmark/wds_vtab-pets/tree/main", "vtab/pets"),
        ("wds:https://huggingface.co/datasets/djghosh/wds_cifar10_test/tree/main", "cifar10_test"),
        ("wds:/data/wds_vtab-pets/", "vtab/pets"),
        ("wds:shards/coco-{000..012}.tar", "coco"),
        ("wds:shards/coco/{0..3}.tar", "coco"),
        ("wds:a/one.tar::b/two.tar", "one"),
        ("hf:org/name@0123abc", "name"),
        ("hf:data/table.parquet", "table"),
        ("folder:my photos (2024)", "my_photos_2024_"),
        ("folder:../..", "unnamed"),
        ("clip_benchmark:../../etc/passwd", "unnamed/unnamed/etc/passwd"),
        ("folder:a/..\\..\\b", "_.._b"),
    ],
)
def test_names_of_raw_specs(spec: str, name: str) -> None:
    assert names(spec) == [name]
    assert ".." not in name.split("/")


def test_the_same_data_by_another_way_keeps_its_facts() -> None:
    entry = datasets.resolve(["clip_benchmark:imagenet1k"], CONFIG).datasets["imagenet1k"]
    assert (entry.spec, entry.n, entry.main_metric) == ("clip_benchmark:imagenet1k", 50000, "acc1")
    assert datasets.resolve(["clip_benchmark:sun397"], CONFIG).datasets["sun397"].train_split is None
    assert datasets.resolve(["clip_benchmark:pets"], CONFIG).datasets["pets"].train_split == "trainval"
    assert datasets.resolve(["folder:/x/imagenet1k"], CONFIG).datasets["imagenet1k"].n is None


def test_two_data_sets_of_one_name_are_refused() -> None:
    assert names("folder:a/cats", "folder:a/cats") == ["cats"]
    with pytest.raises(UsageError, match=r"'folder:a/cats' and 'hf:org/cats' would both be called 'cats'"):
        names("folder:a/cats", "hf:org/cats")
    with pytest.raises(UsageError, match=r"would both be called 'imagenet1k'"):
        names("imagenet1k", "clip_benchmark:imagenet1k")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("imagenet1", r"'imagenet1' is neither .* Did you mean 'imagenet1k'\? See: clipeval list datasets"),
        ("smal", r"Did you mean 'small'\?"),
        ("wsd:/data", r"'wsd:/data' is neither .*Specs: wds:PATH_OR_URL, hf:"),
        ("wds:", r"'wds:' is not a DATASET spec\."),
        ("broken", r"my\.yaml: suites\.broken\.members\[1\]: 'vtab/pet' is not .* Did you mean 'vtab/pets'\?"),
        ("pipe:cat x", r"refused 'pipe:cat x': pipe: runs a command.* nothing was executed"),
        ("hf:pipe:cat x", r"refused .* nothing was executed"),
        ("folder:ssh://host/x", r"refused .*'ssh://' is not a URL scheme"),
    ],
)
def test_wrong_words(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        names(word)


def test_commands_in_a_configuration_are_refused() -> None:
    config = Config(datasets={"x": DatasetEntry(spec="wds:a.tar::pipe:touch /tmp/x")})
    with pytest.raises(UsageError, match="nothing was executed"):
        datasets.resolve(["x"], config)
    with pytest.raises(UsageError, match="'photos' is not a DATASET spec"):
        datasets.resolve(["x"], Config(datasets={"x": DatasetEntry(spec="photos")}))


def test_names_that_people_use_are_those_of_the_catalogue_and_said() -> None:
    found = datasets.resolve(["imagenet", "coco", "imagenet1k", "flickr"], packaged())
    assert list(found.datasets) == ["imagenet1k", "mscoco_captions", "flickr30k"]
    assert found.datasets["mscoco_captions"] == packaged().datasets["mscoco_captions"]
    assert found.notes == (
        "-d imagenet: imagenet1k is meant",
        "-d coco: mscoco_captions is meant",
        "-d flickr: flickr30k is meant",
    )


def test_a_data_set_of_ones_own_keeps_its_name() -> None:
    own = DatasetEntry(spec="folder:/mine")
    config = packaged().model_copy(update={"datasets": packaged().datasets | {"coco": own}})
    assert datasets.resolve(["coco"], config) == datasets.Selection({"coco": own}, ())
