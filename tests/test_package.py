"""What is built for others: the wheel's data files, and what it says of itself."""

from __future__ import annotations

import re
import tomllib

from imports import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_wheel_has_every_published_table_once():
    """As Parquet; the CSV beside it is for readers of the repository."""
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = [found for name in included for found in ([ROOT / name] if "." in name else (ROOT / name).rglob("*"))]
    tables = {file.relative_to(ROOT) for file in files if file.parts[-2] in ("published", "scaling")}
    assert tables == {file.relative_to(ROOT) for file in (ROOT / "results" / "published").rglob("*.parquet")}
    assert all(
        place == name.replace("results/", "clipeval/") for name, place in included.items() if "published" in name
    )


def test_the_image_is_built_of_what_is_there():
    """Every place that the Dockerfile copies, and none that .dockerignore keeps from it."""
    copied = [
        words for line in (ROOT / "Dockerfile").read_text().splitlines() if (words := line.split())[:1] == ["COPY"]
    ]
    places = {place for words in copied for place in words[1:-1]}
    assert [place for place in places if not (ROOT / place).exists()] == []
    let_in = re.findall(r"^!(.*?)(?:/\*\*.*)?$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(let_in) == places


def test_classifiers_agree_with_what_is_demanded():
    project = PROJECT["project"]
    versions = [
        name.rpartition(" ")[2] for name in project["classifiers"] if name.startswith("Programming Language ::")
    ]
    assert min(versions[1:], key=lambda version: int(version[2:])) == project["requires-python"].removeprefix(">=")
    assert "Typing :: Typed" in project["classifiers"]
