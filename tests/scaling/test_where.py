"""``--where``: the rows of a table that are fitted, against the same rows chosen with pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tables import table

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.asked import rows_where
from clipeval.scaling.fit import fit


def rows():
    """Two sources of ten checkpoints, with columns of every kind, some cells missing."""
    found = table(n=10).assign(arch=["S", "M"] * 10, tuned=[True, False, False, False] * 5)
    return found.assign(arch=found["arch"].where(found.index != 3), **{"mix.LAION-2B": np.linspace(0, 1, 20)})


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("samples_seen < 4e9", lambda t: t["samples_seen"] < 4e9),
        ("arch != 'S' and source == 'a'", lambda t: t["arch"].eq("M") & t["source"].eq("a")),
        ("not tuned == True", lambda t: ~t["tuned"]),
        ("`mix.LAION-2B` > 0.3", lambda t: t["mix.LAION-2B"] > 0.3),
        ("2e8 < samples_seen <= 5e9 or source == 'b'", lambda t: t.eval("2e8 < samples_seen <= 5e9 or source == 'b'")),
    ],
)  # fmt: skip
def test_the_fit_is_that_of_the_rows_alone(text, kept):
    everything = rows()
    chosen = everything[kept(everything)]
    assert 0 < len(chosen) < 20
    found, expected = fit(everything, where=text, bootstrap=100), fit(chosen, bootstrap=100)
    pd.testing.assert_frame_equal(found.fits, expected.fits)
    assert (found.card["where"], expected.card["where"]) == (text, None)
    assert found.card["data"]["sha256"] == expected.card["data"]["sha256"]
    assert found.card["data"]["left_out"] == {f"outside of --where {text}": 20 - len(chosen)}


def test_a_missing_value_meets_no_condition():
    everything = rows()
    for text in ("arch == 'M'", "arch != 'M'", "not arch == 'M'"):
        assert 3 not in rows_where(everything, text).index


def test_rows_of_other_tasks_are_not_counted():
    other = rows().assign(dataset="other-birds")
    found = fit(pd.concat([rows(), other]), datasets=["my-birds"], where="source == 'a'", bootstrap=100)
    assert sum(found.card["data"]["left_out"].values()) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("samples > 3", "--where samples > 3: the results table has no column 'samples'. Did you mean 'samples_seen'"),
        ("arch > 3", "cannot compare these kinds of values: arch holds"),
        ("arch", r"'arch' is no comparison .*; write a condition like arch != 'RN50' and samples_seen < 1e10\.\n"),
        ("arch ==", "not a condition"),
        ("mix.LAION-2B > 0", r"'mix\.LAION-2B' is no field|invalid"),
    ],
)  # fmt: skip
def test_what_is_no_condition(text, message):
    with pytest.raises(UsageError, match=message):
        fit(rows(), where=text)


def test_no_row_is_left():
    with pytest.raises(MeasureError, match="--where source == 'c': holds for none of the 20 rows"):
        fit(rows(), where="source == 'c'")
