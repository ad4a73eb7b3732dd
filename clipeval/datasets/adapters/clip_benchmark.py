"""``clip_benchmark:``: the data sets that CLIP_benchmark builds, with its class names and templates.

``NAME`` is one of its native data sets, ``NAME@LANG`` one of its multilingual ones in a language, ``wds/NAME`` the
copy on the Hugging Face hub. Data is looked for in ``$CLIPEVAL_DATA/NAME``, by default ``datasets/NAME`` in the cache
folder. ``babel_imagenet`` is made of the images of imagenet1k there, or of its copy; ``winoground`` is a table there,
or that of the hub.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.config import DatasetEntry, packaged
from clipeval.datasets import contents, fingerprint
from clipeval.datasets import labels as values
from clipeval.datasets.adapters.hf import open_hf
from clipeval.datasets.adapters.languages import babel, known_language, languages_of
from clipeval.datasets.adapters.restraint import restrained
from clipeval.datasets.adapters.walk import Walk, read, walk
from clipeval.datasets.adapters.wds import open_wds
from clipeval.datasets.images import naming
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, NotHereError, UsageError, foreign, suggest
from clipeval.paths import cache_dir, expand
from clipeval.remote import later

if TYPE_CHECKING:
    from PIL import Image

WINOGROUND = "facebook/winoground"
HUB = "https://huggingface.co/datasets/clip-benchmark/wds_{}/tree/main"

# fmt: off
CLASSIFICATION = (
    "cifar10", "cifar100", "imagenet1k", "imagenet1k-unverified", "babel_imagenet", "imagenetv2", "imagenet_sketch",
    "imagenet-a", "imagenet-r", "imagenet-o", "objectnet", "voc2007", "voc2007_multilabel", "food101", "sun397",
    "cars", "fgvc_aircraft", "dtd", "pets", "caltech101", "flowers", "mnist", "stl10", "eurosat", "gtsrb",
    "country211", "pcam", "renderedsst2", "fer2013",
)
RETRIEVAL = (
    "mscoco_captions", "flickr30k", "flickr8k", "multilingual_mscoco_captions", "crossmodal3600", "xtd10", "xtd200",
    "flickr30k-200",
)
CHOICES = (
    "sugar_crepe/add_att", "sugar_crepe/add_obj", "sugar_crepe/replace_att", "sugar_crepe/replace_obj",
    "sugar_crepe/replace_rel", "sugar_crepe/swap_att", "sugar_crepe/swap_obj", "winoground",
)
# fmt: on

_FOLDERS = {"babel_imagenet": "imagenet1k"}
_ONE_SPLIT = ("sun397", "caltech101", "eurosat")
"""Sets whose ``split`` argument CLIP_benchmark ignores: every split is the whole data set."""
_UNSORTED = ("sun397", "imagenetv2")
"""Sets that are listed in the order in which the file system happens to list folders."""
_TRAIN_SPLITS = ("train", "trainval", "val", "valid")


def open_clip_benchmark(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Build a data set with CLIP_benchmark's own code. Ids are paths below the data folder, or positions.

    CLIP_benchmark would fetch some data sets with shell commands; these are refused with the command in the message.
    Raises UsageError for an unknown name and DataError for missing data or a split that does not exist.
    """
    native, _, language = reference.partition("@")
    if language and entry.language not in ("en", language):
        raise UsageError(f"{name}: the language is '{language}' in {entry.spec} and '{entry.language}' beside it.")
    language = language or entry.language
    if native.startswith("wds/"):
        return _open_hub_copy(name, native.removeprefix("wds/"), language, split, entry, offline)
    _check_name(native, split)
    language = known_language(name, native, language)
    root = _data_folder() / _FOLDERS.get(native, native.split("/")[0])
    if native == "winoground":
        return open_hf(name, str(root) if root.is_dir() else WINOGROUND, split, entry, offline)
    if native == "babel_imagenet" and not root.is_dir():
        imagenet = _open_hub_copy(name, "imagenet1k", "en", split, _with_default_prompts(entry), offline)
        return babel(name, imagenet, language, entry.prompts)
    source = _build(name, native, split, language, root, offline)
    found = _walked(name, source, root)
    order = np.argsort(found.ids, kind="stable") if native in _UNSORTED else np.arange(len(found.ids))
    ids = [found.ids[index] for index in order]
    targets = [found.targets[index] for index in order]
    digests = [found.image_digests[index] for index in order]
    labels = _labels(name, ids, targets) if native in CLASSIFICATION else None
    captions = [tuple(texts) for texts in targets] if native in RETRIEVAL else None
    choices = [tuple(texts) for texts in targets] if native in CHOICES else None
    prompts = None
    if labels is not None:
        classes, templates = list(source.classes), list(source.templates)
        prompts = load_prompts(name, entry.prompts, language, classes, templates, own_language=language)
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(digests, labels, captions or choices),
        ids=ids,
        read=_SourceImages(name, source, order, digests, ids),
        labels=labels,
        prompts=prompts,
        captions=captions,
        choices=choices,
        digests=digests,
        remarks=tuple(contents.remarks(found.contents)),
    )


@dataclass(frozen=True)
class _SourceImages:
    """Images as CLIP_benchmark's data set gives them to a model's transform."""

    name: str
    source: Any
    order: np.ndarray
    digests: Sequence[str]
    ids: Sequence[str]

    def __call__(self, index: int) -> Image.Image:
        sample = f"{self.name}: sample {self.ids[index]}"
        with naming(sample):
            return read(self.source, int(self.order[index]), self.digests[index], sample)


def _open_hub_copy(
    name: str, hub_name: str, language: str, split: str, entry: DatasetEntry, offline: bool
) -> LoadedDataset:
    cleaned = hub_name.replace("/", "-")
    local = _data_folder() / f"wds_{cleaned}"
    place = str(local) if local.is_dir() else HUB.format(cleaned)
    known_as = hub_name if language != "en" else ""
    dataset = open_wds(name, place, split, entry, offline, known_as=known_as, language=language)
    if known_as and dataset.prompts is None:
        own = f" There are captions in it: clip_benchmark:{hub_name}@{language}." if hub_name in RETRIEVAL else ""
        own = own if own and language in languages_of(hub_name) else ""
        raise UsageError(f"{name}: the language '{language}' means nothing here: there are no class names.{own}")
    return dataset


def _with_default_prompts(entry: DatasetEntry) -> DatasetEntry:
    return entry.model_copy(update={"prompts": None, "language": "en"})


def _data_folder() -> Path:
    chosen = os.environ.get("CLIPEVAL_DATA")
    return expand(chosen) if chosen else cache_dir() / "datasets"


def _check_name(native: str, split: str) -> None:
    known = packaged().datasets.get(native)
    if known and known.unavailable:
        raise DataError(f"clip_benchmark:{native} cannot be measured: {known.unavailable}.")
    if native.startswith("vtab/"):
        raise DataError(
            f"clip_benchmark:{native} needs TensorFlow Datasets and task_adaptation, which do not install beside "
            f"current packages. Use the same data on the hub: clip_benchmark:wds/{native}"
        )
    names = [*CLASSIFICATION, *RETRIEVAL, *CHOICES]
    if native not in names:
        raise UsageError(
            f"clip_benchmark:{native}: CLIP_benchmark has no such data set.{suggest(native, names)} "
            f"It has: {', '.join(names)}; and wds/NAME for the copies on the hub."
        )
    if native in _ONE_SPLIT and split in _TRAIN_SPLITS:
        raise DataError(
            f"clip_benchmark:{native} has no {split} split: CLIP_benchmark would return the whole data set, so that "
            f"a probe would train on its test images. Use a version with splits, for example from the suite vtab."
        )


def _build(name: str, native: str, split: str, language: str, root: Path, offline: bool) -> Any:
    if later.is_noting():  # it says nothing of what it would fetch
        raise NotHereError(f"{name}: CLIP_benchmark is asked for it when it is needed.")
    if offline and not root.is_dir():
        raise NotHereError(f"{name}: there is no {root}, and nothing is downloaded now (--offline or --plan).")
    task = "zeroshot_classification" if native in CLASSIFICATION else "zeroshot_retrieval"
    try:
        with restrained(name, root, offline), contextlib.redirect_stdout(sys.stderr):
            from clip_benchmark.datasets.builder import build_dataset

            return build_dataset(
                native,
                root=str(root),
                transform=None,
                split=split,
                download=not offline,
                language=language,
                task=task,
            )
    except (DataError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{name}: CLIP_benchmark needs the package {error.name}: pip install {error.name}") from error
    except Exception as error:  # assertions, KeyErrors and RuntimeErrors all mean that data or split is not there
        raise DataError(
            f"{name}: CLIP_benchmark cannot build split '{split}' from {root}: {_reason(error)}."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it makes folders before it looks for data: leave no empty one behind
            root.rmdir()


def _walked(name: str, source: Any, root: Path) -> Walk:
    with foreign(lambda error: DataError(f"{name}: cannot read the samples in {root}: {_reason(error)}.")):
        return walk(source, root)


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _labels(name: str, ids: Sequence[str], targets: Sequence[Any]) -> np.ndarray:
    found = [np.asarray(target).tolist() for target in targets]

    def where(index: int) -> str:
        return f"{name}: sample {ids[index]}"

    return (values.zero_or_one if found and isinstance(found[0], list) else values.whole_numbers)(found, where)
