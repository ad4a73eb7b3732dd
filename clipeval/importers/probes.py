"""The linear probes of Cherti et al. (arXiv:2212.07143): CLIP_benchmark's ``probe_benchmark/*.json``.

``scaling_experiment_data2.json`` holds each probe under 3 learning rates x 3 numbers of epochs, of which the figures
show the one that is best on the test set; ``scaling_experiment_data_vtab.json`` holds means over 19 data sets made from
those (VTAB's with cifar10 in place of sun397, so not the zero-shot mean). ``gmacs_total`` is the file's own.

Two slips of the published fits are marked in ``from_scratch_filter``: a point whose GMACs are those of another
architecture, which the figures fit but do not show, and the worse of two runs that the figures take for one.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from clipeval.importers import checkpoints, datasets
from clipeval.importers.cherti2023 import STUDY, family
from clipeval.importers.raw import Format, RawFile
from clipeval.results.ledger import Row

CITATION = "Cherti et al., CVPR 2023, arXiv:2212.07143; LAION-AI/CLIP_benchmark probe_benchmark"
_METRICS = {"lp_acc1": "acc1", "lp_acc5": "acc5", "lp_mean_per_class_recall": "mean_per_class_recall"}
_NAMES = {"imagenet1k-unverified": "imagenet1k", "vtab_svhn": "vtab/svhn"}
_ALLOWED = 0.05
"""Relative difference of GMACs between two profilers; more than this is another architecture."""

_Place = tuple[RawFile, int]


def _is_probes(file: RawFile) -> bool:
    return not file.is_csv and {"lp_acc1", "fewshot_k", "model", "pretrained", "gmacs_total"} <= set(file.columns)


def _rows(files: Sequence[RawFile], others: Sequence[RawFile]) -> tuple[list[Row], list[str]]:
    samples = _samples_seen(files)
    grids: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
    for file in files:
        for index in range(len(file.records)):
            grids[_texts(file, index, "model", "pretrained", "dataset", "fewshot_k")].append((file, index))
    best = {key: max(grid, key=_accuracy) for key, grid in grids.items()}
    twins: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
    for place in best.values():
        twins[_recipe(place)].append(place)
    rows = []
    for key, place in best.items():
        better = max(twins[_recipe(place)], key=_accuracy)
        rows += _best_rows(place, grids[key], samples, better)
    n_settings = sum(len(grid) for grid in grids.values())
    notes = [f"{n_settings} linear probes: of each the setting best on the test set is kept, {len(best)} in all"]
    return rows, notes


def _texts(file: RawFile, index: int, *columns: str) -> tuple[str, ...]:
    return tuple(file.text(index, column) for column in columns)


def _recipe(place: _Place) -> tuple[str, ...]:
    """What the figures take for one point: samples seen are a label such as 34B."""
    return _texts(*place, "model", "upstream_dataset", "samples_seen_pretty", "dataset", "fewshot_k")


def _accuracy(place: _Place) -> float:
    file, index = place
    return file.metrics(index, {"lp_acc1": "acc1"})["lp_acc1"]


def _samples_seen(files: Sequence[RawFile]) -> dict[tuple[str, str], float]:
    """By model and tag: the file of means does not repeat them."""
    return {
        (file.text(index, "model"), file.text(index, "pretrained")): file.positive(index, "samples_seen")
        for file in files
        if "samples_seen" in file.columns
        for index in range(len(file.records))
    }


def _best_rows(place: _Place, grid: list[_Place], samples: dict[tuple[str, str], float], better: _Place) -> list[Row]:
    file, index = place
    record = file.records[index]
    dataset = file.text(index, "dataset")
    shots = file.count(index, "fewshot_k")
    shared = _checkpoint(file, index, samples)
    if better != place and not shared["from_scratch_filter"]:
        name = ",".join(_texts(*better, "model", "pretrained"))
        shared["from_scratch_filter"] = f"same recipe as {name}, which is better here"
    shared |= {
        "study": STUDY,
        "dataset": _NAMES.get(dataset, dataset),
        "task": "linear_probe",
        "shots": shots if shots > 0 else None,
        "seed": record.get("seed"),
        "protocol": "cherti2023",
        "reference": f"{CITATION}/{file.path.name}",
    }
    notes: dict[str, Any] = {"selected_on": "test"}
    if len(grid) > 1:
        median = statistics.median(_accuracy(other) for other in grid)
        notes |= {"learning_rate": record.get("lr"), "epochs": record.get("epochs"), "median_acc1_of_grid": median}
    shared["notes"] = json.dumps(notes, sort_keys=True)
    present = {column: metric for column, metric in _METRICS.items() if column in file.columns}
    return [
        shared | {"metric": present[column], "value": value, "n": datasets.size(shared["dataset"], present[column])}
        for column, value in file.metrics(index, present).items()
    ]


def _checkpoint(file: RawFile, index: int, samples: dict[tuple[str, str], float]) -> Row:
    arch, pretrained = file.text(index, "model"), file.text(index, "pretrained")
    row = checkpoints.describe(checkpoints.as_trained(arch, pretrained), pretrained)
    total = file.positive(index, "gmacs_total")
    source = file.text(index, "upstream_dataset")
    row |= {"source": source, "source_family": family(source), "gmacs_total": total}
    seen = samples.get((arch, pretrained))
    if seen:
        difference = abs(row["samples_seen"] / seen - 1)
        gmacs = total / seen
        if abs(gmacs / row["gmacs"] - 1) > _ALLOWED:
            row["from_scratch_filter"] = f"wrong GMACs: {gmacs:.5g} per sample, not {row['gmacs']:.5g}"
        row |= {
            "samples_seen": seen,
            "samples_seen_from": "paper",
            "samples_seen_tolerance": difference,
            "gmacs": gmacs,
        }
    return checkpoints.with_compute(row)


FORMATS = (Format("scaling_experiment_data*.json of CLIP_benchmark's probe_benchmark", _is_probes, _rows),)
