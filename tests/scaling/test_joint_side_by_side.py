"""``--budget``: the optimum of every joint law through the same points, and whether they agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from clipeval.cli import app
from clipeval.scaling.fit import fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.questions.optimal import _agreement

BUDGET = 1e11


def rows(alpha_n, alpha_d, noise=0.003, seed=0):
    """E = 0.05 + 0.4 G**alpha_n + b S**alpha_d, with b such that both terms matter."""
    rng, found = np.random.default_rng(seed), []
    b = 0.2 * 1e9**-alpha_d
    for gmacs in np.geomspace(2, 200, 6):
        for samples in np.geomspace(1e8, 3e10, 5):
            error = (0.05 + 0.4 * gmacs**alpha_n + b * samples**alpha_d) * np.exp(rng.normal(0, noise))
            found.append({"model": f"{gmacs:.0f}-{samples:.0e}", "arch": f"{gmacs:.0f}", "gmacs": gmacs})
            found[-1] |= {"samples_seen": samples, "value": 1 - error}
    return pd.DataFrame(found).assign(source="a", dataset="d", task="zeroshot_classification", metric="acc1")


def test_each_law_has_the_optimum_of_a_fit_by_itself():
    found = fit(rows(-0.3, -0.3), budget=BUDGET, bootstrap=200).more["joint_laws"].set_index("law")
    assert list(found.index) == ["joint_nd", "joint_shared"]
    for name in found.index:
        alone = fit(rows(-0.3, -0.3), law=name, x="gmacs,samples_seen", budget=BUDGET, bootstrap=200)
        optimum = alone.more["allocations"].iloc[0]
        columns = ["gmacs", "gmacs_low", "gmacs_high", "samples_seen", "error", "error_low", "error_high"]
        assert found.loc[name, columns].tolist() == optimum[columns].tolist()
        assert found.loc[name, "aicc"] == pytest.approx(alone.fits["aicc"].iloc[0])
    assert found["conclusion"].unique().tolist() == ["the laws agree within their intervals"]


def test_one_exponent_for_both_is_contradicted_where_they_differ():
    """The best size of either law in closed form: exponents -0.1 and -0.45 are not one."""
    found = fit(rows(-0.1, -0.45, noise=0.001), budget=1e12, bootstrap=200).more["joint_laws"].set_index("law")
    assert found["conclusion"].str.startswith("not settled: the best sizes of the laws differ").all()
    assert found.loc["joint_nd", "aicc"] < found.loc["joint_shared", "aicc"] - 10
    shared = LAWS["joint_shared"]
    sizes = np.geomspace(2, 200, 400)
    own = fit(rows(-0.1, -0.45, noise=0.001), law="joint_shared", x="gmacs,samples_seen", bootstrap=100).laws[0]
    expected = sizes[shared.error(np.stack([sizes, 1e12 / sizes], axis=1), own.estimate.params).argmin()]
    assert found.loc["joint_shared", "gmacs"] == pytest.approx(expected, rel=1e-6)


def of(low, high, gmacs=10.0, edge="", reason=""):
    return {"gmacs": gmacs, "gmacs_low": low, "gmacs_high": high, "edge": edge, "reason": reason}


@pytest.mark.parametrize(
    ("laws", "settled"),
    [
        ((of(1, 5), of(4, 9)), True),
        ((of(1, 3), of(4, 9)), False),
        ((of(1, np.nan), of(4, 9)), True),
        ((of(np.nan, 3), of(4, np.nan)), False),
        ((of(1, 5), of(np.nan, np.nan, 8, "largest")), False),
        ((of(1, 9), of(np.nan, np.nan, 8, "largest")), True),
        ((of(6, 9), of(np.nan, np.nan, 5, "smallest")), False),
        ((of(1, 5), of(4, 9), of(20, 30, reason="x")), True),
    ],
)
def test_whether_they_agree(laws, settled):
    assert _agreement(laws).startswith("the laws agree" if settled else "not settled")


def test_a_single_law_settles_nothing():
    assert "fewer than two" in _agreement([of(1, 5), of(4, 9, reason="no")])


def test_on_the_terminal(tmp_path):
    rows(-0.3, -0.3).to_csv(tmp_path / "t.csv", index=False)
    words = ["fit", str(tmp_path / "t.csv"), "--budget", "1e11", "--bootstrap", "100"]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "250"})
    assert "The same by each joint law" in shown.output
    assert "joint_shared" in shown.output
