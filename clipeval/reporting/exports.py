"""The table in other forms: CSV for spreadsheets, Markdown for a README, ``model-index`` for a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import yaml

from clipeval import vocabulary
from clipeval.errors import few
from clipeval.names import NO_NAMES, Names
from clipeval.plain import printable
from clipeval.reporting import words
from clipeval.reporting.boards import Board, Value
from clipeval.reporting.noticed import Noticed
from clipeval.reporting.rows import number, text
from clipeval.results.columns import records
from clipeval.results.schema import CIRCUMSTANCES, IDENTITY

if TYPE_CHECKING:
    import pandas as pd

_CELL = (*(name for name in IDENTITY if name not in ("model", "metric")), *CIRCUMSTANCES, "samples_seen")
"""What a result of a model card has one of; its metrics stand together."""
_ABOUT = ("task", "dataset", "split", "shots", "seed", "limit", "dataset_fingerprint")
_NUMBERS = ("value", "ci_low", "ci_high")
_USED = tuple(dict.fromkeys(("model", "metric", *_NUMBERS, *_ABOUT, *_CELL)))
_NAN = ".nan"
"""As YAML writes it."""
_REMEMBERED = 10_000


def markdown(boards: Sequence[Board], noticed: Sequence[Noticed] = (), names: Names = NO_NAMES) -> str:
    """Every leaderboard as a Markdown table: percent, with 95 % intervals; then what the runs noticed, and which
    checkpoints display names stand for."""
    parts = [
        "# Results\n\nPercent, with 95 % intervals where they are known. Rank (#): 1 + the checkpoints whose interval "
        "lies wholly above.\n"
    ]
    group = ""
    for board in boards:
        if board.group != group:
            group = board.group
            parts.append(f"## {_escaped(group)}\n")
        head = [
            "#",
            "Model",
            "Source",
            "Samples seen",
            "GMACs",
            *(vocabulary.metric(name).heading for name in board.metrics),
        ]
        lines = [_row(head), _row(["--:", "---", "---", *["--:"] * (len(head) - 3)], escape=False)]
        for line in board.lines:
            model = f"{names[line.model]} ({line.note})" if line.note else names[line.model]
            rank = "" if line.rank is None else str(line.rank)
            facts = [rank, model, line.source, words.size(line.samples_seen), words.size(line.gmacs)]
            lines.append(_row([*facts, *map(with_interval, line.values)]))
        remarks = "".join(f"\n{_escaped(remark)}\n" for remark in board.remarks)
        parts.append(f"### {_escaped(board.title)}\n\n" + "\n".join(lines) + f"\n{remarks}")
    if noticed:
        lines = [_row(["Noticed", "Data sets", "Models"]), _row(["---"] * 3, escape=False)]
        lines += [
            _row([one.sentence, few(one.datasets), few([names[model] for model in one.models])]) for one in noticed
        ]
        parts.append("## Noticed\n\n" + "\n".join(lines) + "\n")
    if renamed := [(name, model) for model, name in names.short.items() if name != model]:
        lines = [_row(["Name", "Checkpoint"]), _row(["---"] * 2, escape=False), *map(_row, renamed)]
        parts.append("## Names\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def with_interval(value: Value | None) -> str:
    """``73.5 (68.7–77.8)``; the first word of the reason where there is no value."""
    if value is None:
        return "–"
    if value.missing:
        return f"– {value.missing.split(':')[0]}"
    if math.isnan(value.low) or math.isnan(value.high):
        return words.percent(value.value)
    return f"{words.percent(value.value)} ({words.percent(value.low)}–{words.percent(value.high)})"


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


_ACTIVE = re.compile(r"[\\`*_{}\[\]<>|~#&]|(?<=\w):(?=\S)|(?<=www)\.", re.IGNORECASE)


_VALUE = re.compile(r"[\d.]+( \([\d.]+–[\d.]+\))?")
"""As most cells are, which hold nothing to escape."""


@lru_cache(_REMEMBERED)
def _escaped(cell: str) -> str:
    """Text as Markdown shows it unchanged, in one line: no markup, no link, no mention, no control character."""
    if cell == "#" or _VALUE.fullmatch(cell):
        return cell
    shown = printable(" ".join(cell.split()))
    # GitHub finds addresses and names of people behind @ whatever is escaped; an empty comment parts them
    return _ACTIVE.sub(r"\\\g<0>", shown).replace("@", "@<!-- -->" if re.search(r"@\w+\.\w|(?<!\w)@\w", shown) else "@")


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what stands twice twice: looking for it takes a fifth of the time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_model_index(rows: pd.DataFrame, path: Path) -> None:
    """Write the ``model-index`` block of model cards on the Hugging Face hub, for all checkpoints and their values on
    whole data sets.

    Form: "Model card metadata" of the hub's documentation, ``modelcard.md`` in huggingface/hub-docs.
    """
    models: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    whole = rows["good"] & rows["final"] & (rows["status"] != "limited").fillna(True)
    for row in records(rows.loc[whole.to_numpy(bool), list(_USED)]):
        cell = tuple(row[name] for name in _CELL)
        models.setdefault(str(row["model"]), {}).setdefault(cell, []).append(row)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("model-index:\n" if models else "model-index: []\n")
        for model, cells in sorted(models.items()):  # one at a time: all of them take memory
            file.write(_yaml([{"name": model}]) + "  results:\n")
            groups = [cells[cell] for cell in sorted(cells, key=lambda cell: [*map(str, cell)])]
            values = iter(_lines([number(row[name]) for group in groups for row in group for name in _NUMBERS]))
            for group in groups:
                file.write(_result(*(group[0][name] for name in _ABOUT)))
                for row in group:
                    value, low, high = islice(values, len(_NUMBERS))
                    file.write(f"{_metric(row['metric'])}      value: {value}\n")
                    if _NAN not in (low, high):
                        file.write(f"      args:\n        ci_low: {low}\n        ci_high: {high}\n")


def _yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


def _lines(numbers: Sequence[float]) -> list[str]:
    return [line.removeprefix("- ") for line in _yaml(numbers).splitlines()]


@lru_cache(_REMEMBERED)
def _result(task: Any, dataset: Any, split: Any, shots: Any, seed: Any, limit: Any, fingerprint: Any) -> str:
    """One cell of a checkpoint, a task on a data set, up to its metrics: as others have it, so written once."""
    about: dict[str, Any] = {"type": text(dataset), "name": vocabulary.dataset(text(dataset))}
    if split := text(split):
        about["split"] = split
    parameters = {"shots": number(shots), "seed": number(seed), "limit": number(limit)}
    arguments: dict[str, Any] = {name: int(value) for name, value in parameters.items() if not math.isnan(value)}
    if fingerprint := text(fingerprint):
        arguments["dataset_fingerprint"] = fingerprint
    about |= {"args": arguments} if arguments else {}
    known = vocabulary.task(text(task))
    name = known.title + ("" if math.isnan(number(shots)) else f", {shots:.0f} images per class")
    return indent(_yaml([{"task": {"type": known.export, "name": name}, "dataset": about}]), "  ") + "    metrics:\n"


@lru_cache(_REMEMBERED)
def _metric(name: Any) -> str:
    metric = vocabulary.metric(text(name))
    return indent(_yaml([{"type": metric.export or metric.name, "name": metric.heading}]), "    ")
