"""The command ``clipeval-train``: parse, call, exit code. torch is imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from clipeval.console import say, show
from clipeval.errors import UsageError
from clipeval.exits import guarded
from clipeval.options import PathArgument, PathOption

Config = TypeVar("Config")

app = typer.Typer(
    help="Train CLIP models whose checkpoints clipeval evaluates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, PathArgument(help="YAML file with the run's settings.", show_default=False)]


def _settings(examples: str) -> Any:
    what = f"Settings that replace those of the file: {examples}."
    return typer.Argument(metavar="[KEY=VALUE]...", help=what, show_default=False)


@app.command()
def pretrain(
    config: ConfigFile,
    settings: Annotated[list[str] | None, _settings("lr=1e-3, data.0.source=mine, model.embed_dim=32")] = None,
) -> None:
    """Pre-train a model on image-text pairs. The same command continues an unfinished run.

    Checkpoints go to OUT/checkpoints, the newest one's path to OUT/latest, the log to OUT/log.jsonl.
    """
    from clipeval_train.config import load_pretrain
    from clipeval_train.loop import pretrain as run

    _trained(lambda: load_pretrain(config, settings or []), run)


def _trained(load: Callable[[], Config], run: Callable[[Config], Path]) -> None:
    """Train, and print the checkpoint's path: once, by the first of the processes that a launcher has started. What is
    wrong with the configuration says the first one of each machine."""
    try:
        config = load()
    except UsageError as error:
        if _is_first("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"):
            raise
        raise typer.Exit(error.exit_code) from error
    is_main = _is_first("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    try:
        checkpoint = run(config)
    except KeyboardInterrupt:
        if is_main:
            say("Interrupted. The same command continues from the newest checkpoint.")
        raise
    if is_main:
        show(checkpoint)


def _is_first(*names: str) -> bool:
    """Whether this process is number 0, as the launcher tells that has started it."""
    return next(filter(None, map(os.environ.get, names)), "0") == "0"


@app.command()
def finetune(
    config: ConfigFile,
    settings: Annotated[list[str] | None, _settings("lr=1e-4, out=runs/b")] = None,
) -> None:
    """Fine-tune the image tower of any checkpoint to classify. The same command continues an unfinished run.

    Checkpoints go to OUT/checkpoints, the newest one's path to OUT/latest, the log to OUT/log.jsonl.
    clipeval run -m OUT evaluates them like any other.
    """
    from clipeval_train.finetune.classification import finetune as run
    from clipeval_train.finetune.config import load_finetune

    _trained(lambda: load_finetune(config, settings or []), run)


@app.command()
def patch(
    config: Annotated[Path, PathArgument(help="YAML file with what to mix and how to choose.", show_default=False)],
    settings: Annotated[list[str] | None, _settings("lr=1e-4, out=runs/b")] = None,
) -> None:
    """Mix a model with its fine-tuned self: the most accurate mix that keeps a control data set's accuracy.

    The mix goes to OUT/checkpoints, its path to OUT/latest, the curve over all mixes to OUT/curve.csv and
    OUT/patch.json.
    """
    from clipeval_train.finetune.config import load_patch
    from clipeval_train.finetune.patch import patch as run
    from clipeval_train.finetune.patch import print_curve

    patched = run(load_patch(config, settings or []))
    print_curve(patched)
    show(patched.path)


@app.command()
def ladder(
    config: Annotated[Path, PathArgument(metavar="PLAN", help="YAML file with the grid.", show_default=False)],
    settings: Annotated[list[str] | None, _settings("out=runs/try, defaults.lr=1e-3")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what each run costs, by measured throughput; train nothing.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes side by side. Default: one per GPU, or cores / OMP_NUM_THREADS."),
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write Slurm array scripts of the runs that are left; train nothing.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Train on this Ray cluster, each process on a GPU (or core); 'local': a Ray of this machine."
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="GMACs to spend: which run has the lowest error, by laws fitted to --results.")
    ] = None,
    results: Annotated[
        list[str] | None, typer.Option(help="Results table or folder of clipeval run, for --budget.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
    ] = False,
) -> None:
    """Train a grid of architectures, data sources and samples seen. The same command continues.

    Each run is a folder in OUT: clipeval run -m 'OUT/*' evaluates them all. A run that fails leaves the others alone.
    """
    from clipeval_train.ladder.command import Request, run_ladder

    request = Request(config, tuple(settings or ()), plan, jobs, slurm, ray_address, budget, results, as_json)
    raise typer.Exit(run_ladder(request))


@app.command()
def export(
    checkpoint: Annotated[Path, PathArgument(help="A checkpoint, or the folder of a run.", show_default=False)],
    out: Annotated[Path, PathOption("-o", "--out", help="Folder to write to.", show_default=False)],
    ema: Annotated[bool, typer.Option("--ema", help="The running average of the weights.")] = False,
) -> None:
    """Write a checkpoint as safetensors with its configuration, which open_clip loads as local-dir:OUT."""
    from clipeval_train import checkpoint as checkpoints

    checkpoints.export(checkpoints.find(checkpoint), out, ema)
    show(f"local-dir:{out}")


def main() -> None:
    """Run the command line and exit with clipeval's exit codes (``clipeval.errors``)."""
    guarded(app, "clipeval-train")
