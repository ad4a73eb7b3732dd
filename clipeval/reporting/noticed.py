"""What a run noticed while it measured: sentences in the column ``notes``, each with what it is about."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipeval.reporting.rows import text
from clipeval.results.columns import records
from clipeval.results.schema import REMARKS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Noticed:
    """One sentence, and the data sets and checkpoints whose rows have it, in the order of the table."""

    sentence: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]


def noticed(rows: pd.DataFrame) -> list[Noticed]:
    """Every sentence once, in the order of the table. Notes that another program wrote are passed over."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for row in records(rows[rows["notes"].notna()]):
        for sentence in _sentences(text(row["notes"])):
            datasets, models = found.setdefault(sentence, ({}, {}))
            datasets[str(row["dataset"])] = models[str(row["model"])] = None
    return [Noticed(sentence, *map(tuple, about)) for sentence, about in found.items()]


def _sentences(notes: str) -> list[str]:
    with suppress(ValueError, RecursionError):
        document = json.loads(notes)
        listed = document.get(REMARKS) if isinstance(document, dict) else None
        return [sentence for sentence in listed if isinstance(sentence, str)] if isinstance(listed, list) else []
    return []
