"""Pages of the site that are read off the code when it is built: commands, keys, columns and metrics as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent


def commands() -> str:
    """Every command of both programs: its help, arguments and options."""
    from typer.main import get_command

    from clipeval import cli
    from clipeval_train import cli as trainer

    said = ["# Commands", ""]
    for program, app in (("clipeval", cli.app), ("clipeval-train", trainer.app)):
        group: Any = get_command(app)
        said += [f"## {program}", "", _help(group.help), ""]
        for name, command in group.commands.items():
            said += [f"### {program} {name}", "", _help(command.help), "", *_options(command), ""]
    return "\n".join(said)


def _help(text: str | None) -> str:
    return " ".join((text or "").replace("\n\n", "\f").split("\n")).replace("\f", "\n\n").replace("*", "\\*")


def _options(command: Any) -> Iterable[str]:
    yield from ("| | | left out |", "|---|---|---|")
    for option in command.params:
        if getattr(option, "hidden", False):
            continue
        argument = option.param_type_name == "argument"
        takes = option.metavar or option.name.upper()
        last = option.opts[-1] if argument or option.is_flag else f"{option.opts[-1]} {takes}"
        named = [takes] if argument else [*option.opts[:-1], last]
        default = option.default
        is_shown = default not in (None, False, ()) and not callable(default) and "<" not in str(default)
        left_out = "**required**" if option.required else f"`{default}`" if is_shown else ""
        yield f"| {', '.join(f'`{_cell(name)}`' for name in named)} | {_prose(option.help)} | {left_out} |"


def _prose(text: str | None) -> str:
    return _cell(text or "").replace("*", "\\*").replace("<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def columns() -> str:
    """Every column of the results table."""
    from clipeval.results.schema import COLUMNS

    kinds = {"string": "text", "float64": "number", "Int64": "whole number", "boolean": "true or false"}
    meanings = yaml.safe_load((_HERE / "columns.yaml").read_text("utf-8"))
    rows = [f"| `{name}` | {kinds[kind]} | {meanings[name]} |" for name, kind in COLUMNS.items()]
    return "\n".join(
        [
            *("# Columns of the results table", ""),
            "`results.parquet` and `results.csv` have a row per value of a metric. A missing value is empty.",
            "`clipeval fit` needs only `model source gmacs samples_seen dataset task metric value`.",
            *("", "| column | | |", "|---|---|---|", *rows, ""),
        ]
    )


def tasks() -> str:
    """Every task with its metrics, and every metric with its title."""
    from clipeval.vocabulary import METRICS, TASKS

    said = ["# Tasks and metrics", "", "| task | | stands for it | gives |", "|---|---|---|---|"]
    for task in TASKS.values():
        said.append(f"| `{task.name}` | {task.title} | {_code(task.main)} | {_code(task.metrics)} |")
    said += ["", "| metric | | |", "|---|---|---|"]
    for metric in METRICS.values():
        facts = [
            *(["lower is better"] if metric.lower else []),
            *(["only where a data set's `main_metric` names it"] if metric.asked else []),
            *([f"lowest over the groups of `{metric.group}`"] if metric.group else []),
            *([f"the mean of {_code(metric.mean_of)}"] if metric.mean_of else []),
        ]
        said.append(f"| `{metric.name}` | {metric.title} | {'; '.join(facts)} |")
    return "\n".join([*said, ""])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def benchmarks_keys() -> str:
    """Every key of benchmarks.yaml."""
    from clipeval.config import Config
    from docs.keys import tables

    return f"# Keys of benchmarks.yaml\n\n{tables(Config, 'The file')}\n"


def training_keys() -> str:
    """Every key of the trainer's files."""
    from clipeval_train.config import PretrainConfig
    from clipeval_train.finetune.config import FinetuneConfig, PatchConfig
    from clipeval_train.ladder.grid import LadderConfig
    from docs.keys import tables

    about = "`KEY=VALUE` behind the file on the command line replaces a key; dots lead inwards: `data.0.weight=2`."
    files = (PretrainConfig, "pretrain"), (LadderConfig, "ladder"), (FinetuneConfig, "finetune"), (PatchConfig, "patch")
    said = [tables(model, f"`clipeval-train {name}`") for model, name in files]
    return "\n\n".join(["# Keys of clipeval-train's files", about, *said]) + "\n"


def python() -> str:
    """The public functions, for mkdocstrings to fill in."""
    import clipeval

    said = ["# Python", "", "Public names are those of `clipeval` itself, and are loaded when first used.", ""]
    for name in sorted(clipeval._HOMES):
        options = f"{{heading: clipeval.{name}, toc_label: {name}}}"
        said += [f"::: {clipeval._HOMES[name]}.{name}", f"    options: {options}", ""]
    return "\n".join(said)


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/benchmarks.md": benchmarks_keys,
    "reference/training.md": training_keys,
    "reference/columns.md": columns,
    "reference/tasks.md": tasks,
    "reference/python.md": python,
}
"""Address in the site -> what writes it."""
