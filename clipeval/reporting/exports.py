"""The table in other forms: CSV for spreadsheets, Markdown for a README, ``model-index`` for a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import yaml

from clipeval import vocabulary
from clipeval.errors import few
from clipeval.files import replace_folder
from clipeval.markdown import escaped, table
from clipeval.names import NO_NAMES, Names, display_names
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
_ABOUT = ("task", "dataset", "split", "shots", "seed", "limit", "dataset_fingerprint", "protocol", "prompts")
_OF_ONE_TASK = ("zero-shot-image-classification", "zero-shot-retrieval")
"""Types of tasks that only one of ours has."""
_NUMBERS = ("value", "ci_low", "ci_high")
_USED = tuple(dict.fromkeys(("model", "metric", *_NUMBERS, *_ABOUT, *_CELL)))
_SCALARS = yaml.representer.SafeRepresenter()
_NAN = ".nan"
"""As YAML writes it."""
_REMEMBERED = 10_000
_LONGEST_FILE = 60
"""Characters of a name, of up to 4 bytes each."""


def markdown(boards: Sequence[Board], noticed: Sequence[Noticed] = (), names: Names = NO_NAMES) -> str:
    """Every leaderboard as a Markdown table: percent, with 95 % intervals; then what the runs noticed, and which
    checkpoints display names stand for."""
    parts = [
        "# Results\n\nPercent (losses as they are), with 95 % intervals where they are known. Rank (#): 1 + the "
        "checkpoints whose interval lies wholly above.\n"
    ]
    group = ""
    for board in boards:
        if board.group != group:
            group = board.group
            parts.append(f"## {escaped(group)}\n")
        facts = ["#", "Model", "Source", "Samples seen", "GMACs"]
        rows = [[*facts, *(vocabulary.metric(name).heading for name in board.metrics)]]
        for line in board.lines:
            model = f"{names[line.model]} ({line.note})" if line.note else names[line.model]
            rank = "" if line.rank is None else str(line.rank)
            facts = [rank, model, line.source, words.size(line.samples_seen), words.size(line.gmacs)]
            values = zip(line.values, board.scales, strict=True)
            rows.append([*facts, *(with_interval(value, scale.percent) for value, scale in values)])
        remarks = "".join(f"\n{escaped(remark)}\n" for remark in board.remarks)
        parts.append(f"### {escaped(board.title)}\n\n{_table(rows, figures=(0, *range(3, len(rows[0]))))}\n{remarks}")
    if noticed:
        rows = [[one.sentence, few(one.datasets), few([names[model] for model in one.models])] for one in noticed]
        parts.append(f"## Noticed\n\n{_table([['Noticed', 'Data sets', 'Models'], *rows])}\n")
    if renamed := [[name, model] for model, name in names.short.items() if name != model]:
        parts.append(f"## Names\n\n{_table([['Name', 'Checkpoint'], *renamed])}\n")
    return "\n".join(parts)


def with_interval(value: Value | None, percent: bool = True) -> str:
    """``73.5 (68.7–77.8)`` in ``percent``, or as it is; the first word of the reason where there is no value."""
    if value is None:
        return "–"
    if value.missing:
        return f"– {value.missing.split(':')[0]}"
    if math.isnan(value.low) or math.isnan(value.high):
        return words.shown(value.value, percent)
    return "{} ({}–{})".format(*(words.shown(x, percent) for x in (value.value, value.low, value.high)))


def _table(rows: Sequence[Sequence[str]], figures: Collection[int] = ()) -> str:
    """Heads and lines, each cell in one line; ``figures`` are the columns that stand at the right."""
    heads, *lines = ([" ".join(cell.split()) for cell in row] for row in rows)
    return table(heads, [column in figures for column in range(len(heads))], lines)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what stands twice twice: looking for it takes a fifth of the time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_ALL = "# All checkpoints. A model card holds one: paste its file of the folder model-index into it.\n"
_INDEX = "model-index:\n"


def write_cards(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the ``model-index`` of each checkpoint into a file of its name, in place of those of an earlier report: as
    one folder, which is there whole. Returns the files. Raises StoreError."""
    names = display_names(records(whole(rows)[["model", "arch", "source", "pretrained", "samples_seen"]]))
    written: list[str] = []

    def fill(new: Path) -> None:
        new.mkdir()
        for model, index in model_indices(rows):
            name = re.sub(r"[^\w.+-]+", "_", names[model]).strip("._")[:_LONGEST_FILE] or "checkpoint"
            while (new / f"{name}.yaml").exists():
                name += "_"
            written.append(name)
            (new / f"{name}.yaml").write_text(index, "utf-8", newline="\n")

    replace_folder(folder, fill)
    return [folder / f"{name}.yaml" for name in written]


def write_model_index(cards: Sequence[Path], path: Path) -> None:
    """Write one list of all ``cards``."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(_ALL + (_INDEX if cards else "model-index: []\n"))
        for card in cards:  # one at a time: all of them take memory
            file.write(card.read_text("utf-8").removeprefix(_INDEX))


def model_indices(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each checkpoint with the ``model-index`` block of its model card: its values on whole data sets.

    Form: "Model card metadata" of the hub's documentation, ``modelcard.md`` in huggingface/hub-docs.
    """
    models: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    for row in records(whole(rows)[list(_USED)]):
        cell = tuple(row[name] for name in _CELL)
        models.setdefault(str(row["model"]), {}).setdefault(cell, []).append(row)
    for model, cells in sorted(models.items()):
        parts = [_INDEX, _yaml([{"name": model}]), "  results:\n"]
        groups = [cells[cell] for cell in sorted(cells, key=lambda cell: [*map(str, cell)])]
        for group in groups:
            parts.append(_result(*(group[0][name] for name in _ABOUT)))
            for row in group:
                value, low, high = (_SCALARS.represent_float(number(row[name])).value for name in _NUMBERS)
                parts.append(f"{_metric(row['metric'])}      value: {value}\n")
                if _NAN not in (low, high):
                    parts.append(f"      args:\n        ci_low: {low}\n        ci_high: {high}\n")
        yield model, "".join(parts)


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that a model card may show: values of whole data sets, at the end of training."""
    shown = rows["good"] & rows["final"] & (rows["status"] != "limited").fillna(True)
    return rows.loc[shown.to_numpy(bool)]


def _yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


@lru_cache(_REMEMBERED)
def _result(*cell: Any) -> str:
    """One cell of a checkpoint, a task on a data set, up to its metrics: as others have it, so written once. ``cell``
    are the values of ``_ABOUT``."""
    task, dataset, split, shots, seed, limit, fingerprint, protocol, prompts = cell
    about: dict[str, Any] = {"type": text(dataset), "name": vocabulary.dataset(text(dataset))}
    if split := text(split):
        about["split"] = split
    parameters = {"shots": number(shots), "seed": number(seed), "limit": number(limit)}
    arguments: dict[str, Any] = {name: int(value) for name, value in parameters.items() if not math.isnan(value)}
    known = vocabulary.task(text(task))
    parts = [] if known.export in _OF_ONE_TASK else [known.title]
    parts += [f"{arguments['shots']} images per class"] if "shots" in arguments else []
    parts += [f"seed {arguments['seed']}"] if parts and "seed" in arguments else []
    parts += [f"{name} {value}" for name, value in (("protocol", protocol), ("prompts", prompts)) if is_special(value)]
    if parts:  # of one type, data set and configuration a card has one result
        about["config"] = ", ".join(parts)
    if fingerprint := text(fingerprint):
        arguments["dataset_fingerprint"] = fingerprint
    about |= {"args": arguments} if arguments else {}
    name = known.title + ("" if math.isnan(number(shots)) else f", {shots:.0f} images per class")
    return indent(_yaml([{"task": {"type": known.export, "name": name}, "dataset": about}]), "  ") + "    metrics:\n"


def is_special(word: Any) -> bool:
    """Whether a protocol or a set of prompts is another than the usual one."""
    return text(word) not in ("", "default")


@lru_cache(_REMEMBERED)
def _metric(name: Any) -> str:
    metric = vocabulary.metric(text(name))
    return indent(_yaml([{"type": metric.export or metric.name, "name": metric.heading}]), "    ")
