"""The opening of the page and its laws say what ``clipeval fit`` says, and nothing that the numbers do not."""

from __future__ import annotations

import math
import re
from pathlib import Path

import made
import numpy as np
import pytest
from made import row

import clipeval
from clipeval import config as configuration
from clipeval.reporting import findings, gaps, scaling
from clipeval.reporting import rows as table
from clipeval.reporting.boards import boards
from clipeval.results.reading import read_tables

NANO = str(Path(__file__).parents[2] / "results/nano/seed0")
HEADLINES = ("imagenet1k", "mscoco_captions", "flickr30k", "vtab/caltech101")


def said(rows, config):
    scaled = scaling.scaling(rows, config)
    return findings.findings(rows, scaled, boards(rows, config), gaps.gaps(rows), config)


def words_of(finding):
    return "".join(piece for _, piece in finding.verdict)


def ladder(tmp_path, **slopes):
    """Six sizes of each source, E = C**slope with a scatter of 1 %; 20 % higher for the second source."""
    rng = np.random.default_rng(3)
    rows = [
        row(f"{source}{i}", value=1 - 0.9 * (1 + 0.2 * (n > 0)) * 10 ** (slope * i) * np.exp(rng.normal(0, 0.01)),
            gmacs_total=10.0**i, source=source, source_family=source, samples_seen=float(10**i), arch=f"arch-{i}")
        for n, (source, slope) in enumerate(slopes.items()) for i in range(2, 8)
    ]  # fmt: skip
    config = configuration.packaged()
    return table.read([str(made.table(rows, tmp_path))], config), config


def rounded(shown):
    """The numbers of ``−0.103 [−0.138, −0.071]``, each with half of its last digit."""
    found = re.findall(r"−?\d+(?:\.(\d+))?", shown)
    numbers = [float(text.replace("−", "-")) for text in re.findall(r"−?\d+(?:\.\d+)?", shown)]
    return [(number, 0.5001 * 10.0 ** -len(digits)) for number, digits in zip(numbers, found, strict=True)]


def agrees(shown, *values):
    """Whether a text shows these values, rounded."""
    numbers = rounded(shown)
    return len(numbers) <= len(values) and all(
        abs(number - value) <= half for (number, half), value in zip(numbers, values, strict=False)
    )


@pytest.mark.parametrize("name", [NANO, "cherti2023", "open_clip"])
def test_page_and_command_never_disagree(name, tmp_path):
    given = read_tables([name])
    if name != NANO:
        given = given[given["dataset"].isin(HEADLINES)]
        given.to_parquet(tmp_path / "results.parquet")
        name = str(tmp_path)
    rows = table.read([name], configuration.packaged())
    scaled = scaling.scaling(rows, configuration.packaged())
    everything = clipeval.fit(read_tables([name]))
    wanted = {(r["task"], r["dataset"], r["metric"], r["source"], r["shots"] or 0): r for r in records(everything.fits)}
    pairs = {
        (r["task"], r["dataset"], r["metric"], r["shots"] or 0, r["source_a"], r["source_b"]): r
        for r in records(everything.comparisons)
    }
    compared, laws = 0, 0
    for plot in scaled.plots:
        task, dataset, metric, shots = plot.cell
        if (task, dataset, metric) not in {key[:3] for key in wanted}:
            continue  # of another main metric, which --metric asks for
        for line in plot.laws:
            fit = wanted[task, dataset, metric, line.source, shots or 0]
            assert line.verdict == fit["verdict"]
            if line.alpha != "–":
                laws += 1
                assert agrees(line.alpha, fit["alpha"], fit["alpha_low"], fit["alpha_high"])
                assert (line.r2 == "–") == (fit["frontier"] == "quantile")
                assert line.r2 == "–" or agrees(line.r2, fit["r2"])
        for pair in plot.group.pairs:
            fit = pairs[task, dataset, metric, shots or 0, pair.source_a, pair.source_b]
            for ours, theirs in (
                (pair.alpha.p, fit["p"]),
                (pair.p_holm, fit["p_holm"]),
                (pair.crossover, fit["crossover"]),
            ):
                assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))
            assert pair.verdict == fit["verdict"]
            compared += 1
    assert laws > 2
    assert compared > 2


def records(frame):
    return [{k: (0 if k == "shots" and v != v else v) for k, v in r.items()} for r in frame.to_dict("records")]


def test_another_main_metric_is_fitted_as_the_command_does_with_metric(tmp_path):
    rows = [
        row(f"m{i}", "vtab/pets", metric, value=1 - level * 10 ** (-0.1 * i), gmacs_total=10.0**i)
        for i in range(2, 8) for metric, level in (("acc1", 0.9), ("mean_per_class_recall", 0.8))
    ]  # fmt: skip
    folder = str(made.table(rows, tmp_path))
    config = configuration.packaged()
    [plot] = scaling.scaling(table.read([folder], config), config).plots
    assert plot.cell[2] == "mean_per_class_recall"
    [law] = clipeval.fit(read_tables([folder]), metric="mean_per_class_recall").laws
    assert plot.group.laws[0].fit.estimate["beta"] == law.estimate["beta"]


def test_the_better_source_is_named_with_the_numbers_of_the_fit(tmp_path):
    rows, config = ladder(tmp_path, flat=-0.02, steep=-0.1)
    [finding] = said(rows, config).found
    assert words_of(finding) == "steep scales better than flat"
    fits = clipeval.fit(read_tables([str(tmp_path)])).fits.set_index("source")
    shown = next(fall for fall in finding.falls if fall.source == "steep")
    alphas = [fits.loc["steep", name] for name in ("alpha", "alpha_high", "alpha_low")]
    fall = shown.said.removeprefix("falls by ").replace(" %", "")
    assert agrees(fall, *(100 * (1 - 10**alpha) for alpha in alphas))
    assert agrees(
        shown.alpha.removeprefix("α "),
        fits.loc["steep", "alpha"],
        fits.loc["steep", "alpha_low"],
        fits.loc["steep", "alpha_high"],
    )
    assert "p < 0.001" in finding.sentence


def test_equal_exponents_cannot_be_told_apart_and_levels_can(tmp_path):
    rows, config = ladder(tmp_path, low=-0.1, high=-0.1)
    [finding] = said(rows, config).found
    assert words_of(finding) == "Which source scales better cannot be told"
    assert "The exponents cannot be told apart: difference" in finding.sentence
    # errors of the first are 1 / 1.2 of the others: 16.7 % lower
    lower = re.search(r"\(6 pairs\) the error with low is (\d+\.?\d*) %", finding.beside)
    assert float(lower[1]) == pytest.approx(16.7, abs=1.5)


def test_no_scaling_is_said(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row(f"m{i}", value=0.5 + rng.normal(0, 0.05), gmacs_total=10.0**i) for i in range(2, 9)]
    config = configuration.packaged()
    [finding] = said(table.read([str(made.table(rows, tmp_path))], config), config).found
    assert words_of(finding) == "No scaling is detected"
    assert [(fall.source, fall.said) for fall in finding.falls] == [("toy", "no scaling detected")]


def test_the_short_answer_has_each_verdict_once_and_what_is_sure_first(tmp_path):
    rng = np.random.default_rng(3)
    rows = [
        row(f"{source}{i}", dataset, value=1 - 0.9 * 10 ** (slope * i) * np.exp(rng.normal(0, 0.01)),
            gmacs_total=10.0**i, source=source, source_family=source)
        for dataset, slopes in {"imagenet1k": (-0.1, -0.1), "cars": (-0.02, -0.1), "dtd": (-0.02, -0.1)}.items()
        for source, slope in zip(("flat", "steep"), slopes, strict=True) for i in range(2, 8)
    ]  # fmt: skip
    config = configuration.packaged()
    found = said(table.read([str(made.table(rows, tmp_path))], config), config)
    assert [("".join(piece for _, piece in verdict), titles) for verdict, titles in found.short] == [
        ("steep scales better than flat", "cars and dtd"),
        ("Which source scales better cannot be told", "ImageNet"),
    ]
    assert [finding.title for finding in found.found] == ["cars", "dtd", "ImageNet"]
    assert [plot.panel.id for plot in found.plots] == [finding.plot for finding in found.found]


def test_of_many_sources_the_ends_are_said(tmp_path):
    rows, config = ladder(tmp_path, **{f"s{n}": -0.02 - 0.02 * n for n in range(7)})
    [finding] = said(rows, config).found
    assert [fall.source for fall in finding.falls] == ["s6", "5 other sources", "s0"]


def test_headlines_are_suites_then_named_sets_then_those_with_most_checkpoints(tmp_path):
    names = ("cars", "mnist", "flickr30k", "imagenet1k", "vtab", "mscoco_captions")
    rows = [
        row(f"m{i}", name, value=1 - 0.9 * 10 ** (-0.1 * i), gmacs_total=10.0**i)
        for name in names for i in range(2, 8) if name != "cars" or i > 2
    ]  # fmt: skip
    config = configuration.packaged()
    found = said(table.read([str(made.table(rows, tmp_path))], config), config)
    titles = [finding.title for finding in found.found]
    assert titles == ["VTAB", "ImageNet", "MS-COCO", "Flickr30K", "mnist", "cars"]
    assert [plot.cell[1] for plot in found.plots][:2] == ["vtab", "imagenet1k"]
    assert [best.title for best in found.best] == ["VTAB"]
    assert found.best[0].model == "m7"


def test_what_a_reader_must_beware_of(tmp_path):
    rows = [
        row(f"m{i}", value=1 - 0.9 * 10 ** (-0.1 * i), gmacs_total=10.0**i, dataset_fingerprint="ab"[i % 2] * 64)
        for i in range(2, 8)
    ]
    rows += [row("part", status="limited", gmacs_total=1e9), row("bad", value=math.nan, status="failed", error="x")]
    config = configuration.packaged()
    found = said(table.read([str(made.table(rows, tmp_path))], config), config)
    said_ = " ".join(caution.sentence for caution in found.cautions)
    assert "1 value missing or failed" in said_
    assert "1 checkpoint measured on a part of a data set only" in said_
    assert "different contents of the data set are mixed" in said_


def test_no_error_above_100_percent_and_no_colour_twice(tmp_path):
    sources = {f"s{n}": -0.004 * n - 0.02 for n in range(16)}
    rows, config = ladder(tmp_path, **sources)
    [plot] = scaling.scaling(rows, config).plots
    shown = [y for trace in plot.panel.figure["data"] for y in trace["y"]]
    assert max(shown) <= 100
    looks = set()
    for trace in plot.panel.figure["data"]:
        if trace["mode"] == "markers":
            symbol = trace["marker"]["symbol"]
            looks.add((trace["marker"]["line"]["color"], symbol[0] if isinstance(symbol, list) else symbol))
    assert len(looks) == 16


def test_points_tell_what_they_are_and_lines_end_at_the_data(tmp_path):
    rows = [
        row(f"ViT-B-32,tag{i}", "imagenet1k", value=1 - 0.9 * 10 ** (-0.05 * i), ci_low=0.98 - 0.9 * 10 ** (-0.05 * i),
            ci_high=1.01 - 0.9 * 10 ** (-0.05 * i), n=50_000, gmacs_total=10.0**i, arch="ViT-B-32", source="LAION-2B",
            source_family="LAION", samples_seen=10.0**i)
        for i in range(6, 12)
    ]  # fmt: skip
    config = configuration.packaged()
    [plot] = scaling.scaling(table.read([str(made.table(rows, tmp_path))], config), config).plots
    data = plot.panel.figure["data"]
    [points] = [trace for trace in data if trace["mode"] == "markers"]
    assert points["customdata"] == list(range(6))  # of these rows the page's script says what they are
    assert points["meta"] == {"metric": "Top-1", "percent": True}
    assert points["error_y"]["array"] == pytest.approx([2] * 6)  # an error is highest where the value is lowest
    assert points["error_y"]["arrayminus"] == pytest.approx([1] * 6)
    solid, *dashes = [trace for trace in data if trace["mode"] == "lines" and trace["line"].get("width") in (1.4, 2)]
    assert (solid["x"][0], solid["x"][-1]) == (1e6, 1e11)
    assert [(min(trace["x"]) <= 1e6, max(trace["x"]) >= 1e11) for trace in dashes] == [(True, False), (False, True)]
    assert "<sup>−0.05" in solid["name"]
    assert "C<sup>" in solid["hovertemplate"]


def test_the_page_shows_the_finding_first(tmp_path):
    ladder(tmp_path / "results", flat=-0.02, steep=-0.1)
    page = made.parse(clipeval.report(str(tmp_path / "results"), tmp_path / "page"))
    sections = [section.attributes["id"] for section in page.all("section")]
    assert sections[0] == "findings"
    assert "steep scales better than flat" in page.one("section", id="findings").text
    [line] = page.one("table", id="comparisons").one("tbody").all("tr")
    assert line.one("td").text == "steep scales better"
