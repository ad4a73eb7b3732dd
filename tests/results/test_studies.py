"""The studies that come with clipeval: what was published about them comes out of their tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import clipeval
from clipeval.cli import app
from clipeval.errors import UsageError
from clipeval.results.reading import read_tables
from clipeval.results.studies import STUDIES, study
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem


def test_every_study_is_cited_and_can_be_named():
    for name, about in STUDIES.items():
        rows = read_tables([name])
        assert set(rows["study"]) == {name}
        assert about.origin.split(",")[0] in " ".join(rows["reference"].unique())
        assert rows["status"].eq("ok").all()
        assert set(about.licence.split("; ")) <= {"MIT", "Apache-2.0", "none stated"}
    with pytest.raises(UsageError, match=r"gadre: no such file or folder, .*Did you mean 'gadre2024'"):
        read_tables(["gadre"])


def test_the_list_of_studies():
    rows = json.loads(CliRunner().invoke(app, ["list", "studies", "--json"]).output)
    assert [row["name"] for row in rows] == list(STUDIES)
    assert {row["name"]: row["rows"] for row in rows} | {"gadre2024": 104} == {
        row["name"]: len(study(row["name"])) for row in rows
    }
    shown = CliRunner().invoke(app, ["list", "studies", "language model"], env={"COLUMNS": "200"}).output
    assert "2 studies" in shown
    assert "Muennighoff" in shown


def test_what_a_study_proposes_can_be_asked(tmp_path):
    for about in STUDIES.values():
        words = about.ask.split()
        assert words[:2] == ["clipeval", "fit"]
        done = CliRunner().invoke(app, [*words[1:], "--bootstrap", "100"], catch_exceptions=False)
        assert done.exit_code == 0, about.ask
        assert about.origin.split(",")[0] in done.output.replace("\n", "")
        one_run = "all points are of one model" in done.output.replace("\n", " ")
        assert one_run == (about.name == "alabdulmohsin2022")


def test_laws_forecast_learning_curves_as_published():
    """Alabdulmohsin et al. 2022: fitted to what the paper fitted to and scored on the rest, M4 is best of the paper's
    first, second and fourth form in most of the 72 curves; the reference's median log RMSE is .0298."""
    rows = study("alabdulmohsin2022")
    off = []
    for _, curve in rows.groupby(["dataset", "shots", "model"]):
        x, error = curve["samples_seen"].to_numpy(float), 1 - curve["value"].to_numpy(float)
        seen = (curve["notes"] == "fitted in the paper").to_numpy(bool)
        forms = ("power", "power_floor", "m4")
        found = [(LAWS[name], Problem(LAWS[name], x[seen], error[seen]).estimate.params) for name in forms]
        miss = [np.log(law.error(x[~seen], params) / error[~seen]) for law, params in found]
        off.append([np.sqrt(np.mean(one**2)) for one in miss])
    off = np.array(off)
    assert len(off) == 72
    assert (off.argmin(axis=1) == 2).mean() == pytest.approx(0.75)
    assert np.median(off[:, 2]) == pytest.approx(0.0239, abs=1e-4)
    assert np.median(off[:, 0]) > 3 * np.median(off[:, 2])


@pytest.mark.parametrize(
    ("source", "shared", "apart"), [("rpj", -0.3, -7.3), ("c4_original", -6.3, -10.0), ("rw_original", -0.7, -5.7)]
)
def test_one_exponent_forecasts_the_largest_language_model(source, shared, apart):
    """Gadre et al. 2024: the run of 7B from those below 1e9 parameters, relative to the measured loss in %."""
    runs = study("gadre2024").query("source == @source")
    x, loss = runs[["params", "samples_seen"]].to_numpy(float), runs["value"].to_numpy(float)
    small, last = x[:, 0] < 1e9, x[:, 0].argmax()
    for name, expected in (("joint_shared", shared), ("joint_nd", apart)):
        params = Problem(LAWS[name], x[small], loss[small]).estimate.params
        assert 100 * (LAWS[name].error(x[last : last + 1], params)[0] / loss[last] - 1) == pytest.approx(
            expected, abs=0.06
        )


def test_repeated_data_is_worth_what_was_published():
    """Muennighoff et al. 2023: R* = 15.39; with the runs up to 60 epochs the interval holds it."""
    found = clipeval.fit(
        study("muennighoff2023"), law="joint_repeats", x="params,samples_seen,unique_samples", bootstrap=200
    )
    [row] = found.to_dict()["fits"]
    low, high = row["intervals"]["r_star"]
    assert row["params"]["r_star"] == pytest.approx(11.35, abs=0.01)
    assert low < 15.39 < high
