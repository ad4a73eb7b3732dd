"""Every law on every data set of Cherti et al. 2023: none may end in a traceback."""

from __future__ import annotations

import time
import traceback
import warnings
from collections import Counter

from clipeval.errors import ClipevalError

DRAWS = 100
SCALES = {1: "gmacs_total", 2: "gmacs,samples_seen", 3: "gmacs,samples_seen,unique_samples"}


def main(*names: str) -> None:
    """Print what became of the fits of each law, or of those named, and the traceback of each that had one."""
    from clipeval.results.published import published
    from clipeval.scaling import cherti2023
    from clipeval.scaling.fit import fit
    from clipeval.scaling.laws import LAWS

    warnings.simplefilter("error")
    datasets = sorted(cherti2023.default_rows(published(), None, ["*"])["dataset"].dropna().unique())
    total: Counter[str] = Counter()
    print(f"{len(datasets)} data sets, {DRAWS} draws")
    for law in (law for law in LAWS.values() if law.name != "loglinear" and law.name in (names or LAWS)):
        start, counts = time.perf_counter(), Counter[str]()
        for name in datasets:
            try:
                found = fit(datasets=[name], law=law.name, x=SCALES[law.inputs], bootstrap=DRAWS)
                counts.update("fitted" if one.estimate else "refused" for one in found.laws)
                counts["pairs compared"] += len(found.pairs)
            except ClipevalError:
                counts["refused"] += 1
            except Exception:
                counts["tracebacks"] += 1
                print(f"{law.name} on {name}:\n{traceback.format_exc()}", flush=True)
        total += counts
        print(f"    {law.name:14} {_listed(counts)}, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"    {'all laws':14} {_listed(total)}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[what]:4} {what}" for what in ("fitted", "refused", "pairs compared", "tracebacks"))
