"""The commands ``fit`` and ``design``: what their options say, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipeval import completion
from clipeval.choices import Estimator, Frontier, Law, Preset, listed
from clipeval.console import show, show_json
from clipeval.errors import UsageError
from clipeval.options import Format, JsonFlag, PathOption
from clipeval.usage import HOW, OUTPUT, QUESTIONS, WHAT

Tables = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RESULTS",
        help="Tables, results folders or published studies (clipeval list studies); default: the paper's.",
        autocompletion=completion.tables,
    ),
]
By = Annotated[
    str,
    typer.Option(
        metavar="COLUMN",
        help="Column that tells the data sources apart.",
        autocompletion=completion.any_of("source_family", "source"),
        rich_help_panel=WHAT,
    ),
]
_SCALES = completion.any_of("gmacs_total", "gmacs", "samples_seen", "unique_samples", "params", "gmacs,samples_seen")


def fit(
    results: Tables = None,
    task: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--task",
            metavar="TASK",
            help="Fit this task only.",
            autocompletion=completion.tasks,
            rich_help_panel=WHAT,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--dataset",
            metavar="DATASET",
            help="Data sets to fit; globs.",
            autocompletion=completion.datasets,
            rich_help_panel=WHAT,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Default: the main metrics of each task.",
            autocompletion=completion.metrics,
            rich_help_panel=WHAT,
        ),
    ] = None,
    x: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column on the x axis: gmacs_total, samples_seen, params, ...; several with commas: jointly.",
            autocompletion=_SCALES,
            rich_help_panel=WHAT,
        ),
    ] = "gmacs_total",
    by: By = "source_family",
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only rows that meet a condition: \"arch != 'RN50' and samples_seen < 1e10\".",
            rich_help_panel=WHAT,
        ),
    ] = None,
    law: Annotated[
        Law, typer.Option(metavar="LAW", help=f"Form of the law: {listed(Law)}.", rich_help_panel=HOW)
    ] = "power",
    frontier: Annotated[
        Frontier | None,
        typer.Option(
            metavar="NAME",
            help=f"How the frontier is drawn from the points: {listed(Frontier)}. Default: quantile for the power law "
            "by least squares, else none.",
            rich_help_panel=HOW,
        ),
    ] = None,
    estimator: Annotated[
        Estimator,
        typer.Option(
            metavar="NAME",
            help="least-squares, huber, or weighted by the noise of each evaluation.",
            rich_help_panel=HOW,
        ),
    ] = "least-squares",
    preset: Annotated[
        Preset | None,
        typer.Option(metavar="NAME", help="cherti2023: the paper's own procedure.", rich_help_panel=HOW),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", help="Bootstrap draws for the intervals.", rich_help_panel=HOW)
    ] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the bootstrap.", rich_help_panel=HOW)] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of which points of the same value err together: run, arch, source, ...",
            autocompletion=completion.any_of("run", "arch", "source"),
            rich_help_panel=HOW,
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Fit up to this x and score the checkpoints above it.", rich_help_panel=QUESTIONS
        ),
    ] = None,
    forecast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARCH:SAMPLES", help="Predict such a run, for example ViT-G-14:34B.", rich_help_panel=QUESTIONS
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="GMACS",
            help="Best GMACs per sample and samples seen for so many GMACs, by a joint law.",
            rich_help_panel=QUESTIONS,
        ),
    ] = None,
    robustness: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Data sets with a shift (globs): compare sources at equal accuracy without it.",
            autocompletion=completion.datasets,
            rich_help_panel=QUESTIONS,
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="DATASET",
            help="The data set without the shift.",
            autocompletion=completion.datasets,
            rich_help_panel=QUESTIONS,
        ),
    ] = "imagenet1k",
    mixtures: Annotated[
        bool,
        typer.Option(
            "--mixtures",
            help="Error by the shares of training data (columns mix.SOURCE): the best mixture.",
            rich_help_panel=QUESTIONS,
        ),
    ] = False,
    rank_laws: Annotated[
        bool,
        typer.Option(
            "--rank-laws",
            help="Compare all laws by AICc and BIC, each through all checkpoints.",
            rich_help_panel=QUESTIONS,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        PathOption(
            "-o", "--out", metavar="DIR", help="Write tables, figures and the fit card here.", rich_help_panel=OUTPUT
        ),
    ] = None,
    form: Format = "text",
    as_json: JsonFlag = False,
) -> None:
    """Derive scaling laws per task and data source from a results table, and compare the sources."""
    from clipeval import config
    from clipeval.scaling.fit import fit as fitted
    from clipeval.scaling.output.show import print_fit

    result = fitted(
        results or None,
        task=task,
        datasets=dataset,
        metric=metric,
        x=x,
        by=by,
        where=where,
        law=law,
        frontier=frontier,
        preset=preset,
        bootstrap=bootstrap,
        seed=seed,
        holdout=holdout,
        forecasts=forecast or (),
        estimator=estimator,
        cluster=cluster,
        budget=budget,
        robustness=robustness or (),
        against=against,
        rank_laws=rank_laws,
        mixtures=mixtures,
        chance=config.load().chances if rank_laws or law == "sigmoid" else {},
    )
    if out:
        result.write(out)
    if as_json:
        show_json(result.to_dict())
    else:
        print_fit(result)


def design(
    budget: Annotated[
        float,
        typer.Option(
            metavar="GMACS",
            help="GMACs to spend: those of a sample times samples seen, over all runs.",
            rich_help_panel=HOW,
        ),
    ],
    results: Tables = None,
    aim: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="ANSWER",
            help="The answer: forecast:ARCH:SAMPLES, difference or crossover (of two sources).",
            autocompletion=completion.any_of("forecast:", "difference", "crossover"),
            rich_help_panel=WHAT,
        ),
    ] = "difference",
    task: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--task",
            metavar="TASK",
            help="The task of the answer.",
            autocompletion=completion.tasks,
            rich_help_panel=WHAT,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--dataset",
            metavar="DATASET",
            help="The data set of the answer.",
            autocompletion=completion.datasets,
            rich_help_panel=WHAT,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Default: the main metric of the task.",
            autocompletion=completion.metrics,
            rich_help_panel=WHAT,
        ),
    ] = None,
    by: By = "source_family",
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="A source to plan for. Default: all.", rich_help_panel=WHAT),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of a run in which its rate falls: runs are then branches of trunks, paid once.",
            rich_help_panel=HOW,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        PathOption(
            "--ladder",
            metavar="FILE",
            help="The ladder of these results: the plan has its models, sources and defaults.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        PathOption(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the plan for clipeval-train ladder here.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    form: Format = "text",
    as_json: JsonFlag = False,
) -> None:
    """Say which runs to train next, so that a budget narrows one answer most.

    Without new runs an answer is as uncertain as the law that is fitted to the table; each run is chosen for what it
    adds to that law for its cost.
    """
    from dataclasses import asdict

    from clipeval.scaling import planner
    from clipeval.scaling.output.plan import print_design, write_ladder

    if plan and not out:
        raise UsageError("--ladder: its models, sources and defaults go into the plan that -o writes: give -o, too.")
    found = planner.design(
        results or None,
        budget,
        aim,
        task=task,
        dataset=dataset,
        metric=metric,
        by=by,
        sources=source or (),
        cooldown=cooldown,
    )
    if out:
        write_ladder(found, plan, out)
    if as_json:
        show_json(asdict(found) | {"cost": found.cost})
    else:
        print_design(found)
        if out:
            fill = "" if plan else "give its sources `shards` and its defaults batch_size, lr and warmup; then "
            show(f"{out}: {fill}train them with: clipeval-train ladder {out}")
