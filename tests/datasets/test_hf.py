"""``hf:``: Parquet tables and image folders on disk, read through Hugging Face ``datasets`` as the oracle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shard_writer as writer

from clipeval import datasets as downstream
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError

hf = pytest.importorskip("datasets")
hf.disable_progress_bars()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))


def opened(path: Path | str, split: str | None = None, **entry: Any) -> Dataset:
    return downstream.open_dataset("table", DatasetEntry(spec=f"hf:{path}", **entry), split)


def table(path: Path, n: int = 5, **changes: Any) -> None:
    """A Parquet file of images in several modes with a ClassLabel column; ``changes`` are [values, feature]."""
    modes = ["RGB", "L", "P", "RGBA", "CMYK"]
    pictures = [writer.picture(index, 30 + index, 20).convert(modes[index % 5]) for index in range(n)]
    kinds = ["png", "png", "png", "png", "jpg"]
    columns: dict[str, Any] = {
        "image": [{"bytes": writer.encoded(image, kinds[i % 5]), "path": None} for i, image in enumerate(pictures)],
        "label": [(2 * index) % 3 for index in range(n)],
    }
    features: dict[str, Any] = {"image": hf.Image(), "label": hf.ClassLabel(names=["red_fox", "wolf", "bear"])}
    for key, change in changes.items():
        columns.pop(key, None)
        features.pop(key, None)
        if change is not None:
            columns[key], features[key] = change
    path.parent.mkdir(parents=True, exist_ok=True)
    hf.Dataset.from_dict(columns, features=hf.Features(features)).to_parquet(str(path))


TEXTS = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], ["h"]]


def test_parquet_folder_and_file(tmp_path: Path) -> None:
    path = tmp_path / "repo" / "data" / "test-00000-of-00001.parquet"
    table(path)
    rows = list(hf.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hf")))
    table(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet", n=7)
    dataset = opened(tmp_path / "repo", n=5)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [row["label"] for row in rows] == [0, 2, 1, 0, 2]
    assert dataset.prompts is not None
    assert dataset.prompts.classes == ("red fox", "wolf", "bear")
    assert list(dataset.ids) == ["0", "1", "2", "3", "4"]
    assert downstream.capabilities(dataset) == {"labels", "prompts"}
    for index, row in enumerate(rows):
        assert dataset.image(index).tobytes() == row["image"].convert("RGB").tobytes()
    assert len(opened(tmp_path / "repo", "train")) == 7
    assert pickle.loads(pickle.dumps(dataset)).image(3).tobytes() == dataset.image(3).tobytes()

    file = opened(path)
    assert file.fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match=r"is the split 'test'; it has no split 'train'"):
        opened(path, "train")
    with pytest.raises(DataError, match=r"cannot load the split 'val': Unknown split \"val\".*'train', 'test'"):
        opened(tmp_path / "repo", "val")


def test_captions_and_multilabel(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", label=None, caption=(TEXTS, hf.List(hf.Value("string"))))
    assert opened(tmp_path / "a.parquet").captions == [tuple(texts) for texts in TEXTS]
    table(tmp_path / "b.parquet", label=None, sentence=(["v", "w", "x", "y", "z"], hf.Value("string")))
    assert opened(tmp_path / "b.parquet").captions == [("v",), ("w",), ("x",), ("y",), ("z",)]
    classes = hf.List(hf.ClassLabel(names=["x", "y", "z", "w"]))
    table(tmp_path / "c.parquet", label=([[0, 3], [], [1], [1, 2, 3], [0]], classes))
    dataset = opened(tmp_path / "c.parquet")
    assert dataset.labels is not None
    assert dataset.labels.dtype == bool
    assert dataset.labels.astype(int).tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]]
    table(tmp_path / "d.parquet", text=(TEXTS, hf.List(hf.Value("string"))))
    assert downstream.capabilities(opened(tmp_path / "d.parquet")) == {"labels", "prompts", "captions"}


def test_columns_by_name(tmp_path: Path) -> None:
    two = hf.ClassLabel(names=["p", "q"])
    numbers = ([7, 9, 7, 3, 3], hf.Value("int64"))
    table(tmp_path / "a.parquet", label=None, fine=([0, 1, 1, 0, 1], two), coarse=([1, 1, 1, 0, 0], two))
    with pytest.raises(DataError, match=r"cannot tell the label column among image \(Image\), .* with label_key"):
        opened(tmp_path / "a.parquet")
    dataset = opened(tmp_path / "a.parquet", label_key="coarse")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(DataError, match=r"label_key: there is no column 'corse'\. Columns: image"):
        opened(tmp_path / "a.parquet", label_key="corse")
    table(tmp_path / "b.parquet", label=numbers)
    dataset = opened(tmp_path / "b.parquet")  # numbers that name no classes stay as they are
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [7, 9, 7, 3, 3]
    assert downstream.capabilities(dataset) == {"labels"}
    table(tmp_path / "c.parquet", label=None, a=(["x"] * 5, hf.Value("string")), b=(["y"] * 5, hf.Value("string")))
    with pytest.raises(DataError, match=r"cannot tell the caption column .* with caption_key"):
        opened(tmp_path / "c.parquet")
    assert opened(tmp_path / "c.parquet", caption_key="b").captions == [("y",)] * 5
    table(tmp_path / "d.parquet", label=None)
    with pytest.raises(DataError, match=r"cannot tell the label or caption column"):
        opened(tmp_path / "d.parquet")


def test_a_parquet_without_feature_types(tmp_path: Path) -> None:
    """As other tools write it: bytes and integers, no word about images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = [writer.encoded(writer.picture(index), "png") for index in range(3)]
    pq.write_table(pa.table({"image": data, "label": [0, 1, 1]}), tmp_path / "plain.parquet")
    dataset = opened(tmp_path / "plain.parquet")
    assert dataset.image(2).tobytes() == writer.picture(2).tobytes()


def image_folder(root: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(["red_fox", "wolf"]):
            for index in range(count + label):
                path = root / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                writer.picture(100 * label + index).save(path)


def test_image_folder(tmp_path: Path) -> None:
    image_folder(tmp_path / "photos")
    dataset = opened(tmp_path / "photos", n=5)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.prompts is not None
    assert dataset.prompts.classes == ("red fox", "wolf")
    assert dataset.image(3).tobytes() == writer.picture(101).tobytes()
    before = dataset.fingerprint
    writer.picture(55).save(tmp_path / "photos" / "test" / "wolf" / "1.png")
    assert opened(tmp_path / "photos").fingerprint != before


def test_fingerprint_is_of_content(tmp_path: Path) -> None:
    table(tmp_path / "a" / "one.parquet")
    table(tmp_path / "b" / "two.parquet")
    table(tmp_path / "c.parquet", label=([0, 2, 1, 0, 1], hf.ClassLabel(names=["red_fox", "wolf", "bear"])))
    first = opened(tmp_path / "a" / "one.parquet").fingerprint
    assert opened(tmp_path / "b" / "two.parquet").fingerprint == first
    assert opened(tmp_path / "c.parquet").fingerprint != first
    pictures = [{"bytes": writer.encoded(writer.picture(index), "png"), "path": None} for index in range(5)]
    table(tmp_path / "a" / "one.parquet", image=(pictures, hf.Image()))
    assert opened(tmp_path / "a" / "one.parquet").fingerprint != first  # the same path, other images


def test_broken_and_missing_images_are_named(tmp_path: Path) -> None:
    good = writer.encoded(writer.picture(0), "png")
    cells = [{"bytes": data, "path": None} for data in (good, good[:60], b"<html>", good, good)]
    table(tmp_path / "a.parquet", image=([*cells[:3], None, cells[4]], hf.Image()))
    dataset = opened(tmp_path / "a.parquet")
    dataset.image(0)
    for index, message in [(1, "cannot decode the image"), (2, "cannot identify"), (3, "has no image")]:
        with pytest.raises(DataError, match=rf"table: sample {index}.*{message}"):
            dataset.image(index)
    table(tmp_path / "b.parquet", label=([0, 1, None, 1, 0], hf.ClassLabel(names=["x", "y"])))
    with pytest.raises(DataError, match="sample 2 has no label in column 'label'"):
        opened(tmp_path / "b.parquet")
    table(tmp_path / "c.parquet", label=([0, 1, -1, 1, 0], hf.ClassLabel(names=["x", "y"])))
    with pytest.raises(DataError, match="class list and labels disagree: sample 2 has the label -1"):
        opened(tmp_path / "c.parquet")


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file or folder ./nowhere, and it is not a name on the hub"):
        opened("./nowhere")
    entry = DatasetEntry(spec="hf:clipeval-tests/absent@0123abc")
    with pytest.raises(
        DataError, match=r"hf:clipeval-tests/absent@0123abc.*nothing is downloaded now \(--offline or --plan\)"
    ):
        downstream.open_dataset("x", entry, offline=True)
    with pytest.raises(UsageError, match=r"is on this machine; only data sets of the hub have revisions"):
        opened(tmp_path, revision="0123abc")
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"expected a folder, a \.parquet file or a name on the hub"):
        opened(tmp_path / "table.csv")


def test_a_loading_script_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(DataError, match="cannot load the split 'test'"):
        opened(tmp_path / "scripted")
    assert not marker.exists()


def test_prompt_file_must_fit_the_classes(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet")
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"classes": ["fox", "wolf"], "templates": ["a {c}"]}')
    with pytest.raises(DataError, match=r"class list and labels disagree: .* names 2 classes, the data set has 3"):
        opened(tmp_path / "a.parquet", prompts=str(prompts))
    prompts.write_text('{"classes": ["fox", "wolf", "bear"], "templates": ["a {c}", "the {c}"]}')
    dataset = opened(tmp_path / "a.parquet", prompts=str(prompts))
    assert dataset.prompts is not None
    assert dataset.prompts.texts() == [["a fox", "the fox"], ["a wolf", "the wolf"], ["a bear", "the bear"]]
    assert np.array_equal(dataset.labels, [0, 2, 1, 0, 2])
