"""Options and arguments that several commands share, and what their words mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from clipeval import usage
from clipeval.answer import answered_as
from clipeval.choices import TableFormat, listed
from clipeval.console import show
from clipeval.errors import UsageError
from clipeval.paths import expand
from clipeval.version import __version__


def _home(value: Any) -> Any:
    """Paths with the home folder for ``~``, which no shell expands in quotes and behind ``=``."""
    if isinstance(value, list):
        return [expand(path) for path in value]
    return None if value is None else expand(value)


def _alone(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Let ``--format`` hold until the command ends. Raises UsageError where ``--json`` is given, too."""
    if value in (False, "text") or context.resilient_parsing:
        return value
    if context.meta.setdefault(_FORM, parameter) is not parameter:
        raise UsageError("--json and --format: give one of them.")
    if value is not True:
        context.with_resource(answered_as(value))
    return value


_FORM = "clipeval.form"
PathOption, PathArgument = partial(typer.Option, callback=_home), partial(typer.Argument, callback=_home)
JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_alone,
        help="Print one JSON document on stdout and nothing else there.",
        rich_help_panel=usage.OUTPUT,
    ),
]
Format = Annotated[
    TableFormat,
    typer.Option(
        "--format",
        metavar="FORMAT",
        callback=_alone,
        help=f"{listed(TableFormat)}: GitHub's Markdown, or tables with tabs and nothing else on stdout, with the "
        "digits of text (--json has all).",
        rich_help_panel=usage.OUTPUT,
    ),
]
ConfigFile = Annotated[
    Path | None,
    PathOption(
        "-c",
        "--config",
        metavar="FILE",
        help="Configuration added to the packaged one; ./benchmarks.yaml where there is one.",
        rich_help_panel=usage.WHAT,
    ),
]


def _version(context: typer.Context, value: bool) -> None:
    if value:
        show(f"{context.command.name} {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What a program takes in front of its commands."""


def shots(text: str | None) -> list[int | None] | None:
    """``1,5,full``: numbers of images per class, None for all of them. Raises UsageError."""
    if text is None:
        return None
    try:
        return [None if word.strip() == "full" else int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--shots {text}: expected numbers and 'full' separated by commas, for example 1,5,full."
        ) from None
