"""Columns ``mix.SOURCE``: which share of the samples that a checkpoint has seen came from each source of its data.

A checkpoint of one source has none. The ledger keeps all shares of a checkpoint in one fact, ``mixture``, as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "mix."


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The columns of rows by their fact ``mixture``: sources that a mixture lacks have a share of 0 in it, and rows
    without a mixture have no shares (NaN). A text that is no mixture says nothing."""
    found = [_shares(row.get("mixture")) for row in rows]
    names = sorted(set().union(*found))
    return {f"{PREFIX}{name}": [shares.get(name, 0.0) if shares else math.nan for shares in found] for name in names}


def _shares(text: Any) -> dict[str, float]:
    try:
        found = json.loads(text) if isinstance(text, str) and text else {}
    except (ValueError, RecursionError):
        return {}
    is_mixture = isinstance(found, dict) and all(
        isinstance(share, int | float) and 0 <= share <= 1 for share in found.values()
    )
    return {name: float(share) for name, share in found.items()} if is_mixture else {}
