"""Every section of the GPU benchmark runs on a CPU with a toy, and what is broken is told and ends in exit code 1."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import gpu
from bench.gpu_sections import NAMES, Section, _nearness, relative


@pytest.fixture
def section(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "own"))  # sections set it: it comes back behind the test
    return Section(tmp_path, "cpu", small=True)


def test_every_section_has_a_title():
    assert {name.split()[0] for name in gpu.SECTIONS} == set(NAMES)


def test_evaluator(section):
    NAMES["evaluator"](section, "ViT-B-32")
    assert section.problems == []
    assert [row["precision"] for row in section.rows] == ["fp32", "tf32", "bf16", "bf16-weights", "fp16"]
    measured = [row for row in section.rows if not str(row["batch"]).startswith("needs a CUDA GPU")]
    assert [row["precision"] for row in measured] == ["fp32", "bf16", "bf16-weights"]
    for row in measured:
        assert all(row[f"{what}, images/s"] > 0 for what in ("from JPEGs", "pixels read", "from cached pixels"))
    assert measured[0]["difference"] <= 1e-5
    assert 1e-4 < measured[1]["difference"] < 0.1
    assert measured[0]["same top-1"] == "100.00%"
    assert measured[0]["CLIP_benchmark, images/s"] > 0, "the peer of this environment"
    assert measured[2]["CLIP_benchmark, images/s"] is None


@pytest.mark.parametrize(
    ("name", "column"),
    [("memory", "batch"), ("compile", "ratio"), ("probe", "same predictions"), ("trainer", "steps/s")],
)
def test_other_sections(section, name, column):
    NAMES[name](section)
    assert section.problems == []
    assert all(column in row for row in section.rows)
    assert section.rows


def test_a_broken_row_does_not_hide_the_next(section):
    for number in (0, 1):
        with section.row(precision=number) as row:
            row["found"] = 1 / number
    assert [row.get("found") for row in section.rows] == [None, 1]
    assert section.problems == ["0: ZeroDivisionError: division by zero"]


def test_wrong_embeddings_are_broken(section):
    rng = np.random.default_rng(0)
    images, classes = rng.normal(size=(40, 8)), rng.normal(size=(5, 8))
    off = images.copy()
    off[3] += 1e-3 * np.linalg.norm(off[3]) / np.sqrt(8)
    assert relative(off, images) == pytest.approx(1e-3)
    row: dict = {}
    _nearness(section, "arch fp32", "fp32", [off, classes], [images, classes], row)
    _nearness(section, "arch tf32", "tf32", [off, classes], [images, classes], row)
    assert section.problems == ["arch fp32: embeddings differ by 0.001, not 0.0001"]
    off[3] = np.nan
    _nearness(section, "arch tf32", "tf32", [off, classes], [images, classes], row)
    assert section.problems[1:] == ["arch tf32: embeddings differ by inf, not 0.01"]
    section.problems.clear()
    _nearness(section, "arch fp32", "fp32", [images, classes[::-1]], [images, classes[::-1] * 1.0], row)
    assert section.problems == []


def test_what_is_broken_is_told_and_written(monkeypatch, tmp_path, capsys):
    """In processes of their own: the first is no section at all, the second is there all the same."""
    monkeypatch.setattr(gpu, "SECTIONS", {"nothing": "Nothing", "memory": "Memory"})
    monkeypatch.setattr(gpu, "machine", lambda: "Card (4.5 GHz), 2 cores")
    with pytest.raises(SystemExit) as ended:
        gpu.main("--device", "cpu", "--small", "-o", str(tmp_path))
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "BROKEN: nothing: ended in 1: " in out
    assert "KeyError: 'nothing'" in out
    assert "| needs a CUDA GPU |" in out
    text = (tmp_path / "Card-4.5-GHz-2-cores.md").read_text()
    assert "## Memory\n\n| batch |\n| --- |\n| needs a CUDA GPU |\n" in text
    assert "## Broken\n\n- nothing: " in text
    document = json.loads((tmp_path / "Card-4.5-GHz-2-cores.json").read_text())
    assert document["sections"] == {"nothing": [], "memory": [{"batch": "needs a CUDA GPU"}]}


def test_a_table_has_the_columns_of_all_rows():
    rows = [{"a": 1, "b": 1234.5}, {"a": "x|y", "c": 0.00123456}]
    assert gpu.markdown(rows).splitlines() == [
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1 | 1,234 | – |",
        "| x/y | – | 0.00123 |",
    ]
