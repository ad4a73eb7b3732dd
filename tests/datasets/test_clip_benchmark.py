"""``clip_benchmark:`` on small copies of its data sets in their own layouts, with its own builder as the oracle."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shard_writer as writer

from clipeval import datasets
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.adapters import clip_benchmark as adapter
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError

# CLIP_benchmark warns that some sets have no splits, and leaves its own JSON files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:split argument ignored"),
    pytest.mark.filterwarnings("ignore:unclosed file.*(sugar_crepe|clip_benchmark.datasets):ResourceWarning"),
]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def opened(reference: str, split: str | None = None, offline: bool = True, **entry: Any) -> Dataset:
    words = datasets.resolve([f"clip_benchmark:{reference}"], Config()).datasets
    ((name, found),) = words.items()
    return datasets.open_dataset(name, found.model_copy(update=entry), split, offline=offline)


def oracle(name: str, root: Path, split: str = "test", task: str = "zeroshot_classification", **more: Any) -> Any:
    from clip_benchmark.datasets.builder import build_dataset

    return build_dataset(name, root=str(root), transform=None, split=split, download=False, task=task, **more)


def mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 13), ("t10k", 7)):
        pixels, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())


def class_folders(root: Path, names: list[str], suffix: str = ".jpg", count: int = 3) -> None:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count - label % 2):
            writer.picture(100 * label + index, 20 + label, 15).save(root / name / f"image_{index + 1:04d}{suffix}")


def imagenet_a(root: Path) -> None:
    class_folders(root, ["n01498041", "n01531178", "n01534433"])


def fer2013(root: Path) -> None:
    for split in ("train", "test"):
        class_folders(root / split, ["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"])


def caltech101(root: Path) -> None:
    class_folders(root / "caltech101" / "101_ObjectCategories", ["BACKGROUND_Google", "Faces", "airplanes"])


def sun397(root: Path) -> None:
    names = ["/a/abbey", "/z/zoo", "/b/bar/indoor"]
    (root / "SUN397").mkdir(parents=True)
    (root / "SUN397" / "ClassName.txt").write_text("\n".join(names) + "\n")
    for label, name in enumerate(names):
        folder = root / "SUN397" / name.lstrip("/")
        folder.mkdir(parents=True)
        for index in (2, 0, 1):
            writer.picture(10 * label + index).save(folder / f"sun_{index}.jpg")


def voc2007(root: Path) -> None:
    main, annotations, pictures = (
        root / "VOCdevkit/VOC2007" / part for part in ("ImageSets/Main", "Annotations", "JPEGImages")
    )
    for folder in (main, annotations, pictures):
        folder.mkdir(parents=True)
    objects = {
        "000001": [("dog", 1, 2, 9, 12), ("person", 0, 0, 20, 15), ("dog", 1, 2, 9, 12)],
        "000002": [("cat", 3, 3, 8, 8)],
    }
    (main / "aeroplane_test.txt").write_text("".join(f"{name} -1\n" for name in objects))
    for name, boxes in objects.items():
        writer.picture(int(name)).save(pictures / f"{name}.jpg")
        parts = [
            f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for kind, a, b, c, d in boxes
        ]
        (annotations / f"{name}.xml").write_text(f"<annotation>{''.join(parts)}</annotation>")


WRITERS: dict[str, Callable[[Path], None]] = {
    "mnist": mnist,
    "imagenet-a": imagenet_a,
    "fer2013": fer2013,
    "caltech101": caltech101,
    "sun397": sun397,
    "voc2007": voc2007,
    "voc2007_multilabel": voc2007,
}


@pytest.mark.parametrize("name", WRITERS)
def test_native_classification_is_what_clip_benchmark_builds(
    data: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[name](data / name)
    ours = opened(name, prompts="clip_benchmark")
    assert capsys.readouterr().out == ""
    theirs = oracle(name, data / name)
    expected = {f"{np.asarray(label).tolist()} {image.mode} {image.tobytes().hex()}" for image, label in theirs}
    assert ours.labels is not None
    labels = ours.labels.astype(int).tolist()
    found = [f"{[float(x) for x in label] if isinstance(label, list) else label}" for label in labels]
    images = [ours.image(index) for index in range(len(ours))]
    assert {f"{label} {im.mode} {im.tobytes().hex()}" for label, im in zip(found, images, strict=True)} == expected
    assert len(ours) == len(theirs)
    if name not in ("sun397",):  # the order of sun397 depends on the file system in CLIP_benchmark
        assert all(image.tobytes() == pair[0].tobytes() for image, pair in zip(images, theirs, strict=True))
    assert ours.prompts is not None
    assert (list(ours.prompts.classes), list(ours.prompts.templates)) == (list(theirs.classes), list(theirs.templates))
    assert pickle.loads(pickle.dumps(ours)).image(1).tobytes() == images[1].tobytes()


def test_ids_are_paths_below_the_folder_and_sorted_where_the_source_is_not(data: Path) -> None:
    sun397(data / "sun397")
    ids = list(opened("sun397").ids)
    assert ids == sorted(ids)
    assert ids[0] == "SUN397/a/abbey/sun_0.jpg"
    voc2007(data / "voc2007")
    assert list(opened("voc2007").ids) == [
        "VOCdevkit/VOC2007/JPEGImages/000001.jpg",
        "VOCdevkit/VOC2007/JPEGImages/000001.jpg#1",
        "VOCdevkit/VOC2007/JPEGImages/000001.jpg#2",
        "VOCdevkit/VOC2007/JPEGImages/000002.jpg",
    ]
    mnist(data / "mnist")
    assert list(opened("mnist").ids) == [str(index) for index in range(7)]
    assert len(opened("mnist", "train")) == 13


def test_fingerprints(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(data / "mnist")
    imagenet_a(data / "imagenet-a")
    before = [opened(name).fingerprint for name in ("mnist", "imagenet-a")]
    assert opened("mnist", "train").fingerprint != before[0]
    data.rename(tmp_path / "moved")
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path / "moved"))
    assert [opened(name).fingerprint for name in ("mnist", "imagenet-a")] == before
    writer.picture(3).save(tmp_path / "moved" / "imagenet-a" / "n01531178" / "image_0001.jpg")
    assert opened("imagenet-a").fingerprint != before[1]


def imagenet(root: Path) -> None:
    import torch
    from clip_benchmark.datasets.builder import all_imagenet_wordnet_ids as wnids

    root.mkdir()
    torch.save(({wnid: (wnid,) for wnid in wnids}, []), root / "meta.bin")
    for index, wnid in enumerate(wnids):
        (root / "val" / wnid).mkdir(parents=True)
        writer.picture(index, 3, 2).save(root / "val" / wnid / f"ILSVRC2012_val_{index:08d}.png")


def test_imagenet_and_babel_imagenet(data: Path) -> None:
    imagenet(data / "imagenet1k")
    both = {name: opened("imagenet1k", prompts=name) for name in ("default", "clip_benchmark")}
    assert len(both["default"]) == 1000
    assert both["default"].prompts is not None
    assert both["clip_benchmark"].prompts is not None
    default, own = both["default"].prompts.classes, both["clip_benchmark"].prompts.classes
    assert {(i, a, b) for i, (a, b) in enumerate(zip(own, default, strict=True)) if a != b} == {
        (744, "missile", "projectile"),
        (836, "sunglasses", "sunglass"),
    }
    assert len(both["default"].prompts.templates) == 80

    german = opened("babel_imagenet@de")
    theirs = oracle("babel_imagenet", data / "imagenet1k", language="de")
    assert german.name == "babel_imagenet@de"
    assert german.labels is not None
    assert german.labels.tolist() == [label for _, label in theirs]
    assert german.prompts is not None
    assert (list(german.prompts.classes), list(german.prompts.templates)) == (theirs.classes, theirs.templates)
    assert german.image(17).tobytes() == theirs[17][0].tobytes()
    for code in ("xx", "br"):  # of br there are class names and no prompts
        with pytest.raises(UsageError, match=rf"is not there in the language '{code}'.*It is in: af, am"):
            opened(f"babel_imagenet@{code}")


def test_retrieval(data: Path) -> None:
    captions = {"a.jpg": ["one dog", "a dog, running"], "b.jpg": ["a cat"]}
    (data / "flickr8k").mkdir()
    for index, name in enumerate(captions):
        writer.picture(index).save(data / "flickr8k" / name)
    lines = [f"{name},{text}" for name, texts in captions.items() for text in texts]
    (data / "flickr8k" / "flickr8k_test_karpathy.txt").write_text("image,caption\n" + "\n".join(lines) + "\n")
    flickr = opened("flickr8k")
    assert flickr.captions == [("one dog", "a dog, running"), ("a cat",)]
    assert datasets.capabilities(flickr) == {"captions"}
    assert list(flickr.ids) == ["a.jpg", "b.jpg"]
    assert flickr.image(1).tobytes() == oracle("flickr8k", data / "flickr8k", task="zeroshot_retrieval")[1][0].tobytes()

    (data / "mscoco_captions" / "val2014").mkdir(parents=True)
    images = [{"id": 10 * index, "file_name": f"{index}.jpg"} for index in range(3)]
    for index in range(3):
        writer.picture(index).save(data / "mscoco_captions" / "val2014" / f"{index}.jpg")
    annotations = [{"id": i, "image_id": 10 * (i % 3), "caption": f"caption {i}"} for i in range(7)]
    document = {"images": images, "annotations": annotations}
    (data / "mscoco_captions" / "coco_test_karpathy.json").write_text(json.dumps(document))
    coco = opened("mscoco_captions")
    assert coco.captions == [
        ("caption 0", "caption 3", "caption 6"),
        ("caption 1", "caption 4"),
        ("caption 2", "caption 5"),
    ]


def test_multilingual_retrieval(data: Path) -> None:
    root = data / "multilingual_mscoco_captions"
    root.mkdir()
    paths = [str(root / f"{index}.jpg") for index in range(2)]
    for index, path in enumerate(paths):
        writer.picture(index).save(path)
    document = {"image_paths": paths, "annotations": ["ein Hund", "eine Katze"]}
    (root / "multilingual_mscoco_captions-de.json").write_text(json.dumps(document))
    german = opened("multilingual_mscoco_captions@de")
    assert german.captions == [("ein Hund",), ("eine Katze",)]
    with pytest.raises(DataError, match=r"would run the shell command `wget|offline"):
        opened("multilingual_mscoco_captions@fr")


def test_sugar_crepe(data: Path) -> None:
    root = data / "sugar_crepe"
    (root / "val2017").mkdir(parents=True)
    rows = {}
    for key, name in (("0", "x.jpg"), ("7", "y.jpg"), ("9", "x.jpg")):
        writer.picture(int(key)).save(root / "val2017" / name)
        rows[key] = {"filename": name, "caption": f"true {key}", "negative_caption": f"false {key}"}
    (root / "swap_att.json").write_text(json.dumps(rows))
    dataset = opened("sugar_crepe/swap_att")
    assert dataset.choices == [("true 0", "false 0"), ("true 7", "false 7"), ("true 9", "false 9")]
    assert list(dataset.ids) == ["val2017/x.jpg", "val2017/y.jpg", "val2017/x.jpg#1"]
    assert datasets.capabilities(dataset) == {"choices"}


def test_winoground(data: Path) -> None:
    import datasets as hf

    cells = [
        [{"bytes": writer.encoded(writer.picture(2 * row + side), "png"), "path": None} for row in range(3)]
        for side in (0, 1)
    ]
    columns = {"image_0": cells[0], "image_1": cells[1], "caption_0": ["a", "b", "c"], "caption_1": ["A", "B", "C"]}
    text = hf.Value("string")
    features = hf.Features({"image_0": hf.Image(), "image_1": hf.Image(), "caption_0": text, "caption_1": text})
    (data / "winoground" / "data").mkdir(parents=True)
    hf.Dataset.from_dict(columns, features=features).to_parquet(data / "winoground" / "data" / "test-0.parquet")
    for dataset in (opened("winoground"), datasets.open_dataset("w", DatasetEntry(spec=f"hf:{data}/winoground"))):
        assert dataset.choices == [("a", "A"), ("A", "a"), ("b", "B"), ("B", "b"), ("c", "C"), ("C", "c")]
        assert dataset.groups is not None
        assert dataset.groups.tolist() == [0, 0, 1, 1, 2, 2]
        assert [dataset.image(index).tobytes() for index in range(6)] == [writer.picture(i).tobytes() for i in range(6)]
        assert list(dataset.ids) == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]
    with pytest.raises(UsageError, match=r"winoground is not there in the language 'de'\. It is in: en\."):
        opened("winoground@de")


def test_hub_copies_on_disk(data: Path) -> None:
    writer.classification(data / "wds_vtab-pets")
    dataset = opened("wds/vtab/pets")
    assert dataset.name == "vtab/pets"
    assert len(dataset) == 7
    with pytest.raises(DataError, match=r"'test/nshards\.txt' of hub repository 'clip-benchmark/wds_vtab-dtd' is not"):
        opened("wds/vtab/dtd")


def test_no_shell_command_is_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("wget", "unzip", "tar", "mv", "kaggle", "which", "gdown", "cp"):
        (tools / tool).write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for name in (
        "imagenet-a",
        "imagenet-r",
        "objectnet",
        "flickr30k",
        "flickr8k",
        "fer2013",
        "mscoco_captions",
        "imagenet1k",
    ):
        with pytest.raises(
            DataError, match=rf"{name}: not found in .*{name}.* would run the shell command `.*clipeval runs none"
        ):
            opened(name, offline=False)
        with pytest.raises(DataError, match=rf"{name}: .*nothing is downloaded now|would run the shell command"):
            opened(name)
    assert not (tmp_path / "marker").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["sun397", "caltech101", "eurosat"])
def test_sets_without_splits_are_not_trained_on(name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} has no train split: .* would train on its test images"):
        opened(name, "train")


def test_what_cannot_be_built_is_named(data: Path) -> None:
    with pytest.raises(UsageError, match=r"CLIP_benchmark has no such data set\. Did you mean 'mnist'\?"):
        opened("mnit")
    with pytest.raises(DataError, match=r"Use the same data on the hub: clip_benchmark:wds/vtab/pets"):
        opened("vtab/pets")
    with pytest.raises(DataError, match="draws its watermark inside the model's transform"):
        opened("imagenet-w")
    with pytest.raises(
        DataError, match=r"mnist: there is no .*data/mnist, and nothing is downloaded now \(--offline or --plan\)"
    ):
        opened("mnist")
    (data / "cifar10").mkdir()
    with pytest.raises(
        DataError, match=r"cifar10: CLIP_benchmark cannot build split 'test' from .*: Dataset not found"
    ):
        opened("cifar10")
    imagenet_a(data / "imagenet-a")
    with pytest.raises(DataError, match=r"Only `test` split available for imagenet-a"):
        opened("imagenet-a", "train")
    voc2007(data / "voc2007")
    (data / "voc2007" / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"voc2007: cannot read the samples in .*No such file.*000002\.jpg"):
        opened("voc2007")
    (data / "imagenet-a" / "n01498041" / "image_0001.jpg").write_bytes(b"\xff\xd8\xff")
    dataset = opened("imagenet-a")
    with pytest.raises(DataError, match=r"imagenet-a: sample n01498041/image_0001\.jpg: cannot decode the image"):
        dataset.image(0)


def test_names_are_clip_benchmarks_own() -> None:
    """Every name is one that its builder knows, and every name in its collections is known here."""
    import inspect

    from clip_benchmark.datasets import builder

    source = inspect.getsource(builder.build_dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (*adapter.CLASSIFICATION, *adapter.RETRIEVAL, *adapter.CHOICES):
            assert f'"{name.split("/")[0]}"' in source or f"'{name.split('/')[0]}'" in source
    known = {*adapter.CLASSIFICATION, *adapter.RETRIEVAL, *adapter.CHOICES}
    named = {name for names in builder.dataset_collection.values() for name in names}
    assert {name for name in named if not name.startswith("vtab/")} <= known
    assert len(adapter.CLASSIFICATION) == 29
    assert DatasetEntry(spec="clip_benchmark:x").split == "test"
