"""A CSV, TSV or Parquet list as a table: image file or image bytes, captions, and the list they are from.

Images inside a Parquet file are unpacked once into the cache, where all processes map them into their memory.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import digest
from clipeval.errors import DataError, UsageError, few
from clipeval.files import write_atomically
from clipeval.paths import cache_dir
from clipeval.plain import printable
from clipeval.regular import open_regular
from clipeval.remote.copies import is_remote

if TYPE_CHECKING:
    import pyarrow

IMAGE_COLUMNS = ("image", "filepath")
CAPTION_COLUMNS = ("caption", "title")
_ROWS_AT_ONCE = 256
_LONGEST_PATH = 4096
_LONGEST_HEADER = 1 << 16
_FORMAT = 1


def read_list(source: str, path: str) -> pyarrow.Table:
    """The columns ``path`` and ``image`` (binary, one of them null), ``captions`` (lists of binary) and ``list``.

    Raises UsageError for a remote list, DataError for one that cannot be read or is without the columns.
    """
    import pyarrow

    where = f"data: {source}: {path}"
    if is_remote(path):
        raise UsageError(f"{where}: lists have to be on this machine, and so their images. Download it, or use shards.")
    try:
        table = _parquet(where, path) if path.lower().endswith(".parquet") else _csv(where, path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{where}: cannot read the list: {error}. Check the path and the format.") from error
    origin = pyarrow.array([os.fsencode(path)]).dictionary_encode().take(pyarrow.array(np.zeros(len(table), np.int32)))
    return table.append_column("list", origin)


def complete_rows(table: pyarrow.Table) -> np.ndarray:
    """The rows that have an image, or its path, and a caption."""
    import pyarrow.compute as pc

    lengths = [pc.fill_null(pc.binary_length(table[name]), 0).to_numpy() for name in ("path", "image")]
    captioned = [np.zeros(0, dtype=bool)]
    for chunk in table["captions"].chunks:
        filled = pc.fill_null(pc.binary_length(chunk.flatten()), 0).to_numpy(zero_copy_only=False) > 0
        owners = pc.list_parent_indices(chunk).to_numpy(zero_copy_only=False)
        captioned.append(np.bincount(owners[filled], minlength=len(chunk)) > 0)
    return np.flatnonzero((lengths[0] + lengths[1] > 0) & np.concatenate(captioned))


def _csv(where: str, path: str) -> pyarrow.Table:
    import pyarrow
    import pyarrow.csv

    parsing = pyarrow.csv.ParseOptions(delimiter=_separator(path))
    parsing.newlines_in_values = True
    as_bytes = dict.fromkeys([*IMAGE_COLUMNS, *CAPTION_COLUMNS], pyarrow.binary())
    options = pyarrow.csv.ConvertOptions(column_types=as_bytes)
    table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)
    image, caption = _columns(where, table.column_names)
    return _table(table[image], None, table[caption])


def _separator(path: str) -> str:
    """What makes columns of images and captions of the first line; open_clip's lists are called .csv and have tabs."""
    with open_regular(Path(path)) as file:
        header = file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace").rstrip("\r\n")
    separators = "\t,;" if path.lower().endswith(".tsv") else ",\t;"
    for separator in separators:
        names = set(next(csv.reader([header], delimiter=separator), []))
        if names.intersection(IMAGE_COLUMNS) and names.intersection(CAPTION_COLUMNS):
            return separator
    return separators[0]


def _parquet(where: str, path: str) -> pyarrow.Table:
    """Images are paths, bytes, or what the hub writes: structs of both."""
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types as kinds

    file = pyarrow.parquet.ParquetFile(path)
    names = _columns(where, file.schema_arrow.names)
    kind = _image_type(file.schema_arrow, names, where)
    embedded = kinds.is_struct(kind) or (_is_binary(kind) and not _holds_paths(file, names[0]))
    if not embedded:
        table = pyarrow.parquet.read_table(path, columns=names)
        return _table(table[names[0]], None, table[names[1]])
    unpacked = cache_dir() / "indexes" / "train" / f"{digest.of_value([_FORMAT, digest.of_file(Path(path))])}.arrow"
    if not unpacked.exists():
        write_atomically(unpacked, lambda temporary: _unpack(file, names, temporary))
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(unpacked))).read_all()


def _image_type(schema: pyarrow.Schema, names: list[str], where: str) -> pyarrow.DataType:
    """The type of the image column. Raises DataError where it or that of the captions is none that is read."""
    import pyarrow.types as kinds

    image, caption = (schema.field(name).type for name in names)
    fields = {field.name: field.type for field in image} if kinds.is_struct(image) else {}
    held = fields.get("bytes", image)
    only_paths = kinds.is_null(held) and _is_text(fields.get("path"))
    if not (_is_binary(held) or only_paths or (_is_text(held) and held is image)):
        raise DataError(
            f"{where}: the column '{names[0]}' holds {image!s:.200}; read are paths of image files, bytes of image "
            "files, and structs of bytes and path."
        )
    inner = caption.value_type if kinds.is_list(caption) or kinds.is_large_list(caption) else caption
    if not (_is_text(inner) or _is_binary(inner)):
        raise DataError(f"{where}: the column '{names[1]}' holds {caption!s:.200}; read are texts and lists of them.")
    return image


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds

    kind = kind.value_type if kind is not None and kinds.is_dictionary(kind) else kind
    return kind is not None and (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as kinds

    kind = kind.value_type if kind is not None and kinds.is_dictionary(kind) else kind
    return kind is not None and (kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _holds_paths(file: pyarrow.parquet.ParquetFile, column: str) -> bool:
    """Whether bytes are names of files: by the first that is there. No image file is text without a line break."""
    for batch in file.iter_batches(1, columns=[column]):
        value = batch[column][0].as_py()
        if value:
            return len(value) < _LONGEST_PATH and not any(byte < ord(" ") for byte in value)
    return False


def _unpack(file: pyarrow.parquet.ParquetFile, names: list[str], to: Path) -> None:
    """Write the images and captions of a Parquet file as Arrow's own format, some rows at a time."""
    import pyarrow
    import pyarrow.compute as pc

    empty = pyarrow.array([], pyarrow.binary())
    with (
        pyarrow.OSFile(str(to), "wb") as sink,
        pyarrow.ipc.new_file(sink, _table(empty, empty, empty).schema) as writer,
    ):
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
            image, path = batch[names[0]], None
            if pyarrow.types.is_struct(image.type):
                path = pc.struct_field(image, "path") if image.type.get_field_index("path") >= 0 else None
                image = pc.struct_field(image, "bytes")
            writer.write_table(_table(path, image, batch[names[1]]))


def _table(path: Any, image: Any, caption: Any) -> pyarrow.Table:
    """The columns in their types; a column of ``path`` and ``image`` that is None is of nulls."""
    import pyarrow

    count = len(caption)
    kind = pyarrow.large_binary()
    given = [pyarrow.nulls(count, kind) if column is None else _binary(column) for column in (path, image)]
    return pyarrow.table([*given, _lists(caption)], names=["path", "image", "captions"])


def _binary(column: Any) -> Any:
    """Texts or bytes as bytes."""
    import pyarrow

    if pyarrow.types.is_null(column.type):
        return pyarrow.nulls(len(column), pyarrow.large_binary())
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pyarrow.large_binary())


def _lists(column: Any) -> pyarrow.ChunkedArray:
    """Captions as lists of bytes, of one each where they are no lists."""
    import pyarrow

    kind = pyarrow.large_list(pyarrow.large_binary())

    def listed(chunk: Any) -> Any:
        if pyarrow.types.is_list(chunk.type) or pyarrow.types.is_large_list(chunk.type):
            return chunk.cast(kind)
        return pyarrow.LargeListArray.from_arrays(np.arange(len(chunk) + 1), _binary(chunk))

    return pyarrow.chunked_array([listed(chunk) for chunk in getattr(column, "chunks", [column])], kind)


def _columns(where: str, names: list[str]) -> list[str]:
    found = []
    for wanted in (IMAGE_COLUMNS, CAPTION_COLUMNS):
        column = next((name for name in wanted if name in names), None)
        if column is None:
            raise DataError(f"{where}: has no column {' or '.join(wanted)}, only {few(map(printable, names))}.")
        found.append(column)
    return found
