"""``OUT/ledger.jsonl``: the append-only record of everything measured. The tables are written from it.

One line is one finished cell (its rows), or one suite that was asked for. A later line for the same cell wins.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipeval.errors import StoreError, UsageError

Row = dict[str, Any]


class Ledger:
    """The ledger of one results folder. ``cells`` maps a cell id to its rows; ``suites`` lists suite requests."""

    def __init__(self, out: Path) -> None:
        self.path = out / "ledger.jsonl"
        self.cells: dict[str, list[Row]] = {}
        self.suites: list[dict[str, Any]] = []
        self.damaged_lines: list[int] = []
        self._read()

    def _read(self) -> None:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.path}: cannot read: {error.strerror}.") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                kind = entry["kind"]
                if kind == "cell":
                    self.cells[str(entry["cell"])] = _rows(entry["rows"])
                elif kind == "suite" and (suite := _suite(entry["suite"])) not in self.suites:
                    self.suites.append(suite)
            except (ValueError, KeyError, TypeError, RecursionError):
                self.damaged_lines.append(number)

    def finished(self, cell: str) -> bool:
        """True when ``cell`` has been measured and nothing in it failed."""
        rows = self.cells.get(cell, [])
        return bool(rows) and all(row.get("status") in ("ok", "limited", "skipped") for row in rows)

    def add_cell(self, cell: str, rows: list[Row]) -> None:
        """Append one cell's rows; on disk when this returns. Raises StoreError."""
        self._append({"kind": "cell", "cell": cell, "rows": rows})
        self.cells[cell] = rows

    def add_suite(self, suite: dict[str, Any]) -> None:
        """Append a suite request unless it is there already. Raises StoreError."""
        if suite not in self.suites:
            self._append({"kind": "suite", "suite": suite})
            self.suites.append(suite)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=True, allow_nan=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                start = file.seek(0, os.SEEK_END)
                if start and _last_byte(file) != b"\n":
                    line = "\n" + line  # a killed writer left half a line: leave it to stand alone
                try:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), start)
                    raise
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot write: {error.strerror}. Free space or choose another -o; what was measured "
                "before is kept."
            ) from error


def _rows(value: Any) -> list[Row]:
    """``value`` where it has the form of a cell's rows. Raises TypeError."""
    if isinstance(value, list) and all(isinstance(row, dict) and isinstance(row["status"], str) for row in value):
        return value
    raise TypeError


def _suite(value: Any) -> dict[str, Any]:
    """``value`` where it has the form of a suite request. Raises TypeError."""
    if isinstance(value, dict) and isinstance(value["name"], str) and _are_pairs(value["members"]):
        return value
    raise TypeError


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold the results folder for one run at a time. Raises UsageError when another run holds it, StoreError when the
    folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"{out}: cannot write results here: {error.strerror}. Choose another folder with -o."
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{out}: another run is writing here. Wait for it, or choose another folder with -o."
            ) from None
        yield
    finally:
        os.close(file)
