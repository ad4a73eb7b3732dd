"""``--update-baseline``: the current results become what later ones are held to, all of them."""

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from pathlib import Path

from clipeval.checks.measured import Results, Row, has_value, key_of
from clipeval.errors import StoreError, UsageError
from clipeval.files import write_atomically
from clipeval.paths import exists, expand
from clipeval.results import table

_TABLES = (".csv", ".parquet")


def update(current: Path, baseline: Path) -> str:
    """Put the table of ``current``, its ledger and its per-sample outcomes in place of those of ``baseline``.

    ``baseline`` is a results folder, a table file, or a name that is free for a folder; other files of the folder stay.
    Each file is replaced whole: outcomes first, under names of their own, then the ledger that refers to them, then
    the table. Says what changed. Raises UsageError and StoreError.
    """
    current, baseline = expand(current), expand(baseline)
    if exists(current) and exists(baseline) and current.resolve() == baseline.resolve():
        raise UsageError(f"{current}: the current results and the baseline are the same. Name another --against.")
    now = Results(current)
    if not any(map(has_value, now.rows)):
        raise UsageError(f"{current}: there is no measured value in this table. The baseline stays as it is.")
    before = Results(baseline) if exists(baseline) else None
    if baseline.suffix in _TABLES:
        csv = baseline.suffix == ".csv"
        write = partial(table.write_csv, now.frame) if csv else partial(now.frame.to_parquet, index=False)
        write_atomically(baseline, write)
    else:
        _replace_folder(now, current if current.is_dir() else current.parent, baseline)
    return f"{baseline}: updated from {current}: {_changes(before.rows if before else [], now.rows)}"


def _replace_folder(now: Results, source: Path, baseline: Path) -> None:
    outcomes = {path.name: path for path in (source / "samples").glob("*.parquet")}
    for name, path in outcomes.items():
        write_atomically(baseline / "samples" / name, partial(shutil.copyfile, path))
    ledger = source / "ledger.jsonl"
    if ledger.exists():
        write_atomically(baseline / ledger.name, partial(shutil.copyfile, ledger))
    table.write_frame(baseline, now.frame)
    stale = {path for path in (baseline / "samples").glob("*.parquet") if path.name not in outcomes}
    try:
        for path in stale | (set() if ledger.exists() else {baseline / ledger.name}):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (baseline / "samples").rmdir()  # only where nothing is left
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot remove this file of the old baseline: {error.strerror}.") from error


def _changes(before: list[Row], now: list[Row]) -> str:
    old, new = (
        {(row["model"], *key_of(row)): row["value"] for row in rows if has_value(row)} for rows in (before, now)
    )
    kept = old.keys() & new.keys()
    gone = [" · ".join(str(part) for part in key[:4]) for key in old.keys() - new.keys()]
    counts = {
        "unchanged": sum(old[key] == new[key] for key in kept),
        "higher": sum(old[key] < new[key] for key in kept),
        "lower": sum(old[key] > new[key] for key in kept),
        "new": len(new.keys() - old.keys()),
        "gone": len(gone),
    }
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{len(new)} values: {said}" + (f" ({'; '.join(sorted(gone)[:5])})" if gone else "")
