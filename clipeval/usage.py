"""How ``--help`` looks: options in groups, what an option takes in words for people, and examples."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WHAT, HOW, WHERE, QUESTIONS, OUTPUT = "What", "How", "Where", "Questions", "Output"
"""The groups of a command's options."""


def program(name: str, help: str, **epilog: dict[str, str]) -> typer.Typer:
    """A program of several commands. ``epilog``: titles, names under each, and what is to be said of them."""
    return typer.Typer(
        name=name,
        help=help,
        epilog="\n\n".join(_titled(title, rows) for title, rows in epilog.items()),
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def examples(*commands: str) -> str:
    """The end of a command's help."""
    return "Examples:\n" + "\n".join(_literally(command) for command in commands)


def _titled(title: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return f"{title}:\n" + "\n".join(f"{name:{width}}  {_literally(text)}" for name, text in rows.items())


def _literally(text: str) -> str:
    """Not as markup of rich, of which an import would take as long as all else."""
    return text.replace("[", r"\[")


class Command(TyperCommand):
    """A command whose help shows no types of Python."""

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        """``help`` is a docstring: its lines end where the editor's do, and only paragraphs are meant."""
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(text.split()) for text in paragraphs), **settings)

    def get_params(self, ctx: Any) -> list[Any]:
        """As typer has them."""
        return [_for_people(parameter, help=OUTPUT) for parameter in super().get_params(ctx)]


class Group(TyperGroup):
    """A program whose help shows no types of Python."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As typer has them."""
        groups = {"install_completion": "Shell", "show_completion": "Shell"}
        return [_for_people(parameter, **groups) for parameter in super().get_params(ctx)]


def _for_people(parameter: Any, **groups: str) -> Any:
    """A flag takes nothing, and an argument says by its name what it is. ``groups`` are those of options that typer
    brings."""
    if parameter.param_type_name == "argument":
        parameter.display_type_rich = lambda ctx: None
    elif parameter.is_flag:
        parameter.metavar = ""
    if parameter.rich_help_panel is None:
        parameter.rich_help_panel = groups.get(parameter.name)
    return parameter
