"""Results of CLIP_benchmark: the JSON file of one run (``clip_benchmark eval``) and the CSV of many (``build``).

Both hold the same fields, in the CSV side by side with the metrics. The architecture is taken as it is named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from clipeval import vocabulary
from clipeval.errors import UsageError, few
from clipeval.importers import checkpoints, datasets
from clipeval.importers.raw import Format, RawFile
from clipeval.plain import printable
from clipeval.results.ledger import Row

_FIELDS = ("dataset", "model", "pretrained", "task")
_SETTINGS = ("weight_decay", "epochs", "normalized")
"""Fields beside the metrics of a linear probe that are kept in the notes."""
_NO_METRICS = (*_FIELDS, "language", "model_fullname", "classnames", "templates", *_SETTINGS, "fewshot_k", "seed")


def _is_run(file: RawFile) -> bool:
    return not file.is_csv and {*_FIELDS, "metrics"} <= set(file.columns)


def _is_build(file: RawFile) -> bool:
    columns = set(file.columns)
    return file.is_csv and set(_FIELDS) <= columns and not {"metric", "value"} & columns


def _run_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    rows = []
    for file in files:
        for index, record in enumerate(file.records):
            if not isinstance(record.get("metrics"), dict):
                raise UsageError(f"{file.where(index)}: 'metrics' should be an object of metric names and values.")
        records = [{key: value for key, value in record.items() if key != "metrics"} for record in file.records]
        metrics = [record["metrics"] for record in file.records]
        flat = [shared | values for shared, values in zip(records, metrics, strict=True)]
        columns = dict.fromkeys(key for record in flat for key in record)
        named = dict.fromkeys(key for values in metrics for key in values if key not in _NO_METRICS)
        rows += _rows(RawFile(file.path, flat, tuple(columns), is_csv=False), list(named))
    return rows, []


def _build_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    """Columns that are no metrics by their names, such as a row's number, are left out and said."""
    rows, notes = [], []
    for file in files:
        columns = [column for column in file.columns if column not in _NO_METRICS]
        metrics = [column for column in columns if vocabulary.metric(_metric(column)).share]
        rows += _rows(file, metrics)
        if odd := [repr(printable(column)) for column in columns if column not in metrics]:
            notes.append(f"{file.path}: no metrics by their names and left out: {few(odd)}")
    return rows, notes


def _rows(file: RawFile, columns: Sequence[str]) -> list[Row]:
    rows = []
    # Only the first CLIP_benchmark wrote no language; open_clip gave OpenAI's weights their activation then.
    old = "language" not in file.columns
    for index, record in enumerate(file.records):
        shared = _shared(file, index, old)
        metrics = {column: _metric(column) for column in columns if column in record}
        for column, value in file.metrics(index, metrics).items():
            n = datasets.size(shared["dataset"], metrics[column])
            rows.append(shared | {"metric": metrics[column], "value": value, "n": n})
    return rows


def _metric(column: str) -> str:
    return column.removeprefix("lp_")


def _shared(file: RawFile, index: int, old: bool) -> Row:
    record = file.records[index]
    arch, pretrained = file.text(index, "model"), file.text(index, "pretrained")
    if old and pretrained == "openai":
        arch = checkpoints.as_trained(arch, pretrained)
    shots, seed = (_count(file, index, column) for column in ("fewshot_k", "seed"))
    settings = {name: record[name] for name in _SETTINGS if record.get(name) not in (None, "")}
    language = record.get("language") or "en"
    return checkpoints.with_compute(checkpoints.describe(arch, pretrained)) | {
        "dataset": datasets.clean_name(file.text(index, "dataset"), str(language)),
        "task": file.text(index, "task"),
        "shots": shots if shots and shots > 0 else None,  # -1: all training samples
        "seed": seed,
        "notes": json.dumps(settings, sort_keys=True) if settings else None,
        "reference": f"CLIP_benchmark {file.path.name}",
    }


def _count(file: RawFile, index: int, column: str) -> int | None:
    return None if file.records[index].get(column) in (None, "") else file.count(index, column)


FORMATS = (
    Format("CLIP_benchmark's JSON of one run", _is_run, _run_rows),
    Format("CLIP_benchmark's CSV made by 'build'", _is_build, _build_rows),
)
