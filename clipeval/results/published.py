"""The published results that come with clipeval: tidy tables, a citation in every row.

They are made by ``python -m clipeval.importers.build_published`` from the files that the studies published.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.results.schema import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def published() -> pd.DataFrame:
    """All shipped tables as one, in the columns of ``clipeval.results.schema``.

    The column ``study`` tells them apart (``cherti2023``, ``clip_benchmark``, ``open_clip``). A checkpoint that
    several studies measured has rows of each; ``same_weights_as`` says under which name where names differ.
    ``from_scratch_filter`` says which rows a from-scratch fit leaves out, and why.
    """
    import pandas as pd

    tables = [pd.read_parquet(path) for path in sorted(folder().glob("*.parquet"))]
    found = pd.concat(tables, ignore_index=True)
    added = {name: pd.Series(pd.NA, found.index, kind) for name, kind in COLUMNS.items() if name not in found}
    return found.assign(**added)


def folder() -> Path:
    """Where the tables are: in the package, or at the top of a source checkout."""
    installed = Path(str(resources.files("clipeval"))) / "published"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "results" / "published"
