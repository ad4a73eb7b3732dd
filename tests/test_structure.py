"""The rules of the house: imports run down the floors, names are true, and what users depend on stays."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
from help_texts import SNAPSHOT, rendered
from imports import ROOT, circles, imports, modules, unknown

import clipeval

FLOORS = (
    ("version", "errors", "paths", "plain", "regular", "vocabulary", "names", "condition"),
    ("yaml_file", "choices", "markdown"),
    ("explained", "usage", "notebook", "spelling"),
    ("console", "streams", "digest", "config", "precision", "extensions"),
    ("machine", "drawing", "answer"),
    ("files", "exits", "metrics", "cached", "tar", "options"),
    ("tables", "shown"),
    ("remote", "keys"),
    ("stats", "identity"),
    ("models", "datasets"),
    ("tasks",),
    ("results",),
    ("embeddings", "completion"),
    ("importers", "evaluation", "scaling"),
    ("checks", "reporting"),
    ("clipeval_train",),
    ("lists",),
    ("cli", "__init__", "__main__"),
)
"""Ground floor first. A file imports what lies in its own package or below."""


def _room(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == "clipeval_train":
        return package
    return rest.partition(".")[0] or "__init__"


def _floor(room: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if room in floor)


def test_every_room_has_a_floor():
    assert {_room(name) for name in modules()} <= set(chain.from_iterable(FLOORS))


def test_what_is_imported_is_there():
    assert unknown() == []


def test_nothing_is_imported_in_a_circle():
    assert circles(imports()) == []


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_imports_run_down():
    up = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if _room(name) != _room(other) and _floor(_room(other)) >= _floor(_room(name)) and name != "clipeval.__main__"
    ]
    assert up == []


def test_the_rooms_of_a_command_do_not_know_each_other():
    """But the report and the gate show what a fit found."""
    commands = {"importers", "evaluation", "scaling", "checks", "reporting"}
    across = {
        (_room(name), _room(other))
        for name, others in imports().items()
        for other in others
        if {_room(name), _room(other)} <= commands and _room(name) != _room(other)
    }
    assert across <= {("checks", "scaling"), ("reporting", "scaling")}


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text("utf-8")
    named = set(re.findall(r"(?<![\w/.*-])((?:\w+/)*\w+\.(?:py|csv|toml|sh|yaml|j2))\b", text))
    named |= set(re.findall(r"`((?:\w+/)+)`", text))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    there = {f"/{file}" for file in tracked} | {f"/{folder}/" for file in tracked for folder in Path(file).parents}
    missing = {name for name in named if not any(path.endswith(f"/{name}") for path in there)}
    assert missing <= {"PLAN.yaml", "CONFIG.yaml"}


def test_public_names_agree():
    tree = ast.parse((ROOT / "clipeval" / "__init__.py").read_text("utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == clipeval._HOMES
    assert set(clipeval.__all__) == {*clipeval._HOMES, "__version__"}
    assert set(clipeval.__all__) <= set(dir(clipeval))
    for name, home in clipeval._HOMES.items():
        assert getattr(clipeval, name) is getattr(import_module(home), name)


def test_addresses_kept_as_text_are_true():
    from clipeval.datasets.opening import ADAPTERS
    from clipeval.tasks import TASKS, load_task

    for address in ADAPTERS.values():
        module, _, function = address.partition(":")
        assert callable(getattr(import_module(module), function))
    assert all(load_task(task).run for task in TASKS.values())


def test_there_is_one_version():
    from importlib.metadata import version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"].get("version") is None
    assert project["tool"]["hatch"]["version"]["path"] == "clipeval/version.py"
    citation = re.search(r"^version: *[\"']?([^\"'\n]+)", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert citation is not None
    assert {clipeval.__version__, citation[1], version("clipeval")} == {clipeval.__version__}


def test_help_texts_are_as_recorded():
    """Options, defaults and commands do not disappear. Write the snapshot anew with: python tests/help_texts.py"""
    assert rendered() == SNAPSHOT.read_text("utf-8")


def test_nothing_heavy_is_imported_with_clipeval():
    heavy = "torch, open_clip, datasets, faiss, sklearn, matplotlib, plotly, transformers, pandas, pyarrow"
    program = f"import clipeval.cli, sys; print([n for n in '{heavy}'.split(', ') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by these."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
