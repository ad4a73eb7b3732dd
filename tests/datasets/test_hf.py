"""``hf:``: Parquet tables and image folders on disk, read through Hugging Face ``datasets`` as the oracle."""

from __future__ import annotations

import contextlib
import os
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
    with pytest.raises(DataError, match="has no split 'val'; it has train, test"):
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
    with pytest.raises(DataError, match="sample 2, column 'label': -1 is no class index"):
        opened(tmp_path / "c.parquet")


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file or folder ./nowhere, and it is not a name on the hub"):
        opened("./nowhere")
    entry = DatasetEntry(spec="hf:clipeval-tests/absent@0123abc")
    with pytest.raises(DataError, match=r"hf:clipeval-tests/absent@0123abc.*nothing is downloaded now \(--offline, "):
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
    with pytest.raises(DataError, match="scripted: cannot tell its splits: Dataset scripts are no longer supported"):
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


def pictures_in(folder: Path, count: int = 3) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        writer.picture(number).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def cells(path: Path, images: list[Any], **columns: Any) -> Path:
    """A Parquet file whose image cells are exactly these, as other tools write them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(images, kind), **(columns or {"label": [0] * len(images)})}), path)
    return path


@pytest.mark.parametrize("bytes_first", [True, False])
def test_a_table_of_bytes_and_paths_is_read_by_what_each_cell_holds(tmp_path: Path, bytes_first: bool) -> None:
    names = pictures_in(tmp_path / "set" / "images")
    embedded = [{"bytes": writer.encoded(writer.picture(9), "png"), "path": None}]
    named = [{"bytes": None, "path": f"images/{name}"} for name in names[:2]]
    both = [{"bytes": writer.encoded(writer.picture(8), "png"), "path": f"images/{names[2]}"}]
    path = cells(tmp_path / "set" / "t.parquet", [*(embedded if bytes_first else []), *named, *both, *embedded])
    first = opened(path)
    expected = [*([9] if bytes_first else []), 0, 1, 8, 9]
    for index, seed in enumerate(expected):
        assert first.image(index).tobytes() == writer.picture(seed).tobytes()
    writer.picture(55).save(tmp_path / "set" / "images" / names[1])
    second = opened(path)
    assert second.fingerprint != first.fingerprint
    assert second.image(expected.index(1)).tobytes() == writer.picture(55).tobytes()
    embedded[0]["bytes"] = writer.encoded(writer.picture(66), "png")
    cells(path, [*(embedded if bytes_first else []), *named, *both, *embedded])
    assert opened(path).fingerprint not in (first.fingerprint, second.fingerprint)


@pytest.mark.parametrize("kind", ["outside", "above", "device", "pipe", "link to a device", "url"])
def test_a_table_may_not_name_files_that_are_not_its_own(tmp_path: Path, kind: str) -> None:
    pictures_in(tmp_path / "private")
    folder = tmp_path / "set"
    folder.mkdir()
    named = {
        "outside": f"{tmp_path}/private/0.png",
        "above": "../private/0.png",
        "device": "/dev/zero",
        "pipe": "a.png",
        "link to a device": "b.png",
        "url": "http://127.0.0.1:9/a.png",
    }[kind]
    os.mkfifo(folder / "a.png")
    (folder / "b.png").symlink_to("/dev/zero")
    path = cells(folder / "t.parquet", [{"bytes": None, "path": named}])
    with pytest.raises(
        DataError, match=r"outside the folder of the data set; a table may|it is not a regular|No such file"
    ):
        opened(path)


def test_links_that_were_put_beside_a_table_are_followed(tmp_path: Path) -> None:
    pictures_in(tmp_path / "elsewhere")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    path = cells(tmp_path / "set" / "t.parquet", [{"bytes": None, "path": "images/1.png"}])
    assert opened(path).image(0).tobytes() == writer.picture(1).tobytes()


def test_a_table_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet")
    expected = opened(tmp_path / "a.parquet")
    odd = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    (tmp_path / "a.parquet").rename(odd)
    dataset = opened(odd)
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.image(2).tobytes() == expected_pixels(2)


def expected_pixels(number: int) -> bytes:
    return writer.picture(number, 30 + number, 20).convert("P").convert("RGB").tobytes()


def test_a_split_that_save_to_disk_wrote_says_what_it_is_called(tmp_path: Path) -> None:
    hf.Dataset.from_dict({"image": [b"x"], "label": [0]}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match=r"is one split, written by save_to_disk, and called 'train', not 'test'\. Set"):
        opened(tmp_path / "d")


@pytest.mark.parametrize("as_folder", [False, True])
def test_another_table_of_the_same_size_and_time_is_read(tmp_path: Path, as_folder: bool) -> None:
    """``datasets`` looks at the modification time of a local file alone."""
    path = tmp_path / "set" / "test.parquet"
    found = []
    for label in (0, 1):
        cells(path, [{"bytes": writer.encoded(writer.picture(0), "bmp"), "path": None}], label=[label])
        os.utime(path, (1_000_000_000, 1_000_000_000))
        dataset = opened(path.parent if as_folder else path)
        assert dataset.labels is not None
        found.append(dataset.labels.tolist())
    assert found == [[0], [1]]


def test_no_image_of_a_table_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when labels and captions are read, nor when it is decoded."""
    from hostile_images import EPS, stand_in_ghostscript
    from PIL import EpsImagePlugin

    marker = stand_in_ghostscript(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    images = [{"bytes": EPS, "path": "a.jpg"}] * 2
    table(tmp_path / "t.parquet", 2, image=(images, hf.Image(decode=False)), caption=(["a", "b"], hf.Value("string")))
    dataset = opened(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="sample 0: cannot decode the image: cannot identify it as JPEG"):
        dataset.image(0)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0.5, 1.0]}, "sample 0, column 'label': 0.5 is no class index"),
        ({"label": ["a", " "]}, "sample 1, column 'label': ' ' is no class name"),
        ({"label": [float("nan"), 1.0]}, "sample 0, column 'label': nan is no class index"),
        ({"label": np.array([2**63, 1], np.uint64)}, "column 'label': 9223372036854775808 is no class index"),
        ({"label": [[0], [0.5]]}, r"sample 1, column 'label': 0.5 is no class index"),
        ({"label": [[0, None], [1]]}, r"sample 0, column 'label': None is no class index"),
        ({"label": [[0, 1], [1, 0]]}, r"lists like \[0, 1\] may be 0 and 1 per class or the numbers of two classes"),
        ({"label": [["a"], ["b", None]]}, "sample 1, column 'label': None is no class name"),
        ({"label": [0, None]}, "sample 1 has no label"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = cells(tmp_path / "t.parquet", [{"bytes": b"x", "path": None}] * 2, **columns)
    with pytest.raises(DataError, match=message):
        opened(path, label_key="label")


def test_classes_beyond_the_list_of_a_multilabel_column_are_named(tmp_path: Path) -> None:
    """-1 was taken for the last class."""
    kind = hf.List(hf.ClassLabel(names=["x", "y"]))
    table(tmp_path / "a.parquet", 2, label=([[0], [-1]], kind))
    with pytest.raises(DataError, match="sample 1, column 'label': -1 is no class index"):
        opened(tmp_path / "a.parquet")


def test_captions_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = cells(tmp_path / "t.parquet", [{"bytes": b"x", "path": None}], caption=[[1, 2]])
    with pytest.raises(DataError, match="sample 0: column 'caption' holds no text"):
        opened(path, caption_key="caption")
    table(tmp_path / "b.parquet", 2, label=None, caption=([["a", None], ["b"]], hf.List(hf.Value("string"))))
    with pytest.raises(DataError, match="sample 0: column 'caption' holds no text: caption 1 is None"):
        opened(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/x.parquet", "../private.parquet", "/etc/x.parquet", "~/x.parquet"]
)
def test_a_description_may_not_name_files_elsewhere(tmp_path: Path, place: str) -> None:
    """A folder that was downloaded could make this machine ask another one, or read what is not in it."""
    table(tmp_path / "set" / "test.parquet")
    table(tmp_path / "private.parquet")
    described = f"configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: {place}\n"
    for name, text in (("README.md", f"---\r\n{described}---\ntext"), (".huggingface.yaml", described)):
        (tmp_path / "set" / name).write_text(text)
        with pytest.raises(DataError, match=r"'.*parquet' is not in the folder of the data set"):
            opened(tmp_path / "set")
        (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / "README.md").write_text(f"---\n{described.replace(place, 'test.parquet')}---\ntext {place}")
    assert len(opened(tmp_path / "set")) == 5


def test_a_damaged_table_is_a_message(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    for place in range(4, len(data), len(data) // 60):
        (tmp_path / "t.parquet").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) * 9 + data[place + 9 :])
        try:
            dataset = opened(tmp_path / "t.parquet")
        except DataError:
            continue
        for index in range(len(dataset)):
            with contextlib.suppress(DataError):
                dataset.image(index)


@pytest.mark.parametrize("reader", ["pyarrow.parquet.read_metadata", "datasets.load_dataset_builder"])
def test_no_memory_is_no_fault_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    """Nor where the library says it of an error of its own, as ``datasets`` does."""
    table(tmp_path / "t.parquet")
    image_folder(tmp_path / "images")

    def full(*_: object, **__: object) -> None:
        raise ValueError("an error occurred while generating the dataset") from MemoryError()

    monkeypatch.setattr(reader, full)
    with pytest.raises(MemoryError):
        opened(tmp_path / ("t.parquet" if "parquet" in reader else "images"))
