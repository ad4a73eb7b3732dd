"""What a shell may complete: names that are known without importing what knows them, as each press of Tab is a process
of its own that people wait for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from clipeval import vocabulary
from clipeval.paths import expand

_ZOOS = ("open_clip", "openai", "laion", "datacomp", "cherti2023", "transformers")
_HERE = Path(__file__).parent
_PACKAGED = "benchmarks.yaml"
_MOST_BYTES = 1 << 20
"""Of a configuration that is read for its names."""


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Public checkpoints, zoos, models of the configuration, and paths."""
    own = [*_keys(ctx, "zoos"), *_named_models(ctx)]
    return _or_paths([*own, *_ZOOS, *_public()], incomplete)


def datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Data sets and suites of the packaged configuration and the user's."""
    return _starting([*_keys(ctx, "suites"), *_keys(ctx, "datasets")], incomplete)


def tasks(incomplete: str) -> list[str]:
    """By short and by long name."""
    from clipeval.tasks import TASKS

    return _starting([*(task.short for task in TASKS.values() if task.short), *TASKS], incomplete)


def metrics(incomplete: str) -> list[str]:
    """All that a task of clipeval gives."""
    return _starting(vocabulary.METRICS, incomplete)


def tables(incomplete: str) -> list[str]:
    """Published studies, and paths."""
    from clipeval.results.studies import STUDIES

    return _or_paths(STUDIES, incomplete)


def any_of(*known: str) -> Callable[[str], list[str]]:
    """Words that are common where others are good, too."""

    def complete(incomplete: str) -> list[str]:
        return _starting(known, incomplete)

    return complete


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return list(dict.fromkeys(name for name in names if name.startswith(incomplete)))


def _or_paths(names: Iterable[str], incomplete: str) -> list[str]:
    """With the paths that begin so. Where no name does it is for the shell, which knows how to go down into folders."""
    found = _starting(names, incomplete)
    with suppress(OSError):
        here = (f"{path.name}{'/' if path.is_dir() else ''}" for path in sorted(Path().iterdir()))
        return [*found, *_starting(here, incomplete)] if found and incomplete else found
    return found


def _public() -> Iterator[str]:
    table = _HERE / "models" / "zoo" / "pretrained.csv"
    with table.open(encoding="utf-8", newline="") as file:
        yield from (f"{row['arch']},{row['pretrained']}" for row in csv.DictReader(file))


def _named_models(ctx: typer.Context) -> Iterator[str]:
    for document in _documents(ctx):
        listed = document.get("models")
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                yield entry["name"]


def _keys(ctx: typer.Context, section: str) -> Iterator[str]:
    for document in _documents(ctx):
        found = document.get(section)
        yield from (key for key in (found if isinstance(found, dict) else ()) if isinstance(key, str))


def _documents(ctx: typer.Context) -> Iterator[dict[str, Any]]:
    """The configuration of the command line or of this folder, and the packaged one. A file with mistakes has no names:
    what is wrong with it says the command."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    own = ctx.params.get("config")
    for path in (expand(own or _PACKAGED), _packaged()):
        with suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
            with path.open("rb") as file:
                document = yaml.load(file.read(_MOST_BYTES), Loader=loader)
            if isinstance(document, dict):
                yield document


def _packaged() -> Path:
    return _HERE / _PACKAGED if (_HERE / _PACKAGED).is_file() else _HERE.parent / _PACKAGED
