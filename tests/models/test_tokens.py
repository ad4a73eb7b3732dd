"""Tokens are made once per tokenizer and text, and are those that the tokenizer makes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import open_clip
import pytest
import torch
from helpers import image_folder, tiny_checkpoint

import clipeval
from clipeval.models import tokens
from clipeval.models.tokens import Remembering

TEXTS = ["a", "b " * 90, "", "a photo of a cat", "a", "&amp; é", "b " * 90]


class Counting:
    """open_clip's tokenizer, which counts what it is given."""

    context_length = 77

    def __init__(self, shift=0):
        self.seen = Counter()
        self._shift = shift

    def __call__(self, texts, context_length=None):
        self.seen.update((text, context_length) for text in texts)
        return open_clip.SimpleTokenizer()(texts, context_length=context_length) + self._shift


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(tokens, "_kept", {})


def test_they_are_the_tokenizers_own():
    remembering = Remembering(Counting(), "x")
    for chosen in (TEXTS, TEXTS[::-1], ["new", *TEXTS[2:4]], []):
        found = remembering(chosen)
        assert found.dtype == torch.int64
        assert torch.equal(
            found, open_clip.SimpleTokenizer()(chosen) if chosen else torch.empty(0, 77, dtype=torch.int64)
        )
    longer = open_clip.SimpleTokenizer()(TEXTS, context_length=78)
    assert torch.equal(remembering(TEXTS, context_length=78), longer)


def test_each_text_once_for_all_checkpoints_of_one_tokenizer():
    one, same, other = Counting(), Counting(), Counting(1)
    Remembering(one, "x")(TEXTS)
    Remembering(same, "x")([*TEXTS, "new"])
    assert set(one.seen.values()) == {1}
    assert set(same.seen) == {("new", 77)}
    assert torch.equal(Remembering(other, "y")(TEXTS), open_clip.SimpleTokenizer()(TEXTS) + 1)


def test_what_is_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr(tokens, "_MOST", 77 * 6)
    counting = Counting()
    remembering = Remembering(counting, "x")
    for _ in range(3):
        for chosen in (TEXTS, ["c", "d"], [f"text {number}" for number in range(9)]):
            assert torch.equal(remembering(chosen), open_clip.SimpleTokenizer()(chosen))
    assert sum(one.tokens.size for one in tokens._kept.values()) <= 77 * 9, "of one call"


def test_what_the_caller_does_with_them_is_its_own_affair():
    remembering = Remembering(Counting(), "x")
    remembering(["a", "b"])[:] = 0
    assert np.array_equal(remembering(["b"]), open_clip.SimpleTokenizer()(["b"]))


def test_a_run_makes_the_tokens_of_a_prompt_once(tmp_path, monkeypatch):
    seen = Counter()
    real = open_clip.SimpleTokenizer.__call__

    def counted(self, texts, context_length=None):
        seen.update(texts)
        return real(self, texts, context_length)

    monkeypatch.setattr(open_clip.SimpleTokenizer, "__call__", counted)
    models = [str(tiny_checkpoint(tmp_path / f"{number}.pt", number)) for number in range(3)]
    image_folder(tmp_path / "colours")
    frame = clipeval.run(models, f"folder:{tmp_path}/colours", "classification", out=tmp_path / "out", workers=0)
    assert set(frame.status) == {"ok"}
    prompts = {text: count for text, count in seen.items() if "red" in text}
    assert prompts
    assert set(prompts.values()) == {1}
