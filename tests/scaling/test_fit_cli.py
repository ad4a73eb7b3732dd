"""``clipeval fit`` as it is typed: exit codes, one JSON document, tables and files."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from tables import table


@pytest.fixture
def run(command):
    return partial(command, "clipeval", "fit")


@pytest.fixture
def csv(tmp_path):
    def write(rows, name="results.csv"):
        rows.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def test_the_question_of_the_paper_with_nothing_more(run):
    code, out, _ = run("--task", "retrieval")
    assert code == 0
    titles = ("MS-COCO", "Flickr30K", "text→image R@5", "image→text R@5")
    for word in (*titles, "LAION", "CLIP-WIT", "undetermined", "2212.07143"):
        assert word in out
    assert "-0.079" in out


def test_the_preset_prints_the_eight_laws_and_the_errors_of_the_predictions(run):
    code, out, _ = run("--preset", "cherti2023")
    assert code == 0
    for figure in (
        "-0.111388",
        "5.85806",
        "-0.163775",
        "23.1836",
        "-0.125541",
        "-0.237843",
        "-0.0794344",
        "-0.0507594",
    ):
        assert figure in out
    for figure in ("-0.189157", "15.5060", "-0.102849", "2.20839", "0.874371", "0.588434", "81.9236", "76.9853"):
        assert figure in out


@pytest.mark.parametrize("width", [80, 120, 200])
def test_numbers_stay_whole_on_a_terminal_of_any_width(run, csv, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(csv(table()), "--bootstrap", 200)
    tables = out.split("· ")[0].splitlines()
    assert max(len(line) for line in tables) <= width
    law = json.loads(run(csv(table()), "--bootstrap", 200, "--json")[1])["fits"][0]
    for name in ("alpha", "beta"):
        decimals = 1 - math.floor(math.log10((law[f"{name}_high"] - law[f"{name}_low"]) / 2))
        for end in ("", "_low", "_high"):
            assert f"{law[name + end]:.{decimals}f}" in out


def test_figures_of_the_preset_have_six_digits_others_two_of_half_the_interval(run, csv):
    """-0.111388 is what the paper's notebook gives, and is to be compared with it."""
    words = ("-t", "classification", "-d", "imagenet1k", "--bootstrap", 200)
    assert "-0.163775 [-0.277430, -0.0501195]" in run("--preset", "cherti2023", *words)[1]
    out = run(*words)[1]
    assert "-0.16 [-0.28, -0.05]" in out
    assert "23 [1.1, 470]" in out


def test_words_that_occur_are_explained_below_the_table(run, csv):
    out = run("--task", "retrieval", "--bootstrap", 200)[1]
    assert out.count("undetermined = the data do not tell which") == 1
    assert "n 3: the interval is Student's t with 1 degree of freedom" in out
    assert "quantile = the line that 10 % of the checkpoints lie below" in out
    assert "hull = " not in out
    assert "no-scaling = " not in out


@pytest.mark.parametrize(("alpha", "word"), [(-0.008, "negligible"), (-0.0095, "scaling"), (0.008, "no-scaling")])
def test_a_slope_that_is_beyond_doubt_and_next_to_nothing_has_a_word(run, csv, alpha, word):
    """10^-0.0088 is 0.98: two percent less error for ten times the compute."""
    x = np.geomspace(1e9, 1e12, 9)
    rows = pd.DataFrame({"model": [f"m{i}" for i in range(9)], "source": "a", "gmacs": x / 1e9, "samples_seen": 1e9})
    rows = rows.assign(dataset="d", task="zeroshot_classification", metric="acc1", value=1 - 0.9 * (x / 1e9) ** alpha)
    found = run(csv(rows), "--json", "--frontier", "none")[1]
    assert json.loads(found)["fits"][0]["verdict"] == word.replace("negligible", "scaling")
    table = run(csv(rows), "--frontier", "none")[1].split("verdict: ")
    assert table[0].split()[-1] == word
    assert table[1].startswith(f"{word} = ")


def test_json_is_one_document_and_nothing_else(run, csv):
    assert list(table()) == ["model", "source", "gmacs", "samples_seen", "dataset", "task", "metric", "value"]
    code, out, _ = run(csv(table()), "--json", "--forecast", "ViT-L-14:1B", "--bootstrap", 200)
    document = json.loads(out)
    assert code == 0
    assert list(document) == ["fits", "comparisons", "forecasts"]
    assert document["fits"][0]["e_inf"] is None
    assert [row["source"] for row in document["fits"]] == ["a", "b"]
    assert isinstance(document["fits"][0]["alpha"], float)
    assert document["fits"][0]["shots"] is None


def test_files_hold_what_the_tables_hold(run, csv, tmp_path):
    code, out, _ = run(csv(table()), "-o", tmp_path / "out", "--json", "--bootstrap", 200)
    document = json.loads(out)
    assert code == 0
    for name in ("fits", "comparisons"):
        written = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert len(written) == len(document[name])
        assert list(written.columns) == list(document[name][0])
        expected = pd.DataFrame(document[name])
        numbers = expected.select_dtypes(["float", "int"]).columns
        assert {"fits": "alpha", "comparisons": "delta_alpha"}[name] in numbers
        np.testing.assert_array_equal(written[numbers].to_numpy(float), expected[numbers].to_numpy(float))
    card = json.loads((tmp_path / "out" / "fit_card.json").read_text("utf-8"))
    assert card["form"]["law"] == "power"
    assert len(card["data"]["sha256"]) == 64
    assert card["uncertainty"] == {"bootstrap_draws": 200, "seed": 0, "level": 0.95}
    assert (tmp_path / "out" / "my-birds-acc1.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "my-birds-acc1.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_command_writes_the_same_tables(run, csv):
    first, second = (run(csv(table()), "--json", "--bootstrap", 200)[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--law", "powr"], 2, "Did you mean 'power'"),
        (["--x", "gmac"], 2, "Did you mean 'gmacs'"),
        (["--by", "nobody"], 2, "--by nobody"),
        (["--task", "retrival"], 2, "Did you mean 'retrieval'"),
        (["--forecast", "ViT-L-14"], 2, "ARCHITECTURE:SAMPLES_SEEN"),
        (["--estimator", "hubber"], 2, "Did you mean 'huber'"),
        (["--estimator", "huber", "--frontier", "hull"], 2, "--frontier hull does not go with --estimator huber"),
        (["--estimator", "weighted"], 3, "row 1 (a0, my-birds, acc1): --estimator weighted needs n"),
        (["--budget", "-1"], 2, "--budget -1.0: must be a positive number"),
        (["--budget", "1e12", "--x", "params"], 2, "needs a joint law of --x gmacs,samples_seen"),
        (["--robustness", "fishes"], 3, "no row matches"),
        (["--dataset", "cars"], 3, "--dataset cars: no row matches"),
        (["--dataset", "imagenet"], 3, "--dataset imagenet: no row matches"),
        (["--dataset", "my-brids"], 2, "--dataset my-brids: no row matches. Did you mean 'my-birds'?"),
        (["--metric", "acc5"], 3, "--metric acc5: no row matches"),
    ],
)
def test_exit_codes_of_wrong_options(run, csv, words, code, message):
    ended, out, error = run(csv(table()), *words)
    assert (ended, out) == (code, "")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda t: t[:1], 3, "nothing can be fitted"),
        (lambda t: t[:0], 2, "nothing in it"),
        (lambda t: t.assign(value=t["value"].where(t["model"] != "a3", 1.01)), 2, "row 4 (a3, my-birds)"),
        (lambda t: t.assign(value=2 * t["value"]), 2, "outside [0, 1]"),
        (lambda t: t.assign(gmacs=-t["gmacs"]), 3, "gmacs is negative"),
        (lambda t: t.assign(gmacs=t["gmacs"].astype(object).where(t["model"] != "a3", "x")), 2, "row 4, column gmacs"),
        (lambda t: t.drop(columns="metric"), 2, "no column 'metric'"),
        (lambda t: t.assign(metric=t["metric"].where(t["model"] != "b1", "acc5")), 3, "mixed metrics"),
    ],
)
def test_exit_codes_of_wrong_tables(run, csv, change, code, message):
    ended, out, error = run(csv(change(table())))
    assert (ended, out) == (code, "")
    assert message in error
    assert "Traceback" not in error


def test_a_file_that_is_not_there(run):
    ended, _, error = run("nowhere.csv")
    assert ended == 2
    assert "nowhere.csv" in error


def test_names_that_people_use_are_those_of_the_table_and_said(run, csv):
    """A table's own name goes first."""
    of_catalogue = table().assign(dataset="imagenet1k")
    ended, out, _ = run(csv(of_catalogue), "--dataset", "imagenet")
    assert ended == 0
    assert "--dataset imagenet: imagenet1k is meant" in out
    ended, out, _ = run(csv(of_catalogue.assign(dataset="imagenet")), "--dataset", "imagenet")
    assert ended == 0
    assert "is meant" not in out


def test_a_compute_at_equal_error_far_from_the_checkpoints_is_no_number(run):
    """Of three checkpoints with an interval over many decades: JSON has no value and says why, the table has words."""
    words = ("open_clip", "-d", "imagenet1k", "--bootstrap", 200)
    pairs = json.loads(run(*words, "--json")[1])["comparisons"]
    far = [pair for pair in pairs if "equal error undetermined" in pair["note"]]
    assert far
    assert all(pair["compute_multiplier"] is None for pair in far)
    out = run(*words)[1]
    assert out.count("beyond the data: its interval leaves") == 1
    assert sum(line.count("  beyond the data  ") for line in out.splitlines()) == len(far)
