"""The ``--help`` of every command, as it looks 100 columns wide. Run this file to write the snapshot anew."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.testing import CliRunner

SNAPSHOT = Path(__file__).parent / "snapshots" / "help.txt"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def rendered() -> str:
    """All help texts, one after the other, each under its command line."""
    from clipeval import cli
    from clipeval_train import cli as trainer

    return "".join(
        f"$ {name} {' '.join([*words, '--help'])}\n{_help(app, name, words)}\n\n"
        for app, name in ((cli.app, "clipeval"), (trainer.app, "clipeval-train"))
        for words in ([], *([command] for command in _commands(app)))
    )


def _commands(app: typer.Typer) -> list[str]:
    return [str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands]


def _help(app: typer.Typer, name: str, words: list[str]) -> str:
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    result = runner.invoke(app, [*words, "--help"], prog_name=name)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in _STYLE.sub("", result.output).strip("\n").splitlines())


if __name__ == "__main__":
    SNAPSHOT.write_text(rendered(), "utf-8")
