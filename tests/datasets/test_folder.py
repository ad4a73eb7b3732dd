"""``folder:`` against torchvision's ImageFolder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import shard_writer as writer

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.prompts import GENERIC_TEMPLATES
from clipeval.errors import DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    suffixes = [".png", ".JPEG", ".webp"]
    modes = ["P", "RGB", "RGBA"]
    for split, count in (("train", 4), ("test", 3)):
        for label, name in enumerate(["zebra_finch", "ant", "red_fox"]):
            for index in range(count - label):
                path = tmp_path / "pets of mine" / split / name / f"image{index}{suffixes[index % 3]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                writer.picture(10 * label + index).convert(modes[index % 3]).save(path)
    (tmp_path / "pets of mine" / "test" / "ant" / "notes.txt").write_text("not an image")
    return tmp_path / "pets of mine"


def opened(root: Path, split: str | None = None, **entry: object) -> Dataset:
    return datasets.open_dataset("mine", DatasetEntry(spec=f"folder:{root}", **entry), split)


@pytest.mark.parametrize("split", ["test", "train"])
def test_is_what_torchvision_reads(root: Path, split: str) -> None:
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(str(root / split))
    ours = opened(root, split)
    assert ours.labels is not None
    assert ours.labels.tolist() == theirs.targets
    assert ours.prompts is not None
    assert list(ours.prompts.classes) == [name.replace("_", " ") for name in theirs.classes]
    assert ours.prompts.templates == GENERIC_TEMPLATES
    for index, (image, _) in enumerate(theirs):
        assert ours.image(index).tobytes() == image.tobytes()
    assert list(ours.ids) == [Path(path).relative_to(root / split).as_posix() for path, _ in theirs.samples]


def test_text_files_replace_names_and_templates(root: Path) -> None:
    (root / "classnames.txt").write_text("an ant\na fox\na finch\n")
    (root / "templates.txt").write_text("{c}!\n")
    prompts = opened(root).prompts
    assert prompts is not None
    assert prompts.texts() == [["an ant!"], ["a fox!"], ["a finch!"]]
    (root / "classnames.txt").write_text("an ant\na fox\n")
    with pytest.raises(DataError, match=r"class list and labels disagree: .*has 2 lines, there are 3 class folders"):
        opened(root)
    (root / "classnames.txt").unlink()
    (root / "templates.txt").write_text("a photo of {}\n")
    with pytest.raises(DataError, match=r"mine: templates\[0\]: 'a photo of \{\}' must hold \{c\}"):
        opened(root)


def test_classes_are_those_of_all_splits(root: Path) -> None:
    shutil.rmtree(root / "test" / "ant")
    dataset = opened(root)
    assert dataset.labels is not None
    assert sorted(set(dataset.labels.tolist())) == [1, 2]
    assert dataset.prompts is not None
    assert dataset.prompts.classes == ("ant", "red fox", "zebra finch")


def test_fingerprint(root: Path, tmp_path: Path) -> None:
    before = opened(root)
    shutil.copytree(root, tmp_path / "copy")
    assert opened(tmp_path / "copy").fingerprint == before.fingerprint
    writer.picture(77).save(root / "test" / "ant" / "image0.png")
    changed = opened(root)
    assert changed.fingerprint != before.fingerprint
    assert list(changed.ids) == list(before.ids)
    shutil.move(tmp_path / "copy" / "test" / "ant" / "image0.png", tmp_path / "copy" / "test" / "red_fox" / "new.png")
    assert opened(tmp_path / "copy").fingerprint != before.fingerprint


def test_what_is_wrong_is_named(root: Path, tmp_path: Path) -> None:
    (root / "test" / "ant" / "image0.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"mine: sample ant/image0\.png: cannot decode the image"):
        opened(root).image(0)
    with pytest.raises(DataError, match=r"has no split 'val' \(folders there: test, train\)\. Layout: ROOT/SPLIT"):
        opened(root, "val")
    with pytest.raises(DataError, match=r"it is not a folder with splits"):
        opened(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"found 6 samples in folder:.*expected 7"):
        opened(root, n=7)
    (root / "test" / "ant" / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"mine: cannot read .*gone\.png: No such file"):
        opened(root)
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    with pytest.raises(DataError, match=r"the split 'test' of folder:.* is empty"):
        opened(root)
