"""The files below a folder and what the file system says of each: asked once per file, and little else."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from clipeval.digest import Stamp, stamp_of


@dataclass(frozen=True)
class Listing:
    """Paths below a folder, sorted by their parts: ``files`` of the wanted suffixes with their stamps, and ``others``,
    folders among them."""

    files: tuple[tuple[str, Stamp], ...]
    others: tuple[str, ...]


def below(folder: str, suffixes: Collection[str]) -> Listing:
    """All that is below ``folder``; links to folders are not followed. ``suffixes`` are in lower case.

    Each file's stamp is asked for whenever it is listed: a file that is overwritten in its place changes no time of the
    folder that it is in. Raises OSError, for a folder that cannot be read too.
    """
    files: list[tuple[str, Stamp]] = []
    others: list[str] = []
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        with os.scandir(os.path.join(folder, parent)) as entries:  # noqa: PTH118  for a million files
            for entry in entries:
                name = parent + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                if _suffix(entry.name) in suffixes:
                    files.append((name, stamp_of(entry.stat())))
                else:
                    others.append(name)
    files.sort(key=lambda file: file[0].split("/"))
    return Listing(tuple(files), tuple(sorted(others, key=lambda name: name.split("/"))))


def _suffix(name: str) -> str:
    """As ``Path.suffix``, in lower case."""
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""
