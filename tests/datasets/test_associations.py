"""Tables of cues and candidate images: every way that the images may lie, and rows that do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shard_writer as writer

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset, evenly_spaced
from clipeval.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"cue": "pair", "candidates": ["shoe", "eye", "dog", "sun", "twin"], "associations": ["twin", "eye"]},
    {"cue": "Ice", "candidates": ["fire", "bear", "cube", "eye", "hill", "dog"], "associations": ["cube"]},
    {"cue": "moon", "candidates": [f"name {k}" for k in range(10)], "associations": ["name 9", "name 0", "name 3"]},
]
SIZES = [5, 6, 10]


def image(row: int, place: int) -> bytes:
    return writer.encoded(writer.picture(100 * row + place, 20 + row, 20 + place), "png")


def rows(**changed: Any) -> list[dict[str, Any]]:
    """``ROWS`` with their images and columns that nobody asks for; ``changed`` columns of the second row."""
    found = []
    for number, row in enumerate(ROWS):
        images = [image(number, place) for place in range(len(row["candidates"]))]
        found.append({**row, "candidate_images": images, "ID": number, "num_candidates": len(images)})
    found[1] |= changed
    return found


def structs(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "candidate_images": [{"bytes": data} for data in row["candidate_images"]]} for row in found]


def written(folder: Path, kind: str, found: list[dict[str, Any]]) -> str:
    """A table as the hub's library writes it, as plain Parquet writes it, as files beside it, or as saved to disk."""
    folder.mkdir(parents=True)
    features = hf.Features(
        {
            "candidates": hf.List(hf.Value("string")),
            "candidate_images": hf.List(hf.Image()),
            "cue": hf.Value("string"),
            "associations": hf.List(hf.Value("string")),
            "num_candidates": hf.Value("int64"),
            "ID": hf.Value("int64"),
        }
    )
    if kind == "hub":
        table = hf.Dataset.from_list(structs(found), features=features)
        (folder / "data" / "test").mkdir(parents=True)
        table.to_parquet(folder / "data" / "test" / "0000.parquet")
        return f"hf:{folder}"
    if kind == "saved":
        hf.DatasetDict({"test": hf.Dataset.from_list(structs(found), features=features)}).save_to_disk(folder / "d")
        return f"hf:{folder / 'd'}"
    if kind == "files":
        for row in found:
            paths = [f"{row['ID']}-{place}.png" for place in range(len(row["candidate_images"]))]
            for path, data in zip(paths, row["candidate_images"], strict=True):
                (folder / path).write_bytes(data)
            row["candidate_images"] = [{"bytes": None, "path": path} for path in paths]
    elif kind == "structs":
        found = structs(found)
    pq.write_table(pa.Table.from_pylist(found), folder / "test.parquet", row_group_size=2)
    return f"hf:{folder / 'test.parquet'}"


def opened(spec: str, **entry: Any) -> Dataset:
    return datasets.open_dataset("game", DatasetEntry(spec=spec, train_split=None, **entry))


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return opened(written(tmp_path_factory.mktemp("f") / "t", "bytes", rows())).fingerprint


@pytest.mark.parametrize("kind", ["hub", "saved", "structs", "bytes", "files"])
def test_rows_as_they_lie(tmp_path: Path, kind: str, fingerprint: str) -> None:
    dataset = opened(written(tmp_path / "t", kind, rows()), n=3)
    assert datasets.capabilities(dataset) == {"cues"}
    assert dataset.fingerprint == fingerprint
    assert list(dataset.ids) == [f"{row}/{place}" for row, size in enumerate(SIZES) for place in range(size)]
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [row for row, size in enumerate(SIZES) for _ in range(size)]
    assert list(dataset.cues or ()) == [ROWS[row]["cue"] for row, size in enumerate(SIZES) for _ in range(size)]
    assert dataset.associated is not None
    assert np.flatnonzero(dataset.associated).tolist() == [1, 4, 5 + 2, 11, 11 + 3, 11 + 9]
    again = pickle.loads(pickle.dumps(dataset))  # as decoding processes get it
    for index in (20, 0, 7, 10, 11):
        row, place = map(int, dataset.ids[index].split("/"))
        expected = np.asarray(writer.picture(100 * row + place, 20 + row, 20 + place))
        assert (np.asarray(dataset.image(index)) == expected).all()
        assert (np.asarray(again.image(index)) == expected).all()


def test_a_part_has_whole_rows(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path / "t", "bytes", rows()))
    part = Subset(dataset, evenly_spaced(dataset, 2))
    assert part.groups is not None
    assert part.associated is not None
    assert part.groups.tolist() == [0] * 5 + [1] * 6
    assert part.associated.sum() == 3
    assert set(part.cues or ()) == {"pair", "Ice"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"candidate_images": [image(1, k) for k in range(5)]},
            r"row 1 has 5 images in 'candidate_images' for 6 names",
        ),
        (
            {"candidate_images": [image(1, k) for k in range(7)]},
            r"row 1 has 7 images in 'candidate_images' for 6 names",
        ),
        ({"candidate_images": None}, r"row 1 has 0 images in 'candidate_images' for 6 names"),
        ({"associations": ["cube", "ice"]}, r"row 1: its association ice is none of its candidates: fire, bear, cube"),
        ({"associations": []}, r"row 1: its associations are \[\], and must be a list of names"),
        ({"associations": ["cube", "cube"]}, r"row 1: a name stands twice among its associations"),
        ({"candidates": ["a", "b", "a", "c", "d", "e"]}, r"row 1: a name stands twice among its candidates: a, b, a"),
        ({"candidates": None}, r"row 1: its candidates are None"),
        ({"cue": " "}, r"row 1: its cue is ' ', and must be a text"),
        ({"cue": None}, r"row 1: its cue is None"),
        ({"candidate_images": [b"x"] * 6}, r"sample 1/0.*image"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(written(tmp_path / "t", "bytes", rows(**changed))).image(5)


def test_the_number_of_rows_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 3 samples in .* expected 21"):
        opened(written(tmp_path / "t", "hub", rows()), n=21)


def test_a_named_column_makes_it_another_data_set(tmp_path: Path) -> None:
    found = structs(rows())
    for number, row in enumerate(found):
        row["image"] = {"bytes": image(7, number), "path": None}
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "test.parquet")
    dataset = opened(f"hf:{tmp_path / 'test.parquet'}", image_key="image", caption_key="cue")
    assert list(dataset.captions or ()) == [("pair",), ("Ice",), ("moon",)]
