"""The result tables of open_clip's docs: 38 data sets, their classification part, retrieval, and retrieval in 36 and 11
languages. One line per public checkpoint, one column per value, rounded to 4 decimals.

The columns that are means of others are left out, except the mean over DataComp's 38 data sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from clipeval.importers import checkpoints, datasets
from clipeval.importers.raw import Format, RawFile
from clipeval.results.ledger import Row

STUDY = "open_clip"
CITATION = "open_clip docs"
_AS_TRAINED = ("openai", "dfn2b")
"""Tags taken to be measured with QuickGELU, as trained, whatever the architecture is called here: open_clip 2 built
OpenAI's weights so; DFN-2B's B/16 has the best ImageNet accuracy (76.24) of all B/16 at 224 px, and the wrong
activation costs LAION-400M's B/32 2.7 points."""
_AVERAGES = ("Average perf. on 35 datasets", "Average score", "avg")
_DATACOMP = "Average perf. on 38 datasets"
_FACTS = ("name", "model", "version", "pretrained", "params (M)", "FLOPs (B)")
_RETRIEVAL = re.compile(r"(Flickr|MSCOCO) (image|text) retr\. R@(\d+)")
_WINOGAVIL = re.compile(r"WinoGAViL (avg)? ?jaccard score ?(\S+)?")
_LANGUAGE = re.compile(r"(\w+) ((?:image|text)_retrieval_recall@\d+) (\w+)")
_RETRIEVAL_SETS = {"Flickr": "flickr30k", "MSCOCO": "mscoco_captions"}

_Cell = tuple[str, str, str]
"""Data set, task and metric of a column."""


def _is_datacomp(file: RawFile) -> bool:
    return {"name", "pretrained", "ImageNet 1k", "GeoDE"} <= set(file.columns)


def _is_retrieval(file: RawFile) -> bool:
    return {"name", "pretrained"} <= set(file.columns) and any(map(_RETRIEVAL.fullmatch, file.columns))


def _is_multilingual(file: RawFile) -> bool:
    return {"model", "version"} <= set(file.columns) and any(map(_LANGUAGE.fullmatch, file.columns))


def _datacomp_cell(column: str) -> _Cell | None:
    if column == _DATACOMP:
        return "datacomp", "zeroshot", "main_metric"
    dataset = datasets.DATACOMP_COLUMNS.get(column)
    return (dataset, datasets.task(dataset), datasets.main_metric(dataset)) if dataset else None


def _retrieval_cell(column: str) -> _Cell | None:
    if found := _RETRIEVAL.fullmatch(column):
        return _RETRIEVAL_SETS[found[1]], "zeroshot_retrieval", f"{found[2]}_retrieval_recall@{found[3]}"
    if found := _WINOGAVIL.fullmatch(column):
        return "misc/winogavil", "association", f"jaccard_score_{found[1] or found[2]}"
    return None


def _language_cell(column: str) -> _Cell | None:
    """The mean over languages is a row of the data set without a language."""
    found = _LANGUAGE.fullmatch(column)
    if not found:
        return None
    name = found[1] if found[3] == "avg" else datasets.clean_name(found[1], found[3])
    return name, "zeroshot_retrieval", found[2]


def _rows(cell_of: Callable[[str], _Cell | None]) -> Callable[..., tuple[list[Row], list[str]]]:
    def rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
        found: list[Row] = []
        notes: list[str] = []
        for file in files:
            cells = {column: cell for column in file.columns if (cell := cell_of(column))}
            left = [column for column in file.columns if column not in cells and column not in _FACTS]
            notes += [f"{file.path.name}: column '{column}' is not imported: {_why_not(column)}" for column in left]
            named = [_named(file, index) for index in range(len(file.records))]
            for index in range(len(file.records)):
                found += _line(file, index, cells, _checkpoint(file, index, named))
        return found, notes

    return rows


def _why_not(column: str) -> str:
    return "a mean of other columns" if column in _AVERAGES else "this data set is not known here"


def _named(file: RawFile, index: int) -> tuple[str, str]:
    keys = ("name", "pretrained") if "name" in file.columns else ("model", "version")
    return file.text(index, keys[0]), file.text(index, keys[1])


def _checkpoint(file: RawFile, index: int, named: list[tuple[str, str]]) -> Row:
    """Facts of the zoo; for a checkpoint it does not know, parameters and FLOPs / 2 as the file gives them.

    A checkpoint keeps a name with the other activation only where the file has both.
    """
    arch, pretrained = named[index]
    right = pretrained in _AS_TRAINED
    if right and (checkpoints.as_trained(arch, pretrained), pretrained) not in named:
        arch = checkpoints.as_trained(arch, pretrained)
    row = checkpoints.describe(arch, pretrained, activation_is_right=right)
    if math.isnan(row["params"]) and "params (M)" in file.columns:
        row |= {
            "params": file.positive(index, "params (M)") * 1e6,
            "gmacs": file.positive(index, "FLOPs (B)") / 2,
        }
    return checkpoints.with_compute(row) | {"study": STUDY, "reference": f"{CITATION}/{file.path.name}"}


def _line(file: RawFile, index: int, cells: dict[str, _Cell], shared: Row) -> list[Row]:
    rows = []
    for column, value in file.metrics(index, {column: metric for column, (_, _, metric) in cells.items()}).items():
        dataset, task, metric = cells[column]
        what = {"dataset": dataset, "task": task, "metric": metric, "n": datasets.size(dataset, metric)}
        rows.append(shared | what | {"value": value})
    return rows


FORMATS = (
    Format(
        "open_clip's openclip_results.csv or openclip_classification_results.csv", _is_datacomp, _rows(_datacomp_cell)
    ),
    Format("open_clip's openclip_retrieval_results.csv", _is_retrieval, _rows(_retrieval_cell)),
    Format("open_clip's openclip_multilingual_retrieval_results.csv", _is_multilingual, _rows(_language_cell)),
)
