"""Which files make up a split of a ``hf:`` data set, and its rows: the library ``datasets`` says which, the door
fetches those of the hub, and Parquet is read where it lies."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.config import DatasetEntry
from clipeval.datasets.adapters.parquet_rows import ParquetRows
from clipeval.datasets.images import SUFFIXES
from clipeval.errors import DataError, RemoteError, UsageError, few, first_line, foreign
from clipeval.paths import cache_dir, expand
from clipeval.regular import read_regular
from clipeval.remote import hub, later
from clipeval.remote.hub import Repository, Snapshot
from clipeval.remote.libraries import kept_offline
from clipeval.yaml_file import parse_yaml

_KINDS = ("parquet", "imagefolder", "arrow", "webdataset", "json", "csv", "text")
"""The readers of ``datasets`` that are used. Others unpickle, or read formats that no test of ours covers."""
_DESCRIPTION_LIMIT = 16 << 20
_DESCRIPTIONS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
_REFERENCE = re.compile(r"(?P<name>[^:@]+(?:/[^:@]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class SplitSource:
    """The rows of a split, the folder that its image files lie in, the reader they need, the splits there are, and the
    commit of the hub that they are of."""

    rows: Any
    root: Path
    kind: str
    splits: tuple[str, ...]
    revision: str = ""
    remarks: tuple[str, ...] = ()


def split_source(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> SplitSource:
    """The rows of ``NAME[:CONFIG][@REV]`` of the hub, of a Parquet file or of a folder.

    Raises DataError, UsageError.
    """
    path, config = _on_this_machine(reference)
    if path is None:
        return _of_hub(name, reference, split, entry, offline)
    if entry.revision:
        raise UsageError(f"{name}: revision: {path} is on this machine; only data sets of the hub have revisions.")
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{name}: {path}: expected a folder, a .parquet file or a name on the hub.")
        if split != entry.split:
            raise DataError(f"{name}: {path} is the split '{entry.split}'; it has no split '{split}'.")
        layout = _Layout("parquet", {split: [path]}, None)
        return SplitSource(_rows(name, layout, split, [path]), path.parent, layout.kind, (split,))
    layout = _layout(name, f"hf:{reference}", path, config)
    if split not in layout.splits and (path / "state.json").is_file():
        raise DataError(
            f"{name}: hf:{reference} is one split, written by save_to_disk, and called '{next(iter(layout.splits))}', "
            f"not '{split}'. Set split: in benchmarks.yaml, or save all splits as a DatasetDict."
        )
    rows = _rows(name, layout, split, layout.files_of(name, f"hf:{reference}", split))
    return SplitSource(rows, path, layout.kind, tuple(layout.splits))


@dataclass(frozen=True)
class _Layout:
    """The reader that a data set needs, its files by split, and what its description says of the columns."""

    kind: str
    splits: dict[str, list[Path]]
    features: Any

    def files_of(self, name: str, where: str, split: str) -> list[Path]:
        """The files of a split. Raises DataError that names the splits there are."""
        if split not in self.splits:
            raise DataError(f"{name}: {where} has no split '{split}'; it has {few(self.splits)}.")
        return self.splits[split]


def _on_this_machine(reference: str) -> tuple[Path | None, str | None]:
    """The file or folder that ``PATH[:CONFIG]`` names, None where there is none."""
    if (path := expand(reference)).exists():
        return path, None
    head, colon, config = reference.rpartition(":")
    if colon and (path := expand(head)).exists():
        return path, config
    return None, None


def _of_hub(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> SplitSource:
    match = _REFERENCE.fullmatch(reference)
    if match is None or match["name"].count("/") > 1 or reference.startswith((".", "/", "~")):
        raise DataError(f"{name}: there is no file or folder {reference}, and it is not a name on the hub.")
    repository = Repository("dataset", match["name"], match["revision"] or entry.revision or "")
    try:
        snapshot = hub.snapshot(repository, _DESCRIPTIONS, offline=offline)
        paths = snapshot.paths()
        described = [path for path in _DESCRIPTIONS if path in paths]
        for path in described:
            snapshot.file(path)
        layout = _layout_of(name, reference, snapshot, paths, described, match["config"])
        wanted = layout.files_of(name, f"hf:{reference}", split)
        files = later.each(partial(snapshot.file, path.as_posix()) for path in wanted)
    except RemoteError as error:
        raise DataError(f"{name}: hf:{reference}: {error}") from error
    rows = _rows(name, layout, split, files)
    return SplitSource(rows, snapshot.folder, layout.kind, tuple(layout.splits), snapshot.commit, snapshot.remarks)


def _layout_of(
    name: str, reference: str, snapshot: Snapshot, paths: Sequence[str], described: Sequence[str], config: str | None
) -> _Layout:
    """From the list of files of a repository: ``datasets`` looks at names and at the description only, so that empty
    files in their places do."""
    with tempfile.TemporaryDirectory(prefix="clipeval-layout-") as temporary:
        folder = Path(temporary)
        for path in paths:
            place = folder.joinpath(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path in described:
                place.write_bytes(read_regular(snapshot.file(path), _DESCRIPTION_LIMIT))
            else:
                place.touch()
        layout = _layout(name, f"hf:{reference}", folder, config)
        splits = {split: [file.relative_to(folder) for file in files] for split, files in layout.splits.items()}
    return _Layout(layout.kind, splits, layout.features)


def _layout(name: str, where: str, folder: Path, config: str | None) -> _Layout:
    """What ``datasets`` makes of a folder, without reading data and without asking anybody."""
    import datasets

    _require_own_files(name, folder)
    # the library and those below raise errors of a dozen kinds
    unclear = f"{name}: {where}: cannot tell its splits: "
    with foreign(lambda error: DataError(f"{unclear}{first_line(error):.500}")), kept_offline(datasets.config):
        configs = datasets.get_dataset_config_names(str(folder))
        several = config is None and len(configs) > 1 and "default" not in configs
        if several and datasets.get_dataset_default_config_name(str(folder)) is None:
            raise DataError(f"{name}: {where} has the configurations {few(configs)}: write one as {where}:{configs[0]}")
        if config is not None and config not in configs:
            raise DataError(f"{name}: {where} has no configuration '{config}'; it has {few(configs)}.")
        with tempfile.TemporaryDirectory(prefix="clipeval-layout-") as cache:
            builder = datasets.load_dataset_builder(str(folder), config, cache_dir=cache)
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _KINDS:
        raise DataError(f"{name}: {where} holds files of the kind {kind}; read are {', '.join(_KINDS)}.")
    found = builder.config.data_files or {}
    splits = {str(split): [Path(file) for file in files] for split, files in found.items()}
    return _Layout(kind, splits, builder.info.features)


def _rows(name: str, layout: _Layout, split: str, files: Sequence[Path]) -> Any:
    import datasets

    if layout.kind == "parquet":
        rows = ParquetRows(name, files, layout.features)
        if rows.fits:
            return rows

    def told(error: Exception) -> DataError:
        reason = error.__cause__ or error  # datasets says of its own error only that there is one
        return DataError(f"{name}: cannot load the split '{split}': {first_line(reason):.500}.")

    with foreign(told), kept_offline(datasets.config):
        builder = datasets.load_dataset_builder(
            layout.kind,
            data_files={split: [str(file) for file in files]},
            cache_dir=_cache(name, files),
            **_class_folders(layout),
        )
        builder.download_and_prepare()
        return builder.as_dataset(split=split)


def _class_folders(layout: _Layout) -> dict[str, Any]:
    """What tells the reader of an image folder its classes: those of all splits, by the rule of ``datasets``, which is
    given the files of one split only and would take its folders for all there are. Names in archives it finds itself.
    """
    if layout.kind != "imagefolder":
        return {}
    import datasets
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    files = [file for of_split in layout.splits.values() for file in of_split]
    images = [file for file in files if file.suffix.lower() in ImageFolder.EXTENSIONS]
    names = {file.name for file in files}
    if names & set(ImageFolder.METADATA_FILENAMES) or any(name.lower().endswith(".zip") for name in names):
        return {}
    classes = sorted({file.parent.name for file in images})
    if len(classes) < 2 or len({len(file.parts) for file in images}) > 1:
        return {"drop_labels": True}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    return {"drop_labels": False, "features": features}


def _cache(name: str, files: Sequence[Path]) -> str:
    """Where ``datasets`` keeps its copy of tables: another place when their content changes, of which it only sees the
    modification time."""
    tables = [file for file in files if file.suffix.lower() not in SUFFIXES]  # images are read where they are
    try:
        contents = dict(zip(tables, digest.of_files(tables), strict=True))
    except OSError as error:
        raise DataError(f"{name}: cannot read {error.filename}: {error.strerror}.") from error
    key = digest.of_value([[str(file), contents.get(file)] for file in files])
    return str(cache_dir() / "huggingface" / key[:32])


def _require_own_files(name: str, folder: Path) -> None:
    """Raise DataError where the description of a local data set names files that lie elsewhere."""
    for described in (folder / "README.md", folder / ".huggingface.yaml"):
        try:
            text = read_regular(described, _DESCRIPTION_LIMIT).decode("utf-8-sig")
            front = re.match(r"---[ ]*\r?\n(.*?)\n---", text, re.DOTALL) if described.suffix == ".md" else [text] * 2
            document = parse_yaml(front[1], str(described)) if front else None
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, UsageError) as error:
            raise DataError(f"{name}: {described}: cannot read it: {error}") from error
        for word in _texts_in(document.get("configs") if isinstance(document, dict) else None):
            if "://" in word or word.startswith(("/", "~")) or ".." in word.split("/"):
                raise DataError(f"{name}: {described}: '{word}' is not in the folder of the data set. Put it there.")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)
