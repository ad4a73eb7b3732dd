"""The images of a table of the library ``datasets``: embedded bytes, or files that its cells name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    def __call__(self, index: int) -> Image.Image:
        sample = f"{self.name}: sample {index}"
        cell = self.cells[index][self.key]
        if _embedded(cell) is None and not _path(cell):
            raise DataError(f"{sample} has no image.")
        data = _embedded(cell)
        return decode(self.root / _path(cell) if data is None else data, sample, self.contents[index].sha256)


def image_column(name: str, rows: Any, key: str, root: Path) -> ImageColumn:
    """The images of column ``key`` of a ``datasets.Dataset``, hashed: by what each cell holds, its bytes or the file
    that it names. Files may lie below ``root`` and where the hub's downloads are. Raises DataError."""
    from datasets import Image as ImageFeature

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
            cells, tables, identity = rows.cells(key), rows.files, rows.identity
        else:
            cells = rows.select_columns([key]).cast_column(key, ImageFeature(decode=False))
            tables, identity = [Path(file["filename"]) for file in cells.cache_files], rows._fingerprint
        question = ["hf", _FORMAT, key, identity, len(rows)]
        found = digest.remembered(question, tables, described) if tables else described()
    roots = _roots(root)
    files = [_inside(name, index, root / path, roots) for index, (*_, path) in enumerate(found) if path]
    try:
        of_files = iter(contents.of_files(files))
    except OSError as error:
        raise DataError(f"{name}: the image file {error.filename} cannot be read: {error.strerror}.") from error
    images = [next(of_files) if path else Content(sha256, lost) for sha256, lost, path in found]
    return ImageColumn(name, cells, key, root, images)


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


def _inside(name: str, index: int, path: Path, roots: Sequence[Path]) -> Path:
    """``path``, if it is below one of ``roots``. A link that was put there may lead elsewhere: it is the owner's."""
    place = Path(os.path.normpath(path.absolute()))
    if not any(place.is_relative_to(root) for root in roots):
        raise DataError(
            f"{name}: sample {index}: its image is the file {readable(str(path))}, outside the folder of the data set; "
            f"a table may not name others. Put the images beside it, or embed them."
        )
    return place


@contextlib.contextmanager
def reading(name: str, key: str) -> Iterator[None]:
    """The libraries underneath raise errors of a dozen kinds on tables that are damaged or odd."""
    with foreign(lambda e: DataError(f"{name}: cannot read column '{key}' of the table: {first_line(e)}.")):
        yield
