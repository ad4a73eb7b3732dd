"""``builtin:``: small real data sets that need no network.

``digits``: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (Optical Recognition of Handwritten Digits, UCI).
``icons``: glyphs of the icon fonts in QtAwesome with their names as captions and 40 classes; all its test drawings are
held out from training. ``icons/FONT+FONT``: every glyph of some fonts with its caption, to train on.
``icons/FONT+FONT@1000``: so many of them with captions and drawings that differ, to retrieve among; of the split
``train`` they are glyphs that training on the fonts has seen, of ``test`` such that it has not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import fingerprint
from clipeval.datasets.adapters.icons import Glyph, is_held_out, load_glyphs, render
from clipeval.datasets.base import Prompts
from clipeval.datasets.images import require_unchanged
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, UsageError, suggest

if TYPE_CHECKING:
    from PIL import Image

NAMES = ("digits", "icons")
ICON_SIZE = 64
"""Side of an icon in pixels."""

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATES = ('a photo of the number: "{c}".', "a photo of the handwritten digit {c}.", "the digit {c}.")

# fmt: off
ICON_CLASSES = (
    "arrow", "battery", "bell", "book", "briefcase", "calendar", "car", "chart", "chat", "clipboard", "clock",
    "cloud", "currency", "database", "dice", "face", "file", "flag", "folder", "hand", "heart", "home", "hourglass",
    "image", "key", "lock", "map", "music", "phone", "printer", "robot", "shield", "star", "sun", "table", "tag",
    "truck", "user", "video", "wifi",
)
# fmt: on
"""What icons of several fonts show; the first word of an icon's name is its class."""

ICON_TEMPLATES = ("{c}", "{c} icon", "an icon of a {c}", "{c} outline", "{c} fill")
_ICONS_PER_CLASS = 40
"""Most test icons of one class: a few classes have many more drawings than the others."""


def open_builtin(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open a built-in data set. Raises UsageError for an unknown name, DataError for a split other than train, test
    and where the icon fonts are not installed."""
    kind, _, fonts = reference.partition("/")
    if kind not in NAMES or (kind == "digits" and fonts):
        raise UsageError(
            f"builtin:{reference}: there is no such data set.{suggest(kind, NAMES)} There are: {', '.join(NAMES)}."
        )
    if split not in ("train", "test"):
        raise DataError(f"{name}: builtin:{reference} has the splits train and test, not '{split}'.")
    if kind == "digits":
        return _digits(name, split, entry)
    if fonts:
        return _icons_of_fonts(name, split, fonts)
    return _class_icons(name, split, entry)


def _digits(name: str, split: str, entry: DatasetEntry) -> LoadedDataset:
    """Every fifth sample of each class is a test sample. Ink is black on white, as in the original scans."""
    ink, digits = _scikit_learn_digits()
    is_test = np.zeros(len(digits), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(digits == digit)[4::5]] = True
    chosen = np.flatnonzero(is_test == (split == "test"))
    pixels = (255 - np.rint(ink[chosen] * (255 / 16))).astype(np.uint8)
    labels = digits[chosen]
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels], labels),
        ids=[str(index) for index in chosen],
        read=_Pixels(pixels),
        labels=labels,
        prompts=load_prompts(name, _own_set(entry), entry.language, DIGIT_NAMES, DIGIT_TEMPLATES),
    )


def _scikit_learn_digits() -> tuple[np.ndarray, np.ndarray]:
    """What ``sklearn.datasets.load_digits`` returns, ``[1797, 8, 8]`` ink from 0 to 16 and ``[1797]`` int64, read from
    its file: importing scikit-learn takes seconds."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations
    table = np.loadtxt(Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _class_icons(name: str, split: str, entry: DatasetEntry) -> LoadedDataset:
    """Icons whose first word is a class. In the test split captions are unique and so are drawings."""
    glyphs = [glyph for glyph in load_glyphs() if glyph.caption.split()[0] in ICON_CLASSES]
    if split == "test":
        glyphs = _distinct([glyph for glyph in glyphs if is_held_out(glyph.name)], _ICONS_PER_CLASS, _first_word)
    else:
        glyphs = [glyph for glyph in glyphs if not is_held_out(glyph.name)]
    labels = np.array([ICON_CLASSES.index(glyph.caption.split()[0]) for glyph in glyphs], dtype=np.int64)
    prompts = load_prompts(name, _own_set(entry), entry.language, ICON_CLASSES, ICON_TEMPLATES)
    return _icon_dataset(name, split, glyphs, labels, prompts)


def _distinct(glyphs: Sequence[Glyph], most: int, group: Callable[[Glyph], str]) -> list[Glyph]:
    """At most ``most`` per group, chosen and ordered by a hash, one per caption and one per drawing."""
    chosen: list[Glyph] = []
    captions: set[str] = set()
    drawings: set[bytes] = set()
    counts: Counter[str] = Counter()
    for glyph in sorted(glyphs, key=lambda glyph: hashlib.sha256(f"{glyph.font}:{glyph.name}".encode()).digest()):
        if counts[group(glyph)] == most or glyph.caption in captions:
            continue
        drawing = render(glyph, ICON_SIZE).tobytes()
        if drawing not in drawings:
            chosen.append(glyph)
            captions.add(glyph.caption)
            drawings.add(drawing)
            counts[group(glyph)] += 1
    return chosen


def _first_word(glyph: Glyph) -> str:
    return glyph.caption.split()[0]


def _icons_of_fonts(name: str, split: str, reference: str) -> LoadedDataset:
    """``FONT+FONT`` or ``FONT+FONT@COUNT``."""
    fonts, at, count = reference.partition("@")
    glyphs = [glyph for glyph in load_glyphs(tuple(fonts.split("+"))) if is_held_out(glyph.name) == (split == "test")]
    if at:
        if not re.fullmatch("[0-9]{1,9}", count) or int(count) < 1:
            raise UsageError(f"builtin:icons/{reference:.80}: expected a number of glyphs after @, not '{count:.40}'.")
        glyphs = _distinct(glyphs, int(count), lambda glyph: "")
        if len(glyphs) < int(count):
            have = f"the split {split} has {len(glyphs)} different glyphs"
            raise DataError(f"builtin:icons/{reference}: {have}. Ask for fewer.")
    return _icon_dataset(name, split, glyphs, None, None)


def _icon_dataset(
    name: str, split: str, glyphs: Sequence[Glyph], labels: np.ndarray | None, prompts: Prompts | None
) -> LoadedDataset:
    captions = [(glyph.caption,) for glyph in glyphs]
    digests = [_drawn(glyph)[1] for glyph in glyphs]
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(digests, labels, captions),
        ids=[f"{glyph.font}/{glyph.name}" for glyph in glyphs],
        read=_Icons(name, glyphs, digests),
        labels=labels,
        prompts=prompts,
        captions=captions,
    )


def _own_set(entry: DatasetEntry) -> str | None:
    """These sets bring their prompts; CLIP_benchmark has none for them."""
    if entry.prompts == "clip_benchmark":
        raise DataError(f"{entry.spec}: CLIP_benchmark has no prompts for this data set: leave out prompts.")
    return entry.prompts


@dataclass(frozen=True)
class _Pixels:
    pixels: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        from PIL import Image

        return Image.fromarray(self.pixels[index]).convert("RGB")


@dataclass(frozen=True)
class _Icons:
    name: str
    glyphs: Sequence[Glyph]
    digests: Sequence[str]

    def __call__(self, index: int) -> Image.Image:
        glyph = self.glyphs[index]
        image, sha256 = _drawn(glyph)
        require_unchanged(sha256, self.digests[index], f"{self.name}: sample {glyph.font}/{glyph.name}")
        return image


def _drawn(glyph: Glyph) -> tuple[Image.Image, str]:
    image = render(glyph, ICON_SIZE)
    return image, hashlib.sha256(image.tobytes()).hexdigest()
