"""One line of the ledger: JSON that ends in a checksum of itself, and what each kind of line may hold."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from clipeval.results.schema import STATUSES, WITH_VALUE, misfit

Entry = dict[str, Any]

_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')
_LONGEST_NAME, _MOST_ITEMS = 200, 100_000


def encode(entry: Entry) -> bytes:
    """The line of an entry, with its end. Raises ValueError for one that ``decode`` would refuse."""
    _require_form(entry)
    body = json.dumps(entry, ensure_ascii=True).encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> Entry:
    """The entry of a line without its end. Lines of earlier versions have no checksum; of unknown kinds nothing is
    asked. Raises ValueError for a damaged line, whatever is wrong with it."""
    checksum = _CHECKSUM.search(line)
    if checksum and zlib.crc32(line[: checksum.start()] + b"}") != int(checksum[1], 16):
        raise ValueError("another checksum")
    try:
        entry = json.loads(line, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _require_form(entry)
    assert isinstance(entry, dict)
    return entry


def _without_repetition(pairs: list[tuple[str, Any]]) -> Entry:
    entry = dict(pairs)
    _require(len(entry) == len(pairs), "a key comes twice")
    return entry


def _require_form(entry: Any) -> None:
    _require(isinstance(entry, dict) and isinstance(entry.get("kind"), str), "no entry")
    match entry["kind"]:
        case "cell":
            _require(_is_name(entry.get("cell")), "cell")
            rows = entry.get("rows")
            _require(isinstance(rows, list) and 0 < len(rows) <= _MOST_ITEMS, "rows")
            for row in rows:
                _require_row(row)
        case "suite":
            _require_suite(entry.get("suite"))
        case "checkpoint":
            _require_columns(entry.get("facts"))
            _require(isinstance(entry["facts"].get("model"), str), "model")


def _require_row(row: Any) -> None:
    _require_columns(row)
    for name in ("model", "dataset", "task"):
        _require(isinstance(row.get(name), str), name)
    _require(row.get("status") in STATUSES, "status")
    if row["status"] in WITH_VALUE:
        _require(isinstance(row.get("metric"), str), "metric")
        _require(row.get("value") is not None, "value")


def _require_columns(row: Any) -> None:
    _require(isinstance(row, dict), "no row")
    _require((column := misfit(row)) is None, str(column))


def _require_suite(suite: Any) -> None:
    _require(isinstance(suite, dict), "suite")
    for name in ("name", "metric"):
        _require(isinstance(suite.get(name), str), name)
    _require(_are_texts(suite.get("tasks")), "tasks")
    members = suite.get("members")
    _require(isinstance(members, list) and 0 < len(members) <= _MOST_ITEMS, "members")
    _require(all(_are_texts(member) and len(member) == 2 for member in members), "members")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_ITEMS and all(isinstance(item, str) for item in value)


def _is_name(value: Any) -> bool:
    """Whether files can be called after it."""
    return isinstance(value, str) and bool(re.fullmatch(r"[^./\\][^/\\]*", value)) and (
        value.isprintable() and len(value.encode()) <= _LONGEST_NAME
    )  # fmt: skip


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
