"""The built-in data sets: handwritten digits and icons."""

from __future__ import annotations

import importlib.util
import pickle
from collections import Counter

import numpy as np
import pytest

from clipeval import config, datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.adapters import icons
from clipeval.datasets.adapters.builtin import ICON_CLASSES
from clipeval.datasets.adapters.icons import Glyph, is_held_out, load_glyphs, render
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError


def opened(name: str, split: str | None = None) -> Dataset:
    selection = datasets.resolve([f"builtin:{name}"], config.load())
    ((found, entry),) = selection.datasets.items()
    return datasets.open_dataset(found, entry, split, offline=True)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    test, train = opened("digits"), opened("digits", "train")
    assert (len(test), len(train)) == (355, 1442)
    assert sorted([int(i) for i in (*test.ids, *train.ids)]) == list(range(1797))
    for dataset in (test, train):
        assert dataset.labels is not None
        index = np.array([int(i) for i in dataset.ids])
        assert np.array_equal(dataset.labels, bunch.target[index])
        assert np.bincount(dataset.labels).min() >= 34  # every class in both splits, about evenly
        for position in (0, 7, len(dataset) - 1):
            image = dataset.image(position)
            assert (image.mode, image.size) == ("RGB", (8, 8))
            ink = (255 - np.asarray(image)[:, :, 0].astype(float)) * 16 / 255
            assert np.abs(ink - bunch.images[index[position]]).max() < 0.05
    assert test.prompts is not None
    assert " ".join(test.prompts.classes) == "zero one two three four five six seven eight nine"
    assert test.prompts.texts()[3][0] == 'a photo of the number: "three".'
    assert test.fingerprint == opened("digits").fingerprint != train.fingerprint


def test_icons_serve_three_tasks() -> None:
    test, train = opened("icons"), opened("icons", "train")
    assert (len(test), len(train)) == (887, 3011)
    assert datasets.capabilities(test) == {"labels", "prompts", "captions"}
    assert test.prompts is not None
    assert test.prompts.classes == ICON_CLASSES
    assert len(ICON_CLASSES) == len(set(ICON_CLASSES)) == 40
    for dataset in (test, train):
        assert dataset.labels is not None
        assert dataset.captions is not None
        for sample, label, texts in zip(dataset.ids, dataset.labels, dataset.captions, strict=True):
            assert texts == (sample.split("/")[1].replace("-", " "),)
            assert texts[0].split()[0] == ICON_CLASSES[label]
    counts = np.bincount(test.labels, minlength=40)
    assert (counts.min(), counts.max()) == (9, 40)
    assert np.bincount(train.labels, minlength=40).min() >= 16
    fonts = Counter(sample.split("/")[0] for sample in test.ids)
    assert len(fonts) == 7
    image = test.image(5)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert pickle.loads(pickle.dumps(test)).image(5).tobytes() == image.tobytes()


def test_test_icons_are_unique_and_never_seen_in_training() -> None:
    test = opened("icons")
    assert test.captions is not None
    assert len(set(test.captions)) == len(test)
    drawings = {test.image(index).tobytes() for index in range(len(test))}
    assert len(drawings) == len(test)
    training = [glyph for glyph in load_glyphs() if not is_held_out(glyph.name)]
    assert not drawings & {render(glyph, 64).tobytes() for glyph in training}
    assert not {texts[0] for texts in test.captions} & {glyph.caption for glyph in training}


def test_icons_by_font() -> None:
    train, test = opened("icons/elusive+codicon", "train"), opened("icons/elusive+codicon")
    assert train.name == "icons/elusive+codicon"
    assert len(train) + len(test) == len(load_glyphs(("elusive", "codicon"))) == 304 + 459
    assert datasets.capabilities(train) == {"captions"}
    assert not set(train.captions or ()) & set(test.captions or ())
    assert {sample.split("/")[0] for sample in train.ids} == {"elusive", "codicon"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_so_many_different_icons_by_font(split: str) -> None:
    everything, some = opened("icons/phosphor+remix", split), opened("icons/phosphor+remix@73", split)
    assert len(some) == 73
    assert set(some.ids) < set(everything.ids)
    assert some.captions is not None
    assert len(set(some.captions)) == 73
    assert len({some.image(index).tobytes() for index in range(73)}) == 73
    fewer = opened("icons/phosphor+remix@20", split)
    assert list(fewer.ids) == list(some.ids)[:20]
    assert {is_held_out(sample.split("/")[1]) for sample in some.ids} == {split == "test"}


def test_glyphs() -> None:
    glyphs = load_glyphs()
    assert len(glyphs) == len({(glyph.font, glyph.codepoint) for glyph in glyphs}) == 16931
    assert load_glyphs() == glyphs
    alert = next(glyph for glyph in glyphs if glyph.name == "account-alert-outline")
    assert alert == Glyph("material", "account-alert-outline", "account alert outline", alert.codepoint)
    held_out = [is_held_out(glyph.name) for glyph in glyphs]
    assert 0.2 < np.mean(held_out) < 0.3


def test_held_out_ignores_order_repetition_and_style() -> None:
    for names in (
        ("arrow-up-circle", "circle-arrow-up", "arrow-circle-up-bold", "arrow-up-circle-outline"),
        ("chart", "chart-line", "chart-fill"),
        ("heart", "heart-light", "heart-alt-fill"),
    ):
        assert len({is_held_out(name) for name in names}) == 1
    assert len({is_held_out(f"icon-{index}") for index in range(50)}) == 2


@pytest.mark.parametrize("size", [16, 33, 64])
def test_every_glyph_is_drawn_whole_and_centred(size: int) -> None:
    for glyph in load_glyphs()[::97]:
        image = render(glyph, size)
        assert (image.mode, image.size) == ("RGB", (size, size))
        dark = np.asarray(image)[:, :, 0] < 255
        rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
        assert rows.size, f"{glyph} is blank"
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 0.875 * size + 2
        for found in (rows, columns):
            assert abs((found[0] + found[-1]) / 2 - (size - 1) / 2) <= 0.5, glyph


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    icons._font.cache_clear()
    with pytest.raises(DataError, match=r"not installed\. Install it with: pip install 'clipeval\[demo\]'"):
        opened("icons")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("digit", UsageError, r"builtin:digit: there is no such data set\. Did you mean 'digits'\?"),
        ("digits/8", UsageError, r"there is no such data set"),
        ("icons/elusive@many", UsageError, r"icons/elusive@many: expected a number of glyphs after @, not 'many'"),
        ("icons/elusive@0", UsageError, r"not '0'"),
        ("icons/elusive@5000", DataError, r"the split test has \d+ different glyphs\. Ask for fewer"),
        (
            "icons/materials",
            UsageError,
            r"'materials' is not an icon font\. Did you mean 'material'\? Fonts: material,",
        ),
    ],
)
def test_wrong_names(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        opened(name)


def test_wrong_splits_and_prompts() -> None:
    with pytest.raises(DataError, match=r"has the splits train and test, not 'val'"):
        opened("digits", "val")
    with pytest.raises(DataError, match=r"CLIP_benchmark has no prompts for this data set"):
        datasets.open_dataset("digits", DatasetEntry(spec="builtin:digits", prompts="clip_benchmark"))
