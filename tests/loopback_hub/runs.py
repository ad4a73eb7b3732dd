"""What tests of whole runs against the hub share: a small zoo, its true accuracies, and the rows of a table."""

from __future__ import annotations

import csv
import subprocess
from functools import cache

from loopback_hub import datasets, models
from loopback_hub.hub import Hub

DATA = datasets.digits(30)
OTHER = datasets.digits(20, 500)
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


@cache
def clip(seed: int = 0) -> dict[str, bytes]:
    return models.repository(seed)


@cache
def truth(seed: int = 0, other: bool = False) -> float:
    return models.accuracy(clip(seed), OTHER if other else DATA)


def local_data(hub: Hub, name: str = "digits") -> str:
    """A data set that needs no hub."""
    for path, content in datasets.webdataset(DATA, 1).items():
        target = hub.folder / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return f"wds:{hub.folder / name}"


def with_models(hub: Hub, *names: str) -> list[str]:
    """-m for repositories; those that are missing are made, the n-th of seed n."""
    for seed, name in enumerate(names):
        if ("model", name) not in hub.repositories:
            hub.repository(name, clip(seed))
    return [word for name in names for word in ("-m", f"hf-hub:{name}")]


def rows(hub: Hub, out: str = "out", metric: str = "acc1") -> dict[str, dict[str, str]]:
    """The table's rows of one metric, or without a value, by model."""
    with (hub.folder / out / "results.csv").open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file) if row["metric"] in (metric, "")}


def value(hub: Hub, name: str, out: str = "out") -> float:
    row = rows(hub, out)[f"hf-hub:{name}"]
    assert row["status"] == "ok", row["error"]
    return float(row["value"])


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """stderr of a run in which something could not be measured: never a traceback."""
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def blobs(hub: Hub) -> dict[str, bytes]:
    """What the hub's cache holds, by name of the blob."""
    return {path.name: path.read_bytes() for path in (hub.folder / "hf/hub").glob("*/blobs/*")}
