"""The ``clipeval`` command: parse, call, exit code. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clipeval import options as words
from clipeval.checks.command import check
from clipeval.console import say, show, show_json
from clipeval.errors import StoreError, UsageError, suggest
from clipeval.exits import guarded
from clipeval.options import ConfigFile, JsonFlag, PathArgument, PathOption
from clipeval.scaling.command import design, fit
from clipeval.version import __version__

app = typer.Typer(
    name="clipeval",
    help="Evaluate CLIP checkpoints into one tidy table and derive their scaling laws.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        show(f"clipeval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="ARCH,PRETRAINED (a tag, a file or hf://ORG/REPO/FILE), hf-hub:ORG/NAME, local-dir:PATH, "
            "transformers:ORG/NAME or a folder of it, python:PACKAGE.MODULE:FUNCTION, a path or glob of clipeval-train "
            "checkpoints, or a model or zoo named in the configuration.",
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--dataset",
            help="A data set or suite of the configuration, NAME@LANGUAGE, wds:PATH_OR_URL, "
            "hf:NAME_OR_PATH[@revision], folder:PATH, clip_benchmark:NAME, builtin:NAME, or KIND:REFERENCE of "
            "another package.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "-t", "--task", help="A task (clipeval list tasks). Default: the zero-shot tasks a data set allows."
        ),
    ] = None,
    out: Annotated[Path, PathOption("-o", "--out", help="Folder of the results table.")] = Path("results"),
    limit: Annotated[int | None, typer.Option(help="Score only this many samples, spread over the data set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap intervals and of the first k-shot draw.")] = 0,
    shots: Annotated[
        str | None, typer.Option(help="Images per class of linear probes: K,... ; 'full' is the whole training split.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Of the encoders: fp32 (IEEE's), tf32, bf16, bf16-weights (of weights too) or fp16. Scores are "
            "always fp32."
        ),
    ] = "fp32",
    batch_size: Annotated[
        str,
        typer.Option(
            help="Images per forward pass, and texts of as many tokens: a number, or auto: 64, and up to 256 by the "
            "memory of a GPU. Halved where it does not fit."
        ),
    ] = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile make code of each checkpoint: minutes, then faster.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Image decoding processes, by default one per core; with --executor ray, or processes without a GPU, "
            "the workers, by default one per GPU, or per core where there is none."
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where cells run: local, in this process; processes, one for each GPU of this machine, the default "
            "where it has several; or ray, on a cluster."
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster to join. Default: $RAY_ADDRESS, else a Ray of this machine alone.")
    ] = None,
    rerun: Annotated[
        str, typer.Option(help="missing: what was not measured or failed; always: everything; never: no cell twice.")
    ] = "missing",
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")] = False,
    keep_weights: Annotated[
        str, typer.Option(help="no: remove what this run has fetched of a checkpoint after its last cell.")
    ] = "yes",
    allow_python: Annotated[
        bool,
        typer.Option("--allow-python", help="Let the configuration name functions as models (python:...), too."),
    ] = False,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Prompts of all classification sets: default, clip_benchmark, or a JSON file, of ours or with "
            "CLIP_benchmark's class names, templates or prompts by data set.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show each cell with its state and cost; measure nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate checkpoints on data sets into one tidy results table. The same command again continues."""
    from clipeval import config as configuration
    from clipeval.evaluation import run as runner
    from clipeval.evaluation import show
    from clipeval.evaluation.here import leave_removed_folder
    from clipeval.evaluation.interrupt import interruptible
    from clipeval.evaluation.request import Options, Request, batch

    leave_removed_folder(out)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    options = Options(
        out=out,
        limit=limit,
        seed=seed,
        shots=words.shots(shots),
        device=device,
        precision=precision,
        **batch(batch_size),
        compile=compile,
        workers=workers,
        executor=executor,
        ray_address=ray_address,
        rerun=rerun,
        offline=offline,
        keep_weights=words.yes_or_no("--keep-weights", keep_weights),
        allow_python=allow_python,
    )
    asked = {"models": model or [], "datasets": dataset or [], "tasks": task or []}
    request = Request(config=configuration.load(config), options=options, prompts=prompts, **asked)
    if plan:
        cells, bugs = runner.dry_run(request)
        show_json(cells) if as_json else show.print_plan(cells)
        for cell, error in bugs:
            say(f"cannot be planned: {cell.label}: {error}")
        raise typer.Exit(runner.Outcome([], (), bugs).exit_code)
    try:
        with interruptible():
            outcome = runner.execute(request, quiet=as_json and not sys.stderr.isatty())
    except KeyboardInterrupt:
        say(f"Interrupted. What was finished is in {out}. The same command continues.")
        raise
    if as_json:
        show_json({"rows": outcome.rows, "exit_code": outcome.exit_code})
    else:
        try:
            show.print_results(outcome.rows, outcome.cells, out, [cell for cell, _ in outcome.failures])
        except StoreError as error:  # what was measured is in the files
            say(error)
    for line in show.failures(outcome.failures):
        say(line)
    raise typer.Exit(outcome.exit_code)


app.command()(fit)
app.command()(design)
app.command()(check)


@app.command()
def report(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS...", help="Results folders, tables or published studies; several are joined."),
    ],
    out: Annotated[Path, PathOption("-o", "--out", help="Folder of the page and its files.", metavar="DIR")],
    config: ConfigFile = None,
) -> None:
    """Make one self-contained HTML page of results tables, and the same as CSV, Markdown and model-index YAML."""
    from clipeval.reporting.page import FILES
    from clipeval.reporting.page import report as make

    page = make(results, out, config)
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB, open it in a browser. Beside it: {', '.join(FILES[1:])}")


@app.command("import")
def import_(
    files: Annotated[list[Path], PathArgument(metavar="FILE...", help="Raw result files.")],
    out: Annotated[Path, PathOption("-o", "--out", help="Folder of the tidy table.")],
) -> None:
    """Turn raw result files (CLIP_benchmark JSON and CSV, open_clip CSV, the paper's CSV) into a tidy table."""
    from clipeval.importers.import_files import import_files
    from clipeval.results.table import refuse_foreign_import, write_frame

    refuse_foreign_import(out)
    imported = import_files(files)
    write_frame(out, imported.frame)
    for note in imported.notes:
        say(note)
    say(f"{len(imported.frame)} rows in {out / 'results.parquet'} and {out / 'results.csv'}")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="models|datasets|suites|tasks|studies")],
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="Show those whose name, family, source or the like holds it.")
    ] = "",
    config: ConfigFile = None,
    as_json: JsonFlag = False,
) -> None:
    """List what can be named on the command line."""
    from clipeval import config as configuration
    from clipeval import tables
    from clipeval.lists import LISTS, holding, of_packages

    if what not in LISTS:
        raise UsageError(f"clipeval list {what}: expected one of {', '.join(LISTS)}.{suggest(what, LISTS)}")
    rows = holding(word, LISTS[what](configuration.load(config)))
    if as_json:
        return show_json(rows)
    tables.print_list(what, rows)
    for line in of_packages(what):
        show(line)


@app.command()
def cache(
    action: Annotated[str, typer.Argument(metavar="list|clear")],
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Of what to clear; all of it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the cache folder holds, or remove it: pixels, embeddings, downloads and digests."""
    from clipeval import cached, tables
    from clipeval.paths import cache_dir

    if action not in ("list", "clear"):
        raise UsageError(f"clipeval cache {action}: expected list or clear.")
    if action == "list" and kinds:
        raise UsageError("clipeval cache list: takes no kind; `clear` does.")
    found = cached.clear(kinds or ()) if action == "clear" else cached.listed()
    if as_json:
        show_json([kept.to_json() for kept in found])
    else:
        tables.print_cache(str(cache_dir()), found, "removed" if action == "clear" else "kept")


def main() -> None:
    """Entry point: runs the command and turns every error into its exit code and a message without traceback."""
    guarded(app, "clipeval")
