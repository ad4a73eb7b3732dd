"""Downstream data sets of imported figures: sizes, and names where a publication has its own."""

from __future__ import annotations

from clipeval import config

_CAPTIONS = {"mscoco_captions": 25010, "flickr30k": 5000, "flickr8k": 5000}
"""Captions of the Karpathy test splits, which are the queries of image retrieval."""
_OVER_ALL_IMAGES = ("acc1", "acc5", "mean_per_class_recall", "mean_average_precision", "text_retrieval")
_SAME_TEST_SET = {"cifar100": "vtab/cifar100"}

DATACOMP_COLUMNS = {
    "Caltech-101": "vtab/caltech101",
    "CIFAR-10": "cifar10",
    "CIFAR-100": "vtab/cifar100",
    "CLEVR Counts": "vtab/clevr_count_all",
    "CLEVR Distance": "vtab/clevr_closest_object_distance",
    "Country211": "country211",
    "Describable Textures": "vtab/dtd",
    "EuroSAT": "vtab/eurosat",
    "FGVC Aircraft": "fgvc_aircraft",
    "Food-101": "food101",
    "GTSRB": "gtsrb",
    "ImageNet 1k": "imagenet1k",
    "ImageNet Sketch": "imagenet_sketch",
    "ImageNet v2": "imagenetv2",
    "ImageNet-A": "imagenet-a",
    "ImageNet-O": "imagenet-o",
    "ImageNet-R": "imagenet-r",
    "KITTI Vehicle Distance": "vtab/kitti_closest_vehicle_distance",
    "MNIST": "mnist",
    "ObjectNet": "objectnet",
    "Oxford Flowers-102": "vtab/flowers",
    "Oxford-IIIT Pet": "vtab/pets",
    "Pascal VOC 2007": "voc2007",
    "PatchCamelyon": "vtab/pcam",
    "Rendered SST2": "renderedsst2",
    "RESISC45": "vtab/resisc45",
    "Stanford Cars": "cars",
    "STL-10": "stl10",
    "SUN397": "sun397",
    "SVHN": "vtab/svhn",
    "Flickr": "retrieval/flickr30k",
    "MSCOCO": "retrieval/mscoco_2014_5k_test_image_text_retrieval",
    "WinoGAViL": "misc/winogavil",
    "iWildCam": "wilds/iwildcam",
    "Camelyon17": "wilds/camelyon17",
    "FMoW": "wilds/fmow",
    "Dollar Street": "fairness/dollar_street",
    "GeoDE": "fairness/geode",
}
"""open_clip's headings of the 38 data sets of DataComp (its tasklist.yml), under the names of ``benchmarks.yaml``."""


def size(dataset: str, metric: str) -> int | None:
    """How many samples a value of ``metric`` is over: test images, or captions for image retrieval.

    None for suite averages, for metrics that are no share of all samples and for data sets that clipeval does not know.
    """
    if metric.startswith("image_retrieval"):
        return _CAPTIONS.get(dataset)
    entry = config.packaged().datasets.get(_SAME_TEST_SET.get(dataset, dataset))
    return entry.n if entry and metric.startswith(_OVER_ALL_IMAGES) else None


def main_metric(dataset: str) -> str:
    """The metric by which DataComp scores one of the data sets of ``DATACOMP_COLUMNS``."""
    return config.packaged().datasets[dataset].main_metric or "acc1"


def task(dataset: str) -> str:
    """The zero-shot task of one of the data sets of ``DATACOMP_COLUMNS``."""
    return (config.packaged().datasets[dataset].tasks or ("zeroshot_classification",))[0]


def clean_name(dataset: str, language: str = "en") -> str:
    """CLIP_benchmark's name without the loader's ``wds/``; another language than English is part of it."""
    name = dataset.removeprefix("wds/")
    multilingual = name in ("crossmodal3600", "multilingual_mscoco_captions")
    return f"{name}/{language}" if multilingual or language != "en" else name
