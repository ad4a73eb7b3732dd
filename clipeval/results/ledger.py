"""``OUT/ledger.jsonl``: the append-only record of everything measured. The tables are written from it.

One line is one cell that ended (its rows), what is known of one checkpoint, or one suite that was asked for. Lines are
in the order of time, and of two that are about the same thing the later one counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval.console import say
from clipeval.errors import StoreError, UsageError
from clipeval.files import NO_LOCKS, sync_folder
from clipeval.models.base import ModelInfo
from clipeval.results.entries import Entry, decode, encode

Row = dict[str, Any]

FACTS = tuple(name for name in ModelInfo.__dataclass_fields__ if name not in ("model", "checkpoint_sha256"))
"""The columns that describe a checkpoint. They are kept once for each, and joined to rows when a table is written."""

_NO_FACTS = {name: getattr(ModelInfo(""), name) for name in FACTS}

_MEASUREMENT = ("model", "dataset", "split", "task", "shots", "seed", "protocol", "precision", "limit")
_START = b'{"kind": "'
_SUITE = _START + b'suite"'


@dataclass(frozen=True)
class Record:
    """How one cell ended. ``cell`` is its id (``clipeval.identity.cell_id``)."""

    cell: str
    rows: list[Row]

    @property
    def failed(self) -> bool:
        """Whether nothing of it was measured."""
        return all(row["status"] == "failed" for row in self.rows)

    @property
    def finished(self) -> bool:
        """Whether nothing in it failed."""
        return all(row["status"] in ("ok", "limited", "skipped") for row in self.rows)


def measurement(row: Row) -> tuple[Any, ...]:
    """What tells a row's cell from the other cells of a table: names of checkpoint, data and task, and parameters."""
    return tuple(row.get(name) for name in _MEASUREMENT)


class Ledger:
    """The ledger of one results folder. ``records`` and ``suites`` are in the order of time.

    ``standing`` holds the record of each ``measurement`` that counts: the newest. A failure does not take the place of
    a value that was measured with the same weights, data and prompts.
    """

    def __init__(self, out: Path) -> None:
        """Read what is there; ``damaged_lines`` has the numbers of lines that cannot be. Raises StoreError."""
        self.path = out / "ledger.jsonl"
        self.records: list[Record] = []
        self.standing: dict[tuple[Any, ...], Record] = {}
        self.suites: list[dict[str, Any]] = []
        self.damaged_lines: list[int] = []
        self._facts: dict[tuple[str, str], Row] = {}
        self._digest = hashlib.sha256()
        data = _content(self.path)
        self._digest.update(data)
        self.sealed = b', "crc32": "' in data
        """Whether lines have checksums: the tables of such a ledger bear its digest."""
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                if line := line.strip():
                    self._keep(decode(line))
            except ValueError:
                self.damaged_lines.append(number)

    @property
    def digest(self) -> str:
        """SHA-256 of the file as far as this object knows it: what was read, and what it has appended."""
        return self._digest.hexdigest()

    def described(self, row: Row) -> Row:
        """A row of a record with the newest facts about its checkpoint."""
        inline = {name: row[name] for name in FACTS if name in row}
        return row | _NO_FACTS | self._facts.get(_checkpoint(row), inline)

    def add_cell(self, cell: str, rows: list[Row]) -> None:
        """Append one cell's rows; on disk when this returns. Raises StoreError, ValueError for what is no row."""
        self._append({"kind": "cell", "cell": cell, "rows": rows})

    def add_checkpoint(self, facts: Row) -> None:
        """Append what is known of a checkpoint, columns of the table, ``model`` and ``checkpoint_sha256`` among them;
        nothing where it is recorded so already. Raises StoreError, ValueError for what is no column."""
        if self._facts.get(_checkpoint(facts)) != _known(facts):
            identity = {name: facts.get(name) for name in ("model", "checkpoint_sha256")}
            self._append({"kind": "checkpoint", "facts": identity | _known(facts)})

    def add_suite(self, suite: dict[str, Any]) -> None:
        """Append a suite request unless it is there already. Raises StoreError."""
        if suite not in self.suites:
            self._append({"kind": "suite", "suite": suite})

    def _keep(self, entry: Entry) -> None:
        match entry["kind"]:
            case "cell":
                first = entry["rows"][0]
                if not _NO_FACTS.keys().isdisjoint(first):  # as earlier versions wrote them
                    self._facts[_checkpoint(first)] = _known(first)
                record = Record(entry["cell"], entry["rows"])
                self.records.append(record)
                before = self.standing.get(key := measurement(first))
                if not (before and before.cell == record.cell and record.failed and not before.failed):
                    self.standing[key] = record
            case "checkpoint":
                self._facts[_checkpoint(entry["facts"])] = _known(entry["facts"])
            case "suite" if entry["suite"] not in self.suites:
                self.suites.append(entry["suite"])

    def _append(self, entry: Entry) -> None:
        line = encode(entry)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                start = file.seek(0, os.SEEK_END)
                if start and _last_byte(file) != b"\n":
                    line = b"\n" + line  # a killed writer left half a line: leave it to stand alone
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), start)
                    raise
            if not start:
                sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot write: {error.strerror}. Free space or choose another -o; what was measured "
                "before is kept."
            ) from error
        self._digest.update(line)
        self._keep(entry)


def is_foreign(out: Path) -> bool:
    """Whether another program has written ``OUT/ledger.jsonl``: no line, however damaged, begins as ours do. Raises
    StoreError."""
    lines = [line for line in _content(out / "ledger.jsonl").split(b"\n") if line.strip()]
    return bool(lines) and not any(line.startswith(_START) or _START.startswith(line) for line in lines)


def digest_of(out: Path) -> str | None:
    """SHA-256 of the ledger of a results folder; None where there is none. Raises StoreError."""
    data = _content(out / "ledger.jsonl")
    return hashlib.sha256(data).hexdigest() if data else None


def suites_asked(out: Path) -> list[dict[str, Any]]:
    """``Ledger.suites`` of a results folder, without reading its cells. Raises StoreError."""
    found = []
    for line in _content(out / "ledger.jsonl").split(b"\n"):
        if line.lstrip().startswith(_SUITE):
            with suppress(ValueError):
                found.append(decode(line.strip())["suite"])
    return found


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise StoreError(f"{path}: not a file. Choose another -o.")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}.") from error


def _checkpoint(row: Row) -> tuple[str, str]:
    """What tells apart checkpoints of which facts are kept."""
    return row["model"], row.get("checkpoint_sha256") or ""


def _known(row: Row) -> Row:
    """The facts in a row that say something."""
    return {name: row[name] for name in FACTS if row.get(name) not in (None, "") and row[name] == row[name]}


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


_held: set[int] = set()


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)  # a decoder that outlives a killed run would keep the next one out


@contextmanager
def exclusive(out: Path, option: str = "-o") -> Iterator[None]:
    """Hold the results folder for one run at a time; where the file system has no locks, say so and go on.

    Raises UsageError when another run holds it, StoreError when the folder cannot be written; ``option`` is how the
    messages call the place where another folder is given.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"{out}: cannot write results here: {error.strerror}. Choose another folder with {option}."
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{out}: another run is writing here. Wait for it, or choose another folder with {option}."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise StoreError(
                    f"{out}: cannot lock this folder: {error.strerror}. Choose another {option}."
                ) from error
            say(f"{out}: the file system has no locks ({error.strerror}); see that no other run writes here.")
        _held.add(file)
        yield
    finally:
        _held.discard(file)
        os.close(file)
