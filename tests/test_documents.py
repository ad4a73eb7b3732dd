"""What README.md and docs/ show is what is printed: every command that answers from tables alone, run here. Those that
train or measure are run by ``python -m bench readme --all``; ``--write`` makes the shown lines anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from bench import readme
from clipeval import cli
from clipeval_train import cli as trainer

ROOT = Path(__file__).parents[1]
COMMANDS = [command for name in readme.DOCUMENTS for command in readme.shown(name, (ROOT / name).read_text("utf-8"))]
QUICK = [command for command in COMMANDS if command.is_quick]


@pytest.mark.parametrize("shown", QUICK, ids=lambda shown: f"{shown.document}:{shown.first}")
def test_what_is_shown_is_what_is_printed(shown, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme.prepare(tmp_path)
    words, _ = readme.arguments(shown.command)
    code, out, err = command(*words)
    assert code in (0, 1), err
    assert readme.differences(shown, out, err) == []


def test_every_program_is_shown():
    assert {command.command.split()[1] for command in QUICK} >= {"fit", "design", "check", "list", "report"}
    assert len(QUICK) < len(COMMANDS)


DOCUMENT = """
    $ clipeval list a | grep -i b      # some of them
    Abc

    text is inside

no more
```
$ clipeval fit x \\
    -o y
all
of it
$ clipeval-train z
1 MB
```
    $ clipeval silent
"""


def test_a_document_is_read():
    first, second, third = readme.shown("d", DOCUMENT)
    assert (first.command, first.lines, first.selected) == (
        "clipeval list a | grep -i b",
        ("Abc", "", "text is inside"),
        True,
    )
    assert (second.command, second.lines, second.selected) == ("clipeval fit x -o y", ("all", "of it"), False)
    assert (third.lines, third.is_quick) == (("1 MB",), False)
    assert readme.arguments(first.command)[0] == ["clipeval", "list", "a"]
    assert readme.printed(first, "B\nc\nxb \n") == ["B", "xb"]


def test_what_differs_is_told():
    first, second, third = readme.shown("d", DOCUMENT)
    assert readme.differences(second, "all\nof it\n", "") == []
    assert readme.differences(second, "all\n\n", "of it\n") == []
    assert readme.differences(second, "all\nof it\nand more\n", "") == ["+ and more"]
    assert readme.differences(second, "all\n", "") == ["- of it"]
    assert readme.differences(second, "of it\n", "all\n") == []
    assert readme.differences(second, "of it\nall\n", "") != []
    assert readme.differences(second, "all\nof it\n", "of it\n") != []
    assert readme.differences(first, "Abc b\nAbc\ntext is inside b\n", "") == ["- text is inside"]
    some = readme.Shown("d", "clipeval fit", ("two", "one"), 1, 3, selected=True)
    assert readme.differences(some, "one\ntwo\n", "") == ["lines stand in another order"]
    assert readme.differences(some, "two\nelse\none\n", "") == []
    assert readme.differences(third, "3.5 MB\n", "") == []


def test_documents_are_rewritten_in_their_places():
    first, second, third = readme.shown("d", DOCUMENT)
    outputs = {
        first: (" b: Abc\nb: text is in\nb: else\n", ""),
        second: ("\nall\n\n\nmuch of it\n", "more\n"),
        third: ("1 MB\n", ""),
    }
    now = readme.rewritten(DOCUMENT, outputs)
    assert now == DOCUMENT.replace("    Abc\n\n    text is inside\n", "     b: Abc\n    b: text is in\n").replace(
        "all\nof it\n", "all\n\nmuch of it\nmore\n"
    )


def test_commands_of_documents_have_the_options_they_are_shown_with():
    """Also those that are not run here, in blocks and in sentences."""
    options = {
        f"{program} {name}": {word for option in command.params for word in option.opts}
        for program, app in (("clipeval", cli.app), ("clipeval-train", trainer.app))
        for name, command in get_command(app).commands.items()
    }
    wrong, seen = [], 0
    for document in (*readme.DOCUMENTS, "CHANGELOG.md", "examples/check-workflow.yml", "examples/demo.sh"):
        text = (ROOT / document).read_text("utf-8").replace("\\\n", " ")
        text = re.sub(r"#.*", "", text) if document.startswith("examples") else text
        for line in re.findall(r"^(?: {4}|\$ ).*\n|`[^`\n]+`|run: .*\n|show .*\n", text, re.MULTILINE):
            for name, words in re.findall(r"\b(clipeval(?:-train)? [a-z]+)\b([^|`]*)", line):
                given = re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", re.sub(r" (-- |# ).*", "", words))
                known = options.get(name, set()) | {"--help", "-h"}
                seen += len(given)
                wrong += [f"{document}: {name} {option}" for option in given if name in options and option not in known]
    assert wrong == []
    assert seen > 100


def test_links_of_documents_lead_somewhere():
    """To files of the repository, and to headings of them."""
    lost = []
    for name in (*readme.DOCUMENTS, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = re.sub(r"```.*?```", "", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)
        for target, heading in re.findall(r"\]\(([^)#\s:]*)(?:#([\w-]+))?\)", text):
            file = ((ROOT / name).parent / target) if target else ROOT / name
            known = _headings(file) if heading and file.is_file() else {heading}
            lost += [] if file.exists() and heading in known else [f"{name}: {target}#{heading}"]
    assert lost == []


def _headings(file):
    lines = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 370
