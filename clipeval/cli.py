"""The ``clipeval`` command: parse, call, exit code. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipeval import choices, completion, usage
from clipeval import options as words
from clipeval.checks.command import check
from clipeval.choices import CacheAction, CacheKind, Listing, listed
from clipeval.console import say, show, show_json
from clipeval.errors import UsageError
from clipeval.evaluation.command import run
from clipeval.exits import guarded
from clipeval.options import ConfigFile, Format, JsonFlag, PathArgument, PathOption
from clipeval.scaling.command import design, fit
from clipeval.usage import OUTPUT, WHAT, Command, examples

_VARIABLES = {
    "CLIPEVAL_CACHE": "folder of what is computed or downloaded once",
    "CLIPEVAL_PIXELS": "most that pixels take of it; 200GB",
    "CLIPEVAL_STORE": "bucket of embeddings in its place: s3://bucket/folder",
    "CLIPEVAL_DATA": "folder of what CLIP_benchmark's builders have made",
    "CLIPEVAL_TIMEOUT": "seconds after which a silent server is given up; 60",
    "HF_TOKEN, HF_HOME": "as everywhere: token and cache folder of the hub",
}
app = usage.program(
    "clipeval",
    "Evaluate CLIP checkpoints into one tidy table and derive their scaling laws.",
    Variables=_VARIABLES,
)
app.callback()(words.root)
_MEASURE, _ANSWER, _LOOK = "Measure", "Answer", "Look around"


app.command(
    cls=Command,
    rich_help_panel=_MEASURE,
    epilog=examples(
        "clipeval run -m ViT-B-32,laion2b_s34b_b79k -d imagenet1k --plan",
        "clipeval run -m ViT-B-32,laion2b_s34b_b79k -d digits -t classification -t probe",
        "clipeval run runs/*/checkpoints/*.pt -d vtab+ -d retrieval -o results/mine",
    ),
)(run)
app.command(
    cls=Command,
    rich_help_panel=_ANSWER,
    epilog=examples(
        "clipeval fit --task retrieval",
        "clipeval fit results/mine --by source -o fits",
        "clipeval fit open_clip -d imagenet1k --forecast ViT-g-14:34B",
    ),
)(fit)
app.command(
    cls=Command,
    rich_help_panel=_ANSWER,
    epilog=examples(
        "clipeval design --budget 1e12 -d imagenet1k -t classification --for difference",
        "clipeval design open_clip --budget 1e12 -d imagenet1k --for forecast:ViT-H-14:34B",
        "clipeval design results/mine --budget 350 -d icons-40 --ladder plan.yaml -o next.yaml",
    ),
)(design)
app.command(
    cls=Command,
    rich_help_panel=_ANSWER,
    epilog=examples(
        "clipeval check results/new --against results/old",
        "clipeval check results/new --against results/old --rules rules.yaml --format github",
        "clipeval check results/new --against results/old --plan",
    ),
)(check)


@app.command(
    cls=Command,
    rich_help_panel=_ANSWER,
    epilog=examples(
        "clipeval report results/mine -o report",
        "clipeval report open_clip -o report",
        "clipeval report results/mine cherti2023 -o report",
    ),
)
def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS",
            help="Results folders, tables or published studies (clipeval list studies); several are joined.",
            autocompletion=completion.tables,
        ),
    ],
    out: Annotated[
        Path,
        PathOption("-o", "--out", help="Folder of the page and its files.", metavar="DIR", rich_help_panel=OUTPUT),
    ],
    config: ConfigFile = None,
) -> None:
    """Make one self-contained HTML page of results tables, and the same as CSV, Markdown and model-index YAML."""
    from clipeval.reporting.page import CARDS, FILES
    from clipeval.reporting.page import report as make

    page = make(results, out, config)
    say(
        f"{page}: {page.stat().st_size / 1e6:.1f} MB, open it in a browser. Beside it: {', '.join(FILES[1:])}, {CARDS}/"
    )


@app.command(
    cls=Command,
    rich_help_panel=_ANSWER,
    epilog=examples(
        "clipeval push results/mine ORG/NAME -m runs/b32",
        "clipeval push results/mine ORG/NAME -m runs/b32 --yes",
        "clipeval push results/mine ORG/RESULTS --dataset",
    ),
)
def push(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS... REPO", help="Results folders, tables or studies; last ORG/NAME."),
    ],
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="NAME", help="The checkpoint, where RESULTS hold several.")
    ] = None,
    dataset: Annotated[
        bool, typer.Option("--dataset", help="Upload the whole table as Parquet, to a data set repository.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="A repository that is made now is private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload. Without it nothing is sent, only shown.")] = False,
    config: ConfigFile = None,
) -> None:
    """Share results on the Hugging Face hub: a checkpoint's model card and .eval_results, or the table as a data set.

    Without --yes it shows what would go up, and asks nobody. HF_TOKEN must be one that may write. A card that is there
    keeps its text.
    """
    from clipeval.reporting.push import push as upload
    from clipeval.reporting.push import show_pushed

    *given, repo = results
    show_pushed(upload(given, repo, model=model, dataset=dataset, private=private, yes=yes, config=config))


@app.command(
    "import",
    cls=Command,
    rich_help_panel=_MEASURE,
    epilog=examples(
        "clipeval import benchmark/*.json -o results/theirs",
        "clipeval import openclip_results.csv -o results/open_clip",
        "clipeval fit results/theirs",
    ),
)
def import_(
    files: Annotated[list[Path], PathArgument(metavar="FILE", help="Raw result files.")],
    out: Annotated[
        Path, PathOption("-o", "--out", metavar="DIR", help="Folder of the tidy table.", rich_help_panel=OUTPUT)
    ],
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


@app.command(
    "list",
    cls=Command,
    rich_help_panel=_LOOK,
    epilog=examples("clipeval list datasets", "clipeval list models laion", "clipeval list studies --json"),
)
def list_(
    what: Annotated[
        Listing,
        typer.Argument(
            metavar="WHAT",
            help=f"{listed(Listing).capitalize()} of benchmarks.yaml (--json: as JSON Schema).",
        ),
    ],
    word: Annotated[
        str,
        typer.Argument(
            metavar="WORD",
            help="Show those whose name, family, source or the like holds it.",
            show_default=False,
        ),
    ] = "",
    config: ConfigFile = None,
    form: Format = "text",
    as_json: JsonFlag = False,
) -> None:
    """List what can be named on the command line."""
    from clipeval import config as configuration
    from clipeval.lists import LISTS, holding, of_packages, print_list

    if what == "keys":
        from clipeval import keys

        settings = configuration.load(config)
        if as_json:
            return show_json(keys.schema(type(settings)))
        return keys.print_rows(holding(word, LISTS[what](settings)))
    rows = holding(word, LISTS[what](configuration.load(config)))
    if as_json:
        return show_json(rows)
    print_list(what, rows)
    for line in of_packages(what):
        show(line)


@app.command(
    cls=Command,
    rich_help_panel=_LOOK,
    epilog=examples("clipeval cache list", "clipeval cache clear pixels", "clipeval cache list --json"),
)
def cache(
    action: Annotated[CacheAction, typer.Argument(metavar="ACTION", help=f"{listed(CacheAction).capitalize()}.")],
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND",
            help=f"What to clear: {listed(CacheKind)}. Default: all of it.",
            autocompletion=completion.any_of(*choices.words(CacheKind)),
            rich_help_panel=WHAT,
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the cache folder holds, or remove it: pixels, embeddings, downloads and digests.

    CLIPEVAL_CACHE names the folder; CLIPEVAL_PIXELS is the most that pixels may take of it.
    """
    from clipeval import cached, tables
    from clipeval.paths import cache_dir

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
