"""``clipeval-train patch``: the best mix of a model and its fine-tuned self that leaves a control data set alone.

Patching open-vocabulary models by interpolating weights (Ilharco et al. 2022, arXiv 2208.05592); with a trained
classifier the same curve is that of WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903) for the image tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from clipeval import config as configuration
from clipeval import datasets, machine, models
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset
from clipeval.drawing import Column
from clipeval.errors import MetricError, ModelError
from clipeval.files import write_atomically, write_json
from clipeval.models.encoder import OpenClipEncoder
from clipeval.results.table import write_csv
from clipeval.tables import Sheet
from clipeval.tasks import zeroshot_classification
from clipeval_train import checkpoint
from clipeval_train.finetune import heads
from clipeval_train.finetune.config import PatchConfig
from clipeval_train.finetune.data import labels_of, without_held_out
from clipeval_train.lineage import lineage, model_of, one_checkpoint

TARGET, CONTROL = "target", "control"
_TOWER = "visual."

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Point:
    """The zero-shot accuracy of one data set at one alpha. ``chosen_on`` says whether alpha was chosen on it."""

    alpha: float
    dataset: str
    role: str
    split: str
    acc1: float
    n: int
    chosen_on: bool


@dataclass(frozen=True)
class Patched:
    """What patching found: the chosen ``alpha``, the curve, and the checkpoint written with it."""

    alpha: float
    points: list[Point]
    path: Path


@dataclass(frozen=True)
class _Subject:
    """A data set that is looked at: ``selection`` chooses alpha, ``test`` is reported; often they are the same."""

    name: str
    role: str
    selection: Dataset
    split: str
    test: Dataset
    classes: np.ndarray


def patch(config: PatchConfig) -> Patched:
    """Measure the curve, choose alpha, and write OUT/checkpoints/alpha_*.pt, OUT/curve.csv and OUT/patch.json.

    Alpha is chosen on each data set's validation split; without one, on what the fine-tuning held out of the training
    split; without that, on the scored split itself, which the curve says. Raises UsageError, DataError, ModelError for
    a checkpoint that was not fine-tuned from ``model``, and StoreError.
    """
    out = Path(config.out)
    first, second = (models.open_trainable(one_checkpoint(getattr(config, key), key)) for key in ("model", "finetuned"))
    device = machine.resolve_device("auto")
    encoder, tuned = (
        models.load_trainable(each, device=device, precision=config.precision) for each in (first, second)
    )
    if encoder.device == "cpu":
        machine.set_threads(encoder.info.gmacs_image)
    content = checkpoint.load(second.path) if second.spec.kind == "trained" else {"metadata": {}}
    start, end = encoder.model.state_dict(), tuned.model.state_dict()
    start = {name: tensor.clone() for name, tensor in start.items()}
    _check_lineage(encoder, tuned, content, start, end)
    subjects = _subjects(config, encoder, content["metadata"])
    workers = machine.default_workers() if config.workers is None else config.workers

    def measure(alpha: float, chosen_on: bool) -> list[Point]:
        encoder.model.load_state_dict(interpolated(start, end, alpha))
        looked_at = [subject for subject in subjects if chosen_on or subject.test is not subject.selection]
        return [_point(encoder, subject, alpha, chosen_on, workers) for subject in looked_at]

    points = [point for alpha in sorted({0.0, *config.alphas}) for point in measure(alpha, True)]
    alpha = choose(points, config.max_drop)
    points += [point for each in sorted({0.0, alpha, 1.0}) for point in measure(each, False)]
    path = out / "checkpoints" / f"alpha_{alpha:g}.pt"
    facts = lineage(encoder.info, "patch", f"patched on {', '.join(config.data)}") | {
        "alpha": alpha,
        "finetuned_sha256": tuned.info.checkpoint_sha256,
        "config": config.model_dump(mode="json"),
    }
    state_dict = {name: tensor.cpu() for name, tensor in interpolated(start, end, alpha).items()}
    checkpoint.save(path, model_of(first) | {"state_dict": state_dict, "metadata": facts, "resume": None})
    _write_curve(out, points, alpha, config)
    return Patched(alpha, points, path)


def _point(encoder: OpenClipEncoder, subject: _Subject, alpha: float, chosen_on: bool, workers: int) -> Point:
    dataset, split = (subject.selection, subject.split) if chosen_on else (subject.test, subject.test.split)
    embeddings = heads.embed(encoder, dataset, np.arange(len(dataset)), workers)
    result = zeroshot_classification.evaluate(embeddings, subject.classes, labels_of(dataset), dataset.ids)
    return Point(alpha, subject.name, subject.role, split, result.metrics[0].value, len(dataset), chosen_on)


def interpolated(start: Weights, end: Weights, alpha: float) -> Weights:
    """``(1 - alpha) * start + alpha * end`` of the image tower, everything else as in ``start``.

    At 0 and 1 the tensors themselves, so that both ends are exact.
    """
    if alpha == 0:
        return start
    return start | {
        name: end[name] if alpha == 1 or not tensor.is_floating_point() else (1 - alpha) * tensor + alpha * end[name]
        for name, tensor in start.items()
        if name.startswith(_TOWER)
    }


def choose(points: Sequence[Point], max_drop: float) -> float:
    """The alpha with the highest mean accuracy of the targets whose controls lose at most ``max_drop`` points.

    Of equal ones the smallest. Only points it is chosen on count; those of alpha 0 are the reference.
    """
    by_alpha: dict[float, dict[str, Point]] = {}
    for point in points:
        if point.chosen_on:
            by_alpha.setdefault(point.alpha, {})[f"{point.role} {point.dataset}"] = point

    def allowed(alpha: float) -> bool:
        controls = [(by_alpha[0.0][key], point) for key, point in by_alpha[alpha].items() if point.role == CONTROL]
        # in counts of images, where a drop of exactly the bound is one, which it is not always in floating point
        return all(round((before.acc1 - now.acc1) * now.n) <= max_drop * now.n / 100 + 1e-9 for before, now in controls)

    def mean(alpha: float) -> float:
        return float(np.mean([point.acc1 for point in by_alpha[alpha].values() if point.role == TARGET]))

    return min((alpha for alpha in by_alpha if allowed(alpha)), key=lambda alpha: (-mean(alpha), alpha))


def _subjects(config: PatchConfig, encoder: OpenClipEncoder, facts: dict[str, Any]) -> list[_Subject]:
    settings = configuration.load()
    tuned_on = facts.get("data", {})
    share = facts.get("config", {}).get("hold_out", 0.0)
    entries = [(TARGET, name, entry) for name, entry in datasets.resolve(config.data, settings).datasets.items()]
    if config.control:
        controls = datasets.resolve([config.control], settings).datasets
        entries += [(CONTROL, name, entry) for name, entry in controls.items()]
    return [_subject(role, name, entry, encoder, share if name in tuned_on else 0.0) for role, name, entry in entries]


def _subject(role: str, name: str, entry: DatasetEntry, encoder: OpenClipEncoder, share: float) -> _Subject:
    test = datasets.open_dataset(name, entry)
    if test.labels is None or test.labels.ndim != 1:
        raise MetricError(f"{name} ({test.split}): patching compares accuracies, which need one label per image.")
    selection, split = test, test.split
    if entry.val_split:
        selection, split = datasets.open_dataset(name, entry, entry.val_split), entry.val_split
    elif share and entry.train_split:
        _, held = without_held_out(datasets.open_dataset(name, entry, entry.train_split), share)
        if isinstance(held, Subset):
            selection, split = held, f"{entry.train_split} (held out)"
    return _Subject(name, role, selection, split, test, heads.class_vectors(encoder, test))


def _check_lineage(
    encoder: OpenClipEncoder, tuned: OpenClipEncoder, content: dict[str, Any], start: Weights, end: Weights
) -> None:
    """The two ends differ in the image tower alone, and one comes from the other as far as that is on record."""
    began = content["metadata"].get("init_sha256", encoder.info.checkpoint_sha256)
    if began != encoder.info.checkpoint_sha256:
        raise ModelError(
            f"finetuned: '{tuned.info.model}' was made from '{content['metadata'].get('init')}', whose weights are not "
            f"those of '{encoder.info.model}'. Give the checkpoint it was made from as `model`."
        )
    if {name: tensor.shape for name, tensor in start.items()} != {name: tensor.shape for name, tensor in end.items()}:
        raise ModelError(f"finetuned: '{tuned.info.model}' is of another architecture than '{encoder.info.model}'.")
    if encoder.preprocessing != tuned.preprocessing:
        raise ModelError(f"finetuned: '{tuned.info.model}' takes other pixels than '{encoder.info.model}'.")
    for name, tensor in start.items():
        if not name.startswith(_TOWER) and not torch.equal(tensor, end[name]):
            raise ModelError(
                f"finetuned: '{tuned.info.model}' has another '{name}' than '{encoder.info.model}'. Only the image "
                "tower is interpolated: fine-tune with clipeval-train finetune, which leaves the rest as it is."
            )


def print_curve(patched: Patched) -> None:
    """The curve as a table on stdout: a row per alpha, a column per data set and split, accuracies in percent."""
    columns = list(dict.fromkeys((point.dataset, point.role, point.split, point.chosen_on) for point in patched.points))
    heads = ("\n".join((name, split, role if on else "not chosen on")) for name, role, split, on in columns)
    sheet = Sheet("zero-shot acc1 (%)", *(Column(head, "figure") for head in ("alpha", *heads)))
    for alpha in sorted({point.alpha for point in patched.points}):
        found = {(p.dataset, p.role, p.split, p.chosen_on): p.acc1 for p in patched.points if p.alpha == alpha}
        values = [f"{100 * found[column]:.2f}" if column in found else "" for column in columns]
        sheet.add(f"{'→ ' if alpha == patched.alpha else ''}{alpha:g}", *values)
    sheet.print()


def _write_curve(out: Path, points: list[Point], alpha: float, config: PatchConfig) -> None:
    frame = pd.DataFrame([asdict(point) for point in points])
    write_atomically(out / "curve.csv", lambda path: write_csv(frame, path))
    document = {"alpha": alpha, "config": config.model_dump(mode="json"), "points": [asdict(point) for point in points]}
    write_json(out / "patch.json", document)
