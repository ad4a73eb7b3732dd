"""A results table with known laws, and a law fitted to arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipeval.scaling.problem import Problem

SLOPE = {"a": -0.12, "b": -0.20}


def table(n=6, noise=0.01, seed=0, **columns):
    """Two sources of n checkpoints each with nothing but the columns that a fit needs."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, slope in SLOPE.items():
        for i, samples in enumerate(np.geomspace(1e8, 1e10, n)):
            error = 3 * (7.4 * samples) ** slope * np.exp(rng.normal(0, noise))
            rows.append({"model": f"{source}{i}", "source": source, "gmacs": 7.4, "samples_seen": samples})
            rows[-1] |= {"dataset": "my-birds", "task": "zeroshot_classification", "metric": "acc1", "value": 1 - error}
    return pd.DataFrame(rows).assign(**columns)


def fit(law, x, error, **options):
    """The estimate of a problem."""
    return Problem(law, np.asarray(x, dtype=float), np.asarray(error, dtype=float), **options).estimate
