"""The images of a table of the library ``datasets``: embedded bytes, or files that its cells name."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval import digest
from clipeval.datasets import contents
from clipeval.datasets.adapters.parquet_rows import ParquetRows
from clipeval.datasets.contents import Content
from clipeval.datasets.images import decode
from clipeval.errors import DataError, first_line, foreign
from clipeval.paths import cache_dir, readable

if TYPE_CHECKING:
    from PIL import Image

_FORMAT = 3


@dataclass(frozen=True)
class ImageColumn:
    """A table of one image column whose cells are {"bytes": ..., "path": ...}, decoded by clipeval."""

    name: str
    cells: Any
    key: str
    root: Path
    """Where image files lie that a cell names by a relative path."""
    contents: Sequence[Content]
    """Of every image."""
    ids: Sequence[str] | None = None
    """Of every image, for messages; None: they are numbers."""

    def __call__(self, index: int) -> Image.Image:
        sample = f"{self.name}: sample {self.ids[index] if self.ids else index}"
        cell = self.cells[index][self.key]
        if _embedded(cell) is None and not _path(cell):
            raise DataError(f"{sample} has no image.")
        data = _embedded(cell)
        return decode(self.root / _path(cell) if data is None else data, sample, self.contents[index].sha256)


@dataclass
class _Listed:
    """The images of a column of lists, one after the other, as if each was a cell."""

    name: str
    rows: Any
    key: str
    places: Sequence[tuple[int, int]]
    """Of every image: its row, and where it is in its list."""
    _kept: tuple[int, Any] = field(default=(-1, None), repr=False)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, place = self.places[index]
        if self._kept[0] != row:
            self._kept = row, self._row(row)
        return {self.key: self._kept[1][place]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self.places)))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": (-1, None)}

    def _row(self, row: int) -> list[Any]:
        images = self.rows[row][self.key]
        found = len(images) if isinstance(images, list) else 0
        if found != self._counts[row]:
            raise DataError(f"{self.name}: row {row} has {found} images in '{self.key}' for {self._counts[row]} names.")
        return list(images)

    @cached_property
    def _counts(self) -> Counter[int]:
        return Counter(row for row, _ in self.places)


def image_column(
    name: str, rows: Any, key: str, root: Path, places: Sequence[tuple[int, int]] | None = None
) -> ImageColumn:
    """The images of column ``key`` of a ``datasets.Dataset``, hashed: by what each cell holds, its bytes or the file
    that it names. Files may lie below ``root`` and where the hub's downloads are. Of a column of lists ``places`` names
    the row of every image and its place there. Raises DataError."""
    from datasets import Image as ImageFeature
    from datasets import List

    def described() -> list[list[str]]:
        """Per cell the content of its bytes, or else the path it names."""
        cells_of_column = (cell[key] for cell in cells)
        return [
            ["", "", _path(cell)]
            if _embedded(cell) is None and _path(cell)
            else [*contents.of_bytes(_embedded(cell) or b""), ""]
            for cell in cells_of_column
        ]

    with reading(name, key):
        if isinstance(rows, ParquetRows):
            cells: Any = rows.cells(key)
            tables, identity = rows.files, rows.identity
        else:
            one = ImageFeature(decode=False)
            cells = rows.select_columns([key]).cast_column(key, one if places is None else List(one))
            tables, identity = [Path(file["filename"]) for file in cells.cache_files], rows._fingerprint
        if places is not None:
            cells = _Listed(name, cells, key, places)
        question = ["hf", _FORMAT, key, identity, len(rows)]
        found = digest.remembered(question, tables, described) if tables else described()
    roots = _roots(root)
    ids = None if places is None else [f"{row}/{place}" for row, place in places]
    named = ids or [str(index) for index in range(len(found))]
    files = [_inside(name, one, root / path, roots) for one, (*_, path) in zip(named, found, strict=True) if path]
    try:
        of_files = iter(contents.of_files(files))
    except OSError as error:
        raise DataError(f"{name}: the image file {error.filename} cannot be read: {error.strerror}.") from error
    images = [next(of_files) if path else Content(sha256, lost) for sha256, lost, path in found]
    return ImageColumn(name, cells, key, root, images, ids)


def _embedded(cell: dict[str, Any] | None) -> bytes | None:
    return None if cell is None or cell["bytes"] is None else bytes(cell["bytes"])


def _path(cell: dict[str, Any] | None) -> str:
    return str((cell or {}).get("path") or "")


def _roots(root: Path) -> list[Path]:
    """The folders in which image files of a data set may lie, as they are written and as they are."""
    import datasets
    import huggingface_hub.constants as hub

    downloads = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, hub.HF_HUB_CACHE)
    folders = [root, *(Path(folder) for folder in downloads), cache_dir() / "huggingface"]
    return [place for folder in folders for place in (folder.absolute(), folder.resolve())]


def _inside(name: str, sample: str, path: Path, roots: Sequence[Path]) -> Path:
    """``path``, if it is below one of ``roots``. A link that was put there may lead elsewhere: it is the owner's."""
    place = Path(os.path.normpath(path.absolute()))
    if not any(place.is_relative_to(root) for root in roots):
        raise DataError(
            f"{name}: sample {sample}: its image is the file {readable(str(path))}, outside the folder of the data "
            f"set; a table may not name others. Put the images beside it, or embed them."
        )
    return place


@contextlib.contextmanager
def reading(name: str, key: str) -> Iterator[None]:
    """The libraries underneath raise errors of a dozen kinds on tables that are damaged or odd."""
    with foreign(lambda e: DataError(f"{name}: cannot read column '{key}' of the table: {first_line(e)}.")):
        yield
