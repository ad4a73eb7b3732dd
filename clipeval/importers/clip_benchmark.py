"""Results of CLIP_benchmark: the JSON file of one run (``clip_benchmark eval``) and the CSV of many (``build``).

Both hold the same fields, in the CSV side by side with the metrics. The architecture is taken as it is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clipeval.errors import UsageError
from clipeval.importers import checkpoints, datasets
from clipeval.importers.raw import Format, RawFile
from clipeval.results.ledger import Row

_FIELDS = ("dataset", "model", "pretrained", "task")
_NO_METRICS = (*_FIELDS, "language", "model_fullname", "classnames", "templates")
_SETTINGS = ("weight_decay", "epochs", "normalized")
"""Fields beside the metrics of a linear probe that are kept in the notes."""


def _is_run(file: RawFile) -> bool:
    return not file.is_csv and {*_FIELDS, "metrics"} <= set(file.columns)


def _is_build(file: RawFile) -> bool:
    columns = set(file.columns)
    return file.is_csv and set(_FIELDS) <= columns and not {"metric", "value"} & columns


def _run_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    flat = []
    for file in files:
        for index, record in enumerate(file.records):
            if not isinstance(record.get("metrics"), dict):
                raise UsageError(f"{file.where(index)}: 'metrics' should be an object of metric names and values.")
        records = [_flattened(record) for record in file.records]
        columns = dict.fromkeys(key for record in records for key in record)
        flat.append(RawFile(file.path, records, tuple(columns), is_csv=False))
    return _rows(flat), []


def _flattened(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "metrics"} | record["metrics"]


def _build_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    return _rows(files), []


def _rows(files: Sequence[RawFile]) -> list[Row]:
    rows = []
    for file in files:
        # Only the first CLIP_benchmark wrote no language; open_clip gave OpenAI's weights their activation then.
        old = "language" not in file.columns
        for index, record in enumerate(file.records):
            shared = _shared(file, index, old)
            metrics = {column: column.removeprefix("lp_") for column in record if _is_metric(column)}
            for column, value in file.metrics(index, metrics).items():
                n = datasets.size(shared["dataset"], metrics[column])
                rows.append(shared | {"metric": metrics[column], "value": value, "n": n})
    return rows


def _is_metric(column: str) -> bool:
    return column not in (*_NO_METRICS, *_SETTINGS, "fewshot_k", "seed")


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
