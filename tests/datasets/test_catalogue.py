"""The packaged catalogue: suites as published, entries that mean what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipeval import config, datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset, Prompts
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.opening import ADAPTERS
from clipeval.datasets.selection import SCHEMES, split_spec
from clipeval.errors import DataError, UsageError
from clipeval.importers.datasets import DATACOMP_COLUMNS

CATALOGUE = config.load(Path(__file__).parents[2] / "benchmarks.yaml")

# fmt: off
VTAB_PLUS = [
    "imagenet1k", "imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet", "fer2013", "voc2007",
    "sun397", "cars", "fgvc_aircraft", "mnist", "stl10", "gtsrb", "country211", "renderedsst2", "vtab/caltech101",
    "vtab/cifar10", "vtab/cifar100", "vtab/clevr_count_all", "vtab/clevr_closest_object_distance",
    "vtab/diabetic_retinopathy", "vtab/dmlab", "vtab/dsprites_label_orientation", "vtab/dsprites_label_x_position",
    "vtab/dtd", "vtab/eurosat", "vtab/kitti_closest_vehicle_distance", "vtab/flowers", "vtab/pets", "vtab/pcam",
    "vtab/resisc45", "vtab/smallnorb_label_azimuth", "vtab/smallnorb_label_elevation", "vtab/svhn",
]
# fmt: on


def test_suites_have_their_published_sizes() -> None:
    sizes = {"vtab": 19, "vtab+": 35, "imagenet_robustness": 5, "retrieval": 3, "datacomp": 38, "builtin": 2}
    sizes |= {"datacomp_shifts": 6, "datacomp_vtab": 13, "datacomp_retrieval": 3}
    sizes |= {"vtab_probe": 18, "sugar_crepe": 7, "winoground": 1, "aro": 4, "babel_imagenet": 90}
    sizes |= {"multilingual_retrieval": 36 + 11 + 201 + 201 + 11}
    for name, size in sizes.items():
        members = CATALOGUE.members(name)
        assert len(members) == len(set(members)) == size, name


def test_vtab_plus_is_the_papers_and_clip_benchmarks_less_the_multilabel_set() -> None:
    from clip_benchmark.datasets.builder import dataset_collection

    members = set(CATALOGUE.suites["vtab+"].members)
    assert members == set(VTAB_PLUS) == set(dataset_collection["vtab+"]) - {"voc2007_multilabel"}
    assert "food101" not in members
    for name in ("vtab", "imagenet_robustness", "retrieval"):
        assert set(CATALOGUE.suites[name].members) == set(dataset_collection[name])
    assert "sun397" in CATALOGUE.suites["vtab"].members
    assert "vtab/cifar10" not in CATALOGUE.suites["vtab"].members


def test_datacomp_is_the_open_clip_average() -> None:
    members = CATALOGUE.suites["datacomp"].members
    assert {name.removeprefix("datacomp/") for name in members} == set(DATACOMP_COLUMNS.values())
    assert CATALOGUE.suites["datacomp"].metric == ()
    other = {name: CATALOGUE.datasets[name].main_metric for name in members}
    assert {name: metric for name, metric in other.items() if metric != "acc1"} == {
        "datacomp/vtab/caltech101": "mean_per_class_recall",
        "datacomp/fgvc_aircraft": "mean_per_class_recall",
        "datacomp/vtab/flowers": "mean_per_class_recall",
        "datacomp/vtab/pets": "mean_per_class_recall",
        "retrieval/flickr30k": "mean_recall@1",
        "retrieval/mscoco_2014_5k_test_image_text_retrieval": "mean_recall@1",
        "misc/winogavil": "jaccard_score_10-12",
        "wilds/iwildcam": "F1-macro_all",
        "wilds/fmow": "acc_worst_region",
        "fairness/dollar_street": "acc_top5_wg",
        "fairness/geode": "acc_wg",
    }


# fmt: off
DATACOMP_SIZES = [
    6085, 10000, 10000, 15000, 15000, 21100, 1880, 5400, 3333, 25250, 12630, 50000, 50889, 10000, 7500, 2000, 30000,
    711, 10000, 18574, 6149, 3669, 14976, 32768, 1821, 6300, 8041, 8000, 108754, 26032, 1000, 5000, 3563, 42791, 85054,
    22108, 3503, 12488,
]
"""Of DataComp's tasklist.yml, in the order of open_clip's columns."""
# fmt: on


def test_datacomp_is_measured_on_its_own_copies() -> None:
    members = {name.removeprefix("datacomp/"): name for name in CATALOGUE.suites["datacomp"].members}
    entries = [CATALOGUE.datasets[members[name]] for name in DATACOMP_COLUMNS.values()]
    assert [entry.n for entry in entries] == DATACOMP_SIZES
    for name, entry in zip(DATACOMP_COLUMNS.values(), entries, strict=True):
        key = name.replace("/", "-").removeprefix("fairness-")
        if entry.tasks == ("zeroshot_classification",):
            assert entry.spec == f"wds:https://huggingface.co/datasets/djghosh/wds_{key}_test/tree/main"
        else:
            assert split_spec(entry.spec)[1].startswith("nlphuji/")
            assert entry.spec.endswith("@refs/convert/parquet")
    faces = [CATALOGUE.datasets[f"fairness/{name}"] for name in ("fairface", "utkface")]
    assert [(entry.n, entry.main_metric) for entry in faces] == [(10954, None), (23703, None)]
    assert {name: entry.metadata for name, entry in CATALOGUE.datasets.items() if entry.metadata} == {
        "wilds/iwildcam": ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y"),
        "wilds/camelyon17": ("hospital", "slide", "y"),
        "wilds/fmow": ("region", "year", "y"),
        "fairness/dollar_street": ("income_ds", "income_meta", "region"),
        "fairness/geode": ("region", "country"),
        "fairness/fairface": ("age", "gender", "race", "race_binary"),
        "fairness/utkface": ("age", "gender", "race", "race_binary"),
    }


def test_the_groups_of_datacomp_are_those_of_aggregate_scores() -> None:
    average = set(CATALOGUE.suites["datacomp"].members)
    groups = {name: set(CATALOGUE.suites[f"datacomp_{name}"].members) for name in ("shifts", "vtab", "retrieval")}
    assert all(members < average for members in groups.values())
    assert {name.removeprefix("datacomp/") for name in groups["shifts"]} == {
        *("imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r", "objectnet")
    }
    vtab = {name for name in average if name.startswith("datacomp/vtab/")}
    assert groups["vtab"] == vtab | {"datacomp/sun397"}
    assert len(average - groups["shifts"] - groups["vtab"] - groups["retrieval"]) == 1 + 15  # ImageNet, and of no group


def test_every_suite_resolves_and_every_entry_is_complete() -> None:
    selection = datasets.resolve(list(CATALOGUE.suites), CATALOGUE)
    assert set(CATALOGUE.suites) - set(selection.suites) == {"winoground"}  # the word is the data set
    assert set(selection.datasets) == {name for suite in CATALOGUE.suites for name in CATALOGUE.members(suite)}
    assert set(ADAPTERS) == set(SCHEMES)
    for name, entry in CATALOGUE.datasets.items():
        assert split_spec(entry.spec)[0] in ADAPTERS
        assert entry.main_metric or name in ("fairness/fairface", "fairness/utkface"), name
        assert entry.tasks, name
        assert ("linear_probe" in entry.tasks) <= (entry.train_split is not None), name
        uncounted = name.startswith(("sugar_crepe/", "aro/")) or name in ("babel_imagenet", "caltech101")
        assert entry.n is not None or uncounted or entry.unavailable, name
        if entry.unavailable or name == "babel_imagenet":
            continue
        if entry.main_metric in ("acc1", "mean_per_class_recall"):
            assert entry.chance is not None, name
            assert round(1 / entry.chance) >= 2
            assert entry.chance == pytest.approx(1 / round(1 / entry.chance), rel=1e-4), name


def test_lists() -> None:
    rows = datasets.list_datasets(CATALOGUE)
    assert [row["name"] for row in rows] == list(CATALOGUE.datasets)
    pets = next(row for row in rows if row["name"] == "vtab/pets")
    assert pets == {
        "name": "vtab/pets",
        "spec": "clip_benchmark:wds/vtab/pets",
        "split": "test",
        "n": 3669,
        "tasks": ["zeroshot_classification", "linear_probe"],
        "main_metric": "mean_per_class_recall",
        "suites": ["vtab", "vtab+", "vtab_probe"],
        "languages": [],
        "unavailable": None,
    }
    suites = {row["name"]: row for row in datasets.list_suites(CATALOGUE)}
    assert suites["vtab+"]["n"] == 35
    assert suites["retrieval"]["members"] == ["mscoco_captions", "flickr30k", "flickr8k"]
    assert suites["datacomp"]["metric"] == "main_metric"


def test_importing_is_light() -> None:
    code = (
        "import sys, clipeval.datasets\n"
        "heavy = ['torch', 'torchvision', 'open_clip', 'datasets', 'sklearn', 'clip_benchmark', 'PIL', 'requests']\n"
        "print(', '.join(name for name in heavy if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def adapter(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> Dataset:
    """A data set with repeated ids, or with labels for another number of classes."""
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint="0",
        ids=["a", "b", "a"] if reference == "twice" else ["a", "b", "c"],
        read=lambda index: Image.new("RGB", (1, 1)),
        labels=np.zeros((3, 5), dtype=bool),
        prompts=Prompts("default", ("x", "y", "z", "w"), ("{c}",)),
    )


def test_one_registry_line_adds_an_adapter_and_its_contents_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "folder", f"{__name__}:adapter")
    with pytest.raises(DataError, match=r"fake: 2 samples have the id 'a'; ids must be unique"):
        datasets.open_dataset("fake", DatasetEntry(spec="folder:twice"))
    with pytest.raises(DataError, match=r"class list and labels disagree: labels are for 5 classes, .* has 4 names"):
        datasets.open_dataset("fake", DatasetEntry(spec="folder:wide"))
    with pytest.raises(UsageError, match=r"datasets\.fake\.label_key: means nothing for folder: .* only for hf:"):
        datasets.open_dataset("fake", DatasetEntry(spec="folder:wide", label_key="label"))


def test_known_content_is_compared() -> None:
    known = CATALOGUE.datasets["digits"].fingerprint
    assert known is not None
    assert datasets.open_dataset("digits", CATALOGUE.datasets["digits"]).fingerprint == known
    wrong = CATALOGUE.datasets["digits"].model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(DataError, match=rf"digits: the content of builtin:digits, .* is {known}, expected 0000"):
        datasets.open_dataset("digits", wrong)
    assert len(datasets.open_dataset("digits", wrong, "train")) == 1442  # it is that of the test split
    named = datasets.resolve(["builtin:digits"], CATALOGUE).datasets
    assert named["digits"].fingerprint == known


ODD_WORDS = [
    *(f"{scheme}:{'a' * 300}" for scheme in SCHEMES),
    *("folder:a\0b", "hf:a\0b", "hf:./" + "a" * 300, "builtin:icons/codicon@" + "9" * 5000, "wds:" + "a" * 200_000),
    *(f"wds:{'a' * 300}.tar", f"wds:{'a' * 300}.txt", "wds:a{0.tar", "wds:a}0.tar", "wds:a{0.txt"),
]


@pytest.mark.parametrize("word", ODD_WORDS)
def test_odd_words_are_messages(word: str) -> None:
    def opened() -> None:
        for name, entry in datasets.resolve([word], CATALOGUE).datasets.items():
            assert len(name) < 200
            datasets.open_dataset(name, entry, offline=True)

    with pytest.raises((DataError, UsageError)) as caught:
        opened()
    assert len(str(caught.value)) < 2000
