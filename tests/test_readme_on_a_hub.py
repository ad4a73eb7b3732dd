"""Command lines of the README against a hub with repositories as large as the real ones, of tiny images.

What must hold of each: the second time nothing is fetched, offline nothing is asked, a kill in the middle changes no
value, and a new commit is seen.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from functools import cache

from loopback_hub import Hub, datasets, faults, models
from loopback_hub.datasets import Digits

from clipeval.models.zoo import CHERTI2023_FILES, members

ZOO = "laion/scaling-laws-openclip"
DATA, OTHER = datasets.digits(30), datasets.digits(20, 500)
WEIGHTS = "open_clip_model.safetensors"


@cache
def clip(seed: int = 0) -> dict[str, bytes]:
    return models.repository(seed)


def repeated(count: int) -> Digits:
    """So many samples, of ten images."""
    few = datasets.digits(10)
    return Digits([few.images[i % 10] for i in range(count)], [few.labels[i % 10] for i in range(count)])


def measured(hub: Hub, out: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(model, data set, metric) -> (status, value) of a results table."""
    with (hub.folder / out / "results.csv").open(newline="") as file:
        return {
            (row["model"], row["dataset"], row["metric"]): (row["status"], row["value"])
            for row in csv.DictReader(file)
            if row["n"] or row["status"] == "failed"
        }


def values(hub: Hub, out: str) -> dict[tuple[str, str, str], str]:
    return {key: value for key, (status, value) in measured(hub, out).items() if status in ("ok", "limited")}


def ended(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def killed(hub: Hub, at: str, *words: str) -> None:
    """Run until half of a file has arrived, and end without a goodbye."""
    hub.fault(faults.stall(60, at=0.5), at, origin="cdn", times=None)
    run = hub.start(*words)
    deadline = time.monotonic() + 120
    while not hub.seen(at, "cdn"):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(signal.SIGKILL)
    run.wait()
    hub.heal()


def test_the_zoo_of_the_paper(hub: Hub) -> None:
    """README's first command: of 29 files and three tags two files can be had, of four data sets all."""
    names = [row.pretrained.removeprefix(CHERTI2023_FILES) for row in members("cherti2023") if row.arch == "ViT-B-32"]
    hub.repository(ZOO, {name: models.training_checkpoint(seed) for seed, name in enumerate(names[:2])})
    for name, count in {"mscoco_captions": 5000, "flickr30k": 1000, "flickr8k": 1000}.items():
        files = datasets.webdataset(repeated(count), 3, captions=True)
        hub.repository(f"clip-benchmark/wds_{name}", files | {"name.txt": name.encode()}, kind="dataset")
    imagenet = datasets.webdataset(repeated(50_000), 5)
    hub.repository("clip-benchmark/wds_imagenet1k", imagenet, kind="dataset")
    words = ["run", "-m", "cherti2023", "-d", "retrieval", "--limit", "30"]
    said = ended(hub.run(*words, "-d", "imagenet1k", "-o", "first", timeout=400), 3)
    there = [f"ViT-B-32,{CHERTI2023_FILES}{name}" for name in names[:2]]
    found = measured(hub, "first")
    assert {model for model, _, _ in values(hub, "first")} == set(there)
    assert {model for model, _, _ in found} == {row.name for row in members("cherti2023")}
    assert said.count("has no file 'Model-…k.pt'") == 1, "27 that are alike are told once; the table has each"
    with (hub.folder / "first" / "results.csv").open(newline="") as file:
        errors = {row["model"]: row["error"] for row in csv.DictReader(file) if row["dataset"] == "imagenet1k"}
    for row in members("cherti2023"):
        if row.name not in there and row.pretrained.startswith(CHERTI2023_FILES):
            assert f"'{row.pretrained.removeprefix(CHERTI2023_FILES)}'" in errors[row.name]
    assert len(hub.seen(origin="cdn")) == 2 + 3 * 3 + 5
    hub.heal()
    ended(hub.run(*words, "-o", "again", timeout=300), 3)
    assert hub.seen(origin="cdn") == []
    hub.heal()
    ended(hub.run(*words, "-o", "offline", "--offline", timeout=300), 3)
    assert hub.requests == []
    first = {key: value for key, value in values(hub, "first").items() if key[1] != "imagenet1k"}
    assert values(hub, "again") == values(hub, "offline") == first != {}


def test_a_plan_of_every_public_checkpoint(hub: Hub) -> None:
    done = hub.run("run", "-m", "open_clip", "-d", "vtab+", "-o", "out", "--plan", "--json")
    ended(done)
    cells = json.loads(done.stdout)
    assert hub.requests == []
    assert {cell["model"] for cell in cells} == {row.name for row in members("open_clip")}
    assert all(cell["reason"] for cell in cells)
    sized = [cell for cell in cells if cell["model"] == "ViT-B-32,laion2b_s34b_b79k"]
    assert all("about 0.6 GB" in cell["reason"] for cell in sized)  # 151,277,313 parameters of four bytes
    assert sum("GB" in cell["reason"] for cell in cells) >= 0.95 * len(cells)


def test_revisions_kills_commits_and_two_at_once(hub: Hub) -> None:
    """A configuration of a Parquet set at a tag, a webdataset at a branch with a slash, a checkpoint of ``main``."""
    model = hub.repository("org/clip", clip(0))
    tables = hub.repository("org/tables", datasets.parquet({"plain": datasets.digits(7), "other": DATA}, 2), "dataset")
    tables.refs["v1"] = tables.refs["main"]
    tables.push(datasets.parquet({"plain": DATA, "other": datasets.digits(7)}))
    shards = hub.repository("org/shards", datasets.webdataset(datasets.digits(5)), "dataset")
    shards.push(datasets.webdataset(OTHER), "a/branch")
    specs = ["hf:org/tables:other@v1", "wds:https://huggingface.co/datasets/org/shards/tree/a%2Fbranch"]
    words = ["run", "-m", "hf-hub:org/clip", "-d", specs[0], "-d", specs[1]]

    def scores(out: str) -> dict[str, float]:
        found = {data: float(value) for (_, data, metric), value in values(hub, out).items() if metric == "acc1"}
        assert set(found) == {"tables_other", "shards"}
        return found

    table = tables.commits[tables.refs["v1"]]["other/test-00001-of-00002.parquet"].sha256
    shard = shards.commits[shards.refs["a/branch"]]["test/1.tar"].sha256
    for at in (table, shard, model.tree[WEIGHTS].sha256):
        killed(hub, at, *words, "-o", "killed")
    ended(hub.run(*words, "-o", "killed"))
    elsewhere = {"HF_HOME": str(hub.folder / "hf2"), "CLIPEVAL_CACHE": str(hub.folder / "cache2")}
    hub.heal()
    both = [hub.start(*words, "-o", out, **elsewhere) for out in ("one", "two")]
    assert [run.wait(180) for run in both] == [0, 0]
    assert len(hub.seen(origin="cdn")) == 5
    assert scores("killed") == scores("one") == scores("two")
    assert scores("killed")["shards"] == models.accuracy(clip(0), OTHER)
    hub.heal()
    ended(hub.run(*words, "-o", "again"))
    assert hub.seen(origin="cdn") == []
    model.push(clip(1))
    shards.push(datasets.webdataset(DATA), "a/branch")
    ended(hub.run(*words, "-o", "new"))
    assert scores("new")["shards"] == models.accuracy(clip(1), DATA)
    hub.heal()
    model.push(clip(2))
    ended(hub.run(*words, "-o", "offline", "--offline"))
    assert hub.requests == []
    assert scores("offline") == scores("new") != scores("again")
