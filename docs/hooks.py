"""What mkdocs is told on top of mkdocs.yml: pages made from the code, pages that lie elsewhere in the repository (each
document is there once), and links between all of them as they are written for the repository."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs.generated import PAGES  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "clipeval/scaling/README.md": "fitting.md",
    "results/nano/README.md": "nano.md",
}
"""Place in the repository -> place in the site."""
_FILES = "files"
"""Folder of the site for files that pages show or link to."""
_LINK = re.compile(r"(\]\()([^)\s#:]+)([^)\s]*\))")


def on_files(files: Files, config: Any) -> Files:
    """Add what does not lie in docs/."""
    for address, write in PAGES.items():
        files.append(File.generated(config, address, content=write()))
    for place, address in ELSEWHERE.items():
        files.append(File.generated(config, address, content=(ROOT / place).read_text("utf-8")))
    pages = [file for file in files if file.src_uri.endswith(".md") and file.src_uri not in PAGES]
    linked = {_target(file.src_uri, link[1]) for file in pages for link in _LINK.findall(file.content_string)}
    for place in sorted(place for place in linked if _address(place).startswith(f"{_FILES}/") and _is_file(place)):
        files.append(File.generated(config, _address(place), abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between places in the repository into links between places in the site."""
    here = page.file.src_uri
    if here in PAGES:
        return markdown

    def turned(found: re.Match[str]) -> str:
        place = _target(here, found[2])
        if not _is_file(place):
            return found[0]
        return f"{found[1]}{posixpath.relpath(_address(place), posixpath.dirname(here) or '.')}{found[3]}"

    return _LINK.sub(turned, markdown)


def _target(here: str, link: str) -> str:
    """The place in the repository that a page's link names."""
    places = {address: place for place, address in ELSEWHERE.items()}
    return posixpath.normpath(posixpath.join(posixpath.dirname(places.get(here, f"docs/{here}")), link))


def _address(place: str) -> str:
    """Where a file of the repository is in the site."""
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return ELSEWHERE.get(place, f"{_FILES}/{place}")


def _is_file(place: str) -> bool:
    return not place.startswith("..") and (ROOT / place).is_file()
