"""``folder:`` against torchvision's ImageFolder."""

from __future__ import annotations

import os
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


def test_file_names_that_are_no_utf8_have_ids_that_can_be_written(root: Path) -> None:
    """As old data sets have them. pyarrow and JSON write no other text than UTF-8."""
    before = opened(root)
    odd = root / "test" / "ant" / os.fsdecode(b"caf\xe9.png")
    writer.picture(5).save(odd)
    dataset = opened(root)
    assert sorted(set(dataset.ids) - set(before.ids)) == ["ant/caf\\xe9.png"]
    assert all(sample.encode() for sample in dataset.ids)
    assert dataset.image(list(dataset.ids).index("ant/caf\\xe9.png")).tobytes() == writer.picture(5).tobytes()
    odd.unlink()
    os.mkfifo(odd)
    with pytest.raises(DataError, match=r"mine: cannot read .*caf\\xe9\.png: it is not a regular file"):
        opened(root)


def test_a_class_folder_that_is_no_utf8_needs_a_list_of_names(root: Path) -> None:
    folder = root / "test" / os.fsdecode(b"zoo\xe9")
    folder.mkdir()
    writer.picture(5).save(folder / "0.png")
    with pytest.raises(DataError, match=r"mine: the folder zoo\\xe9 is no class name: it is not UTF-8"):
        opened(root)
    (root / "classnames.txt").write_text("an ant\na fox\na finch\na café\n")
    prompts = opened(root).prompts
    assert prompts is not None
    assert prompts.classes[-1] == "a café"


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "folder", "broken link"])
def test_what_is_no_image_file_is_named(root: Path, kind: str) -> None:
    path = root / "test" / "ant" / "z.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(100 << 30)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"mine: cannot read .*/z\.jpg: "):
        opened(root)


def test_the_list_of_class_names_is_read_without_a_byte_order_mark(root: Path) -> None:
    (root / "classnames.txt").write_bytes(b"\xef\xbb\xbfan ant\r\na fox\r\na finch\r\n")
    prompts = opened(root).prompts
    assert prompts is not None
    assert prompts.classes == ("an ant", "a fox", "a finch")
    (root / "classnames.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"classnames\.txt: cannot read it: it is not UTF-8 text"):
        opened(root)


def test_images_exchanged_in_place_are_seen(root: Path) -> None:
    """Same size, same modification time, same inode: as ``rsync --inplace -t`` leaves them."""
    for number in range(2):
        (root / "test" / "ant" / f"{number}.bmp").write_bytes(writer.encoded(writer.picture(number), "bmp"))
    before = opened(root).fingerprint
    paths = [root / "test" / "ant" / f"{number}.bmp" for number in range(2)]
    contents, times = [path.read_bytes() for path in paths], [path.stat().st_mtime_ns for path in paths]
    for path, content, time in zip(paths, reversed(contents), times, strict=True):
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(time, time))
    assert opened(root).fingerprint != before
