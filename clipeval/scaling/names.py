"""What data sets, metrics and scales are called in tables and figures."""

from __future__ import annotations

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
_SHORT = {"acc1": "top-1", "acc5": "top-5", "mean_per_class_recall": "mean per class", "mean_average_precision": "mAP"}
_ERRORS = {"acc1": "Top-1 error (%)", "acc5": "Top-5 error (%)"}


def dataset(name: str, shots: int | None = None) -> str:
    """``ImageNet``, ``ImageNet, 10 shots``; a data set without another name keeps its own."""
    return DATASETS.get(name, name) + (f", {shots} shots" if shots else "")


def direction(name: str) -> str:
    """``image retrieval`` or ``text retrieval`` where a metric is of one direction of retrieval, else empty."""
    return (
        name.removesuffix("_recall" + name[name.rfind("@") :]).replace("_", " ") if "_retrieval_recall@" in name else ""
    )


def metric(name: str) -> str:
    """``image R@5`` for ``image_retrieval_recall@5``."""
    return _SHORT.get(name, name.replace("_retrieval_recall", " R"))


def error(name: str) -> str:
    """What 1 - metric is called on an axis in percent."""
    return _ERRORS.get(name, f"100 − {metric(name)} (%)")


def scale(name: str) -> str:
    """The label of an axis."""
    return SCALES.get(name, name)
