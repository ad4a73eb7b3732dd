"""Results as other programs show them, by what these programs are called with."""

from __future__ import annotations

import sys
import types

import pytest

import clipeval
from clipeval.results import exporters
from clipeval.results.schema import to_frame


def row(model, value, **more):
    facts = {"dataset": "d", "task": "zeroshot_classification", "metric": "acc1", "status": "ok", "samples_seen": 5.0}
    return facts | {"model": model, "value": value} | more


TABLE = to_frame(
    [
        row("runs/a/checkpoints/samples_0000000010.pt", 0.25, samples_seen=10.0),
        row("runs/a/checkpoints/samples_0000000020.pt", 0.5, samples_seen=20.0),
        row("runs/b/checkpoints/samples_0000000010.pt", 0.75, task="linear_probe", shots=5, samples_seen=None),
        row("runs/b/checkpoints/samples_0000000010.pt", None, status="failed", error="no"),
    ]
)


def test_tensorboard_has_a_run_for_each_training_run(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_scalar(self, tag, value, step):
            written.append((self.folder, tag, value, step))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    assert exporters.to_tensorboard(TABLE, tmp_path / "events") == tmp_path / "events"
    assert written == [
        (f"{tmp_path}/events/a", "zeroshot_classification/d/acc1", 0.25, 10),
        (f"{tmp_path}/events/a", "zeroshot_classification/d/acc1", 0.5, 20),
        (f"{tmp_path}/events/b", "linear_probe_5shot/d/acc1", 0.75, 0),
    ]


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_tables_of_a_run(monkeypatch, package):
    logged = []

    class Run:
        def log(self, values):
            logged.append({name: table.dataframe for name, table in values.items()})

        def finish(self):
            logged.append("finished")

    library = types.SimpleNamespace(
        init=lambda **settings: logged.append(settings) or Run(),
        Table=lambda dataframe: types.SimpleNamespace(dataframe=dataframe),
    )
    monkeypatch.setitem(sys.modules, package, library)
    getattr(exporters, f"to_{package}")(TABLE, "study", name="first")
    settings, tables, last = logged
    assert settings == {"project": "study", "name": "first"}
    assert last == "finished"
    assert tables["results"]["value"].tolist() == [0.25, 0.5, 0.75]
    assert tables["results"]["shots"].tolist() == [None, None, 5]
    assert len(tables["leaderboard"]) == 3


def test_what_is_missing_is_said(monkeypatch):
    for package in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(clipeval.UsageError, match=f"{package} is not installed here: pip install {package}"):
            getattr(exporters, f"to_{package}")(TABLE, "study")
    with pytest.raises(clipeval.MeasureError, match="no row of these has a value"):
        exporters.to_wandb(TABLE[3:], "study")
