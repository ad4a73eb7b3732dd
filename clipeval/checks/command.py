"""The command ``check``: what its options say, and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipeval.choices import CheckFormat, Undecided, listed
from clipeval.console import say
from clipeval.options import PathArgument, PathOption
from clipeval.paths import exists
from clipeval.usage import HOW, OUTPUT, WHAT


def check(
    current: Annotated[
        Path,
        PathArgument(
            metavar="CURRENT",
            help="Results folder or table to judge.",
        ),
    ],
    against: Annotated[
        Path,
        PathOption(
            metavar="BASELINE",
            help="Results folder or table of the baseline.",
            rich_help_panel=WHAT,
        ),
    ],
    rules: Annotated[
        Path | None,
        PathOption(
            metavar="FILE",
            help="Configuration with 'rules'; ./benchmarks.yaml where there is one.",
            rich_help_panel=HOW,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|NEW=OLD",
            help="Compare this checkpoint, under OLD's name in the baseline, and no others. Default: all of the "
            "baseline by name; where either side has one checkpoint, these two.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    undecided: Annotated[
        Undecided,
        typer.Option(
            metavar="fail|warn",
            help="warn: exit 0 where more samples would decide, with the line.",
            rich_help_panel=HOW,
        ),
    ] = "fail",
    ask: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Say how often an equally good checkpoint would pass, and how many outcomes would decide. "
            "CURRENT need not be there yet; BASELINE may also be a data set or suite.",
            rich_help_panel=HOW,
        ),
    ] = False,
    form: Annotated[
        CheckFormat,
        typer.Option("--format", metavar="FORMAT", help=f"{listed(CheckFormat)}.", rich_help_panel=OUTPUT),
    ] = "text",
    output: Annotated[
        Path | None,
        PathOption(
            metavar="FILE",
            help="Write to this file; with github the table, by default the job summary.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline",
            help="Then put CURRENT in place of BASELINE, all of it, and exit 0.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Judge results against a baseline: exit 0 no loss, 1 a loss that is shown, 3 not measured or not decided.

    Another checkpoint passes where the mean of the main metric over the data sets lost at most 1 point, with 95 %
    confidence, paired on the samples, and no cell is suspect. It fails where the mean, or a cell (Holm), lost more with
    the same confidence. What lies between is 'cannot-tell', with the number of outcomes that would decide. Without
    rules every cell of the baseline must be there.
    """
    from clipeval.checks import baseline, emit, gate, plan

    if ask:
        emit.write_plan(plan.plan(current, against, rules=rules, models=model or ()), form, output)
        return
    if not update_baseline or exists(against):
        result = gate.check(current, against, rules=rules, models=model or (), undecided=undecided)
        emit.write(result, form, output)
    if update_baseline:
        say(baseline.update(current, against))
        return
    raise typer.Exit(result.exit_code)
