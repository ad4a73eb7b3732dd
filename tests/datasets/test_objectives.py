"""Class names and templates that are lines of objectives, as the shards of FairFace and UTKFace have them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import shard_writer as writer

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Prompts
from clipeval.datasets.objectives import by_objective
from clipeval.errors import DataError, UsageError
from clipeval.tasks import zeroshot_classification

CLASSES = ["gender:male", "race:black", "toxic:a: b", "race:white", "age:0", "gender:female"]
TEMPLATES = ["race:a photo of a {c} person.", "age:aged {c}", "gender:{c}", "toxic:{c}", "race:a {c} face: {c}"]


def test_lines_are_split_at_the_first_colon_and_keep_their_order():
    found = by_objective(Prompts("default", tuple(CLASSES), tuple(TEMPLATES)))
    assert {name: prompts.texts() for name, prompts in found.items()} == {
        "gender": [["male"], ["female"]],
        "race": [
            ["a photo of a black person.", "a black face: black"],
            ["a photo of a white person.", "a white face: white"],
        ],
        "toxic": [["a: b"]],
        "age": [["aged 0"]],
    }
    assert by_objective(None) == {}
    for ordinary in (["race:black", "cat"], ["racecar"], ["breed:pug"], []):
        assert by_objective(Prompts("default", tuple(ordinary), ("{c}",))) == {}


def npy(*numbers: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(numbers))
    return buffer.getvalue()


FIELDS = ["age", "gender", "race", "race_binary"]


def shards(root: Path, templates: list[str] = TEMPLATES, cls: bytes | None = b"99") -> DatasetEntry:
    members = []
    for row in range(5):
        members += [(f"{row}.png", writer.encoded(writer.picture(row), "png")), (f"{row}.npy", npy(row, 1, 0, 1))]
        members += [] if cls is None else [(f"{row}.cls", cls)]
    writer.write_split(root, "test", [members])
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    return DatasetEntry(spec=f"wds:{root}", metadata=FIELDS)


@pytest.mark.parametrize("cls", [b"99", b"0", None])
def test_the_labels_of_faces_are_metadata(tmp_path, cls):
    """``.cls`` is not read: no class list has 100 names here. Without any, ``.npy`` is no label per class."""
    dataset = datasets.open_dataset("fairness/fairface", shards(tmp_path, cls=cls))
    assert dataset.labels is None
    assert dataset.metadata["age"].tolist() == [0, 1, 2, 3, 4]
    assert datasets.capabilities(dataset) == {"labels", "prompts"}
    assert zeroshot_classification.texts(dataset) == [
        "male", "female", "a photo of a black person.", "a black face: black", "a photo of a white person.",
        "a white face: white", "a: b", "aged 0",
    ]  # fmt: skip


def test_templates_of_other_objectives_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"fairface: the class names are lines OBJECTIVE:text of gender, race, toxic, age"
    ):
        datasets.open_dataset("fairface", shards(tmp_path / "a", TEMPLATES[:3]))
    with pytest.raises(DataError, match="each objective needs both"):
        datasets.open_dataset("fairface", shards(tmp_path / "b", ["a photo of a {c}"]))
    with pytest.raises((DataError, UsageError), match=r"must hold \{c\} for the class name"):
        datasets.open_dataset("fairface", shards(tmp_path / "c", [*TEMPLATES[:3], "toxic:words"]))
