"""Packages outside that extend clipeval, as pip leaves them, and those that docs/extending.md shows."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from clipeval import extensions

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text("utf-8")
LONGEST_EXAMPLE = 40


def blocks() -> dict[str, str]:
    """The indented blocks of the document that begin with the name of a file, by that name."""
    found = re.findall(r"^    # (\S+?\.(?:py|toml|yaml))[^\n]*\n((?:    [^\n]*\n|\n)+)", DOCUMENT, re.MULTILINE)
    return {name: textwrap.dedent(text).strip() + "\n" for name, text in found}


def shown(name: str) -> str:
    """One of the document's files."""
    return blocks()[name]


class Package:
    """A package with a dist-info folder and entry points on sys.path."""

    def __init__(self, root: Path, name: str, version: str = "1.0") -> None:
        self.root, self.name, self.version = root, name, version
        self.points: dict[str, dict[str, str]] = {}
        root.mkdir(parents=True, exist_ok=True)

    def file(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(exist_ok=True)
        (place.parent / "__init__.py").touch()
        place.write_text(text)

    def install(self) -> None:
        for old in self.root.glob("*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        folder = self.root / f"{self.name.replace('-', '_')}-{self.version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in own.items()) for group, own in self.points.items()]
        (folder / "entry_points.txt").write_text("\n".join(lines))
        extensions._named.cache_clear()
        own = {path.stem for path in self.root.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]  # of another folder, or as it was before
