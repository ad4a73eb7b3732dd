"""The columns of the tidy results table. One row is one value of one metric. Columns may be added, never retyped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from clipeval.results import mixture

if TYPE_CHECKING:
    import pandas as pd

TEXT, NUMBER, COUNT, FLAG = "string", "float64", "Int64", "boolean"

COLUMNS: dict[str, str] = {
    # the checkpoint
    "model": TEXT,
    "arch": TEXT,
    "pretrained": TEXT,
    "checkpoint_sha256": TEXT,
    "source": TEXT,
    "source_family": TEXT,
    "unique_samples": NUMBER,
    "samples_seen": NUMBER,
    "samples_seen_from": TEXT,
    "params": NUMBER,
    "params_image": NUMBER,
    "params_text": NUMBER,
    "gmacs": NUMBER,
    "gmacs_image": NUMBER,
    "gmacs_text": NUMBER,
    "gmacs_total": NUMBER,
    "image_size": NUMBER,
    # the measurement
    "dataset": TEXT,
    "split": TEXT,
    "dataset_fingerprint": TEXT,
    "task": TEXT,
    "shots": COUNT,
    "seed": COUNT,
    "task_version": TEXT,
    # the value
    "metric": TEXT,
    "value": NUMBER,
    "ci_low": NUMBER,
    "ci_high": NUMBER,
    "n": COUNT,
    "higher_is_better": FLAG,
    "status": TEXT,
    "error": TEXT,
    # how it was obtained
    "precision": TEXT,
    "device": TEXT,
    "seconds": NUMBER,
    "images_per_second": NUMBER,
    "started_at": TEXT,
    "clipeval_version": TEXT,
    "git_commit": TEXT,
    "packages": TEXT,
    "reference": TEXT,
    # added since the first version of the table
    "prompts": TEXT,
    "protocol": TEXT,
    "limit": COUNT,
    "notes": TEXT,
    "gpu_hours": NUMBER,
    "energy_kwh": NUMBER,
    # of imported figures: where they were published, and how the checkpoint was trained
    "study": TEXT,
    "epochs": NUMBER,
    "loss": TEXT,
    "init": TEXT,
    "stage": TEXT,
    "from_scratch_filter": TEXT,
    "samples_seen_tolerance": NUMBER,
    "same_weights_as": TEXT,
    # what decided the value besides weights and scored samples
    "prompts_digest": TEXT,
    "train_fingerprint": TEXT,
    "checkpoint_identity": TEXT,
    "revision": TEXT,
}
"""``epochs``: passes over the unique samples. ``from_scratch_filter``: why the row is left out of a from-scratch fit;
empty where it is not. ``samples_seen_tolerance``: relative, how far off ``samples_seen`` may be. ``packages``: of the
process that wrote the row; embeddings may be of an earlier one, under the same versions of clipeval and open_clip.
``prompts_digest``: of class names and templates. ``train_fingerprint``: of the splits that were trained on.
``checkpoint_identity``: of weights, configuration, preprocessing, tokenizer and the code that embeds. ``revision``: the
commits of hub repositories that were measured, the checkpoint's first."""

TIMING_COLUMNS = ("seconds", "images_per_second", "started_at")
"""Columns in which two runs of the same measurement differ."""

Status = Literal["ok", "limited", "skipped", "failed", "error"]
"""``limited``: a valid value of fewer samples than the data set has. ``error``: a suite average that lacks members."""
STATUSES: tuple[Status, ...] = get_args(Status)
REMARKS = "remarks"
"""In the JSON object of the column ``notes``: a list of sentences on what was read, cut or left out."""
WITH_VALUE: tuple[Status, ...] = ("ok", "limited")

_LONGEST_TEXT = 1_000_000
_LARGEST_COUNT = 2**63
_LARGEST_NUMBER = 1e300


def misfit(row: Mapping[str, Any]) -> str | None:
    """The first column whose value is not of its type, or None. A column that is not of the table may hold any text,
    number or truth value; a missing value fits everywhere."""
    for name, value in row.items():
        if value is None:
            continue
        kind = COLUMNS.get(name)
        if not (_FITS[kind](value) if kind else any(fit(value) for fit in _FITS.values())):
            return name
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_COUNT


def _is_number(value: Any) -> bool:
    return _is_count(value) or (isinstance(value, float) and (abs(value) < _LARGEST_NUMBER or math.isnan(value)))


_FITS = {
    TEXT: lambda value: len(value) <= _LONGEST_TEXT if isinstance(value, str) else _is_count(value),
    NUMBER: _is_number,
    COUNT: _is_count,
    FLAG: lambda value: isinstance(value, bool),
}


def to_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns of the schema, in order; what a row lacks is missing (NA). Behind them are
    the shares of mixtures (``mixture.py``), where a row is of one.

    Bytes of a file name that are no text (lone surrogates) are written as escapes.
    """
    import pandas as pd

    records = list(rows)
    columns = {}
    for name, kind in COLUMNS.items():
        values = [record.get(name) for record in records]
        if kind == TEXT:
            values = [None if value in (None, "") else well_formed(str(value)) for value in values]
        columns[name] = pd.Series(values, dtype=kind)
    columns |= {well_formed(name): pd.Series(shares) for name, shares in mixture.columns(records).items()}
    return pd.DataFrame(columns)


def well_formed(text: str) -> str:
    """``text`` that UTF-8 can hold: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


IDENTITY = ("model", "task", "dataset", "metric", "shots", "seed", "protocol")
"""What names a value."""
SAMPLES = ("split", "limit", "dataset_fingerprint", "train_fingerprint", "prompts", "prompts_digest")
"""What was scored: values of the same name are comparable only where all of it is equal."""
CIRCUMSTANCES = (
    *SAMPLES,
    "precision",
    "task_version",
    "checkpoint_sha256",
    "checkpoint_identity",
    "study",
    "reference",
)
"""What else can tell two values of the same name apart. Older tables lack some of these columns."""
