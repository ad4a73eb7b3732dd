"""``clipeval list WHAT [WORD]``."""

from __future__ import annotations

import json

import pytest

from clipeval import config
from clipeval.lists import LISTS, holding, print_list


@pytest.mark.parametrize(
    ("words", "present", "absent"),
    [
        (["models", "siglip2"], "ViT-B-16-SigLIP2,webli", "ViT-B-16-SigLIP,webli"),
        (["models", "DATACOMP-1B"], "ViTamin-L,datacomp1b", "ViT-B-32,openai"),
        (["models", "clip-wit"], "RN50,openai", "ViT-B-32,laion2b_s34b_b79k"),
        (["datasets", "babel"], "babel_imagenet", "imagenet1k"),
        (["datasets", "vtab/p"], "vtab/pets", "vtab/dtd"),
        (["suites", "crepe"], "sugar_crepe", "vtab"),
        (["tasks", "knn"], "knn_probe", "linear_probe"),
    ],
)
def test_a_word_filters(command, words, present, absent):
    code, out, _ = command("clipeval", "list", *words, "--json")
    assert code == 0
    names = {row.get("name") or row["model"] for row in json.loads(out)}
    assert present in names
    assert absent not in names
    everything = json.loads(command("clipeval", "list", words[0], "--json")[1])
    assert len(names) < len(everything)


def test_a_word_that_nothing_holds_is_an_empty_list(command):
    assert json.loads(command("clipeval", "list", "models", "nothing at all", "--json")[1]) == []
    code, out, _ = command("clipeval", "list", "suites", "nothing at all")
    assert (code, out.splitlines()[-1]) == (0, "0 suites")


def test_long_lists_are_short_on_the_terminal_and_whole_in_json(command):
    shown = command("clipeval", "list", "suites", "multilingual")[1]
    assert "and 420 more" in " ".join(shown.split())
    [row] = json.loads(command("clipeval", "list", "suites", "multilingual", "--json")[1])
    assert len(row["members"]) == row["n"] == 460


def test_why_a_set_cannot_be_measured(command):
    rows = {row["name"]: row for row in json.loads(command("clipeval", "list", "datasets", "--json")[1])}
    assert "watermark" in rows["imagenet-w"]["unavailable"]
    assert rows["imagenet1k"]["unavailable"] is None
    assert "TensorFlow" in command("clipeval", "list", "datasets", "vtab/cub")[1]


@pytest.mark.parametrize("what", ["models", "datasets", "suites", "tasks", "studies"])
def test_no_name_is_lost_or_broken_at_any_width(what, monkeypatch, capsys):
    rows = LISTS[what](config.load(None))
    names = [row.get("name") or row["model"] for row in rows]
    for width in (40, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        print_list(what, rows)
        lines = capsys.readouterr().out.splitlines()
        assert set(names) <= {line.strip().split("  ")[0] for line in lines}
        assert all(len(line) <= width or any(name in line for name in names) for line in lines)
        assert all(line == line.rstrip() for line in lines)
    if what == "datasets":
        assert "CLIP_benchmark makes it with TensorFlow Datasets" in " ".join(lines)


def test_a_data_set_is_one_line_on_a_narrow_screen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_list("datasets", holding("vtab/p", LISTS["datasets"](config.load(None))))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[2:4]} == {"vtab/pets", "vtab/pcam"}
    assert "classification, probe" in lines[2]
