"""Plots show the table: points, laws, means of draws, runs, pictures."""

from __future__ import annotations

import base64
import io
import math
import os
import shutil

import made
import numpy as np
import pandas as pd
import pytest
from made import row
from PIL import Image
from plotly.graph_objects import Figure

import clipeval
import clipeval.datasets
from clipeval import config as configuration
from clipeval.reporting import curves, examples, scaling
from clipeval.reporting import rows as table
from clipeval.reporting.library import Libraries


def read(rows, tmp_path):
    return table.read([str(made.table(rows, tmp_path))], configuration.packaged())


def plots_of(rows, config=None):
    return list(scaling.scaling(rows, config or configuration.packaged()).plots)


def drawn(panel):
    """The figure, checked against Plotly's schema."""
    return Figure(panel.figure)


def ladder(error, sources=("a",), steps=6):
    return [
        row(f"{source}{i}", value=1 - error(10.0**i * (2 if source == "b" else 1)), gmacs_total=10.0**i, source=source,
            source_family=source, n=10**7)
        for source in sources for i in range(2, 2 + steps)
    ]  # fmt: skip


def test_laws_are_those_of_fit_and_points_those_of_the_table(tmp_path):
    rows = read(ladder(lambda c: 0.9 * c**-0.1, "ab"), tmp_path)
    [plot] = plots_of(rows)
    figure = drawn(plot.panel)
    markers = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None and trace.line.width == 2]
    for source in "ab":
        own = rows[rows["source"] == source]
        assert list(markers[source].x) == own["gmacs_total"].tolist()
        assert np.allclose(markers[source].y, 100 * (1 - own["value"].to_numpy()))
        assert [rows["model"][number] for number in markers[source].customdata] == own["model"].tolist()
    for line, factor in zip(lines, (0.9, 0.9 * 2**-0.1), strict=True):
        assert np.allclose(line.y, 100 * factor * np.array(line.x) ** -0.1, rtol=1e-3)
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert [line.source for line in plot.laws] == ["a", "b"]
    alphas = [float(line.alpha.split()[0].replace("−", "-")) for line in plot.laws]
    assert alphas == pytest.approx([-0.1, -0.1], abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_points_are_drawn_without_a_law_and_that_is_said(tmp_path, steps):
    [plot] = plots_of(read(ladder(lambda c: 0.9 * c**-0.1, steps=steps), tmp_path))
    figure = drawn(plot.panel)
    assert [trace.mode for trace in figure.data] == ["markers"]
    assert np.allclose(figure.data[0].y, [100 * (1 - 0.9 * 10 ** (-0.1 * i)) for i in range(2, 2 + steps)])
    assert plot.panel.notes[0].startswith("No law is drawn: ")


def test_a_source_with_too_few_points_stands_beside_a_law(tmp_path):
    rows = ladder(lambda c: 0.9 * c**-0.1) + ladder(lambda c: 0.5, "b", steps=2)
    [plot] = plots_of(read(rows, tmp_path))
    names = [(trace.name, len(trace.x)) for trace in drawn(plot.panel).data if trace.mode == "markers"]
    assert names == [("a", 6), ("b", 2)]
    assert [(line.source, line.equation != "too few points for a law") for line in plot.laws] == [
        ("a", True),
        ("b", False),
    ]


def test_checkpoints_of_one_compute_have_no_law(tmp_path):
    rows = [row(m, value=v, gmacs_total=7.0) for m, v in (("a", 0.2), ("b", 0.3), ("c", 0.4))]
    [plot] = plots_of(read(rows, tmp_path))
    assert plot.panel.notes == ("No law is drawn: no source has checkpoints of different compute.",)


def test_probe_curves_are_means_over_draws(tmp_path):
    probe = {"task": "linear_probe", "dataset": "icons"}
    rows = [row("a", value=v, shots=5, seed=s, **probe) for s, v in enumerate((0.2, 0.3, 0.7))]
    rows += [row("a", value=0.8, ci_low=0.75, ci_high=0.9, **probe), row("a", "icons", value=0.1)]
    [panel] = curves.probe_panels(read(rows, tmp_path), configuration.packaged())
    [trace] = drawn(panel).data
    assert trace.x == ("zero-shot", "5", "full")
    assert trace.y == pytest.approx((10, 40, 80))
    assert trace.error_y.array == pytest.approx((0, 30, 10))
    assert trace.error_y.arrayminus == pytest.approx((0, 20, 5))
    assert panel.table == (("a", "10.0", "40.0", "80.0"),)


def test_learning_curves_follow_runs(run):
    config = configuration.load(run.config)
    rows = table.read([str(run.results)], config)
    panels = curves.learning_panels(rows, config)
    frame = clipeval.read_results(run.results)
    one = next(
        panel for panel in panels if panel.title == "colours · Top-1" and panel.group == "Zero-shot classification"
    )
    [trace] = drawn(one).data
    own = frame[frame.model.str.contains("run/a/") & (frame.dataset == "colours") & (frame.metric == "acc1")]
    expected = own[own.task == "zeroshot_classification"].sort_values("samples_seen")
    assert list(trace.x) == [500, 1000]
    assert trace.y == pytest.approx(100 * expected.value)
    loss = drawn(panels[-1])
    assert [(trace.x, trace.y) for trace in loss.data] == [((10, 20), (3.5, 2.5))] * 2, "half a line at the end is left"


def test_the_last_checkpoint_of_a_run_stands_for_it(tmp_path):
    rows = [row("r/checkpoints/1.pt", samples_seen=100.0), row("r/checkpoints/2.pt", samples_seen=200.0)]
    rows += [row("r/checkpoints/2.pt", "icons", samples_seen=200.0), row("r/checkpoints/3.pt", samples_seen=201.0)]
    found = read([*rows, row("other", samples_seen=math.nan)], tmp_path)
    # of those within 2 % of the most samples it is the one with the most rows
    assert found["final"].tolist() == [False, True, True, False, True]


@pytest.fixture
def cache(run, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(run.cache))
    return run.cache


def test_retrieval_examples_show_the_images(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path))  # they are those of the data set, not of the cache
    config = configuration.load(run.config)
    rows = table.read([str(run.results)], config)
    found, missing = examples.galleries(rows, Libraries(config))
    assert missing == []
    assert len(found) == 2, "one gallery per run"
    dataset = clipeval.datasets.open_dataset("pairs", config.datasets["pairs"])
    index = {sample: i for i, sample in enumerate(dataset.ids)}
    for gallery in found:
        assert [query.caption for query in gallery.queries][:2] == [
            "a red square, view 0 of item 0",
            "a blue square, view 2 of item 2",
        ]
        for query in gallery.queries:
            own = query.own.id
            assert query.caption in dataset.captions[index[own]]
            assert [picture.correct for picture in query.found] == [picture.id == own for picture in query.found]
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(query.own.uri.partition(",")[2]))))
            assert pixels.shape == (37, 41, 3)
            colour = np.asarray(dataset.image(index[own])).mean((0, 1))
            assert np.allclose(pixels.mean((0, 1)), colour, atol=8)


def test_examples_are_those_of_the_outcomes_in_both_directions(run, cache):
    config = configuration.load(run.config)
    galleries, _ = examples.galleries(table.read([str(run.results)], config), Libraries(config))
    best = galleries[0]
    frame = clipeval.read_samples(run.results, model=best.model, dataset="pairs").set_index(["direction", "id"])
    for direction, queries in (("text_to_image", best.queries), ("image_to_text", best.answers)):
        for query in queries:
            outcome = frame.loc[direction, query.id]
            assert query.missed == (outcome["hit@5"] == 0)
            tops = [outcome[f"top{k}"] for k in range(1, 6)]
            assert [getattr(one, "id", None) or one.text for one in query.found] == [
                top if direction == "text_to_image" else captions_of(top, config) for top in tops
            ]
        assert all(query.missed for query in queries if query.extra)
    assert [query.extra for query in best.answers] == [False] * 4 + [True] * 4
    for of_best, of_other in zip(best.queries + best.answers, galleries[1].queries + galleries[1].answers, strict=True):
        assert of_best.id == of_other.id, "the same captions and images for all"


def captions_of(name, config):
    """A caption by its id, from the data set itself."""
    dataset = clipeval.datasets.open_dataset("pairs", config.datasets["pairs"])
    image, _, number = name.rpartition("#")
    return dataset.captions[list(dataset.ids).index(image)][int(number)]


def test_what_examples_lack_is_said(run, tmp_path):
    config = configuration.load(run.config)
    rows = table.read([str(run.results)], config)
    assert (
        "no data set of benchmarks.yaml has this name"
        in examples.galleries(rows, Libraries(configuration.packaged()))[1][0]
    )
    shutil.copy(run.results / "results.parquet", tmp_path)
    alone = table.read([str(tmp_path)], config)
    assert examples.galleries(alone, Libraries(config))[1] == [
        "pairs: the results hold no per-sample outcomes (the folder samples beside the table)."
    ]
    assert examples.galleries(rows[rows["dataset"] == "colours"], Libraries(config))[1] == [
        "There is no zero-shot retrieval in these results."
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop(columns=["direction"]),
        lambda frame: frame.drop(columns=["id"]),
        lambda frame: frame.assign(id="x"),
        lambda frame: frame.assign(id=frame["id"] + "#999"),
        lambda frame: frame.assign(top1="nobody"),
        lambda frame: frame.assign(top1=0.5),
    ],
)
def test_outcomes_of_other_images_make_no_examples(run, cache, tmp_path, change):
    shutil.copytree(run.results, tmp_path / "out")
    for file in (tmp_path / "out/samples").iterdir():
        frame = pd.read_parquet(file)
        if "direction" in frame:
            change(frame).to_parquet(file)
    config = configuration.load(run.config)
    found, missing = examples.galleries(table.read([str(tmp_path / "out")], config), Libraries(config))
    assert missing == ["pairs: its per-sample outcomes do not belong to its images and captions."]
    assert found == []


def test_rows_that_name_too_little(tmp_path):
    """Without a task, a data set or a model a row is shown as such; without a metric it has no value."""
    rows = [row(f"m{i}", gmacs=i + 1, samples_seen=10.0**i) | gap for i, gap in enumerate([{}, *GAPS])]
    page = clipeval.report(made.table(rows, tmp_path / "results"), tmp_path / "page")
    assert "the row names no metric" in page.read_text()


GAPS = (
    *({"task": None}, {"dataset": None}, {"model": None}, {"metric": None}),
    *({"gmacs": math.inf}, {"gmacs": 1e200, "samples_seen": 1e200}),
)


def test_a_log_that_is_none_has_no_points(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 100_000 + "\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("no\0name", "pipe", "deep", "bytes", "missing"):
        assert curves._loss(tmp_path / name) == []
