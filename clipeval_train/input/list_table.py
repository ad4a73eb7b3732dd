"""A CSV, TSV or Parquet list as a table: image file or image bytes, captions, and the list they are from.

Images inside a Parquet file are unpacked once into the cache, where all processes map them into their memory.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds

from clipeval import digest
from clipeval.errors import DataError, UsageError, few
from clipeval.files import write_atomically
from clipeval.paths import cache_dir
from clipeval.plain import printable
from clipeval.regular import open_regular
from clipeval.remote.copies import is_remote
from clipeval_train.input.selection import Selection

IMAGE_COLUMNS = ("image", "filepath")
CAPTION_COLUMNS = ("caption", "title")
_ROWS_AT_ONCE = 256
_LONGEST_PATH = 4096
_LONGEST_HEADER = 1 << 16
_FORMAT = 2


def read_list(chosen: Selection, path: str) -> pyarrow.Table:
    """The columns ``path`` and ``image`` (binary, one of them null), ``list``, ``kept`` (whether ``where`` holds), and
    of captions (lists of binary) the columns ``caption_columns``.

    Raises UsageError for a remote list, DataError for one that cannot be read or is without the columns.
    """
    where = f"data: {chosen.source}: {path}"
    if is_remote(path):
        raise UsageError(f"{where}: lists have to be on this machine, and so their images. Download it, or use shards.")
    try:
        read = _parquet if path.lower().endswith(".parquet") else _csv
        table, facts = read(where, path, chosen)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{where}: cannot read the list: {error}. Check the path and the format.") from error
    origin = pyarrow.array([os.fsencode(path)]).dictionary_encode().take(pyarrow.array(np.zeros(len(table), np.int32)))
    kept = chosen.keeps(facts, path) if chosen.where else np.ones(len(table), dtype=bool)
    return table.append_column("list", origin).append_column("kept", [kept])


def caption_columns(chosen: Selection) -> list[str]:
    """The columns of captions in a table, one for each place of captions that is named."""
    return [f"captions {number}" for number in range(len(chosen.captions) or 1)]


def complete_rows(table: pyarrow.Table) -> np.ndarray:
    """The rows that have an image, or its path, and a caption."""
    lengths = [pc.fill_null(pc.binary_length(table[name]), 0).to_numpy() for name in ("path", "image")]
    captioned = np.zeros(len(table), dtype=bool)
    for name in filter(_is_of_captions, table.column_names):
        captioned |= _has_text(table[name])
    return np.flatnonzero((lengths[0] + lengths[1] > 0) & captioned)


def _is_of_captions(name: str) -> bool:
    return name.startswith("captions ")


def _has_text(column: pyarrow.ChunkedArray) -> np.ndarray:
    """The rows whose list of texts holds one that is not empty."""
    found = [np.zeros(0, dtype=bool)]
    for chunk in column.chunks:
        filled = pc.fill_null(pc.binary_length(chunk.flatten()), 0).to_numpy(zero_copy_only=False) > 0
        owners = pc.list_parent_indices(chunk).to_numpy(zero_copy_only=False)
        found.append(np.bincount(owners[filled], minlength=len(chunk)) > 0)
    return np.concatenate(found)


_Read = tuple[pyarrow.Table, dict[str, Any]]
"""The table, and the columns that ``where`` compares."""


def _csv(where: str, path: str, chosen: Selection) -> _Read:
    parsing = pyarrow.csv.ParseOptions(delimiter=_separator(path, chosen))
    parsing.newlines_in_values = True
    as_bytes = [*IMAGE_COLUMNS, *(chosen.captions or CAPTION_COLUMNS)]
    types = dict.fromkeys([name for name in as_bytes if name not in chosen.fields], pyarrow.binary())
    options = pyarrow.csv.ConvertOptions(column_types=types)
    table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)
    image, *captions = _columns(where, table.column_names, chosen)
    chosen.check_fields(table.column_names, table.column_names, f"{path} has no")
    facts = {field: table[field] for field in chosen.fields}
    return _table(table[image], None, [_text(table[name]) for name in captions]), facts


def _separator(path: str, chosen: Selection) -> str:
    """What makes columns of images and captions of the first line; open_clip's lists are called .csv and have tabs."""
    with open_regular(Path(path)) as file:
        header = file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace").rstrip("\r\n")
    separators = "\t,;" if path.lower().endswith(".tsv") else ",\t;"
    for separator in separators:
        names = set(next(csv.reader([header], delimiter=separator), []))
        if names.intersection(IMAGE_COLUMNS) and names.intersection(chosen.captions or CAPTION_COLUMNS):
            return separator
    return separators[0]


def _parquet(where: str, path: str, chosen: Selection) -> _Read:
    """Images are paths, bytes, or what the hub writes: structs of both."""
    file = pyarrow.parquet.ParquetFile(path)
    names = _columns(where, file.schema_arrow.names, chosen)
    chosen.check_fields(file.schema_arrow.names, file.schema_arrow.names, f"{path} has no")
    compared = pyarrow.parquet.read_table(path, columns=list(chosen.fields)) if chosen.where else None
    facts = {field: compared[field] for field in chosen.fields} if compared else {}
    kind = _image_type(file.schema_arrow, names, where)
    embedded = kinds.is_struct(kind) or (_is_binary(kind) and not _holds_paths(file, names[0]))
    if not embedded:
        table = pyarrow.parquet.read_table(path, columns=names)
        return _table(table[names[0]], None, [table[name] for name in names[1:]]), facts
    key = digest.of_value([_FORMAT, digest.of_file(Path(path)), names])
    unpacked = cache_dir() / "indexes" / "train" / f"{key}.arrow"
    if not unpacked.exists():
        write_atomically(unpacked, lambda temporary: _unpack(file, names, temporary))
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(unpacked))).read_all(), facts


def _image_type(schema: pyarrow.Schema, names: list[str], where: str) -> pyarrow.DataType:
    """The type of the image column. Raises DataError where it or that of the captions is none that is read."""
    image, *captions = (schema.field(name).type for name in names)
    fields = {field.name: field.type for field in image} if kinds.is_struct(image) else {}
    held = fields.get("bytes", image)
    only_paths = kinds.is_null(held) and _is_text(fields.get("path"))
    if not (_is_binary(held) or only_paths or (_is_text(held) and held is image)):
        raise DataError(
            f"{where}: the column '{names[0]}' holds {image!s:.200}; read are paths of image files, bytes of image "
            "files, and structs of bytes and path."
        )
    for name, caption in zip(names[1:], captions, strict=True):
        inner = caption.value_type if kinds.is_list(caption) or kinds.is_large_list(caption) else caption
        if not (_is_text(inner) or _is_binary(inner)):
            raise DataError(f"{where}: the column '{name}' holds {caption!s:.200}; read are texts and lists of them.")
    return image


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if kind is not None and kinds.is_dictionary(kind) else kind
    return kind is not None and (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
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
    empty = pyarrow.array([], pyarrow.binary())
    with (
        pyarrow.OSFile(str(to), "wb") as sink,
        pyarrow.ipc.new_file(sink, _table(empty, empty, [empty] * (len(names) - 1)).schema) as writer,
    ):
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
            image, path = batch[names[0]], None
            if kinds.is_struct(image.type):
                path = pc.struct_field(image, "path") if image.type.get_field_index("path") >= 0 else None
                image = pc.struct_field(image, "bytes")
            writer.write_table(_table(path, image, [batch[name] for name in names[1:]]))


def _table(path: Any, image: Any, captions: Sequence[Any]) -> pyarrow.Table:
    """The columns in their types; a column of ``path`` and ``image`` that is None is of nulls."""
    count = len(captions[0])
    kind = pyarrow.large_binary()
    given = [pyarrow.nulls(count, kind) if column is None else _binary(column) for column in (path, image)]
    names = [f"captions {number}" for number in range(len(captions))]
    return pyarrow.table([*given, *map(_lists, captions)], names=["path", "image", *names])


def _text(column: Any) -> Any:
    """A column of captions that ``where`` compares too, and that may have been read as numbers."""
    return column if kinds.is_binary(column.type) else column.cast(pyarrow.string())


def _binary(column: Any) -> Any:
    """Texts or bytes as bytes."""
    if kinds.is_null(column.type):
        return pyarrow.nulls(len(column), pyarrow.large_binary())
    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pyarrow.large_binary())


def _lists(column: Any) -> pyarrow.ChunkedArray:
    """Captions as lists of bytes, of one each where they are no lists."""
    kind = pyarrow.large_list(pyarrow.large_binary())

    def listed(chunk: Any) -> Any:
        if kinds.is_list(chunk.type) or kinds.is_large_list(chunk.type):
            return chunk.cast(kind)
        return pyarrow.LargeListArray.from_arrays(np.arange(len(chunk) + 1), _binary(chunk))

    return pyarrow.chunked_array([listed(chunk) for chunk in getattr(column, "chunks", [column])], kind)


def _columns(where: str, names: list[str], chosen: Selection) -> list[str]:
    """The column of images and those of captions."""
    found = []
    captions: list[tuple[str, ...]] = [(key,) for key in chosen.captions] or [CAPTION_COLUMNS]
    for wanted in ((chosen.image,) if chosen.image else IMAGE_COLUMNS, *captions):
        column = next((name for name in wanted if name in names), None)
        if column is None:
            raise DataError(f"{where}: has no column {' or '.join(wanted)}, only {few(map(printable, names))}.")
        found.append(column)
    return found
