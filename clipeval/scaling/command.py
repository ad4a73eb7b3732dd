"""The commands ``fit`` and ``design``: what their options say, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipeval.console import show, show_json
from clipeval.errors import UsageError
from clipeval.options import JsonFlag, PathOption

Tables = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RESULTS]...", help="Tables, results folders or published studies; default: the paper's."),
]
By = Annotated[str, typer.Option(help="Column that tells the data sources apart.")]


def fit(
    results: Tables = None,
    task: Annotated[str | None, typer.Option("-t", "--task", help="Fit this task only.")] = None,
    dataset: Annotated[list[str] | None, typer.Option("-d", "--dataset", help="Data sets to fit; globs.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: the main metrics of each task.")] = None,
    x: Annotated[
        str,
        typer.Option(
            help="Column on the x axis: gmacs_total, samples_seen, params, ...; several with commas: jointly."
        ),
    ] = "gmacs_total",
    by: By = "source_family",
    law: Annotated[str, typer.Option(help="Form of the law.")] = "power",
    frontier: Annotated[str | None, typer.Option(help="How the frontier is drawn from the points.")] = None,
    estimator: Annotated[
        str, typer.Option(help="least-squares, huber, or weighted by the noise of each evaluation.")
    ] = "least-squares",
    preset: Annotated[str | None, typer.Option(help="cherti2023: the paper's own procedure.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Bootstrap draws for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    holdout: Annotated[float | None, typer.Option(help="Fit up to this x and score the checkpoints above it.")] = None,
    forecast: Annotated[list[str] | None, typer.Option(help="Predict ARCH:SAMPLES, for example ViT-G-14:34B.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Column of which points of the same value err together: run, arch, source, ..."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Best GMACs per sample and samples seen for so many GMACs, by a joint law.")
    ] = None,
    robustness: Annotated[
        list[str] | None,
        typer.Option(help="Data sets with a shift (globs): compare sources at equal accuracy without it."),
    ] = None,
    rank_laws: Annotated[
        bool, typer.Option("--rank-laws", help="Compare all laws by AICc and BIC, each through all checkpoints.")
    ] = False,
    against: Annotated[str, typer.Option(help="The data set without the shift.")] = "imagenet1k",
    out: Annotated[Path | None, PathOption("-o", "--out", help="Write tables, figures and the fit card here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Derive scaling laws per task and data source from a results table, and compare the sources."""
    from clipeval import config
    from clipeval.results.reading import read_tables
    from clipeval.scaling.fit import fit as fitted
    from clipeval.scaling.output.show import print_fit

    result = fitted(
        read_tables(results) if results else None,
        task=task,
        datasets=dataset,
        metric=metric,
        x=x,
        by=by,
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
        rank=rank_laws,
        chance=config.load().chances if rank_laws or law == "sigmoid" else {},
    )
    if out:
        result.write(out)
    if as_json:
        show_json(result.to_dict())
    else:
        print_fit(result)


def design(
    budget: Annotated[float, typer.Option(help="GMACs to spend: those of a sample times samples seen, over all runs.")],
    results: Tables = None,
    aim: Annotated[
        str, typer.Option("--for", help="The answer: forecast:ARCH:SAMPLES, difference or crossover (of two sources).")
    ] = "difference",
    task: Annotated[str | None, typer.Option("-t", "--task", help="The task of the answer.")] = None,
    dataset: Annotated[str | None, typer.Option("-d", "--dataset", help="The data set of the answer.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: the main metric of the task.")] = None,
    by: By = "source_family",
    source: Annotated[list[str] | None, typer.Option(help="A source to plan for. Default: all.")] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(help="Share of a run in which its rate falls: runs are then branches of trunks, paid once."),
    ] = None,
    plan: Annotated[
        Path | None, PathOption("--ladder", help="The ladder of these results: its models, sources and defaults.")
    ] = None,
    out: Annotated[
        Path | None, PathOption("-o", "--out", help="Write the plan for clipeval-train ladder here.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which runs to train next, so that a budget narrows one answer most.

    Without new runs an answer is as uncertain as the law that is fitted to the table; each run is chosen for what it
    adds to that law for its cost.
    """
    from dataclasses import asdict

    from clipeval.results.published import published
    from clipeval.results.reading import read_tables
    from clipeval.scaling import cherti2023, planner
    from clipeval.scaling.output.plan import print_design, write_ladder

    if (out is None) != (plan is None):
        raise UsageError("-o writes a ladder's plan with the models and sources of another: give both -o and --ladder.")
    table = (
        read_tables(results) if results else cherti2023.default_rows(published(), task, [dataset] if dataset else None)
    )
    found = planner.design(
        table,
        budget,
        aim,
        task=task,
        dataset=dataset,
        metric=metric,
        by=by,
        sources=source or (),
        cooldown=cooldown,
    )
    if out and plan:
        write_ladder(found, plan, out)
    if as_json:
        show_json(asdict(found) | {"cost": found.cost})
    else:
        print_design(found)
        if out:
            show(f"{out}: train them with: clipeval-train ladder {out}")
