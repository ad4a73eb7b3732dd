"""What other packages add: functions that their entry points name, imported only when they are used.

A package says in its pyproject.toml, for example, ``[project.entry-points."clipeval.tasks"]`` with
``ocr = "my_package.ocr:run"``. What each group's functions take and give is in ``docs/extending.md``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from clipeval.errors import ClipevalError, UsageError, first_line, foreign

GROUPS = ("clipeval.models", "clipeval.datasets", "clipeval.tasks", "clipeval.metrics")


@dataclass(frozen=True)
class Extension:
    """A function of another package: the ``name`` that it goes by here, its ``address`` package.module:function, and
    the ``package`` with its version."""

    name: str
    address: str
    package: str

    def function(self, kind: type[ClipevalError]) -> Callable[..., Any]:
        """The function, imported now. Raises ``kind`` where it cannot be."""
        module, _, name = self.address.partition(":")

        def why_not(error: Exception) -> ClipevalError:
            return kind(f"{self.name}: {self.address} of {self.package} cannot be imported: {first_line(error):.300}")

        with at_work(why_not):
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        if not callable(found):
            raise kind(f"{self.name}: {self.address} of {self.package} is no function.")
        return found


@contextmanager
def at_work(told: Callable[[Exception], ClipevalError]) -> Iterator[None]:
    """Code of somebody else is at work: whatever it raises becomes the error that ``told`` makes of it, and this
    program is not its to end."""
    with foreign(told):
        try:
            yield
        except SystemExit as error:
            raise RuntimeError(f"it asked to end the program ({error.code})") from error


def named(group: str) -> dict[str, Extension]:
    """The extensions of one of ``GROUPS`` by name. Raises UsageError where two packages bring the same name."""
    return _named(group, tuple(map(os.path.abspath, sys.path)))  # an empty one is the folder at hand


@cache
def _named(group: str, _path: tuple[str, ...]) -> dict[str, Extension]:
    found: dict[str, Extension] = {}
    for entry in metadata.entry_points(group=group):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        extension = Extension(entry.name, entry.value, package)
        if (other := found.setdefault(entry.name, extension)) != extension:
            raise UsageError(
                f"{other.package} and {package} both bring '{entry.name}' ({group}). Uninstall one of them."
            )
    return found
