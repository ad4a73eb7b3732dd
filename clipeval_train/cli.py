"""The command ``clipeval-train``: parse, call, exit code. torch is imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from clipeval import completion, options, usage
from clipeval.console import say, show, show_json
from clipeval.errors import UsageError
from clipeval.exits import guarded
from clipeval.options import JsonFlag, PathArgument, PathOption
from clipeval.usage import OUTPUT, QUESTIONS, WHAT, WHERE, Command, examples

Config = TypeVar("Config")

app = usage.program(
    "clipeval-train",
    "Train CLIP models whose checkpoints clipeval evaluates.",
    Variables={
        "CLIPEVAL_CACHE": "folder of indexes of shards and copies of remote ones",
        "OMP_NUM_THREADS": "threads of a process on a CPU",
        "RANK, WORLD_SIZE, ...": "of torchrun, Slurm or mpirun: who trains together",
    },
)
app.callback()(options.root)


def _command(*shown: str, group: str = "Train") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of the program, with these examples at the end of its help."""
    return app.command(cls=Command, rich_help_panel=group, epilog=examples(*shown))


def _file(what: str, metavar: str = "CONFIG") -> Any:
    return PathArgument(metavar=metavar, help=f"YAML file with {what}.", show_default=False)


def _settings(examples: str) -> Any:
    what = f"Settings that replace those of the file: {examples}."
    return typer.Argument(metavar="KEY=VALUE", help=what, show_default=False)


def _told(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    """Show what the file of a command may say, and end."""
    if not value:
        return
    from clipeval import keys
    from clipeval_train import configurations

    model, optional = configurations.of_command(str(context.info_name))
    if parameter.name == "schema":
        show_json(keys.schema(model, optional))
    else:
        keys.print_rows(keys.rows(model))
    raise typer.Exit


_telling = partial(typer.Option, callback=_told, is_eager=True, rich_help_panel=OUTPUT)
Keys = Annotated[bool, _telling("--keys", help="Show each key of the file with its type, default and meaning.")]
Schema = Annotated[bool, _telling("--schema", help="Print the JSON Schema of the file, for editors.")]
_question, _where = (partial(typer.Option, rich_help_panel=group) for group in (QUESTIONS, WHERE))


@_command(
    "clipeval-train pretrain examples/pretrain.yaml",
    "clipeval-train pretrain examples/pretrain.yaml lr=2e-3 out=runs/b",
    "clipeval-train pretrain --keys",
)
def pretrain(
    config: Annotated[Path, _file("the run's settings")],
    settings: Annotated[list[str] | None, _settings("lr=1e-3, data.0.source=mine, model.embed_dim=32")] = None,
    keys: Keys = False,
    schema: Schema = False,
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
        if _is_first("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"):
            raise
        raise typer.Exit(error.exit_code) from error
    is_main = _is_first("RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
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


@_command(
    "clipeval-train finetune examples/finetune.yaml",
    "clipeval-train finetune examples/finetune.yaml lr=1e-4 out=runs/b",
    "clipeval-train finetune --keys",
)
def finetune(
    config: Annotated[Path, _file("the run's settings")],
    settings: Annotated[list[str] | None, _settings("lr=1e-4, out=runs/b")] = None,
    keys: Keys = False,
    schema: Schema = False,
) -> None:
    """Fine-tune the image tower of any checkpoint to classify. The same command continues an unfinished run.

    Checkpoints go to OUT/checkpoints, the newest one's path to OUT/latest, the log to OUT/log.jsonl.
    clipeval run -m OUT evaluates them like any other.
    """
    from clipeval_train.finetune.classification import finetune as run
    from clipeval_train.finetune.config import load_finetune

    _trained(lambda: load_finetune(config, settings or []), run)


@_command(
    "clipeval-train patch examples/patch.yaml",
    "clipeval-train patch examples/patch.yaml max_drop=0.5 out=runs/b",
    "clipeval-train patch --keys",
)
def patch(
    config: Annotated[Path, _file("what to mix and how to choose")],
    settings: Annotated[list[str] | None, _settings("max_drop=0.5, out=runs/b")] = None,
    keys: Keys = False,
    schema: Schema = False,
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


@_command(
    "clipeval-train ladder examples/ladder.yaml --plan",
    "clipeval-train ladder examples/ladder.yaml --slurm",
    "clipeval-train ladder --keys",
)
def ladder(
    config: Annotated[Path, _file("the grid", "PLAN")],
    settings: Annotated[list[str] | None, _settings("out=runs/try, defaults.lr=1e-3")] = None,
    plan: Annotated[
        bool,
        _question("--plan", help="Show what each run costs, by measured throughput; train nothing."),
    ] = False,
    budget: Annotated[
        float | None,
        _question(metavar="GMACS", help="GMACs to spend: which run has the lowest error, by laws fitted to --results."),
    ] = None,
    results: Annotated[
        list[str] | None,
        _question(
            metavar="RESULTS",
            help="Results table or folder of clipeval run, for --budget.",
            autocompletion=completion.tables,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        _where(min=1, metavar="N", help="Processes side by side. Default: one per GPU, or cores / OMP_NUM_THREADS."),
    ] = None,
    slurm: Annotated[
        bool,
        _where("--slurm", help="Write Slurm array scripts of the runs that are left; train nothing."),
    ] = False,
    ray_address: Annotated[
        str | None,
        _where(
            metavar="ADDRESS",
            help="Train on this Ray cluster, each process on a GPU (or core); 'local': a Ray of this machine.",
            autocompletion=completion.any_of("auto", "local"),
        ),
    ] = None,
    as_json: JsonFlag = False,
    keys: Keys = False,
    schema: Schema = False,
) -> None:
    """Train a grid of architectures, data sources and samples seen. The same command continues.

    Each run is a folder in OUT: clipeval run -m 'OUT/*' evaluates them all. A run that fails leaves the others alone.
    """
    from clipeval_train.ladder.command import Request, run_ladder

    request = Request(config, tuple(settings or ()), plan, jobs, slurm, ray_address, budget, results, as_json)
    raise typer.Exit(run_ladder(request))


@_command(
    "clipeval-train export runs/b32 -o b32",
    "clipeval-train export runs/b32/checkpoints/samples_000012800.pt -o b32",
    "clipeval run -m local-dir:b32 -d digits",
    group="Afterwards",
)
def export(
    checkpoint: Annotated[
        Path,
        PathArgument(metavar="CHECKPOINT", help="A checkpoint, or the folder of a run.", show_default=False),
    ],
    out: Annotated[
        Path,
        PathOption(
            "-o", "--out", metavar="DIR", help="Folder to write to.", show_default=False, rich_help_panel=OUTPUT
        ),
    ],
    ema: Annotated[
        bool, typer.Option("--ema", help="The running average of the weights.", rich_help_panel=WHAT)
    ] = False,
) -> None:
    """Write a checkpoint as safetensors with its configuration, which open_clip loads as local-dir:OUT."""
    from clipeval_train import checkpoint as checkpoints

    checkpoints.export(checkpoints.find(checkpoint), out, ema)
    show(f"local-dir:{out}")


def main() -> None:
    """Run the command line and exit with clipeval's exit codes (``clipeval.errors``)."""
    guarded(app, "clipeval-train")
