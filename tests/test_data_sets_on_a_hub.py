"""Data sets of a hub that misbehaves, changes and refuses, and what never changes: runs again, offline, two at once.

Whole commands, as processes of their own; values are compared with open_clip's on the same files.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import tarfile
import time

import pytest
from loopback_hub import Hub, datasets, faults, models
from loopback_hub.runs import DATA, OTHER, WEIGHTS, failed, local_data, rows, truth, value, with_models


def mnist(hub: Hub) -> str:
    """A webdataset of the hub by its address at this endpoint."""
    return f"wds:{hub.endpoint}/datasets/clip-benchmark/wds_mnist/resolve/main"


def test_data_sets_come_from_the_endpoint(hub: Hub) -> None:
    hub.repository("clip-benchmark/wds_tiny_digits", datasets.webdataset(DATA), kind="dataset")
    hub.repository("djghosh/wds_digits_test", datasets.webdataset(OTHER), kind="dataset")
    words = with_models(hub, "org/clip")
    for number, (spec, other) in enumerate(
        {
            "clip_benchmark:wds/tiny_digits": False,
            "wds:https://huggingface.co/datasets/clip-benchmark/wds_tiny_digits/tree/main": False,
            "wds:https://huggingface.co/datasets/djghosh/wds_digits_test/resolve/main": True,
        }.items()
    ):
        done = hub.run("run", *words, "-d", spec, "-o", f"out{number}")
        assert done.returncode == 0, done.stderr
        assert value(hub, "org/clip", f"out{number}") == truth(0, other)
    assert hub.seen(origin="proxy") == []


def test_a_shard_is_tried_again_and_continued(hub: Hub) -> None:
    files = datasets.webdataset(DATA, 3)
    hub.plain = {f"/digits/{path}": content for path, content in files.items()}
    busy = hub.fault(faults.status(503), r"digits/test/0\.tar")
    limited = hub.fault(faults.status(429, retry_after=2), r"digits/test/1\.tar")
    lost = hub.fault(faults.reset(0.6), r"digits/test/2\.tar")
    done = hub.run("run", *with_models(hub, "org/clip"), "-d", f"wds:{hub.cdn}/digits", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert [busy.met, limited.met, lost.met] == [1, 1, 1]
    assert value(hub, "org/clip") == truth(0)
    first, second = hub.seen(r"digits/test/1\.tar")
    assert second.at - first.at >= 2
    whole, rest = hub.seen(r"digits/test/2\.tar")
    assert "range" not in whole.headers
    assert 0 < int(rest.headers["range"].removeprefix("bytes=").removesuffix("-")) <= len(files["test/2.tar"]) * 0.6
    assert "if-range" in rest.headers


def test_a_wrong_bit_in_a_shard_of_the_hub_is_fetched_again(hub: Hub) -> None:
    data = hub.repository("clip-benchmark/wds_mnist", datasets.webdataset(DATA), kind="dataset")
    shard = data.tree["test/1.tar"]
    place = shard.data.index(b"s0000015.cls") + 512  # the label of one sample: nothing else notices
    hub.fault(faults.flip(place), shard.sha256, origin="cdn")
    done = hub.run("run", *with_models(hub, "org/clip"), "-d", mnist(hub), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/clip") == truth(0)
    assert len(hub.seen(shard.sha256, "cdn")) == 2


def test_a_gated_webdataset_with_the_token(hub: Hub) -> None:
    data = hub.repository("clip-benchmark/wds_mnist", datasets.webdataset(DATA), kind="dataset", gated=True)
    data.readers.add("hf_reader")
    words = [*with_models(hub, "org/clip"), "-d", mnist(hub)]
    assert "gated" in failed(hub.run("run", *words, "-o", "without"))
    done = hub.run("run", *words, "-o", "out", HF_TOKEN="hf_reader")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/clip") == truth(0)
    assert {request.token for request in hub.seen(origin="cdn")} == {""}


@pytest.mark.parametrize("address", ["http://huggingface.co", "http://huggingface.co:8080"])
def test_the_token_stays_with_the_endpoint(hub: Hub, address: str) -> None:
    words = [*with_models(hub, "org/clip"), "-d", f"wds:{address}/datasets/org/digits/tree/main", "-o", "out"]
    hub.run("run", *words, HF_TOKEN="hf_reader", HF_ENDPOINT="https://huggingface.co")
    hub.run("run", *words, HF_TOKEN="hf_reader")
    assert hub.requests != []
    assert {request.token for request in hub.requests if request.origin != "hub"} <= {""}
    assert {text for request in hub.seen(origin="proxy") for text in request.headers.values() if "hf_" in text} == set()


def test_an_hf_data_set_asks_no_other_host(hub: Hub) -> None:
    hub.repository("org/digits", datasets.parquet({"plain": DATA}), kind="dataset")
    done = hub.run("run", *with_models(hub, "org/clip"), "-d", "hf:org/digits", "-o", "out", HF_TOKEN="hf_reader")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/clip") > 0
    assert hub.seen(origin="proxy") == []


def test_metadata_beside_the_labels(hub: Hub) -> None:
    folder = hub.folder / "wds_wilds_test"
    for path, content in datasets.webdataset(DATA, 2, metadata=True).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    done = hub.run("run", *with_models(hub, "org/clip"), "-d", f"wds:{folder}", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/clip") == truth(0)


def test_a_parquet_set_is_stored_once(hub: Hub) -> None:
    hub.repository("org/digits", datasets.parquet({"plain": DATA}), kind="dataset")
    done = hub.run("run", *with_models(hub, "org/clip"), "-d", "hf:org/digits", "-o", "out")
    assert done.returncode == 0, done.stderr
    image = DATA.images[0]
    holders = [path for path in hub.folder.rglob("*") if path.is_file() and image in path.read_bytes()]
    assert {path.resolve() for path in holders} == {
        path.resolve() for path in holders if "blobs" in str(path.resolve())
    }


def test_all_kinds_see_a_new_commit_and_name_it(hub: Hub) -> None:
    shards = hub.repository("clip-benchmark/wds_mnist", datasets.webdataset(DATA), kind="dataset")
    tables = hub.repository("org/digits", datasets.parquet({"plain": DATA}), kind="dataset")
    specs = {mnist(hub): shards, "hf:org/digits": tables}
    words = with_models(hub, "org/clip")
    for out, data in (("out", DATA), ("again", OTHER)):
        for number, (spec, repository) in enumerate(specs.items()):
            done = hub.run("run", *words, "-d", spec, "-o", f"{out}{number}")
            assert done.returncode == 0, done.stderr
            row = rows(hub, f"{out}{number}")["hf-hub:org/clip"]
            assert row["n"] == str(len(data.labels))
            assert repository.refs["main"] in row.get("revision", "")
        shards.push(datasets.webdataset(OTHER))
        tables.push(datasets.parquet({"plain": OTHER}))


def test_a_plan_names_all_that_is_missing_and_asks_nobody(hub: Hub) -> None:
    hub.repository("clip-benchmark/wds_mnist", datasets.webdataset(DATA), kind="dataset")
    words = [*with_models(hub, "org/clip"), "-d", "clip_benchmark:wds/mnist", "-o", "out", "--plan", "--json"]
    (cell,) = json.loads(hub.run("run", *words).stdout)
    assert hub.requests == []
    assert "wds_mnist" in cell["reason"]
    assert WEIGHTS in cell["reason"]


def test_a_second_run_fetches_nothing_and_an_offline_one_asks_nothing(hub: Hub) -> None:
    hub.repository("org/old", models.repository(1, "bin"))
    hub.repository("org/words", models.repository_with_tokenizer("org/words"))
    hub.repository("org/digits", datasets.parquet({"plain": DATA}), kind="dataset")
    words = [*with_models(hub, "org/clip", "org/old", "org/words"), "-d", "hf:org/digits"]
    done = hub.run("run", *words, "-o", "out", HF_TOKEN="hf_reader")
    assert done.returncode == 0, done.stderr
    assert {request.token for request in hub.seen(origin="cdn")} == {""}
    assert all(row["status"] == "ok" for row in rows(hub).values())
    hub.heal()
    assert hub.run("run", *words, "-o", "again").returncode == 0
    assert hub.seen(origin="cdn") == []
    hub.heal()
    assert hub.run("run", *words, "-o", "offline", "--offline").returncode == 0
    assert hub.run("run", *words, "-o", "variable", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1").returncode == 0
    assert hub.run("run", *words, "-o", "plan", "--plan").returncode == 0
    assert hub.requests == []
    for out in ("again", "offline", "variable"):
        assert {name: row["value"] for name, row in rows(hub, out).items()} == {
            name: row["value"] for name, row in rows(hub).items()
        }


@pytest.mark.parametrize("executor", ["local", "processes"])
def test_a_data_set_is_measured_while_the_next_one_comes(hub: Hub, executor: str) -> None:
    """Of a repository with shards that are worth waiting for, and of a server with an address of its own."""
    padded = datasets.webdataset(DATA, 2)
    for shard in ("test/0.tar", "test/1.tar"):
        with tarfile.open(fileobj=io.BytesIO(padded[shard])) as file:
            first = file.getnames()[0].partition(".")[0]
        padded[shard] = datasets.tar([(f"{first}.padding", bytes(512 * 3_000))])[: 512 * 3_001] + padded[shard]
    hub.repository("org/first", padded, kind="dataset")
    hub.plain = {f"/last/{path}": content for path, content in datasets.webdataset(OTHER, 2).items()}
    words = [*with_models(hub, "org/a", "org/b"), "-d", f"wds:{hub.cdn}/last"]
    words += ["-d", "wds:https://huggingface.co/datasets/org/first/tree/main", "-d", local_data(hub)]
    words += ["--executor", executor, "--device", "cpu"]
    seen: list[set[tuple[str, str]]] = []

    def look() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = map(json.loads, (hub.folder / "out/ledger.jsonl").read_text().splitlines())
                if found := {(row["model"], row["dataset"]) for line in lines for row in line.get("rows", ())}:
                    seen.append(found)
                    return
            time.sleep(0.1)

    hub.fault(faults.then(look), r"last/test/1\.tar")
    done = hub.run("run", *words, "-o", "out", HF_HUB_DOWNLOAD_TIMEOUT="60", CLIPEVAL_TIMEOUT="60")
    assert done.returncode == 0, done.stderr
    assert [{dataset for _, dataset in found} for found in seen] == [{"digits"}]
    table = csv.DictReader((hub.folder / "out/results.csv").read_text().splitlines())
    assert {(row["model"], row["dataset"]): float(row["value"]) for row in table if row["metric"] == "acc1"} == {
        (f"hf-hub:org/{name}", data): truth(seed, data == "last")
        for seed, name in enumerate("ab")
        for data in ("last", "first", "digits")
    }
    assert "data sets: 3, cells: 6, done: 0; to be fetched meanwhile: 2 data sets, more than 3 MB" in done.stderr
    assert "[6/6]" in done.stderr
    asked = hub.seen(r"last/test/\d\.tar")  # workers ask whether what is here still is what is there
    assert len([request for request in asked if "if-none-match" not in request.headers]) == 2
    hub.heal()
    again = hub.run("run", *words, "-o", "out")
    assert again.returncode == 0
    assert "/6]" not in again.stderr
    assert hub.seen(WEIGHTS, method="GET") == []


def test_two_runs_at_once_fetch_a_file_once(hub: Hub) -> None:
    words = [*with_models(hub, "org/clip"), "-d", local_data(hub)]
    hub.fault(faults.slow(2_000_000), origin="cdn", times=None)
    runs = [hub.start("run", *words, "-o", out) for out in ("a", "b")]
    assert [run.wait(180) for run in runs] == [0, 0]
    assert [value(hub, "org/clip", out) for out in ("a", "b")] == [truth(), truth()]
    assert len(hub.seen(origin="cdn")) == 1


def test_interrupted_while_fetching(hub: Hub) -> None:
    words = [*with_models(hub, "org/clip"), "-d", local_data(hub), "-o", "out"]
    hub.fault(faults.stall(60, at=0.5), origin="cdn", times=None)
    run = hub.start("run", *words)
    while not hub.seen(origin="cdn"):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    assert [path for path in (hub.folder / "hf").rglob("*incomplete*") if path.is_file()] == []
