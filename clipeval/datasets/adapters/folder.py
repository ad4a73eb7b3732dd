"""``folder:``: a folder of images by split and class.

    ROOT/SPLIT/CLASS/*.jpg    ROOT/classnames.txt  ROOT/templates.txt    (the text files are optional)

Class names are the folders' names, sorted, with ``_`` as space; ``classnames.txt`` replaces them, one per line. Where
the folders are numbers, its lines are in the order of the numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import contents, fingerprint
from clipeval.datasets.images import SUFFIXES, decode
from clipeval.datasets.lines import read_lines
from clipeval.datasets.listing import Listing, below
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import aligned, from_file, load_prompts
from clipeval.errors import DataError, few
from clipeval.paths import expand, readable

if TYPE_CHECKING:
    from PIL import Image


def open_folder(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open one split. Ids are CLASS/FILE.
    The classes are those of all splits, so that all count them alike. Files that are no images by their suffix are left
    out, and a remark counts them.

    Raises DataError when the split is missing, holds no images, or the lists of class names disagree.
    """
    root = expand(reference)
    if not (root / split).is_dir():
        splits = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        there = f"folders there: {few(splits)}" if splits else "it is not a folder with splits"
        raise DataError(f"{name}: {root} has no split '{split}' ({there}). Layout: ROOT/SPLIT/CLASS/*.jpg")
    folders = _class_folders(root, entry, split)
    top = os.path.abspath(root / split)  # noqa: PTH100  Path.absolute leaves the dots in
    try:
        found = [_listed(f"{top}/{folder}") for folder in folders]
        images = [
            image
            for folder, listing in zip(folders, found, strict=True)
            for image in contents.of_listed(f"{top}/{folder}", listing)
        ]
    except OSError as error:
        raise DataError(f"{name}: cannot read {readable(str(error.filename))}: {error.strerror}.") from error
    names = [f"{folder}/{name}" for folder, listing in zip(folders, found, strict=True) for name, _ in listing.files]
    ids = [readable(name) for name in names]
    labels = np.repeat(np.arange(len(folders)), [len(listing.files) for listing in found])
    classes, templates = read_lines(root / "classnames.txt"), read_lines(root / "templates.txt")
    if classes is not None:
        if len(classes) != len(folders):
            raise DataError(
                f"{name}: class list and labels disagree: {root / 'classnames.txt'} has {len(classes)} lines, "
                f"there are {len(folders)} class folders."
            )
        classes = aligned(folders, classes, f"{name}: {root / 'classnames.txt'}")
    elif odd := [folder for folder in folders if folder != readable(folder)]:
        raise DataError(f"{name}: the folder {readable(odd[0])} is no class name: it is not UTF-8. Rename it.")
    file = from_file(entry.prompts, name) if entry.prompts else None
    if classes is None or (file and file.classes):
        classes = [folder.replace("_", " ") for folder in folders]
    digests = [image.sha256 for image in images]
    others = [
        Path(top, folder, name) for folder, listing in zip(folders, found, strict=True) for name in listing.others
    ]
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents([image.pixels for image in images], labels),
        ids=ids,
        read=_Files(name, top, names, digests, ids),
        labels=labels,
        prompts=load_prompts(name, entry.prompts, entry.language, classes, templates),
        digests=digests,
        remarks=(*_left_out(root / split, others), *contents.remarks(images)),
    )


def _listed(folder: str) -> Listing:
    """A class folder, which a split may lack."""
    return below(folder, SUFFIXES) if Path(folder).is_dir() else Listing((), ())


def _left_out(split: Path, others: Sequence[Path]) -> Iterator[str]:
    """What of a split is not read, by suffix and by place."""
    yield from contents.unread(others)
    if beside := sum(path.suffix.lower() in SUFFIXES and path.name[0] != "." for path in split.iterdir()):
        yield f"{beside:,} images are not read because they lie in no class folder"


@dataclass(frozen=True)
class _Files:
    name: str
    folder: str
    paths: Sequence[str]
    """Below ``folder``."""
    digests: Sequence[str]
    ids: Sequence[str]

    def __call__(self, index: int) -> Image.Image:
        sample = f"{self.name}: sample {self.ids[index]}"
        return decode(Path(self.folder, self.paths[index]), sample, self.digests[index])


def _class_folders(root: Path, entry: DatasetEntry, split: str) -> list[str]:
    """The class folders of all splits."""
    splits = {entry.split, entry.train_split, entry.val_split, split} - {None}
    present = [root / str(split) for split in splits if (root / str(split)).is_dir()]
    return sorted({path.name for split in present for path in split.iterdir() if path.is_dir() and path.name[0] != "."})
