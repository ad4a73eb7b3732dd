"""clipeval as a library: one kind of input, results that print and draw themselves, the command line's names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

import clipeval
from clipeval import console
from clipeval.results.schema import to_frame
from clipeval.scaling.output.figures import Figures, Picture
from clipeval.spelling import also


def row(model, source, scale, error, dataset="d"):
    facts = {"model": model, "arch": "nano", "source": source, "source_family": source, "gmacs_total": scale}
    facts |= {"gmacs": 0.5, "samples_seen": 2 * scale}
    measured = {"dataset": dataset, "task": "zeroshot_classification", "metric": "acc1", "n": 1000, "status": "ok"}
    return facts | measured | {"value": 1 - error, "higher_is_better": True}


def rows():
    """Two sources of five checkpoints on two data sets, by power laws of exponents -0.1 and -0.2, with noise."""
    rng = np.random.default_rng(3)
    found = []
    for source, alpha in (("A<b>", -0.1), ("B", -0.2)):
        for number, scale in enumerate(np.geomspace(1e3, 1e7, 5)):
            for dataset in ("d", "e"):
                error = 0.9 * (scale / 1e3) ** alpha * np.exp(rng.normal(0, 0.01))
                found.append(row(f"{source}-{number}", source, float(scale), float(error), dataset))
    return found


@pytest.fixture(scope="module")
def table():
    return to_frame(rows())


@pytest.fixture(scope="module")
def result(table):
    return clipeval.fit(table, bootstrap=100)


class Text(HTMLParser):
    """The text of a page, and how often each tag opens."""

    def __init__(self, html):
        super().__init__()
        self.words, self.tags = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data.split()


def test_one_kind_of_input(table, tmp_path, monkeypatch):
    """A folder, a file, their DataFrame and a list of halves are one table, for every function."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    table.to_parquet("out/results.parquet")
    table.to_csv("t.csv", index=False)
    table[:9].to_parquet("a.parquet")
    forms = [table, "out", Path("out"), "out/results.parquet", "t.csv", ["a.parquet", table[9:]]]
    by_frame = clipeval.fit(table, bootstrap=100, seed=1).fits
    for form in forms:
        pd.testing.assert_frame_equal(clipeval.fit(form, bootstrap=100, seed=1).fits, by_frame)
        read = clipeval.read_results(form)[["model", "dataset", "value"]]
        pd.testing.assert_frame_equal(read, table[["model", "dataset", "value"]])
        assert clipeval.check(form, form).exit_code == 0
        planned = clipeval.design(form, 1e8, dataset="d")
        assert planned.runs == clipeval.design(table, 1e8, dataset="d").runs
    page = clipeval.report(table, tmp_path / "page")
    assert page.read_bytes()[:15] == b"<!doctype html>"


def test_a_published_study_is_an_input():
    by_name = clipeval.read_results("cherti2023")
    assert by_name["model"].nunique() > 30
    assert len(clipeval.read_results(["cherti2023", by_name])) == 2 * len(by_name)
    fitted = clipeval.fit("cherti2023", task="zeroshot_retrieval", dataset="mscoco_captions", bootstrap=100)
    assert set(fitted.fits["dataset"]) == {"mscoco_captions"}
    with pytest.raises(clipeval.UsageError, match=r"no results table here\. Did you mean 'cherti2023'\?"):
        clipeval.read_results("cherti2032")
    with pytest.raises(clipeval.UsageError, match=r"not a published study .* Did you mean 'open_clip'"):
        clipeval.fit("open_clop")


def test_a_result_is_short_at_a_prompt_and_whole_in_print(result, table, tmp_path, command):
    """What ``print`` shows is what the command prints, and a notebook's tables hold the same words."""
    assert len(repr(result)) < 700
    assert repr(result).count("\n") < 7
    assert "d · top-1 · A<b>: power with alpha -0.1" in repr(result)
    assert repr(result.laws[0]).startswith("Fit(d · top-1 · A<b>: power")
    (tmp_path / "r").mkdir()
    table.to_parquet(tmp_path / "r/results.parquet")
    code, printed, _ = command("clipeval", "fit", tmp_path / "r", "--bootstrap", 100)
    assert code == 0
    assert [line.rstrip() for line in str(result).splitlines()] == [
        line.rstrip() for line in printed.strip("\n").splitlines()
    ]
    page = Text(result._repr_html_())
    assert page.tags.count("table") > 1
    assert "b" not in page.tags, "names are text"
    shown = [float(word) for word in map(str.strip, page.words) if re.fullmatch(r"-0\.\d+", word)]
    assert all(any(abs(alpha - number) < 0.01 for number in shown) for alpha in result.fits["alpha"])


def test_what_is_shown_elsewhere_is_printed_as_ever(result, capsys):
    with console.recorded(80) as items:
        console.show("kept")
        console.out().print("a", "b")
    console.show("printed")
    assert items == ["kept", "a", "b"]
    assert capsys.readouterr().out == "printed\n"


def test_a_check_and_a_design_show_themselves(table, tmp_path):
    worse = table.assign(value=table["value"] - 0.05)
    found = clipeval.check(worse, table)
    assert repr(found).startswith("CheckResult: check NOT DECIDED")
    assert len(repr(found)) < 1500
    assert "no paired test" in str(found)
    assert Text(found._repr_html_()).tags.count("tr") == len(found.lines) + 1
    assert "font-weight: bold" not in found._repr_html_() or found.verdict == "fail"
    planned = clipeval.design(table, 1e8, dataset="d")
    assert "standard deviation" in repr(planned)
    assert len(repr(planned)) < 700
    assert Text(planned._repr_html_()).tags.count("tr") == len(planned.runs) + 1


def test_a_notebook_shows_the_figures(result):
    """By IPython's own formatter, which asks an object for its pictures; pyplot is not imported."""
    formatter = DisplayFormatter()
    drawn = result.plot()
    assert isinstance(drawn, Figures)
    assert sorted(drawn) == ["d-acc1", "e-acc1", "scaling"]
    shown, _ = formatter.format(drawn)
    assert shown["image/png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert shown["text/plain"] == "Figures: d-acc1, e-acc1, scaling"
    one = result.plot(dataset="e")
    assert isinstance(one, Picture)
    assert len(one.axes) == 1
    assert formatter.format(one)[0]["image/png"][:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(clipeval.UsageError, match=r"no law of data set 'x', but of d, e\."):
        result.plot(dataset="x")
    apart = Figures({name: drawn[name] for name in ("d-acc1", "e-acc1")})
    assert Text(formatter.format(apart)[0]["text/html"]).tags == ["img", "img"]


def test_the_names_of_the_command_line_are_those_of_python(table):
    """Every option of fit, check and design is a parameter, but for those of files and printing."""
    from clipeval.checks import command as of_check
    from clipeval.scaling import command

    of_terminal = {"out", "as_json", "plan", "ask", "form", "output", "update_baseline"}
    for option, function in (
        (command.fit, clipeval.fit),
        (command.design, clipeval.design),
        (of_check.check, clipeval.check),
    ):
        taken = {*inspect.signature(function).parameters, *function.also}
        assert set(inspect.signature(option).parameters) - of_terminal <= taken
    both = {"bootstrap": 100, "task": "zeroshot_classification"}
    one = clipeval.fit(table, dataset="d", forecast="nano:1e6", rank_laws=False, **both)
    other = clipeval.fit(table, datasets=["d"], forecasts=["nano:1e6"], rank=False, **both)
    assert one.to_json() == other.to_json()


def test_a_parameter_has_one_value_and_errors_say_its_name(table):
    @also(dataset="datasets")
    def asked(*, datasets=(), rank_laws=False):
        if datasets != "d":
            raise clipeval.UsageError(f"--dataset {datasets}, --rank-laws and --other: no.")
        return datasets

    assert asked(dataset="d") == asked(datasets="d") == "d"
    with pytest.raises(TypeError, match="both 'dataset' and 'datasets'"):
        asked(dataset="d", datasets="d")
    with pytest.raises(clipeval.UsageError) as raised:
        asked(dataset="e")
    assert raised.value.__notes__ == ["In Python --dataset is datasets=, --rank-laws is rank_laws="]
    with pytest.raises(clipeval.UsageError, match="--holdout 5: no source") as raised:
        clipeval.fit(table, holdout=5)
    assert raised.value.__notes__ == ["In Python --holdout is holdout="]


@pytest.mark.parametrize(
    ("progress", "watched", "quiet"),
    [(None, True, False), (None, False, True), (True, False, False), (False, True, True)],
)
def test_progress_is_shown_to_who_watches(tmp_path, monkeypatch, progress, watched, quiet):
    from clipeval.evaluation import run

    seen = []
    monkeypatch.setattr(run, "is_watched", lambda: watched)
    monkeypatch.setattr(run, "execute", lambda request, quiet: seen.append(quiet) or run.Outcome([], ()))
    clipeval.run("ViT-B-32,openai", "digits", out=tmp_path, progress=progress)
    assert seen == [quiet]


def test_a_bar_draws_itself_in_a_cell(monkeypatch):
    """In a kernel rich's bar is a display that changes; what finishes stays a line of its own."""
    import IPython

    drawn = []

    class Handle:
        def update(self, bundle, raw):
            drawn.append(bundle["text/plain"])

    def display(bundle, **how):
        drawn.append(bundle["text/plain"])
        return Handle()

    assert not console.in_notebook()
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    monkeypatch.setattr("IPython.display.display", display)
    assert console.in_notebook()
    assert console.is_watched()
    with console.live() as bar:
        task = bar.add_task("embedding", total=10, state="5/s")
        bar.update(task, completed=5)
    assert "embedding" in drawn[1]
    assert drawn[-1] == ""


def test_tab_and_type_checkers_find_the_names():
    names = {name for name in dir(clipeval) if not name.startswith("_")}
    assert names >= {
        "run",
        "fit",
        "check",
        "design",
        "report",
        "leaderboard",
        "read_results",
        "read_samples",
        "UsageError",
    }
    assert "annotations" not in names
    assert issubclass(clipeval.UsageError, clipeval.ClipevalError)
    root = Path(clipeval.__file__).parent
    assert (root / "py.typed").is_file()
    assert (root.parent / "clipeval_train/py.typed").is_file()


def test_pyplot_is_not_needed():
    program = """
import sys, clipeval
drawn = clipeval.fit("cherti2023", task="retrieval", dataset="flickr30k", bootstrap=100).plot(dataset="flickr30k")
print(len(drawn._repr_png_()) > 9000, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
