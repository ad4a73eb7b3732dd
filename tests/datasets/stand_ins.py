"""A handful of images in the layout of each of CLIP_benchmark's data sets, below one folder (``$CLIPEVAL_DATA``)."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shard_writer as writer

WEBDATASETS = (
    *("mscoco_captions", "flickr8k", "flickr30k", "imagenet1k", "imagenetv2", "imagenet_sketch", "imagenet-a"),
    *("imagenet-r", "imagenet-o", "objectnet", "fer2013", "voc2007", "voc2007_multilabel", "sun397", "cars"),
    *("fgvc_aircraft", "mnist", "stl10", "gtsrb", "country211", "renderedsst2", "vtab/caltech101", "vtab/cifar10"),
    *("vtab/cifar100", "vtab/clevr_count_all", "vtab/clevr_closest_object_distance", "vtab/diabetic_retinopathy"),
    *("vtab/dmlab", "vtab/dsprites_label_orientation", "vtab/dsprites_label_x_position"),
    *("vtab/dsprites_label_y_position", "vtab/dtd", "vtab/eurosat", "vtab/kitti_closest_vehicle_distance"),
    *("vtab/flowers", "vtab/pets", "vtab/pcam", "vtab/resisc45", "vtab/smallnorb_label_azimuth"),
    *("vtab/smallnorb_label_elevation", "vtab/svhn"),
)
"""benchmark/webdatasets.txt of CLIP_benchmark."""
CAPTIONED = ("mscoco_captions", "flickr8k", "flickr30k")
LANGUAGES = {
    "multilingual_mscoco_captions": ("multilingual_mscoco_captions-{}.json", ("de", "jp")),
    "crossmodal3600": ("crossmodal3600_captions-{}.json", ("en", "quz")),
    "xtd10": ("xtd10-{}.json", ("fr", "zh")),
    "xtd200": ("xtd200-{}.json", ("eng_Latn", "zul_Latn")),
    "flickr30k-200": ("flickr30k_200-{}.json", ("eng_Latn", "ace_Arab")),
}
"""Data set -> the file of a language, and the languages that are written."""
SUGAR_CREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
WORDS = ("round", "square", "striped", "plain", "large", "tiny", "bright", "dim", "old", "new", "wet", "dry")


def caption(number: int, extra: str = "") -> str:
    """Another text for each of 144 numbers."""
    return f"a {WORDS[number % 12]} and {WORDS[number // 12 % 12]} thing{extra}"


def webdataset(root: Path, name: str) -> None:
    """The copy of a data set on the hub, ``wds_NAME``."""
    folder, number = root / f"wds_{name.replace('/', '-')}", WEBDATASETS.index(name)
    if name in CAPTIONED:
        texts = [[caption(5 * i + k, f" of {name}") for k in range(1 + i % 3)] for i in range(11 + number)]
        writer.retrieval(folder, texts)
    elif name == "voc2007_multilabel":
        _multilabel(folder)
    else:
        writer.classification(folder, per_shard=(13,) if name == "imagenet1k" else (6 + number % 5, 5))
    if name == "imagenet1k":
        (folder / "classnames.txt").write_text("\n".join(english("imagenet1k")))
        _spread_labels(folder)


def english(name: str) -> list[str]:
    """CLIP_benchmark's class names."""
    import clip_benchmark

    return json.loads((Path(clip_benchmark.__file__).parent / "datasets/en_classnames.json").read_text())[name]


def _multilabel(folder: Path) -> None:
    members = []
    for index in range(9):
        labels = [(index + k) % 3 == 0 or index == k for k in range(5)]
        buffer = io.BytesIO()
        np.save(buffer, np.array(labels, dtype=np.int64))
        key = f"s{index:07d}"
        members += [(f"{key}.png", writer.encoded(writer.picture(index), "png")), (f"{key}.npy", buffer.getvalue())]
    writer.write_split(folder, "test", [members])
    (folder / "dataset_type.txt").write_text("multilabel\n")
    (folder / "classnames.txt").write_text("\n".join(writer.CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(writer.TEMPLATES))


def _spread_labels(folder: Path) -> None:
    """Labels all over a thousand classes, in one shard."""
    members = []
    for index in range(13):
        key = f"s{index:07d}"
        label = str((index * 397 + 5) % 1000).encode()
        members += [(f"{key}.png", writer.encoded(writer.picture(index), "png")), (f"{key}.cls", label)]
    writer.write_split(folder, "test", [members])


def _folders(root: Path, names: list[str], suffix: str = ".jpg") -> None:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(2 - label % 2):
            writer.picture(50 * label + index, 20 + label % 9, 15).save(root / name / f"image_{index + 1:04d}{suffix}")


def imagenet1k_unverified(root: Path) -> None:
    _folders(root / "val", [f"n{number:08d}" for number in range(7)])


def caltech101(root: Path) -> None:
    names = ["BACKGROUND_Google", "Faces", "airplanes", "ant", "barrel", "bass"]
    _folders(root / "caltech101/101_ObjectCategories", names)


def eurosat(root: Path) -> None:
    _folders(root / "eurosat/2750", [f"Kind{number}" for number in range(10)])


def dtd(root: Path) -> None:
    names = ["banded", "dotted", "lined", "pitted", "woven", "zigzagged"]
    _folders(root / "dtd/dtd/images", names)
    lines = [f"{name}/image_0001.jpg" for name in names]
    (root / "dtd/dtd/labels").mkdir()
    (root / "dtd/dtd/labels/test1.txt").write_text("\n".join(lines))


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    lines = []
    for number, name in enumerate(
        ["Abyssinian_1", "Bengal_1", "Bengal_2", "beagle_7", "boxer_3", "pug_9", "samoyed_4"]
    ):
        writer.picture(number).save(folder / f"images/{name}.jpg")
        lines.append(f"{name} {[1, 2, 2, 3, 4, 5, 6][number]} 1 1")
    (folder / "annotations/test.txt").write_text("\n".join(lines))


def cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    data = {"data": rng.integers(0, 256, (9, 3072), dtype=np.uint8), "fine_labels": [3, 99, 0, 3, 55, 12, 70, 1, 2]}
    names = {"fine_label_names": [f"thing_{number}" for number in range(100)]}
    for name, content in (("test", data), ("train", data), ("meta", names)):
        (folder / name).write_bytes(pickle.dumps(content))


def flowers(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for number in range(1, 9):
        writer.picture(number).save(folder / f"jpg/image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 5, 5, 102, 60, 2, 9, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": np.array([[3, 4, 5, 6, 7, 8]])})


NATIVE: dict[str, Callable[[Path], None]] = {
    "imagenet1k-unverified": imagenet1k_unverified,
    "caltech101": caltech101,
    "eurosat": eurosat,
    "dtd": dtd,
    "pets": pets,
    "cifar100": cifar100,
    "flowers": flowers,
}


def multilingual(root: Path, name: str) -> None:
    file, languages = LANGUAGES[name]
    root.mkdir(parents=True)
    paths = [str(root / f"{index}.png") for index in range(12)]
    for index, path in enumerate(paths):
        writer.picture(index + len(name)).save(path)
    for language in languages:
        texts = [caption(7 * index, f" {language}") for index in range(12)]
        (root / file.format(language)).write_text(json.dumps({"image_paths": paths, "annotations": texts}))


def sugar_crepe(root: Path) -> None:
    (root / "val2017").mkdir(parents=True)
    for index in range(5):
        writer.picture(index).save(root / f"val2017/{index}.jpg")
    for task in SUGAR_CREPE:
        rows = {
            str(2 * i): {
                "filename": f"{i}.jpg",
                "caption": caption(9 * i, task),
                "negative_caption": caption(5 * i + 1),
            }
            for i in range(5)
        }
        (root / f"{task}.json").write_text(json.dumps(rows))


def table(path: Path, images: dict[str, list[int]], texts: dict[str, list[str]]) -> None:
    """A Parquet file of a test split with columns of pictures and of texts."""
    import datasets as hf

    columns: dict[str, list[object]] = {
        name: [{"bytes": writer.encoded(writer.picture(seed), "png"), "path": None} for seed in seeds]
        for name, seeds in images.items()
    }
    kinds = dict.fromkeys(images, hf.Image()) | dict.fromkeys(texts, hf.Value("string"))
    path.parent.mkdir(parents=True, exist_ok=True)
    hf.Dataset.from_dict(columns | texts, features=hf.Features(kinds)).to_parquet(path)
