"""The languages of CLIP_benchmark's own data sets, and Babel-ImageNet: ImageNet with the class names of a language."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np

from clipeval.datasets import fingerprint, prompts
from clipeval.datasets.loaded import LoadedDataset, some_rows
from clipeval.errors import DataError, UsageError, few, suggest

_MODULES = {
    "multilingual_mscoco_captions": "multilingual_mscoco",
    "crossmodal3600": "crossmodal3600",
    "xtd10": "xtd10",
    "xtd200": "xtd200",
    "flickr30k-200": "flickr30k_200",
}
_CHINESE_TOO = ("flickr30k", "flickr8k")
_PARTS_OF_IMAGENET = ("imagenet-a", "imagenet-r", "imagenet-o")
"""Sets whose builder takes some of ImageNet's class names, whatever language they are in."""
_ENGLISH = {"xtd200": "eng_Latn", "flickr30k-200": "eng_Latn"}
"""What sets with other codes call English, which is the language where none is given."""


def known_language(name: str, native: str, language: str) -> str:
    """``language`` as the builder of the data set ``native`` knows it. Raises UsageError that names those there are."""
    there = languages_of(native)
    language = _ENGLISH.get(native, language) if language == "en" else language
    if language not in there:
        raise UsageError(
            f"{name}: {native} is not there in the language '{language:.80}'.{suggest(language, there)} "
            f"It is in: {few(there)}."
        )
    return language


def languages_of(native: str) -> Sequence[str]:
    """The codes of the languages that one of CLIP_benchmark's own data sets is there in."""
    if native in _MODULES:
        return list(importlib.import_module(f"clip_benchmark.datasets.{_MODULES[native]}").SUPPORTED_LANGUAGES)
    if native == "babel_imagenet":
        templates = prompts.packaged_file("nllb_dist13b_prompts.json")
        return sorted(code.lower() for code in prompts.packaged_file("babel_imagenet.json") if code in templates)
    if native in _CHINESE_TOO:
        return ["en", "zh"]
    return prompts.languages_of("imagenet1k" if native in _PARTS_OF_IMAGENET else native)


def babel(name: str, imagenet: LoadedDataset, language: str, prompt_set: str | None) -> LoadedDataset:
    """The images of the classes that have a name in ``language``, with labels in the order of its names, and its
    prompts. Raises DataError where ``imagenet`` does not have ImageNet's 1,000 classes."""
    if imagenet.labels is None or imagenet.prompts is None or len(imagenet.prompts.classes) != 1000:
        found = "no class names" if imagenet.prompts is None else f"{len(imagenet.prompts.classes):,} classes"
        raise DataError(f"{name}: Babel-ImageNet is made of imagenet1k with its 1,000 classes, and here are {found}.")
    index, classes = prompts.packaged_file("babel_imagenet.json")[language.upper()]
    templates = prompts.packaged_file("nllb_dist13b_prompts.json")[language.upper()]
    templates = [template.replace("{}", "{c}") for template in templates]
    rows = np.flatnonzero(np.isin(imagenet.labels, index))
    place = np.full(1000, -1)
    place[index] = np.arange(len(index))
    labels = place[imagenet.labels[rows]]
    digests = imagenet.digests or imagenet.ids
    return some_rows(
        imagenet,
        rows,
        name=name,
        labels=labels,
        prompts=prompts.load_prompts(name, prompt_set, language, classes, templates, own_language=language),
        fingerprint=fingerprint.of_contents([digests[row] for row in rows.tolist()], labels),
    )
