"""The files of LAION-AI/scaling-laws-openclip, with which Cherti et al. (arXiv:2212.07143) made their figures.

``zeroshot_results.csv`` and ``imagenet_zeroshot_learning_curves.csv`` are joined with ``arch_info.csv`` (GMACs) and
``trained_models_info.csv`` (epochs, samples per epoch). Samples seen, GMACs and their product are those of the first
file: the published fits rest on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipeval.errors import UsageError
from clipeval.importers import checkpoints, datasets
from clipeval.importers.raw import Format, RawFile
from clipeval.models.zoo import CHERTI2023_FILES
from clipeval.results.ledger import Row

STUDY = "cherti2023"
CITATION = "Cherti et al., CVPR 2023, arXiv:2212.07143; LAION-AI/scaling-laws-openclip"
_METRICS = (
    "acc1",
    "acc5",
    "mean_per_class_recall",
    "mean_average_precision",
    "image_retrieval_recall@5",
    "text_retrieval_recall@5",
)
_CURVES = {"imagenet-zeroshot-val-top1": "acc1", "imagenet-zeroshot-val-top5": "acc5"}
_ARCHS, _RUNS = "arch_info.csv", "trained_models_info.csv"
_SAME = 1e-6
"""Relative difference below which two counts of samples are one and the same."""


def _is_zeroshot(file: RawFile) -> bool:
    return {"upstream_dataset", "downstream_dataset", "gmacs_total", "samples_seen", "name"} <= set(file.columns)


def _is_curves(file: RawFile) -> bool:
    return {"name", "epoch", *_CURVES} <= set(file.columns)


def is_arch_info(file: RawFile) -> bool:
    """True for a table of architectures, which holds no results."""
    return {"model", "image_gmacs", "text_gmacs"} <= set(file.columns)


def is_runs_info(file: RawFile) -> bool:
    """True for ``trained_models_info.csv``, which holds no results."""
    return {"name", "arch", "epochs", "samples_per_epoch"} <= set(file.columns)


@dataclass(frozen=True)
class _Run:
    arch: str
    epochs: float
    samples_per_epoch: float


def _runs(others: Sequence[RawFile]) -> dict[str, _Run]:
    """What ``trained_models_info.csv`` says, by the name of the checkpoint file."""
    return {
        file.text(i, "name"): _Run(
            file.text(i, "arch"), file.positive(i, "epochs"), file.positive(i, "samples_per_epoch")
        )
        for file in others
        if is_runs_info(file)
        for i in range(len(file.records))
    }


def _gmacs(others: Sequence[RawFile]) -> dict[str, Row]:
    """What ``arch_info.csv`` says: GMACs per sample of the whole and of both towers, by architecture."""
    columns = {"gmacs": "gmacs", "gmacs_image": "image_gmacs", "gmacs_text": "text_gmacs"}
    return {
        file.text(i, "model"): {name: file.positive(i, column) for name, column in columns.items()}
        for file in others
        if is_arch_info(file)
        for i in range(len(file.records))
    }


def _described(arch: str, name: str, gmacs: dict[str, Row]) -> Row:
    openai = name == "openai"
    full_arch = checkpoints.as_trained(arch, name) if openai else arch
    row = checkpoints.describe(full_arch, name if openai else CHERTI2023_FILES + name)
    return row | gmacs.get(arch, {}) | {"study": STUDY}


def family(source: str) -> str:
    """The source family of one of the paper's upstream data sets."""
    return "LAION" if source.startswith("LAION-") else source


def _zeroshot_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    gmacs, runs = _gmacs(others), _runs(others)
    rows: list[Row] = []
    for file in files:
        present = {metric: metric for metric in _METRICS if metric in file.columns}
        for index in range(len(file.records)):
            shared = _checkpoint(file, index, gmacs, runs) | {
                "dataset": file.text(index, "downstream_dataset"),
                "task": file.text(index, "task"),
                "reference": f"{CITATION} {file.path.name}",
            }
            for metric, value in file.metrics(index, present).items():
                n = datasets.size(shared["dataset"], metric)
                rows.append(shared | {"metric": metric, "value": value, "n": n})
    notes = [] if gmacs else [f"{_ARCHS} is not there: GMACs per tower are clipeval's own"]
    return rows, notes + ([] if runs else [f"{_RUNS} is not there: samples seen are not checked against it"])


def _checkpoint(file: RawFile, index: int, gmacs: dict[str, Row], runs: dict[str, _Run]) -> Row:
    name, source, samples = (
        file.text(index, "name"),
        file.text(index, "upstream_dataset"),
        file.positive(index, "samples_seen"),
    )
    row = _described(file.text(index, "arch"), name, gmacs) | {
        "source": source,
        "source_family": family(source),
        "samples_seen": samples,
        "samples_seen_from": "paper",
        "gmacs": file.positive(index, "gmacs"),
        "gmacs_total": file.positive(index, "gmacs_total"),
    }
    if name in runs:
        difference = abs(runs[name].epochs * runs[name].samples_per_epoch / samples - 1)
        row["samples_seen_tolerance"] = 0.0 if difference < _SAME else difference
    return checkpoints.with_compute(row)


def _curve_rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    gmacs, runs = _gmacs(others), _runs(others)
    rows: list[Row] = []
    for file in files:
        for index in range(len(file.records)):
            name = file.text(index, "name")
            if name not in runs:
                raise UsageError(
                    f"{file.where(index)}: {_RUNS} does not say how long {name} was trained. Give that file with this "
                    "one, or put it beside."
                )
            shared = _at_epoch(_described(runs[name].arch, name, gmacs), file.positive(index, "epoch"), runs[name])
            shared |= {
                "dataset": "imagenet1k",
                "task": "zeroshot_classification",
                "reference": f"{CITATION} {file.path.name}",
            }
            for column, value in file.metrics(index, _CURVES).items():
                metric = _CURVES[column]
                rows.append(shared | {"metric": metric, "value": value, "n": datasets.size("imagenet1k", metric)})
    return rows, []


def _at_epoch(row: Row, epoch: float, run: _Run) -> Row:
    """A run at one of its epochs; its learning rate reaches 0 only at the last."""
    last = epoch == run.epochs
    return checkpoints.with_compute(
        row
        | {
            "samples_seen": row["samples_seen"] * epoch / run.epochs,
            "stage": f"epoch {epoch:g} of {run.epochs:g}",
            "from_scratch_filter": "same run as the final checkpoint" if last else "learning rate not yet 0",
        }
    )


FORMATS = (
    Format("zeroshot_results.csv of LAION-AI/scaling-laws-openclip", _is_zeroshot, _zeroshot_rows, (_ARCHS, _RUNS)),
    Format(
        "imagenet_zeroshot_learning_curves.csv of LAION-AI/scaling-laws-openclip",
        _is_curves,
        _curve_rows,
        (_ARCHS, _RUNS),
    ),
)
