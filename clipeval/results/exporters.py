"""Results to where experiments are looked at: TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.names import display_names
from clipeval.paths import expand
from clipeval.results.columns import records
from clipeval.results.leaderboard import leaderboard
from clipeval.results.reading import Results, named, read_results
from clipeval.results.schema import WITH_VALUE

if TYPE_CHECKING:
    import pandas as pd

_CHECKPOINT = re.compile(r"/checkpoints/[^/]+$")
_FACTS = ["model", "arch", "source", "pretrained", "samples_seen"]


def to_tensorboard(results: Results, folder: str | Path) -> Path:
    """Every value as a scalar ``TASK/DATASET/METRIC`` at its samples seen, one run for each training run or checkpoint,
    in event files below ``folder``, which is returned. Raises UsageError without tensorboard, MeasureError for a table
    without values."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard") from error
    table = _with_value(results)
    table = table.assign(model=[_CHECKPOINT.sub("", model) for model in table["model"]])
    names = display_names(records(table[_FACTS]))
    for model, rows in table.sort_values("samples_seen", kind="stable").groupby("model"):
        run = re.sub(r"[^\w.+-]+", "_", names[str(model)]).strip("._") or "run"
        with SummaryWriter(str(expand(folder) / run)) as writer:
            for row in records(rows):
                shots = "" if row["shots"] is None else f"_{row['shots']}shot"
                seen = row["samples_seen"]
                writer.add_scalar(
                    f"{row['task']}{shots}/{row['dataset']}/{row['metric']}",
                    row["value"],
                    0 if seen is None or not np.isfinite(seen) else round(seen),
                )
    return expand(folder)


def to_wandb(results: Results, project: str, **settings: Any) -> None:
    """One run of Weights & Biases with two tables: ``results``, every row, and ``leaderboard``. ``settings`` are those
    of ``wandb.init`` (``name``, ``mode="offline"``). Raises UsageError without wandb, MeasureError as above."""
    _tables("wandb", results, project, settings)


def to_trackio(results: Results, project: str, **settings: Any) -> None:
    """The same for Trackio; ``settings`` are those of ``trackio.init``."""
    _tables("trackio", results, project, settings)


def _tables(package: str, results: Results, project: str, settings: dict[str, Any]) -> None:
    table = _with_value(results)
    try:
        library = import_module(package)
    except ImportError as error:
        raise _missing(package) from error
    board = leaderboard(table).reset_index()
    run = library.init(project=project, **settings)
    run.log({"results": library.Table(dataframe=_plain(table)), "leaderboard": library.Table(dataframe=_plain(board))})
    run.finish()


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers and text as other libraries know them; a missing value is None."""
    kept = frame.dropna(axis=1, how="all")
    return kept.astype(object).where(kept.notna(), None)


def _with_value(results: Results) -> pd.DataFrame:
    table = read_results(results)
    good = table[table["status"].fillna("ok").isin(WITH_VALUE) & table["metric"].notna() & table["value"].notna()]
    if good.empty:
        raise MeasureError(f"{named(results)}: no row of these has a value.")
    return good


def _missing(package: str) -> UsageError:
    return UsageError(f"{package} is not installed here: pip install {package}")
