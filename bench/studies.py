"""Public scaling studies of language models: what our laws and questions say of them, beside what was published."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HELD = 5
"""Mixtures of Ye et al. that are left out at a time."""
STEP = 30000


def main(*options: str) -> None:
    """Print the figures of each study whose table is in the folder; none of them comes with clipeval."""
    parser = argparse.ArgumentParser(prog="python -m bench studies", description=__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with isoflops_openathena.csv, where `value` is "
        "1 - loss / 10, and mixtures_ye2024_70m.csv",
    )  # fmt: skip
    folder = parser.parse_args(options).folder
    for name, study in STUDIES.items():
        rows = _read(folder / name)
        if rows is not None:
            study(rows)


def best_size(rows: pd.DataFrame) -> None:
    """The exponent of the best size, by three approaches."""
    from clipeval.scaling.questions.allocation import allocation

    print("\nIsoFLOP runs: exponent of the best size (half of its 95 % interval) by each approach")
    for source, runs in rows.groupby("source"):
        size, samples, budget = (runs[name].to_numpy(float) for name in ("params", "samples_seen", "budget"))
        found = allocation(size, samples, _loss(runs), budget=budget)
        cells = [f"{one.a:.3f} ({(one.high - one.low) / 2:.3f})" for one in found.exponents]
        print(f"    {source:44} {'   '.join(cells)}   {found.sentence}")


def mixtures(rows: pd.DataFrame) -> None:
    """Errors on mixtures that were left out, and the best mixture."""
    from clipeval.scaling.questions.mixtures import best_mixture, left_out

    rows = rows[rows["step"] == STEP]
    names = [name for name in rows if name.startswith("mix.")]
    table = rows.pivot_table(index=names, columns="validation_set", values="loss")
    shares, losses = np.array(table.index.to_list()), table.to_numpy().T
    generator, errors = np.random.default_rng(0), []
    for _ in range(4):
        held = np.isin(np.arange(len(shares)), generator.permutation(len(shares))[:HELD])
        for loss in losses:
            line = np.linalg.lstsq(shares[~held], np.log(loss[~held]), rcond=None)[0]
            others = (left_out(shares, loss, held), np.exp(shares[held] @ line) / loss[held] - 1)
            errors.append([np.abs(e).mean() for e in (*others, loss[~held].mean() / loss[held] - 1)])
    law, linear, mean = 100 * np.mean(errors, axis=0)
    print(
        f"\nYe et al. 2024, {len(shares)} mixtures, {len(losses)} validation sets, {HELD} mixtures left out, mean error:"
    )
    print(f"    {law:.1f} %, of a log-linear law {linear:.1f} %, of the mean of the others {mean:.1f} %")
    best = best_mixture(shares, losses)
    ranges = ", ".join(f"{s:.2f} [{a:.2f}, {b:.2f}]" for s, a, b in zip(best.shares, best.low, best.high, strict=True))
    print(f"    best mixture {ranges}{'' if best.inside else ' (outside of those tried)'}")


STUDIES = {
    "isoflops_openathena.csv": best_size,
    "mixtures_ye2024_70m.csv": mixtures,
}


def _read(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file():
        print(f"\n{path} is not there")
        return None
    return pd.read_csv(path)


def _loss(runs: pd.DataFrame) -> np.ndarray:
    return 10 * (1 - runs["value"].to_numpy(float))
