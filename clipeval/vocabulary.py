"""What metrics, tasks, data sets and scales are called, and what else there is to know of a metric by its name.

A new metric is one line of ``METRICS``, a new task one line of ``TASKS``. Names that are in no line, such as those of
imported tables, keep their own name as title.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric.

    ``title`` names it in tables, figures and on the page. ``column`` of a per-sample file holds its outcomes, in the
    rows of ``direction`` where it is one of retrieval; empty where no file has any. ``scored`` says how the value comes
    of them: their mean over ``samples``, which are 0 or 1, over ``shares`` between 0 and 1, over ``classes``, the
    lowest mean of the ``groups`` that the column ``group`` tells apart, from ``ranks`` of scores, or as ``f1`` of
    labels and predictions. A ``share`` lies in [0, 1] and is better when higher; of others ``lower`` may be better.
    ``export`` is its type in model cards, empty where that is its name. ``asked``: it is given only where a data set's
    ``main_metric`` names it, and stands for the set there. ``mean_of``: it is no row of its own, but the mean of these.
    """

    name: str
    title: str
    column: str = ""
    direction: Literal["", "text_to_image", "image_to_text"] = ""
    scored: Literal["samples", "shares", "classes", "groups", "ranks", "f1"] = "samples"
    share: bool = True
    lower: bool = False
    export: str = ""
    group: str = ""
    asked: bool = False
    mean_of: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The title at the beginning of a line: ``Top-1``, ``Text→image R@5``, ``mAP``."""
        keeps = self.title == self.name or self.title[1:2].isupper()
        return self.title if keeps else self.title[:1].upper() + self.title[1:]

    @property
    def way(self) -> str:
        """``text→image retrieval`` of a metric of one direction, else empty."""
        return f"{_arrow(self.direction)} retrieval" if self.direction else ""

    @property
    def error(self) -> str:
        """What 1 - metric is called on an axis in percent."""
        return f"{self.heading} error (%)" if self.title.startswith("top-") else f"100 − {self.title} (%)"


@dataclass(frozen=True)
class Task:
    """One task: ``main`` metrics stand for it (both directions of retrieval), ``export`` is its type in model cards,
    ``metrics`` are all that it may give."""

    name: str
    title: str
    main: tuple[str, ...] = ()
    export: str = "other"
    metrics: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The title within a line: ``zero-shot retrieval``."""
        return self.title if self.title == self.name else self.title[:1].lower() + self.title[1:]

    def gives(self, name: str) -> bool:
        """Whether ``name`` is one of its metrics, or the mean of several of them."""
        return all(part in self.metrics for part in metric(name).mean_of or (name,))


def _arrow(direction: str) -> str:
    return direction.replace("_to_", "→")


def _recall(found: Literal["image", "text"], k: int) -> Metric:
    direction: Literal["text_to_image", "image_to_text"] = "text_to_image" if found == "image" else "image_to_text"
    return Metric(f"{found}_retrieval_recall@{k}", f"{_arrow(direction)} R@{k}", f"hit@{k}", direction)


def _of_faces(name: str) -> tuple[Metric, Metric]:
    """Accuracy of one of the objectives of a set of faces: of all images, and in the worst group."""
    title, column = f"{name.replace('_x', ' × race')} accuracy", f"{name.removesuffix('_x')}_correct"
    group = "gender_x_race" if name == "gender_x" else "race_binary"
    return (
        Metric(f"acc_{name}_avg", title, column),
        Metric(f"acc_{name}_wg", f"{title}, worst group", column, scored="groups", group=group),
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acc1", "top-1", "correct", export="accuracy"),
        Metric("acc5", "top-5", "correct5"),
        Metric("mean_per_class_recall", "mean per class", "correct", scored="classes"),
        Metric("mean_average_precision", "mAP", "scores", scored="ranks"),
        Metric("acc_worst_region", "worst region top-1", "correct", scored="groups", group="region", asked=True),
        Metric("acc_wg", "worst group top-1", "correct", scored="groups", group="region", asked=True),
        Metric("acc_top5_wg", "worst group top-5", "correct5", scored="groups", group="income_ds", asked=True),
        Metric("F1-macro_all", "macro F1", "prediction", scored="f1", asked=True),
        *_of_faces("race"),
        *_of_faces("gender"),
        *_of_faces("age"),
        *_of_faces("gender_x"),
        Metric("toxicity_crime_avg", "taken for a crime", "crime", share=False, lower=True),
        Metric("toxicity_nonhuman_avg", "taken for no human", "nonhuman", share=False, lower=True),
        _recall("image", 1),
        _recall("text", 1),
        _recall("image", 5),
        _recall("text", 5),
        _recall("image", 10),
        _recall("text", 10),
        Metric("text_acc", "text accuracy", "text_correct"),
        Metric("image_acc", "image accuracy", "image_correct"),
        Metric("acc", "text and image accuracy", "correct"),
        Metric("jaccard_score_10-12", "Jaccard, 10–12 candidates", "jaccard_10-12", scored="shares"),
        Metric("jaccard_score_5-6", "Jaccard, 5–6 candidates", "jaccard_5-6", scored="shares"),
        Metric("avg_jaccard_score", "Jaccard", "jaccard", scored="shares"),
        Metric("contrastive_loss", "contrastive loss", share=False, lower=True),
        Metric("main_metric", "mean of main metrics"),
        Metric("mean_recall@1", "mean R@1", mean_of=("image_retrieval_recall@1", "text_retrieval_recall@1")),
        Metric("mean_recall@5", "mean R@5", mean_of=("image_retrieval_recall@5", "text_retrieval_recall@5")),
    )
}
"""In the order in which they are shown."""

_BOTH = ("image_retrieval_recall@5", "text_retrieval_recall@5")
_RECALLS = tuple(f"{found}_retrieval_recall@{k}" for found in ("image", "text") for k in (1, 5, 10))
_ACCURACIES = ("acc1", "acc5", "mean_per_class_recall")
_ZERO_SHOT = (*_ACCURACIES, "mean_average_precision")
_ASKED = tuple(name for name, metric in METRICS.items() if metric.asked)
_FACES = tuple(name for name in METRICS if re.fullmatch(r"acc_\w+_(avg|wg)|toxicity_.*", name) and name not in _ASKED)
_SELECTED = ("text_acc", "image_acc", "acc")
_JACCARD = ("avg_jaccard_score", "jaccard_score_5-6", "jaccard_score_10-12")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("zeroshot", "Zero-shot, all tasks"),
        Task(
            *("zeroshot_classification", "Zero-shot classification", ("acc1",), "zero-shot-image-classification"),
            (*_ZERO_SHOT, *_ASKED, *_FACES),
        ),
        Task("zeroshot_retrieval", "Zero-shot retrieval", _BOTH, "zero-shot-retrieval", _RECALLS),
        Task("linear_probe", "Linear probe", ("acc1",), "image-classification", _ACCURACIES),
        Task("knn_probe", "k-nearest-neighbour probe", ("acc1",), "image-classification", _ACCURACIES),
        Task("finetune", "End-to-end fine-tuning", ("acc1",), "image-classification", _ACCURACIES),
        Task("image_caption_selection", "Image-caption selection", ("text_acc",), "other", _SELECTED),
        Task("association", "Association of images with a cue", ("jaccard_score_10-12",), "other", _JACCARD),
    )
}
"""In the order in which they are shown. ``zeroshot`` is that of suites over several tasks."""

ALIASES = {
    "imagenet": "imagenet1k",
    "imagenet-1k": "imagenet1k",
    "coco": "mscoco_captions",
    "mscoco": "mscoco_captions",
    "flickr": "flickr30k",
}
"""What people call data sets that have longer names here. They hold where nothing is called so itself."""
DATASETS = {
    "imagenet1k": "ImageNet",
    "imagenet_robustness": "ImageNet robustness",
    "mscoco_captions": "MS-COCO",
    "flickr30k": "Flickr30K",
    "flickr8k": "Flickr8K",
    "vtab": "VTAB",
    "vtab+": "VTAB+",
}
SCALES = {
    "gmacs_total": "Total compute of pre-training (GMACs)",
    "samples_seen": "Samples seen",
    "unique_samples": "Unique samples",
    "params": "Parameters",
    "params_image": "Parameters of the image tower",
    "params_text": "Parameters of the text tower",
    "gmacs": "GMACs per sample",
    "gmacs_image": "GMACs per image",
    "gmacs_text": "GMACs per text",
}

_ROUNDING = 1e-9
_RECALL = re.compile(r"(image|text)_retrieval_recall@(\d{1,4})")
_SHARE = re.compile(r"acc\d*|.*_acc|acc_.*|.*recall@\d+|jaccard.*|F1.*")
"""Metrics in [0, 1] of tables that clipeval did not measure."""


def metric(name: str) -> Metric:
    """What is known of a metric; of any name something."""
    if name in METRICS:
        return METRICS[name]
    if recall := _RECALL.fullmatch(name):
        return _recall("image" if recall[1] == "image" else "text", int(recall[2]))
    return Metric(name, name, share=_SHARE.fullmatch(name) is not None)


def not_a_share(name: str, value: float) -> str:
    """What is wrong with the value of a metric that lies in [0, 1]; empty where nothing is."""
    if not metric(name).share or math.isnan(value) or -_ROUNDING <= value <= 1 + _ROUNDING:
        return ""
    advice = f": in percent? Write {value / 100:g}" if 1 < value <= 100 else ""
    return f"{name} = {value:g} is outside [0, 1]{advice}. Values are fractions, not percent."


def value(name: str, reached: float) -> str:
    """``top-1 23.6 %``; what is no share as it is."""
    known = metric(name)
    return f"{known.title} {100 * reached:.1f} %" if known.share else f"{known.title} {reached:.4f}"


def task(name: str) -> Task:
    """What is known of a task; of any name something."""
    return TASKS.get(name) or Task(name, name)


def metric_place(name: str) -> tuple[int, str]:
    """Sort key: the order in which metrics are shown, unknown ones last."""
    return _place(METRICS, name)


def task_place(name: str) -> tuple[int, str]:
    """Sort key: the order in which tasks are shown, unknown ones last."""
    return _place(TASKS, name)


def _place(lines: dict[str, Metric] | dict[str, Task], name: str) -> tuple[int, str]:
    return (list(lines).index(name) if name in lines else len(lines), name)


def dataset(name: str, shots: int | None = None) -> str:
    """``ImageNet``, ``ImageNet, 10 shots``; a data set without another name keeps its own."""
    return DATASETS.get(name, name) + (f", {shots} shots" if shots else "")


_TRAINED = ("linear_probe", "knn_probe", "finetune")
"""Tasks with the metrics of zero-shot classification, which is what a metric is of without another word."""


def cell(dataset: str, task_name: str, metric_name: str, shots: int | None = None, seed: int | None = None) -> str:
    """``icons-40 · top-1``, ``cars · linear probe, 10 shots (seed 0) · top-1``: a task that the metric tells is not
    said."""
    told = task_name in TASKS and task_name not in _TRAINED
    drawn = "" if shots is None else f"{shots} shots" + ("" if seed is None else f" (seed {seed})")
    how = ", ".join(filter(None, ("" if told else task(task_name).words, drawn)))
    return " · ".join(filter(None, (dataset, how, metric(metric_name).title)))


def scale(name: str) -> str:
    """The label of an axis."""
    return SCALES.get(name, name)
