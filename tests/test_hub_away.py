"""A hub that was there before and is away now: what is on this machine is measured, and its rows say so."""

from __future__ import annotations

import csv
import json

from loopback_hub import Hub, datasets, faults, models

DATA = datasets.digits(30)


def test_the_newest_commit_here_is_measured_and_said(hub: Hub) -> None:
    model = hub.repository("org/clip", models.repository(0))
    shards = hub.repository("org/shards", datasets.webdataset(DATA), kind="dataset")
    table = hub.repository("org/table", datasets.parquet({"plain": DATA}), kind="dataset")
    words = ["-m", "hf-hub:org/clip", "-d", f"wds:{hub.endpoint}/datasets/org/shards", "-d", "hf:org/table"]
    first = hub.run("run", *words, "-o", "out")
    assert first.returncode == 0, first.stderr
    commits = [repository.refs["main"] for repository in (model, shards, table)]
    for repository in (model, shards, table):
        repository.push({"new.txt": b"a newer commit"})
    hub.heal()
    hub.fault(faults.cut(0), origin="hub", times=None)
    done = hub.run("run", *words, "-o", "away")
    assert done.returncode == 0, done.stderr
    with (hub.folder / "away/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        data = commits[1] if row["dataset"] == "shards" else commits[2]
        assert row["revision"] == f"{commits[0]} {data}"
        said = json.loads(row["notes"])["remarks"]
        assert [sentence.partition(":")[0] for sentence in said if "could not be asked" in sentence] == [
            "hub repository 'org/clip'",
            f"hub repository 'org/{row['dataset']}'",
        ]
    for name in ("org/clip", "org/shards", "org/table"):
        assert sum(f"'{name}': the hub could not" in line for line in done.stderr.splitlines()) == 1
    assert len(hub.seen(origin="hub")) == 5  # the tries for the first of them
    hub.heal()
    assert hub.run("run", *words, "-o", "offline", "--offline").returncode == 0
    assert hub.requests == []
