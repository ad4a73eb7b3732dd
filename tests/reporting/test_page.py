"""The numbers of the page are those of the table, whatever names are in it."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
import sys

import made
import numpy as np
import pandas as pd
import pytest
from made import HOSTILE, column, data, drawn, parse, row, shown, table
from plotly.offline import get_plotlyjs

import clipeval
from clipeval import cli, vocabulary
from clipeval.errors import MeasureError, UsageError
from clipeval.reporting import page


@pytest.fixture(scope="module")
def tree(run):
    return parse(run.page)


def board(tree, title):
    """The lines of a leaderboard as lists of texts."""
    models, found = data(tree, "tables")["models"], drawn(tree, "board", title)
    return [
        [
            str(found["ranks"][i] or "–"),
            " ".join([models[number][0], found["notes"].get(str(i), "")]).strip(),
            *(shown(tree, column[i]) for column in found["cells"]),
        ]
        for i, number in enumerate(found["models"])
    ]


def page_of(rows, tmp_path):
    return parse(clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page"))


def test_every_number_of_the_boards_is_the_tables(run, tree):
    frame = clipeval.read_results(run.results)
    tables = data(tree, "tables")
    boards = [found for name, found in tables["tables"].items() if name.startswith("board")]
    seen = set()
    for found in boards:
        for heading, cells in zip(found["columns"], found["cells"], strict=True):
            for number, model in zip(cells, found["models"], strict=True):
                expected = frame.loc[number]
                assert expected["model"] == tables["models"][model][1]
                assert vocabulary.metric(expected["metric"]).heading == heading[0]
                seen.add(number)
    earlier = frame["model"].str.contains("000500")
    assert seen == set(frame.index[(frame["status"] == "ok") & ~earlier]), (
        "the earlier checkpoint is in the curves only"
    )


def test_lines_are_ranked_and_told_apart(tmp_path):
    rows = [
        row("a", value=0.5, ci_low=0.4, ci_high=0.6),
        row("b", value=0.75),
        row("c", value=0.5),
        row("d", value=0.25, precision="fp16"),
        row("d", value=0.855, precision="fp32", limit=7, status="limited"),
        row("e", value=math.nan, status="failed", error="out of memory"),
        row("f", value=math.inf),
    ]
    lines = board(page_of(rows, tmp_path), "digits")
    assert [line[:3] for line in lines] == [
        ["1", "b", "75.0"],
        ["2", "a", "50.0 40.0–60.0"],
        ["2", "c", "50.0"],
        ["4", "d precision fp16", "25.0"],
        ["–", "d limited to 7 samples · precision fp32", "85.5"],
        ["–", "e", "missing: failed: out of memory"],
        ["–", "f", "missing: the value is not a finite number"],
    ]


def test_less_may_be_better(tmp_path):
    rows = [row(m, metric="calibration", value=v, higher_is_better=False) for m, v in (("a", 0.3), ("b", 0.1))]
    assert [line[1] for line in board(page_of(rows, tmp_path), "digits")] == ["b", "a"]


def test_a_loss_is_shown_as_it_is_and_less_of_it_is_better(tmp_path):
    """4.2 is no 420 %: on boards, in the overview and the heat map; its colours and ranks know that less is better."""
    rows = [
        row(m, "c4", "loss", value=v, ci_low=v - 0.01, ci_high=v + 0.01, higher_is_better=False, task="text")
        for m, v in (("a", 4.2), ("b", 3.15625))
    ]
    rows += [row("a", "fluent", "perplexity", value=81.5, task="text"), row("a"), row("b", value=0.6)]
    tree = page_of(rows, tmp_path)
    tables, models = data(tree, "tables")["tables"], data(tree, "tables")["models"]
    flags = {
        (name.partition("-")[0], column[0]): (column[2], column[3])
        for name, found in tables.items() if not name.startswith("heat") for column in found["columns"]
    }  # fmt: skip
    assert flags["board", "loss"] == flags["overview", "c4"] == (True, False)
    assert flags["board", "perplexity"] == (False, False)
    assert flags["board", "Top-1"] == flags["overview", "digits"] == (False, True)
    heat = drawn(tree, "heat", "text")
    assert [(title, percent) for title, _, _, percent in heat["columns"]] == [("c4", False), ("fluent", False)]
    assert {models[m][0]: place for m, place in zip(heat["models"], heat["places"][0], strict=True)} == {"b": 1, "a": 0}
    assert heat["means"] == [None, None], "of a loss and another scale there is no mean"
    markdown = (tmp_path / "page/report.md").read_text()
    assert "| 1 | b | toy | 1k | 0.5 | 3.156 (3.146–3.166) |" in markdown
    assert "3.156" in tree.one("section", id="findings").text


def test_missing_cells_say_why(tmp_path):
    rows = [
        row("a"),
        row("a", "icons"),
        row("b"),
        row("c", "icons", value=math.nan, status="failed", error="out of memory"),
        row("c", "digits", value=math.nan),
        row("d", "pairs", task="zeroshot_retrieval", value=math.nan, status="skipped", error="no captions"),
    ]
    tree = page_of(rows, tmp_path)
    lines = [
        [cell.text for cell in line.children if isinstance(cell, made.Element)]
        for line in tree.one("section", id="missing").one("tbody").all("tr")
    ]
    assert sorted(map(tuple, lines)) == [
        ("digits", "Zero-shot classification", "the value is not a finite number", "c"),
        ("icons", "Zero-shot classification", "failed: out of memory", "c"),
        ("icons", "Zero-shot classification", "not in these results", "b"),
        ("pairs", "Zero-shot retrieval", "skipped: no captions", "d"),
    ]
    heat, models = drawn(tree, "heat", "Zero-shot"), data(tree, "tables")["models"]
    assert [title for title, *_ in heat["columns"]] == ["digits", "icons"]
    cells = {
        models[number][0]: [shown(tree, column[i]) for column in heat["cells"]]
        for i, number in enumerate(heat["models"])
    }
    assert cells == {
        "a": ["50.0", "50.0"],
        "b": ["50.0", "not in these results"],
        "c": ["missing: the value is not a finite number", "missing: failed: out of memory"],
    }


def test_heat_map_colours_run_from_lowest_to_highest(tmp_path):
    rows = [row(m, d, value=v) for m, d, v in (("a", "x", 0.2), ("b", "x", 0.3), ("c", "x", 0.6), ("a", "y", 0.9))]
    tree = page_of(rows, tmp_path)
    heat, models = drawn(tree, "heat", "Zero-shot"), data(tree, "tables")["models"]
    places = {models[number][0]: [places[i] for places in heat["places"]] for i, number in enumerate(heat["models"])}
    assert places == {"a": [0, 0.5], "b": [0.25, None], "c": [1, None]}


def test_weak_checkpoints_do_not_flatten_the_colours(tmp_path):
    """The scale ends as far below the median as the best is above it: 0.8 - 2 * 0.1."""
    values = {"best": 0.9, "good": 0.85, "median": 0.8, "fair": 0.75, "broken": 0.01}
    tree = page_of([row(model, value=value) for model, value in values.items()], tmp_path)
    heat, models = drawn(tree, "heat", "Zero-shot"), data(tree, "tables")["models"]
    [places] = heat["places"]
    assert {models[number][0]: place for number, place in zip(heat["models"], places, strict=True)} == {
        "best": 1, "good": 0.75, "median": 0.5, "fair": 0.25, "broken": 0,
    }  # fmt: skip


def test_columns_stand_by_suite_in_the_order_of_the_configuration(tmp_path):
    sets = ["vtab/dtd", "objectnet", "my-own", "imagenetv2", "vtab/cifar100", "imagenet1k"]
    heat = drawn(page_of([row("a", name) for name in sets], tmp_path), "heat", "Zero-shot")
    assert [(suite, title) for title, _, suite, _ in heat["columns"]] == [
        ("VTAB+", "ImageNet"),
        ("ImageNet robustness", "imagenetv2"),
        ("ImageNet robustness", "objectnet"),
        ("VTAB", "cifar100"),
        ("VTAB", "dtd"),
        ("Other data sets", "my-own"),
    ]


def test_a_rank_counts_those_whose_interval_lies_beyond(tmp_path):
    """By hand: c's upper end 0.62 is below a's lower end only; d's 0.5 below those of a and b and not of c (0.5)."""
    ends = {"a": (0.65, 0.75), "b": (0.6, 0.7), "c": (0.5, 0.62), "d": (0.4, 0.5), "e": (0.1, 0.2)}
    rows = [row(m, value=(low + high) / 2, ci_low=low, ci_high=high) for m, (low, high) in ends.items()]
    assert [line[:2] for line in board(page_of(rows, tmp_path), "digits")] == [
        ["1", "a"], ["1", "b"], ["2", "c"], ["3", "d"], ["5", "e"],
    ]  # fmt: skip
    losses = [r | {"metric": "contrastive_loss", "higher_is_better": False} for r in rows]
    assert [line[:2] for line in board(page_of(losses, tmp_path), "digits")] == [
        ["1", "e"], ["2", "d"], ["2", "c"], ["3", "b"], ["4", "a"],
    ]  # fmt: skip


def test_the_overview_averages_what_is_whole(tmp_path):
    """A suite that all data sets of are there has its mean, with the interval of clipeval's own averages; a checkpoint
    that lacks one has none. A task without a suite has the mean over its data sets."""
    members = ("imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet")
    rows = [
        row(m, d, value=0.1 * i, ci_low=0.1 * i - 0.05, ci_high=0.1 * i + 0.05)
        for m in "ab" for i, d in enumerate(members, start=1) if (m, d) != ("b", "objectnet")
    ]  # fmt: skip
    rows += [
        row("a", d, task="zeroshot_retrieval", metric=f"{way}_retrieval_recall@5", value=value)
        for d, values in (("x", (0.2, 0.4)), ("y", (0.6, 1.0)))
        for way, value in zip(("image", "text"), values, strict=True)
    ]  # fmt: skip
    tree = page_of(rows, tmp_path)
    found, models = drawn(tree, "overview", ""), data(tree, "tables")["models"]
    assert [models[number][0] for number in found["models"]] == ["a", "b"]
    heads = {
        (title, under): column for (title, *_, under), column in zip(found["columns"], found["cells"], strict=True)
    }
    [value, low, high], lacking = heads["ImageNet robustness", "Top-1"]
    assert (value, high - low) == (pytest.approx(0.3), pytest.approx(2 * 0.05 / math.sqrt(5)))
    assert lacking is None
    assert heads["Mean of 2 data sets", "Mean R@5"][0][0] == pytest.approx((0.2 + 0.4 + 0.6 + 1.0) / 4)


def test_names_are_short_and_lead_to_the_spec(tmp_path):
    spec = "ViT-H-14,hf://laion/scaling-laws-openclip/Model-H-14_Data-2B_Samples-34B_lr-5e-4_bs-79k.pt"
    rows = [row(spec, arch="ViT-H-14", source="LAION-2B", samples_seen=34e9), row("ours")]
    tree = page_of(rows, tmp_path)
    assert [m[:2] for m in data(tree, "tables")["models"]] == [["ViT-H-14 · LAION-2B · 34B", spec], ["ours", "ours"]]
    markdown = (tmp_path / "page/report.md").read_text()
    assert "| 1 | ViT-H-14 · LAION-2B · 34B |" in markdown
    assert f"| ViT-H-14 · LAION-2B · 34B | {spec} |" in html.unescape(markdown)
    assert clipeval.read_results(tmp_path / "page/results.csv")["model"].tolist() == [spec, "ours"]


def test_every_column_of_every_row_is_one_click_away(run, tree):
    frame, inlined = clipeval.read_results(run.results), data(tree, "rows")
    for number in range(len(frame)):
        for name in frame:
            value, found = frame.loc[number, name], column(inlined, name, number)
            if pd.isna(value):
                assert found is None
            else:
                assert found == value, f"{name} of row {number}"
    commands = [command for command in inlined["command"]["values"] if command]
    assert any(
        re.fullmatch(r"clipeval run -m \S+ -d colours -t linear_probe --shots 2 --seed 0 --precision fp32", c)
        for c in commands
    )
    assert any("--shots full" in c for c in commands)


def test_hostile_names_are_inert(tmp_path):
    rows = [
        row(f"{HOSTILE} {i}", HOSTILE, metric=metric, value=0.1 + i / 10, source=HOSTILE, source_family=HOSTILE,
            arch=HOSTILE, gmacs_total=10.0**i, error=HOSTILE, shots=shots, task=task, samples_seen=samples)
        for i in range(4) for metric in ("acc1", HOSTILE) for samples in (1e3, 2e3)
        for task, shots in (("zeroshot_classification", None), ("linear_probe", 5), (HOSTILE, None))
    ]  # fmt: skip
    rows.append(row(HOSTILE, HOSTILE, value=math.nan, status="failed", error=HOSTILE))
    folder = table(rows, tmp_path / "results")
    tree = parse(clipeval.report(folder, tmp_path / "page"))
    assert len(list(tree.all("script"))) == 7
    assert not list(tree.all("img"))
    assert all(
        "onerror" not in e.attributes for tag in ("td", "tr", "th", "option", "button", "div") for e in tree.all(tag)
    )
    assert f"{HOSTILE} 3" in {spec for _, spec, *_ in data(tree, "tables")["models"]}
    assert board(tree, HOSTILE[:9])[0][1].endswith("3"), "the name without the folder that all have in common"
    for name in ("rows", "figures", "pairs", "tables"):
        assert "<" not in "".join(tree.one("script", id=name).children)
    names = {trace["name"] for figure in data(tree, "figures").values() for trace in figure["data"] if "name" in trace}
    assert names
    formulas = r"<sup>[−\d.]+</sup>"
    assert not [name for name in names if "<" in re.sub(formulas, "", name)], "Plotly reads HTML in names"
    markdown = (tmp_path / "page/report.md").read_text()
    assert "<script" not in markdown.replace("\\<script", "")


def test_only_our_scripts_may_run_and_nothing_is_loaded(tree):
    policy = tree.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    scripts = [s for s in tree.all("script") if s.attributes.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256("".join(s.children).encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy.startswith(
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:;"
    )
    local = {"results.csv", "report.md", "model-index.yaml", "data:,"}
    assert all(picture.startswith("data:image/") for picture in data(tree, "pictures"))
    for tag, attribute in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
        for element in tree.all(tag):
            target = element.attributes.get(attribute, "#")
            assert target.startswith(("#", "data:image/")) or target in local


def test_plots_need_no_more_than_the_basic_bundle(tree):
    """It draws these kinds only; and it is of the version whose schema the figures are checked against."""
    kinds = {trace["type"] for figure in data(tree, "figures").values() for trace in figure["data"]}
    assert kinds <= {"scatter", "bar", "pie"}
    ours, full = ((text[:200]) for text in (page._PLOTLY.read_text("utf-8"), get_plotlyjs()))
    version = re.compile(r"v(\d+\.\d+\.\d+)")
    assert version.search(ours)[1] == version.search(full)[1]


def test_landmarks_headings_captions_and_labels(tree):
    assert tree.one("html").attributes["lang"] == "en"
    body = [child.tag for child in tree.one("body").children if isinstance(child, made.Element)]
    assert [tag for tag in body if tag in ("header", "nav", "main", "footer")] == ["header", "nav", "main", "footer"]
    assert len(list(tree.all("h1"))) == 1
    assert all(next(t.all("caption"), None) for t in tree.all("table"))
    assert all(head.attributes.get("scope") in ("col", "row") for head in tree.all("th"))
    labelled = {id(control) for label in tree.all("label") for tag in ("select", "input") for control in label.all(tag)}
    assert all(id(control) in labelled for tag in ("select", "input") for control in tree.all(tag))
    ids = [
        e.attributes["id"]
        for tag in ("section", "div", "h2", "script", "dialog", "table")
        for e in tree.all(tag)
        if "id" in e.attributes
    ]
    assert len(ids) == len(set(ids))
    for link in tree.one("nav").all("a"):
        assert link.attributes["href"].removeprefix("#") in ids


def test_several_results_are_joined_once(tmp_path):
    first = table([row("a"), row("b", value=0.6)], tmp_path / "one")
    second = table([row("b", value=0.6), row("b", value=0.61), row("c", value=0.7)], tmp_path / "two")
    lines = board(parse(clipeval.report([first, second, first], tmp_path / "page")), "digits")
    assert [line[2] for line in lines] == ["70.0", "61.0", "60.0", "50.0"]
    assert lines[1][1].startswith("b results file ")


def test_a_csv_table_and_one_model_on_one_data_set(tmp_path):
    table([row("only")], tmp_path)
    clipeval.read_results(tmp_path).to_csv(tmp_path / "t.csv", index=False)
    tree = parse(clipeval.report(tmp_path / "t.csv", tmp_path / "page"))
    assert tree.one("h1").text == "1 checkpoint on 1 data set"
    assert board(tree, "digits")[0][:3] == ["1", "only", "50.0"]


def test_wrong_input_is_refused(tmp_path, capsys, monkeypatch):
    empty = table([], tmp_path / "empty")
    with pytest.raises(MeasureError, match=r"empty: the table has no rows"):
        clipeval.report(empty, tmp_path / "page")
    with pytest.raises(UsageError, match="no results given"):
        clipeval.report([], tmp_path / "page")
    for words, code, message in (
        ([empty], 3, "the table has no rows"),
        ([tmp_path / "nothing.csv"], 2, "no results table here"),
    ):
        monkeypatch.setattr(sys, "argv", ["clipeval", "report", *map(str, words), "-o", str(tmp_path / "page")])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_the_published_tables_fit_on_a_page(tmp_path, monkeypatch):
    from clipeval.reporting import laws, scaling
    from clipeval.results.published import folder, published

    # fitting them all takes a minute and is tested with each
    monkeypatch.setattr(scaling, "laws_of", lambda rows, config: laws.Laws((), {}))
    page = clipeval.report(sorted(folder().glob("*.parquet")), tmp_path)
    assert page.stat().st_size < 15e6
    tree = parse(page)
    assert len(made.codes(data(tree, "rows")["model"])) == len(published())
    final = published().query("study == 'open_clip' and dataset == 'datacomp'")
    best = final.loc[final["value"].idxmax()]
    line = board(tree, "DataComp")[0]
    spec = {name: spec for name, spec, *_ in data(tree, "tables")["models"]}
    assert [line[0], spec[line[1]], line[2]] == ["1", best["model"], f"{100 * best['value']:.1f}"]
    assert np.isclose(len(board(tree, "DataComp")), len(final))
