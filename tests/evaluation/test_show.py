"""The tables of a run on the terminal."""

from __future__ import annotations

import re

from clipeval.evaluation.show import print_results


def row(dataset, metric, task="zeroshot_classification"):
    interval = {"ci_low": 0.1, "ci_high": 0.9, "n": 5, "status": "ok", "gmacs": 1.0, "samples_seen": 1e9}
    return {"model": "m", "dataset": dataset, "task": task, "metric": metric, "value": 0.5, **interval}


class Cell:
    def __init__(self, dataset):
        self.dataset, self.model = dataset, type("Model", (), {"name": "m"})
        self.main_metric = "acc1"


def test_data_sets_without_a_metric_in_common_have_tables_of_their_own(tmp_path, capsys):
    """Faces have ten metrics that no other set has: one table of all would be too wide to read."""
    rows = [row("pets", "acc1"), row("faces", "acc_race_avg"), row("fmow", "acc1"), row("fmow", "acc_worst_region"),
            row("voc", "mean_average_precision"), row("utk", "acc_race_avg"), row("utk", "acc_age_wg")]  # fmt: skip
    print_results(rows, [Cell(name) for name in ("pets", "faces", "fmow", "voc", "utk")], tmp_path)
    tables = capsys.readouterr().out.split("Zero-shot classification in %")[1:]
    names = [
        [name for name in ("pets", "faces", "fmow", "voc", "utk") if re.search(rf" {name}\b", table)]
        for table in tables
    ]
    assert names == [["pets", "fmow"], ["faces", "utk"], ["voc"]]
