"""The command ``run``: what its options say, and what it prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clipeval import completion
from clipeval import options as words
from clipeval.choices import Executor, Precision, Rerun, YesNo
from clipeval.console import say, show_json
from clipeval.errors import StoreError
from clipeval.options import ConfigFile, Format, JsonFlag, PathOption
from clipeval.paths import exists
from clipeval.usage import HOW, OUTPUT, WHAT, WHERE


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="The same as -m MODEL: where the shell has made several words of a glob.",
            autocompletion=completion.models,
        ),
    ] = None,
    config: ConfigFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="ARCH,PRETRAINED (a tag, a file or hf://ORG/REPO/FILE), hf-hub:ORG/NAME, local-dir:PATH, "
            "transformers:ORG/NAME or a folder of it, python:PACKAGE.MODULE:FUNCTION, a path or glob of clipeval-train "
            "checkpoints, or a model or zoo named in the configuration.",
            autocompletion=completion.models,
            rich_help_panel=WHAT,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--dataset",
            metavar="DATASET",
            help="A data set or suite of the configuration, NAME@LANGUAGE, wds:PATH_OR_URL, "
            "hf:NAME_OR_PATH\\[@revision], folder:PATH, clip_benchmark:NAME, builtin:NAME, or KIND:REFERENCE of "
            "another package.",
            autocompletion=completion.datasets,
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--task",
            metavar="TASK",
            help="A task (clipeval list tasks). Default: the zero-shot tasks a data set allows.",
            autocompletion=completion.tasks,
            rich_help_panel=WHAT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Score only this many samples, spread over the data set.", rich_help_panel=WHAT),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="K,...",
            help="Images per class of linear probes; 'full' is the whole training split.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Prompts of all classification sets: default, clip_benchmark, or a JSON file, of ours or with "
            "CLIP_benchmark's class names, templates or prompts by data set.",
            autocompletion=completion.any_of("default", "clip_benchmark"),
            rich_help_panel=WHAT,
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            metavar="NAME",
            help="Of the encoders: fp32 (IEEE's), tf32, bf16, bf16-weights (of weights too) or fp16. Scores are "
            "always fp32.",
            rich_help_panel=HOW,
        ),
    ] = "fp32",
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Images per forward pass, and texts of as many tokens: a number, or auto: 64, and up to 256 by the "
            "memory of a GPU. Halved where it does not fit.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Let torch.compile make code of each checkpoint: minutes, then faster.",
            rich_help_panel=HOW,
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seed of bootstrap intervals and of the first k-shot draw.", rich_help_panel=HOW
        ),
    ] = 0,
    rerun: Annotated[
        Rerun,
        typer.Option(
            metavar="WHICH",
            help="missing: what was not measured or failed; always: everything; never: no cell twice.",
            rich_help_panel=HOW,
        ),
    ] = "missing",
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Show each cell with its state and cost; measure nothing.", rich_help_panel=HOW),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="cpu, cuda, cuda:1 or auto.",
            autocompletion=completion.any_of("auto", "cpu", "cuda"),
            rich_help_panel=WHERE,
        ),
    ] = "auto",
    executor: Annotated[
        Executor | None,
        typer.Option(
            metavar="WHERE",
            help="Where cells run: local, in this process; processes, one for each GPU of this machine, the default "
            "where it has several; or ray, on a cluster.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Image decoding processes, by default one per core; with --executor ray, or processes without a GPU, "
            "the workers, by default one per GPU, or per core where there is none.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster to join. Default: $RAY_ADDRESS, else a Ray of this machine alone.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only what is on this machine.", rich_help_panel=WHERE)
    ] = False,
    keep_weights: Annotated[
        YesNo,
        typer.Option(
            metavar="yes|no",
            help="no: remove what this run has fetched of a checkpoint after its last cell.",
            rich_help_panel=WHERE,
        ),
    ] = "yes",
    allow_python: Annotated[
        bool,
        typer.Option(
            "--allow-python",
            help="Let the configuration name functions as models (python:...), too.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    out: Annotated[
        Path, PathOption("-o", "--out", metavar="DIR", help="Folder of the results table.", rich_help_panel=OUTPUT)
    ] = Path("results"),
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", help="No progress: the table, and what could not be measured.", rich_help_panel=OUTPUT
        ),
    ] = False,
    form: Format = "text",
    as_json: JsonFlag = False,
) -> None:
    """Evaluate checkpoints on data sets into one tidy results table. The same command again continues."""
    from clipeval import config as configuration
    from clipeval.evaluation.here import leave_removed_folder
    from clipeval.evaluation.outline import outline

    leave_removed_folder(out)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    asked = {"models": [*(model or []), *(models or [])], "datasets": dataset or [], "tasks": task or []}
    settings, per_class = configuration.load(config), words.shots(shots)
    silent = quiet or (as_json and not sys.stderr.isatty())
    is_new = not exists(out / "ledger.jsonl")
    about = outline(settings, **asked, shots=per_class, is_new=is_new, allow_python=allow_python)
    if about and not silent and not plan:
        say(about)

    from clipeval.evaluation import run as runner
    from clipeval.evaluation import show
    from clipeval.evaluation.interrupt import interruptible
    from clipeval.evaluation.request import Options, Request, batch
    from clipeval.results.schema import COLUMNS

    options = Options(
        out=out,
        limit=limit,
        seed=seed,
        shots=per_class,
        device=device,
        precision=precision,
        **batch(batch_size),
        compile=compile,
        workers=workers,
        executor=executor,
        ray_address=ray_address,
        rerun=rerun,
        offline=offline,
        keep_weights=keep_weights == "yes",
        allow_python=allow_python,
    )
    request = Request(config=settings, options=options, prompts=prompts, **asked)
    if plan:
        cells, bugs = runner.dry_run(request)
        show_json(cells) if as_json else show.print_plan(cells)
        for cell, error in bugs:
            say(f"cannot be planned: {cell.label}: {error}")
        raise typer.Exit(runner.Outcome([], (), bugs).exit_code)
    try:
        with interruptible():
            outcome = runner.execute(request, quiet=silent)
    except KeyboardInterrupt:
        say(f"Interrupted. What was finished is in {out}. The same command continues.")
        raise
    if as_json:
        rows = [dict.fromkeys(COLUMNS) | row for row in outcome.rows]
        show_json({"rows": rows, "exit_code": outcome.exit_code})
    else:
        try:
            show.print_results(outcome.rows, outcome.cells, out, [cell for cell, _ in outcome.failures])
        except StoreError as error:  # what was measured is in the files
            say(error)
    for line in show.failures(outcome.failures):
        say(line)
    raise typer.Exit(outcome.exit_code)
