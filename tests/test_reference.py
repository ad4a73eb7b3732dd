"""The reference pages of the site name everything there is; what has no meaning written down is found."""

from __future__ import annotations

import re

import pytest
import yaml
from help_texts import SNAPSHOT
from imports import ROOT
from pydantic import BaseModel, Field

import clipeval
from clipeval import config
from clipeval.results.schema import COLUMNS
from clipeval.vocabulary import METRICS, TASKS
from clipeval_train.config import PretrainConfig
from clipeval_train.finetune.config import FinetuneConfig, PatchConfig
from clipeval_train.ladder.grid import LadderConfig
from docs import generated, keys


def test_every_command_and_option_is_there():
    """Those of the recorded help texts."""
    page = generated.commands()
    sections = dict(re.findall(r"^### (clipeval(?:-train)? [a-z-]+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    helps = re.findall(
        r"^\$ (clipeval(?:-train)? [a-z-]+) --help\n(.*?)(?=^\$ |\Z)", SNAPSHOT.read_text(), re.MULTILINE | re.DOTALL
    )
    helps = [(name, text) for name, text in helps if not name.endswith("--help")]
    assert sections.keys() == {name for name, _ in helps}
    known = 0
    for name, text in helps:
        options = set(re.findall(r"^│ [ *]*(--[a-z][a-z-]+)", text, re.MULTILINE)) - {"--help"}
        assert [option for option in options if f"`{option}" not in sections[name]] == [], name
        known += len(options)
    assert known > 60  # or the help texts look otherwise than they did


def test_every_column_has_a_meaning():
    assert list(yaml.safe_load((ROOT / "docs" / "columns.yaml").read_text("utf-8"))) == list(COLUMNS)
    assert [name for name in COLUMNS if f"| `{name}` |" not in generated.columns()] == []


def test_every_task_and_metric_is_there():
    page = generated.tasks()
    assert [name for name in (*TASKS, *METRICS) if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("page", "models"),
    [
        (generated.benchmarks_keys, (config.Config, config.DatasetEntry, config.RuleEntry, config.KnnProbeEntry)),
        (generated.training_keys, (PretrainConfig, LadderConfig, FinetuneConfig, PatchConfig)),
    ],
)
def test_every_key_is_there(page, models):
    written = page()
    fields = {name for model in models for name, field in model.model_fields.items() if not field.exclude}
    assert [name for name in fields if f"| `{name}` |" not in written] == []
    silent = re.findall(r"^\| `(\w+)` \| [^\[].*\|  \|$", written, re.MULTILINE)  # a link leads to what it means
    assert silent == [], "a docstring below the field says what it means"


class Inner(BaseModel):
    """A part."""

    size: tuple[int, int] = (1, 2)


class Base(BaseModel):
    first: float = Field(gt=0)
    """What comes
    ``first``; None: never | now."""


class Outer(Base):
    """The whole."""

    inner: dict[str, Inner | None] = {}
    words: tuple[str, ...] = ()
    """Some."""
    hidden: int = Field(0, exclude=True)
    loud: bool = True


def test_keys_as_a_table():
    assert keys.tables(Outer, "Title").splitlines() == [
        "## Title", "", "The whole.", "",
        "| key | value | left out | |", "|---|---|---|---|",
        "| `first` | number | **required** | What comes `first`; left out: never \\| now. |",
        "| `inner` | name: [inner](#inner) |  |  |",
        "| `words` | list of: text |  | Some. |",
        "| `loud` | true or false | `true` |  |",
        "", "## Inner", "", "A part.", "",
        "| key | value | left out | |", "|---|---|---|---|",
        "| `size` | [whole number, whole number] | `[1, 2]` |  |",
    ]  # fmt: skip
    assert keys.names(Outer) == {"first", "inner", "words", "loud", "size"}


def test_every_public_function_and_variable_is_there():
    page = generated.python()
    assert [name for name, home in clipeval._HOMES.items() if f"::: {home}.{name}" not in page] == []
    code = "".join(path.read_text("utf-8") for path in (ROOT / "clipeval").rglob("*.py"))
    variables = set(re.findall(r"\bCLIPEVAL_[A-Z]+\b", code))
    document = (ROOT / "docs" / "environment.md").read_text("utf-8")
    assert [name for name in variables if f"`{name}`" not in document] == []


def test_every_page_is_in_the_navigation():
    """And no other: what mkdocs would find missing when it builds."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = re.findall(r"[\w/-]+\.md", str(navigation))
    elsewhere = re.findall(r'"([\w-]+\.md)",$', (ROOT / "docs" / "hooks.py").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(
        [*(path.name for path in (ROOT / "docs").glob("*.md")), *elsewhere, *generated.PAGES]
    )
