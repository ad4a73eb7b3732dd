"""The command ``clipeval-train``: parse, call, exit code. torch is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipeval.cli import guarded
from clipeval.console import say

app = typer.Typer(
    help="Train CLIP models whose checkpoints clipeval evaluates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _commands() -> None:  # makes `pretrain` a command of its own, although it is the only one
    """Train CLIP models whose checkpoints clipeval evaluates."""


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="YAML file with the run's settings.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that replace those of the file: lr=1e-3, data.0.source=mine, model.embed_dim=32.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Pre-train a model on image-text pairs. The same command continues an unfinished run.

    Checkpoints go to OUT/checkpoints, the newest one's path to OUT/latest, the log to OUT/log.jsonl.
    """
    from clipeval_train.config import load_pretrain
    from clipeval_train.loop import pretrain as run

    try:
        checkpoint = run(load_pretrain(config, settings or []))
    except KeyboardInterrupt:
        say("Interrupted. The same command continues from the newest checkpoint.")
        raise
    typer.echo(checkpoint)


def main() -> None:
    """Run the command line and exit with clipeval's exit codes (``clipeval.errors``)."""
    guarded(app, "clipeval-train")
