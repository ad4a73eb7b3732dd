"""Data sets of other packages: the example of the documentation, and objects that do not fit."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_checkpoint
from packages import Package, shown
from PIL import Image

from clipeval import config, datasets, lists
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, entry: str, version: str = "1.2"
) -> None:
    """A package of one module."""
    package = Package(folder, name, version)
    (folder / f"{name}.py").write_text(code)
    kind, _, address = entry.partition(" = ")
    package.points = {"clipeval.datasets": {kind: address}}
    package.install()
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documentation, cut out of it."""
    install(
        tmp_path / "package",
        monkeypatch,
        "my_shapes",
        shown("my_extensions/datasets.py"),
        "shapes = my_shapes:open_shapes",
    )


def opened(spec: str, split: str | None = None, **more: Any) -> Dataset:
    [(name, entry)] = datasets.resolve([spec], config.packaged()).datasets.items()
    return datasets.open_dataset(name, entry.model_copy(update=more), split)


@pytest.mark.usefixtures("shapes")
def test_the_example_of_the_documentation() -> None:
    found = opened("shapes:12")
    assert (found.name, len(found), found.ids[1]) == ("12", 12, "drawing 100001")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1] * 6
    assert found.prompts is not None
    assert found.prompts.texts()[1] == ["a drawing of a square.", "a square"]
    assert found.captions is not None
    assert found.captions[3] == ("square number 100003",)
    assert datasets.capabilities(found) == {"labels", "prompts", "captions"}
    assert (np.asarray(found.image(1))[24, 24] == [37, 40, 90]).all()
    assert len({found.fingerprint, opened("shapes:12", "train").fingerprint, opened("shapes:13").fingerprint}) == 3
    assert opened("shapes:12").fingerprint == found.fingerprint
    assert pickle.loads(pickle.dumps(found)).image(3).tobytes() == found.image(3).tobytes()
    with pytest.raises(DataError, match=r"12: shapes: of my_shapes 1\.2: KeyError: 'val'"):
        opened("shapes:12", "val")
    with pytest.raises(DataError, match=r"found 12 samples in shapes:12, split 'test', expected 13"):
        opened("shapes:12", n=13)
    with pytest.raises(UsageError, match=r"label_key: means nothing for shapes: data sets"):
        opened("shapes:12", label_key="x")
    with pytest.raises(UsageError, match=r"'shape:12' is neither.*Did you mean 'shapes:'.*shapes:REFERENCE"):
        opened("shape:12")
    assert lists.of_packages("datasets") == ["shapes:REFERENCE of my_shapes 1.2"]


@pytest.mark.usefixtures("shapes")
def test_it_is_measured_like_any_other(tmp_path: Path, command: Any) -> None:
    """In -d and in a configuration, in this process and with decoders."""
    tiny_checkpoint(tmp_path / "a.pt")
    (tmp_path / "b.yaml").write_text('datasets: {mine: {spec: "shapes:31", n: 31}}')
    run = partial(command, "clipeval", "run", "-m", tmp_path / "a.pt", "-c", tmp_path / "b.yaml")
    tables = []
    for number, words in enumerate((["--workers", "0"], ["--workers", "2", "--batch-size", "4"])):
        out = tmp_path / f"out{number}"
        data = [
            "-d",
            "mine",
            "-d",
            "shapes:13",
            "-t",
            "classification",
            "-t",
            "retrieval",
            "-t",
            "knn",
            "--shots",
            "full",
        ]
        code, _, err = run(*data, "-o", out, *words)
        assert (code, [line for line in err.splitlines() if "Error" in line]) == (0, [])
        tables.append(pd.read_parquet(out / "results.parquet"))
    one, two = (table.set_index(["dataset", "task", "metric"]).value.dropna() for table in tables)
    assert {name for name, *_ in one.index} == {"mine", "13"}
    assert len({task for _, task, _ in one.index}) == 3
    assert np.allclose(one, two[one.index], atol=1e-6)


FAKE = """
from types import SimpleNamespace
made = None
def function(reference, split):
    return made(reference, split)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package whose objects a test makes."""
    install(
        tmp_path, monkeypatch, "fake_sets", FAKE, "fake = fake_sets:function\nabsent = fake_sets:nothing\nwds = x:y"
    )
    import fake_sets  # type: ignore[import-not-found]

    def called(**attributes: Any) -> None:
        good = {"ids": ["a", "b", "c"], "fingerprint": "1", "image": lambda i: Image.new("RGB", (3, 2)), **attributes}
        fake_sets.made = lambda reference, split: SimpleNamespace(**good)

    return called


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"labels": [0, 1]}, r"x: fake: of fake_sets 1\.2: labels: 2 for 3 samples"),
        ({"labels": [0, 1.5, 1], "classes": ["u", "v"]}, r"fake_sets 1\.2: sample b: 1\.5 is no class index"),
        ({"labels": [0, 3, 1], "classes": ["u", "v"]}, r"x: class list and labels disagree: sample b has the label 3"),
        ({"labels": [[0, 1], [1, 2], [0, 0]], "classes": ["u", "v"]}, r"sample b: a label is 2; 0 is no and 1 is yes"),
        ({"labels": [[0, 1], 1, [0, 0]]}, r"sample b has one label, and others have a list"),
        ({"labels": "abc"}, r"labels: 3 for 3 samples"),
        ({"labels": [0, 1, 1], "classes": "uv"}, r"classes: 'uv' is no list of texts"),
        ({"labels": [0, 1, 1], "classes": ["u", "v"], "templates": ["x"]}, r"'x' must hold \{c\}"),
        ({"classes": ["u"]}, r"classes and templates mean nothing without labels"),
        ({"captions": [["a"], ["b"]]}, r"captions: 2 for 3 samples"),
        ({"captions": [["a"], [7], "c"]}, r"sample b: captions: \[7\] is no list of texts"),
        ({"captions": ["a", " ", "c"]}, r"x: sample b has no caption that is not blank"),
        ({"metadata": [1, 2, 3]}, r"metadata is no mapping"),
        ({"metadata": {"region": [1, 2]}}, r"metadata 'region': 2 for 3 samples"),
        ({"metadata": {"region": [1, 2, 0.5]}}, r"metadata 'region': 0\.5 is no whole number"),
        ({"ids": ["a", "b", "a"]}, r"x: 2 samples have the id 'a'"),
        ({"ids": [1, 2, 3]}, r"1 is no id: ids are texts"),
        ({"ids": ["a", "b\x1b[2J", "c"]}, r"'b\\x1b\[2J' is no id"),
        ({"ids": []}, r"x: the split 'test' of fake:x is empty"),
        ({"ids": None}, r"fake: of fake_sets 1\.2: TypeError: 'NoneType' object is not iterable"),
        ({"fingerprint": 7}, r"fingerprint is not a text"),
    ],
)
def test_what_does_not_fit(fake: Any, attributes: dict[str, Any], message: str) -> None:
    fake(**attributes)
    with pytest.raises(DataError, match=message):
        opened("fake:x")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda i: 1 / 0, r"x: fake: of fake_sets 1\.2: sample b: ZeroDivisionError: division by zero\."),
        (lambda i: np.zeros((2, 2, 3)), r"sample b: image\(\) gave ndarray, not a PIL image"),
        (lambda i: Image.new("F", (2, 2)), r"sample b: its grey levels are 32-bit"),
        (lambda i: Image.open("nothing.png"), r"sample b: FileNotFoundError: .*nothing\.png"),
        (lambda i: SimpleNamespace(), r"not a PIL image"),
        (lambda i: exit(3), r"fake_sets 1\.2: sample b: RuntimeError: it asked to end the program \(3\)"),
    ],
)
def test_images_that_are_none(fake: Any, image: Any, message: str) -> None:
    fake(image=image, captions=["a", "b", "c"])
    found = opened("fake:x")
    with pytest.raises(DataError, match=message):
        found.image(1)


def test_images_are_rgb(fake: Any) -> None:
    fake(image=lambda i: Image.new("P", (5, 4)), captions=["a", "b", "c"])
    assert (opened("fake:x").image(0).mode, opened("fake:x").image(0).size) == ("RGB", (5, 4))


def test_the_content_decides_the_fingerprint(fake: Any) -> None:
    different: list[dict[str, Any]] = [{}, {"labels": [0, 1, 1]}, {"labels": [1, 1, 0]}, {"captions": ["a", "b", "c"]}]
    different += [{"fingerprint": "2"}, {"metadata": {"region": np.array([1, 1, 2])}}, {"ids": ["a", "b", "d"]}]
    found = []
    for attributes in different:
        fake(**attributes)
        found.append(opened("fake:x").fingerprint)
    assert len(set(found)) == len(found)


def test_what_cannot_be_imported_and_what_is_built_in(fake: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: fake_sets:nothing of fake_sets 1\.2 cannot be imported: .*nothing"):
        opened("absent:x")
    with pytest.raises(DataError, match=r"has no split 'test'"):  # of ours, whatever a package calls its own
        opened(f"wds:{tmp_path}/nothing")


def test_another_process_opens_its_own(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open file has one place that all processes would move."""
    fake(captions=["a", "b", "c"])
    found = opened("fake:x")
    fake(captions=["a", "b", "c"], image=lambda i: Image.new("RGB", (9, 9)))
    assert found.image(0).size == (3, 2)
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert found.image(0).size == (9, 9)
    fake(ids=["a", "b", "other"])
    monkeypatch.setattr("os.getpid", lambda: 2)
    with pytest.raises(DataError, match=r"ids or fingerprint are not the same when it is opened again"):
        found.image(0)


def test_a_run_names_the_package_and_goes_on(fake: Any, tmp_path: Path, command: Any) -> None:
    fake(labels=[0, 1, 1], classes=["u", "v"], image=lambda i: 1 / (1 - i) and Image.new("RGB", (3, 3)))
    tiny_checkpoint(tmp_path / "a.pt")
    data = ["-d", "fake:x", "-d", "digits", "-t", "classification", "--json"]
    code, out, _ = command("clipeval", "run", "-m", tmp_path / "a.pt", *data, "--workers", "0", "-o", tmp_path / "out")
    rows = json.loads(out)["rows"]
    assert code == 3
    assert {row["status"] for row in rows if row["dataset"] == "digits"} == {"ok"}
    [failed] = [row for row in rows if row["dataset"] == "x"]
    assert "fake: of fake_sets 1.2: sample b: ZeroDivisionError" in failed["error"]
