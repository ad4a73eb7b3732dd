"""``clipeval design``: which runs to train next, so that a budget narrows one answer most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import MeasureError, UsageError, few, suggest
from clipeval.results.columns import COMPUTE, archs, numbers
from clipeval.results.published import published
from clipeval.results.reading import Results, read_tables
from clipeval.scaling import cherti2023
from clipeval.scaling.asked import FAMILY, Question
from clipeval.scaling.points import Checkpoints, select
from clipeval.scaling.problem import Problem
from clipeval.scaling.questions.design import Side, leave_out, next_runs
from clipeval.scaling.questions.forecast import parse
from clipeval.scaling.recipe import Recipe
from clipeval.scaling.validation import decades_beyond
from clipeval.shown import Shown
from clipeval.spelling import also, several

if TYPE_CHECKING:
    import pandas as pd

SIZE, SEEN = "gmacs", "samples_seen"
AIMS = ("forecast", "difference", "crossover")
_LONGER = 4
"""Runs may be so many times as long as the longest so far, in steps of two, and as many times as short."""
_FAR = 3
"""The largest runs, on which a plan is checked."""


@dataclass(frozen=True)
class PlannedRun:
    """Runs that are alike but for the seed: ``count`` of them at ``cost`` GMACs each. ``there`` is how many checkpoints
    of the same kind the table has."""

    arch: str
    source: str
    samples: int
    gmacs: float
    cost: float
    count: int
    there: int


@dataclass(frozen=True, repr=False)
class Design(Shown):
    """The runs, and how well the answer ``what`` is known without and with them.

    ``sd_before``, ``sd_after`` and ``sd_largest`` are its standard deviations: without new runs, with these, and with
    the budget in one run; ``scatter`` is that of ln E of runs about the laws. By source, ``promised`` and ``missed``
    check such plans on the runs there are (``questions.design.leave_out``), NaN where these are too few.
    """

    printer = "clipeval.scaling.output.plan:print_design"

    what: str
    dataset: str
    metric: str
    law: str
    budget: float
    runs: tuple[PlannedRun, ...]
    sd_before: float
    sd_after: float
    sd_largest: float
    scatter: float
    promised: Mapping[str, float]
    missed: Mapping[str, float]
    cooldown: float | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        runs = few([f"{run.count} x {run.arch} on {run.source} for {run.samples:,}" for run in self.runs], 4)
        known = f"standard deviation {self.sd_before:.3g} now, {self.sd_after:.3g} with them"
        return f"Design: {self.what} on {self.dataset}: {known}\n  {runs}\nAll of it: print(design)"

    @property
    def cost(self) -> float:
        """GMACs of all runs, trunks counted once."""
        return sum(run.cost * run.count for run in self.runs)


@also(source="sources", results="table")
def design(
    table: Results | None,
    budget: float,
    aim: str = AIMS[1],
    *,
    task: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
    by: str = FAMILY,
    sources: Sequence[str] | str = (),
    cooldown: float | None = None,
) -> Design:
    """The runs to add to those of ``table`` for ``budget`` GMACs, so that one answer is known best. The table is a
    DataFrame, a results folder, a file, a published study, or a list of these; None: the checkpoints of Cherti et al.
    2023.

    ``aim`` is ``forecast:ARCH:SAMPLES``, the error of such a run, by a law of GMACs per sample and samples seen;
    ``difference``, of two sources' exponents; or ``crossover``, the compute at which their laws meet, both by power
    laws of compute. Runs are of the architectures that the table has and of lengths from a fourth of its shortest to
    four times its longest. With ``cooldown``, a share of the samples, runs of one architecture, source and seed are
    branches of one trunk, which is paid once.

    Raises UsageError for unknown words and for a table of several data sets, metrics or sources where one is needed,
    and MeasureError where no law can be fitted.
    """
    kind, goal = _goal(aim)
    sources = several(sources)
    if table is None:
        table = cherti2023.default_rows(published(), task, [dataset] if dataset else None)
    table = read_tables(table)
    if cooldown is not None and not 0 < cooldown < 1:
        raise UsageError(f"--cooldown {cooldown:g}: expected the share of a run in which its rate falls, such as 0.2.")
    columns = (SIZE, SEEN) if kind == "forecast" else (COMPUTE,)
    points = _points(table, Question(task, (dataset,) if dataset else None, metric, columns, by), sources, kind)
    recipe = Recipe("joint_nd" if kind == "forecast" else "power", columns, "none", 100, 0, None)
    problems = [recipe.problem(one) for one in points]
    what, target, scale = _answer(kind, goal, table, problems)
    scatter = _scatter(problems)
    sides = [Side(problem, scatter, target) for problem in problems]
    choices = _Choices(points, columns, cooldown)
    plan = next_runs(sides, choices.of, choices.x, choices.price, budget)
    checks = {one.source: _check(side) for one, side in zip(points, sides, strict=True)}
    _, name, shown, _ = points[0].cell
    return Design(
        what=what,
        dataset=name,
        metric=shown,
        law=problems[0].law.name,
        budget=budget,
        runs=choices.runs(plan.chosen, plan.cost),
        sd_before=plan.sd_before * scale,
        sd_after=plan.sd_after * scale,
        sd_largest=plan.sd_largest * scale,
        scatter=scatter,
        promised={source: promised for source, (promised, _) in checks.items()},
        missed={source: missed for source, (_, missed) in checks.items()},
        cooldown=cooldown,
        notes=(*plan.notes, *_remarks(problems, target, checks)),
    )


def ladder(plan: Design, document: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The plan file of ``clipeval-train ladder`` that trains the runs, with the models, sources and defaults of the
    ``document`` of another one. Raises UsageError where that does not name them."""
    for key, names in (("models", {run.arch for run in plan.runs}), ("sources", {run.source for run in plan.runs})):
        known = document.get(key) or {}
        if missing := sorted(name for name in names if name not in known):
            raise UsageError(
                f"--ladder {origin}: {key}: {few(missing)} {'is' if len(missing) == 1 else 'are'} not there, and the "
                f"results are of {'it' if len(missing) == 1 else 'them'}.{suggest(missing[0], known)} Give the plan "
                "that these results are from."
            )
    defaults = {key: value for key, value in (document.get("defaults") or {}).items() if key not in (SEEN, "samples")}
    first = int(defaults.pop("seed", 0))
    if plan.cooldown is not None:
        defaults |= {"schedule": "constant", "cooldown": plan.cooldown}
    most: Counter[tuple[str, str]] = Counter()
    for run in plan.runs:
        most[run.arch, run.source] = max(most[run.arch, run.source], run.there)
    runs = []
    for run in plan.runs:
        taken = run.there if plan.cooldown is None else most[run.arch, run.source]  # branches of a trunk share its seed
        runs += [
            {"model": run.arch, "source": run.source, "samples": run.samples, "seed": first + taken + number}
            for number in range(run.count)
        ]
    kept = {key: value for key, value in document.items() if key not in ("grid", "runs", "defaults")}
    return {"runs": runs} | kept | {"defaults": defaults}


def _goal(aim: str) -> tuple[str, str]:
    kind, _, goal = aim.partition(":")
    if kind not in AIMS or bool(goal) != (kind == "forecast"):
        raise UsageError(
            f"--for {aim}: expected forecast:ARCHITECTURE:SAMPLES, such as forecast:ViT-H-14:34B, difference or "
            f"crossover.{suggest(kind, AIMS) if kind not in AIMS else ''}"
        )
    return kind, goal


def _points(table: pd.DataFrame, question: Question, sources: Sequence[str], kind: str) -> list[Checkpoints]:
    """Of one data set and metric, one for each source."""
    found = select(table, question).points
    cells = list(dict.fromkeys(points.cell for points in found))
    if len(cells) > 1:
        listed = few(
            [
                f"-t {task} -d {name} --metric {metric}" + (f" ({shots} shots)" if shots else "")
                for task, name, metric, shots in cells
            ]
        )
        raise UsageError(f"a design is for one answer, and there are {len(cells)}: choose one of {listed}.")
    there = [points.source for points in found]
    for source in sources:
        if source not in there:
            raise UsageError(f"--source {source}: there are {', '.join(there)}.{suggest(source, there)}")
    found = [points for points in found if not sources or points.source in sources]
    if kind != "forecast" and len(found) != 2:
        raise UsageError(
            f"--for {kind} is of two sources, and there are {len(found)}: "
            f"{', '.join(points.source for points in found)}. Name two with --source."
        )
    return found


def _answer(
    kind: str, goal: str, table: pd.DataFrame, problems: Sequence[Problem]
) -> tuple[str, np.ndarray | None, float]:
    """The answer in words, the scales at which its laws are asked (None: for exponents), and what the standard
    deviation of their sum is to be multiplied with."""
    if kind == "difference":
        return "the difference of the exponents", None, 1.0
    if kind == "forecast":
        target = parse(goal, table, option="--for forecast:").x((SIZE, SEEN))[0]
        each = " (root mean square over the sources)" if len(problems) > 1 else ""
        return f"ln E of {goal}{each}", target, len(problems) ** -0.5
    (alpha_a, beta_a), (alpha_b, beta_b) = (_power(problem) for problem in problems)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = float(np.log(beta_b / beta_a) / np.float64(alpha_a - alpha_b))
    if not abs(at) < np.log(1e30):
        raise MeasureError("the laws are parallel: they do not cross anywhere near. Ask --for difference.")
    return f"ln of the compute at which the laws cross, {np.exp(at):.4g} GMACs", np.exp(at), 1 / abs(alpha_a - alpha_b)


def _power(problem: Problem) -> tuple[float, float]:
    named = dict(zip(problem.law.names, problem.estimate.params.tolist(), strict=True))
    return named["alpha"], named["beta"]


def _scatter(problems: Sequence[Problem]) -> float:
    """The standard deviation of ln E about the laws, the same for all: that of one source is of few runs."""
    freedom = sum(problem.freedom for problem in problems)
    if min(problem.freedom for problem in problems) < 0 or not freedom:
        few_of = min(problems, key=lambda problem: problem.freedom)
        raise MeasureError(
            f"{len(few_of.error)} checkpoints leave nothing over beside the {len(few_of.law.names)} parameters of "
            f"the law {few_of.law.name}: how far runs scatter is not known. Train a few more first."
        )
    return float(np.sqrt(sum(problem.estimate.rss for problem in problems) / freedom))


def _check(side: Side) -> tuple[float, float]:
    try:
        return leave_out(side.problem, side.sigma, _FAR)
    except MeasureError:
        return float("nan"), float("nan")


def _remarks(
    problems: Sequence[Problem], target: np.ndarray | None, checks: Mapping[str, tuple[float, float]]
) -> list[str]:
    found = []
    at = None if target is None else target[None]
    beyond = 0.0 if at is None else max(float(decades_beyond(problem.x, at)[0]) for problem in problems)
    if beyond > 1:
        found.append(f"the answer lies {beyond:.1f} decades beyond the data: no run of a plan shows a bend before it")
    found += [
        f"{source}: forecasts of its {_FAR} largest runs from the others missed by {missed:.3f} in ln E, where the law "
        f"promises {promised:.3f}: it is not to be planned with"
        for source, (promised, missed) in checks.items()
        if missed > 2 * promised
    ]
    return found


class _Choices:
    """All runs that may be trained: ``of`` ``[m]`` is the number of the source, ``x`` the scales that its law sees."""

    def __init__(self, points: Sequence[Checkpoints], columns: tuple[str, ...], cooldown: float | None) -> None:
        self._cooldown = cooldown
        self._kinds: list[tuple[str, str, int, float, int]] = []
        """Architecture, source, samples, GMACs per sample, and how many the table has."""
        of = []
        for number, one in enumerate(points):
            known = one.table.dropna(subset=[SIZE, SEEN])  # a law of total compute does without them, a plan does not
            if known.empty:
                raise UsageError(f"a plan needs {SIZE} and {SEEN}, and no checkpoint of {one.source} has both.")
            names, seen = archs(known), numbers(known, SEEN)
            sizes = dict(zip(names, numbers(known, SIZE), strict=True))
            there = Counter(zip(names, np.round(seen).astype(int).tolist(), strict=True))
            steps = int(np.log2(seen.max() / seen.min() * _LONGER**2))
            lengths = [round(seen.max() * _LONGER / 2**step) for step in range(steps + 1)]
            named = set(one.table["source"].dropna()) if "source" in one.table else set()
            source = str(*named) if len(named) == 1 else one.source
            kinds = [
                (arch, source, length, float(size), there[arch, length])
                for arch, size in sorted(sizes.items(), key=lambda item: item[1])
                if arch
                for length in sorted(lengths)
            ]
            self._kinds += kinds
            of += [number] * len(kinds)
        if not self._kinds:
            raise UsageError("no architecture in the column arch: a plan names those to train.")
        self.of = np.array(of, dtype=int)
        self._size = np.array([kind[3] for kind in self._kinds])
        self._seen = np.array([kind[2] for kind in self._kinds], dtype=float)
        self.x = np.stack([self._size, self._seen], axis=1) if len(columns) > 1 else self._size * self._seen

    def price(self, chosen: Sequence[int]) -> np.ndarray:
        """GMACs of each ``[m]`` beside those that are chosen."""
        if self._cooldown is None:
            return self._size * self._seen
        trunks: dict[tuple[str, str, int], float] = {}
        count: Counter[int] = Counter()
        stable = self._seen * (1 - self._cooldown)
        for number in chosen:
            key = (*self._kinds[number][:2], count[number])
            trunks[key] = max(trunks.get(key, 0.0), stable[number])
            count[number] += 1
        there = [trunks.get((*kind[:2], count[number]), 0.0) for number, kind in enumerate(self._kinds)]
        return self._size * (np.maximum(stable - there, 0.0) + self._seen * self._cooldown)

    def runs(self, chosen: Sequence[int], cost: np.ndarray) -> tuple[PlannedRun, ...]:
        """Those that are chosen, small ones first."""
        found = []
        for number in sorted(set(chosen)):
            arch, source, samples, size, there = self._kinds[number]
            paid = cost[np.array(chosen) == number]
            found.append(PlannedRun(arch, source, samples, size, float(paid.mean()), len(paid), there))
        return tuple(found)
