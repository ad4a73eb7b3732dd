"""Brace patterns: what braceexpand makes of them, counted before."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from braceexpand import braceexpand

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets import braces
from clipeval.errors import DataError
from clipeval_train.input import files

PARTS = ["{", "}", ",", "a", "0", "1..3", "{0..4}", "{09..11..2}", "{5..1}", "{a..c}", "{x,}", "..", "-", "\\"]
HOSTILE = [
    "{0..999999999}",
    "{000000..999999}{0..1}",
    "{a,b}" * 22,
    "{{a,b}{a,b}," * 5 + "}" * 5 + "{0..9}" * 7,
    "{1..99999999999999999999999}",
    "{" + "9" * 5000 + "..1}",
    "{" * 5000 + "}" * 5000,
    "{a," * 5000 + "}" * 5000,
    "{0..9999}" + "x" * 50_000,
    "{0..1",
    "0..1}",
    "}{",
]


def test_patterns_expand_as_braceexpand_does() -> None:
    rng = random.Random(1)
    expanded = 0
    for _ in range(20_000):
        pattern = "".join(rng.choices(PARTS, k=rng.randint(1, 7)))
        try:
            found = braces.expand(pattern)
        except ValueError:
            assert "{" in pattern or "}" in pattern
            continue
        assert found == list(braceexpand(pattern))
        expanded += 1
    assert expanded > 8000


@pytest.mark.parametrize("pattern", ["{000..127}", "{a,b}-{0..9}", "{a,{b,c}{1..3}}", "x{,y}{5..1..2}"])
def test_names_are_counted_exactly(pattern: str) -> None:
    assert braces._Count(pattern).names() == len(list(braceexpand(pattern)))


@pytest.mark.parametrize("pattern", HOSTILE)
def test_too_many_names_are_an_error_at_once(tmp_path: Path, pattern: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError):
        braces.expand(pattern)
    for reference in (f"{tmp_path}/{pattern}.tar", f"{tmp_path}/list.txt"):
        (tmp_path / "list.txt").write_text(f"a.tar\n{pattern}.tar\n")
        with pytest.raises(DataError, match=r"Write \{00000\.\.00099\}\.|characters are more than the limit"):
            datasets.open_dataset("x", DatasetEntry(spec=f"wds:{reference}"))
    with pytest.raises(DataError, match=r"data: s: .*Write \{00000\.\.00099\}\."):
        files.expand("s", f"{tmp_path}/{pattern}.tar")
    assert time.monotonic() - started < 2


def test_a_list_of_many_patterns_has_a_limit_too(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("{0..999998}.tar\nb{0..9}.tar\n")
    with pytest.raises(DataError, match="names more than 1,000,000 shards"):
        datasets.open_dataset("x", DatasetEntry(spec=f"wds:{tmp_path}/list.txt"))
