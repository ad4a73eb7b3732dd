"""Names of the catalogue whose data lie in tables of a hub, or are made of another set's copy there."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import stand_ins
from helpers import tiny_checkpoint
from loopback_hub import Hub

from clipeval.config import DatasetEntry
from clipeval.datasets import capabilities, open_dataset
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError

TRUE_FALSE = ("true_caption", "false_caption")
ORDERED = ("correct_caption", *(f"hard_text_{number}" for number in range(1, 5)))
ARO = {
    "ARO-Visual-Relation": ("image", TRUE_FALSE),
    "ARO-Visual-Attribution": ("image", TRUE_FALSE),
    "ARO-COCO-order": ("images", ORDERED),
    "ARO-Flickr-Order": ("images", ORDERED),
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(hub: Hub, name: str, images: dict[str, list[int]], texts: dict[str, list[str]]) -> None:
    folder = hub.folder / name.replace("/", "-")
    stand_ins.table(folder / "data/test-00000-of-00001.parquet", images, texts)
    hub.repository(name, files(folder), "dataset")


def test_compositional_sets_and_a_language_of_imagenet(hub: Hub) -> None:
    for size, (name, (image, captions)) in enumerate(ARO.items(), 5):
        texts = {
            key: [stand_ins.caption(13 * k + 7 * row, name) for row in range(size)] for k, key in enumerate(captions)
        }
        table(hub, f"gowitheflow/{name}", {image: [*range(size)]}, texts)
    pairs = {f"image_{side}": [2 * row + side for row in range(4)] for side in (0, 1)}
    texts = {f"caption_{side}": [stand_ins.caption(11 * row + side) for row in range(4)] for side in (0, 1)}
    table(hub, "facebook/winoground", pairs, texts)
    stand_ins.webdataset(hub.folder / "copies", "imagenet1k")
    hub.repository("clip-benchmark/wds_imagenet1k", files(hub.folder / "copies/wds_imagenet1k"), "dataset")
    tiny_checkpoint(hub.folder / "a.pt")
    (hub.folder / "b.yaml").write_text('datasets: {winoground: "clip_benchmark:winoground"}')  # of 4 items, not 400
    data = [word for name in ("aro", "winoground", "babel_imagenet@sw") for word in ("-d", name)]
    done = hub.run("run", "-c", "b.yaml", "-m", "a.pt", *data, "-o", "out", "--workers", "0")
    assert done.returncode == 0, done.stderr
    with (hub.folder / "out/results.csv").open(newline="") as file:
        rows = {(row["dataset"], row["metric"]): row for row in csv.DictReader(file)}
    names = ("aro/vg_relation", "aro/vg_attribution", "aro/coco_order", "aro/flickr30k_order")
    each = [rows[name, "text_acc"] for name in names]
    assert [row["n"] for row in each] == ["5", "6", "7", "8"]
    assert abs(float(rows["aro", "text_acc"]["value"]) - sum(float(row["value"]) for row in each) / 4) < 1e-12
    assert {metric for name, metric in rows if name == "winoground"} == {"text_acc", "image_acc", "acc"}
    assert rows["winoground", "acc"]["n"] == "4"
    assert rows["babel_imagenet@sw", "acc1"]["n"] == "6"
    assert all(row["revision"] for (name, _), row in rows.items() if name != "aro")


def opened(folder: Path, **entry: Any) -> Dataset:
    return open_dataset("pairs", DatasetEntry(spec=f"hf:{folder}", **entry))


def test_columns_of_choices(tmp_path: Path) -> None:
    texts = {"right": ["a", "b", "c"], "wrong": ["d", "e", "f"], "blank": ["g", " ", "h"]}
    stand_ins.table(tmp_path / "test-0.parquet", {"image": [0, 1, 2]}, texts)
    found = opened(tmp_path, choice_keys=("right", "wrong"))
    assert found.choices == [("a", "d"), ("b", "e"), ("c", "f")]
    assert capabilities(found) == {"choices"}
    assert opened(tmp_path, choice_keys=("wrong", "right")).fingerprint != found.fingerprint
    with pytest.raises(UsageError, match="two columns or more, the true caption's first"):
        opened(tmp_path, choice_keys=("right",))
    with pytest.raises(UsageError, match="no label_key or caption_key beside them"):
        opened(tmp_path, choice_keys=("right", "wrong"), caption_key="right")
    with pytest.raises(DataError, match="choice_keys: there is no column 'wrnog'"):
        opened(tmp_path, choice_keys=("right", "wrnog"))
    with pytest.raises(DataError, match="column 'image' holds no text"):
        opened(tmp_path, choice_keys=("right", "image"))
    with pytest.raises(DataError, match="sample 1 has a blank candidate caption"):
        opened(tmp_path, choice_keys=("right", "blank"))
    with pytest.raises(UsageError, match="choice_keys: means nothing for folder: data sets, only for hf:"):
        open_dataset("x", DatasetEntry(spec="folder:x", choice_keys=("right", "wrong")))
