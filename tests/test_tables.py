"""A sheet on screens of any width: no name, value or part of a number is lost, no line is too long."""

from __future__ import annotations

import itertools
import math
import re
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from clipeval.drawing import Column
from clipeval.tables import Sheet, estimate

WIDTHS = range(40, 201)
MODELS = (
    "m-material-64000",
    "ViT-H-14 · LAION-2B · 34.7B",
    "ViT-B-32-quickgelu · LAION-400M · 12.8B",
    "ViT-g-14,hf://laion/scaling-laws-openclip/Model-g-14_Data-2B_Samples-13B_lr-5e-4_bs-64k.pt",
    "日本語の名前",
)
WHY = "drop 8.34 points, at least 6.08, 1 allowed, p 5.8e-07; and a sentence that goes on for a while"


def sheet(models=MODELS, datasets=("icons-40", "material-held-out"), why=False):
    found = Sheet(
        "Zero-shot classification in % (95 % interval)",
        *(Column("model", "name"), Column("data set", "name")),
        *(Column("GMACs", "figure", 5), Column("samples seen", "figure", 6), Column("n", "figure", 7)),
        *(Column("top-1", "figure"), Column("top-5", "figure", 2), Column("mean per class", "figure", 3)),
        *((Column("why", "prose"),) if why else ()),
    )
    for k, (model, dataset) in enumerate(itertools.product(models, datasets)):
        values = (f"{k}{k}.{digit} ({k}0.{digit}–{k}9.{digit})" for digit in "123")
        found.add(model, dataset, "0.002753", "64k", "887", *values, *([WHY] if why else []))
    return found


def plain(found, width):
    return [line.plain for line in found.lines(width)]


@pytest.mark.parametrize("why", [False, True])
@pytest.mark.parametrize("count", range(1, len(MODELS) + 1))
def test_names_and_main_values_are_whole_at_every_width(count, why):
    found = sheet(MODELS[:count], why=why)
    for width in WIDTHS:
        lines = plain(found, width)
        text = "\n".join(lines)
        assert "…" not in text
        for k, (model, dataset) in enumerate(itertools.product(MODELS[:count], ("icons-40", "material-held-out"))):
            assert model in text
            assert dataset in text
            assert re.search(rf"(?<![\d.]){k}{k}\.1(?![\d.])", text)
            assert f"({k}0.1–{k}9.1)" in text
        assert not why or " ".join(WHY.split()) in re.sub(r"\s+", " ", text)
        assert [line for line in lines if line != line.rstrip()] == []
        too_long = [line for line in lines if cell_len(line) > width]
        assert all(any(model in line for model in MODELS) for line in too_long), (width, too_long)


def test_wider_screens_have_no_fewer_columns():
    shown = [sum(head in "\n".join(plain(sheet(), width)[1:3]) for head in ("top-5", "n ")) for width in WIDTHS]
    assert shown == sorted(shown)
    assert shown[-1] == 2


def test_what_leaves_first_and_what_is_said_of_it():
    """The columns in the order of their ranks, highest first: n, samples seen, GMACs, mean per class, top-5."""
    left = ["n", "samples seen", "GMACs", "mean per class", "top-5"]
    seen = set()
    for width in WIDTHS:
        _, _, said = " ".join(plain(sheet(MODELS[:2]), width)).partition("No room here for: ")
        out = {name for name in left if re.search(rf"(^|, ){name}(,|$)", said)}
        assert out == set(left[: len(out)])
        seen.add(len(out))
    assert {0, 5} < seen


def test_a_name_that_all_lines_share_is_said_once():
    lines = plain(sheet(datasets=("icons-40",)), 200)
    assert lines[0] == "Zero-shot classification in % (95 % interval): icons-40"
    assert sum("icons-40" in line for line in lines) == 1
    lines = plain(sheet(models=MODELS[:1], datasets=("icons-40",)), 200)
    assert lines[0].endswith(f": {MODELS[0]}")
    assert lines[3].startswith(" icons-40 ")


def test_the_drawing_to_the_letter():
    found = Sheet("T", Column("data set", "name"), Column("source", "name"), Column("a", "figure"), Column("verdict"))
    for row in (("birds", "x", "-0.1 [-0.2, 0.0]", "scaling"), ("birds", "yy", "1", "–"), ("cars", "x", "2", "–")):
        found.add(*row)
    found.legend.append("scaling: it falls")
    assert plain(found, 60) == [
        "T",
        " data set   source                  a   verdict",
        " ──────────────────────────────────────────────",
        " birds      x        -0.1 [-0.2, 0.0]   scaling",
        " birds      yy                      1   –",
        " cars       x                       2   –",
        "scaling: it falls",
    ]
    assert plain(found, 36) == [
        "T",
        "   source                 a  verdict",
        " ───────────────────────────────────",
        " birds",
        "   x       -0.1 [-0.2, 0.0]  scaling",
        "   yy                     1  –",
        " cars",
        "   x                      2  –",
        "scaling: it falls",
    ]
    assert plain(found, 34)[4:7] == [
        "   x              -0.1  scaling",
        "           [-0.2, 0.0]",
        "   yy                1  –",
    ]


NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Co", "Cn"]), min_size=1)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=4), st.integers(40, 200))
def test_any_names(rows, width):
    found = Sheet("", *(Column(head, "name") for head in "abc"), Column("v", "figure"))
    for number, row in enumerate(rows):
        found.add(*row, f"{number}.5")
    text = "\n".join(plain(found, width))
    for stored in found.rows:
        assert all(cell in text for cell in stored)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.floats(-1e4, 1e4),
    st.floats(1e-3, 1e3),
    st.floats(0.0, 1.0),
)
def test_an_estimate_has_two_figures_of_half_its_interval(low, width, share):
    """By decimal arithmetic: all three are rounded to the second figure of half the width."""
    high = low + width
    shown = [Decimal(figure) for figure in re.findall(r"-?[\d.]+", estimate(low + share * width, low, high))]
    half = Decimal(f"{(high - low) / 2:.14g}")  # 0.145 - 0.125 is 0.02 less one bit
    step = Decimal(1).scaleb(half.adjusted() - 1)
    coarsest = Decimal(1).scaleb(max(Decimal(abs(end)).adjusted() for end in (low, high)) - 5)
    for figure, exact in zip(shown, (low + share * width, low, high), strict=True):
        assert abs(figure - Decimal(exact)) <= max(step, coarsest) * Decimal("0.5000001")
        assert figure == figure.quantize(max(step, coarsest * Decimal("0.1")), ROUND_HALF_EVEN)


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ((-0.163775, -0.277430, -0.0501195), "-0.16 [-0.28, -0.05]"),
        ((-0.00178152, -0.00311085, -0.000452194), "-0.0018 [-0.0031, -0.0005]"),
        ((0.2, 0.2, 0.2), "0.200000 [0.200000, 0.200000]"),
        ((-0.00001, -0.5, 0.5), "0.00 [-0.50, 0.50]"),
        ((0.5, math.nan, math.nan), "0.500"),
        ((math.nan, 0.1, 0.2), "–"),
    ],
)
def test_estimates(figures, shown):
    assert estimate(*figures) == shown


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ((46.7276, 0.0645768, 33812.0), "47 [0.065, 34000]"),
        ((1.1742, 1.04824, 1.31523), "1.17 [1.05, 1.32]"),
        ((2.53669e11, 2.39e9, 1.65e13), "2.5e+11 [2.4e+09, 1.65e+13]"),
        ((0.06674, 0.00497, 0.212), "0.067 [0.0050, 0.21]"),
    ],
)
def test_each_end_of_a_ratio_has_two_figures_at_least(figures, shown):
    assert estimate(*figures, ratio=True) == shown
