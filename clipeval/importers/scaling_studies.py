"""Tables of scaling studies of other models than CLIP, as their authors published them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval.results.schema import to_frame
from clipeval.results.studies import STUDIES

if TYPE_CHECKING:
    import pandas as pd


def _of_losses(file: str, dataset: str) -> Callable[[Path], list[dict[str, Any]]]:
    """Of files with ``value`` = 1 - loss / 10."""

    def rows(folder: Path) -> list[dict[str, Any]]:
        import pandas as pd

        raw = pd.read_csv(folder / file)
        facts = [name for name in ("arch", "params", "samples_seen", "unique_samples", "gmacs") if name in raw]
        return [
            {name: row[name] for name in ("model", "source", *facts)}
            | {"dataset": dataset, "task": "language_modeling", "metric": "loss"}
            | {"value": round(10 * (1 - row["value"]), 12), "higher_is_better": False}
            for row in raw.to_dict("records")
        ]

    return rows


def _alabdulmohsin2022(folder: Path) -> list[dict[str, Any]]:
    """One learning curve for each model and few-shot task, whose loss is the share of errors; the column ``Training``
    says what the paper fitted to."""
    import pandas as pd

    raw = pd.read_csv(folder / "curves_alabdulmohsin2022_vision.csv")
    rows = []
    for row in raw.to_dict("records"):
        dataset, _, shots = row["Task"].rpartition("_")
        rows.append(
            {"model": row["Model"], "arch": row["Model"], "source": row["Model"], "samples_seen": row["Seen Examples"]}
            | {"dataset": _DATASETS[dataset], "task": "linear_probe", "shots": int(shots), "metric": "acc1"}
            | {"value": 1 - row["Loss"], "notes": "fitted in the paper" if row["Training"] else "forecast in the paper"}
        )
    return rows


_DATASETS = {"inet": "imagenet1k", "c": "cifar100", "bird": "birds", "cal": "caltech101"}
"""What the paper's short names stand for."""
_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "alabdulmohsin2022": _alabdulmohsin2022,
    "gadre2024": _of_losses("gadre2024_c4val.csv", "c4_val"),
    "muennighoff2023": _of_losses("datablations_60.csv", "c4"),
}


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy table of each study from the files in ``folder``."""
    found = {}
    for name, rows in _READERS.items():
        study = STUDIES[name]
        about = {"status": "ok", "study": name, "reference": f"{study.cite}; {study.origin} ({study.licence})"}
        found[name] = to_frame(
            [{"higher_is_better": True, "source_family": row["source"]} | row | about for row in rows(folder)]
        )
    return found
