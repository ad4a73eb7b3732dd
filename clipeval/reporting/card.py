"""What the hub shows of one checkpoint, in huggingface_hub's own classes: ``.eval_results`` and the model card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.errors import UsageError, first_line, foreign
from clipeval.paths import exists
from clipeval.remote.origin import on_hub
from clipeval.reporting import words
from clipeval.reporting.exports import escaped, is_special, model_indices, whole
from clipeval.reporting.rows import number, text
from clipeval.results.columns import records
from clipeval.results.ledger import Row
from clipeval.results.suites import is_suite, main_metrics

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import CardData, EvalResult, EvalResultEntry

_COPIES = "clip_benchmark:wds/"
_COPY = "clip-benchmark/wds_{}"
FOLDER = ".eval_results"
_UNSAFE = re.compile(r"[^\w.+-]+")
"""In names of files."""


def eval_results(rows: pd.DataFrame, config: Config) -> dict[str, str]:
    """The files of ``.eval_results`` of a checkpoint, by path: one per data set that the hub has, with the main metrics
    of each task, as fractions."""
    from huggingface_hub import eval_result_entries_to_yaml

    found: dict[str, list[EvalResultEntry]] = {}
    cells: dict[tuple[str, str, int | None], list[Row]] = {}
    for row in records(whole(rows)):
        cells.setdefault((text(row["dataset"]), text(row["task"]), row["shots"]), []).append(row)
    for (dataset, task, _), of_cell in cells.items():
        entry = config.dataset(dataset)
        place = on_the_hub(entry.spec) if entry else ""
        if place and not is_suite(of_cell[0]):
            shown = main_metrics(task, dataset, [row["metric"] for row in of_cell], config)
            path = f"{FOLDER}/{_UNSAFE.sub('_', dataset)}.yaml"
            entries = [_entry(place, row, len(shown) > 1) for row in of_cell if row["metric"] in shown]
            found.setdefault(path, []).extend(entries)
    return {
        path: yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000)
        for path, entries in found.items()
    }


def on_the_hub(spec: str) -> str:
    """The data set repository of the hub that a DATASET spec reads; empty where it reads another place."""
    if spec.startswith(_COPIES):
        return _COPY.format(spec.removeprefix(_COPIES).partition("@")[0].replace("/", "-"))
    if spec.startswith("wds:"):
        place = on_hub(spec.removeprefix("wds:"))
        return place[1] if place and place[0] == "dataset" else ""
    name = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)([@:].*)?", spec)
    return name[1] if name and not exists(Path(name[1])) else ""


def _entry(place: str, row: Row, several: bool) -> EvalResultEntry:
    from huggingface_hub import EvalResultEntry

    metric = vocabulary.metric(row["metric"])
    shots, low, high = (number(row[name]) for name in ("shots", "ci_low", "ci_high"))
    task = text(row["task"]) + (f"_{shots:.0f}shot" if shots == shots else "") + (f":{metric.name}" if several else "")
    task += "".join(f"_{text(row[name])}" for name in ("protocol", "prompts") if is_special(row[name]))
    notes = [metric.heading, f"split {text(row['split'])}" if text(row["split"]) else ""]
    notes += [f"95 % interval {low:.4f} to {high:.4f}" if low == low and high == high else ""]
    notes += [f"n {row['n']:,}" if row["n"] else "", _origin(row)]
    commits = text(row["revision"]).split()
    return EvalResultEntry(
        dataset_id=place,
        task_id=task,
        value=float(row["value"]),
        dataset_revision=commits[1] if len(commits) == 2 else None,  # the first is the checkpoint's
        date=text(row["started_at"]) or None,
        notes=", ".join(filter(None, notes)),
    )


def _origin(row: Row) -> str:
    """Who says so: clipeval, or the publication that a value was imported from."""
    version = text(row["clipeval_version"])
    return f"measured with clipeval {version}" if version else text(row["reference"])


def model_card(rows: pd.DataFrame, name: str, old: str | None, where: str) -> str:
    """The model card of the checkpoint that ``rows`` are of, with all its results in the metadata: ``old`` with these
    in place of earlier values of the same, or a new one. Raises UsageError where the metadata of ``old`` are not valid.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    [(_, index)] = model_indices(rows)
    _, new = model_index_to_eval_results(yaml.safe_load(index)["model-index"])
    if old is None:
        fresh = ModelCardData(
            model_name=name,
            eval_results=new,
            pipeline_tag="zero-shot-image-classification",
            tags=["clip", "clipeval"],
        )
        return page(fresh, _body(rows, name))
    with foreign(
        lambda error: UsageError(f"{where}: the metadata of its README.md is not valid: {first_line(error)}.")
    ):
        card = ModelCard(old)
        data: Any = card.data
        data.model_name = data.model_name or name
        data.eval_results = _joined(data.eval_results or [], new)
        return str(card)


def page(data: CardData, body: str) -> str:
    """A README.md of the hub."""
    return "\n".join(["---", data.to_yaml(line_break="\n"), "---", "", body])


def _joined(old: Sequence[EvalResult], new: Sequence[EvalResult]) -> list[EvalResult]:
    """Those that are ``new``, and of the ``old`` ones those of other data sets, tasks and metrics."""
    kept = [one for one in old if not any(_same(one, other) for other in new)]
    return [*kept, *new]


def _same(one: EvalResult, other: EvalResult) -> bool:
    keys = ("task_type", "dataset_type", "dataset_config", "dataset_split", "metric_type", "metric_name")
    return all(json.dumps(getattr(one, key)) == json.dumps(getattr(other, key)) for key in keys)


def _body(rows: pd.DataFrame, name: str) -> str:
    lines = ["| Data set | Task | Metric | Value | 95 % interval |", "|---|---|---|--:|--:|"]
    for row in records(whole(rows)):
        shots = number(row["shots"])
        low, high = (number(row[bound]) for bound in ("ci_low", "ci_high"))
        metric = vocabulary.metric(text(row["metric"]))
        in_percent = not metric.lower and row.get("higher_is_better") is not False
        value, *ends = (words.shown(x, in_percent) for x in (float(row["value"]), low, high))
        interval = "–".join(ends) if low == low and high == high else "–"
        cells = [
            vocabulary.dataset(text(row["dataset"]), None if shots != shots else int(shots)),
            vocabulary.task(text(row["task"])).title,
            metric.heading,
            value,
            interval,
        ]
        lines.append("| " + " | ".join(map(escaped, cells)) + " |")
    origins = "; ".join(sorted({_origin(row) for row in records(whole(rows))} - {""}))
    said = f"In percent{f'; {escaped(origins)}' if origins else ''}."
    return "\n".join([f"# {escaped(name)}", "", said, "", *lines, ""])
