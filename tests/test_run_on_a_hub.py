"""``clipeval run`` against a hub that misbehaves, changes and refuses: what must come out.

Whole commands, as processes of their own; values are compared with open_clip's on the same files.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from functools import cache

import pytest
from loopback_hub import Hub, datasets, endpoint, faults, models

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


# --- checkpoints ---


def test_files_of_the_paper_with_the_optimizer_beside_the_weights(hub: Hub) -> None:
    names = ["Model-B-32_Data-80M_Samples-3B_lr-5e-4_bs-32k.pt", "full_checkpoints/epoch_7.pt"]
    files = {name: models.training_checkpoint(seed, numpy_1=seed == 0) for seed, name in enumerate(names)}
    hub.repository("laion/scaling-laws-openclip", files)
    specs = [f"ViT-B-32,hf://laion/scaling-laws-openclip/{name}" for name in names]
    done = hub.run("run", "-m", specs[0], "-m", specs[1], "-d", local_data(hub), "-o", "out")
    assert done.returncode == 0, done.stderr
    for name, spec in zip(names, specs, strict=True):
        assert float(rows(hub)[spec]["value"]) == models.accuracy_of_training_checkpoint(files[name], DATA)


def test_a_lost_connection_fails_its_checkpoint_only(hub: Hub) -> None:
    names = ["org/closed", "org/reset", "org/silent", "org/mended", "org/good"]
    words = with_models(hub, *names)
    for name, change in zip(names, [faults.cut(0.5), faults.reset(0.5), faults.stall(30, at=0.5)], strict=False):
        digest = hub.repositories["model", name].tree[WEIGHTS].sha256
        hub.fault(change, digest, origin="cdn", times=None)
    hub.fault(faults.reset(0.5), hub.repositories["model", "org/mended"].tree[WEIGHTS].sha256, origin="cdn", times=2)
    done = hub.run("run", *words, "-d", local_data(hub), "-o", "out", HF_HUB_DOWNLOAD_TIMEOUT="1", timeout=400)
    said = failed(done)
    assert [value(hub, "org/mended"), value(hub, "org/good")] == [truth(3), truth(4)]
    for name in names[:3]:
        row = rows(hub)[f"hf-hub:{name}"]
        assert row["status"] == "failed"
        assert WEIGHTS in row["error"]
        assert endpoint.SIGNATURE not in row["error"] + said


def test_answers_that_no_hub_gives(hub: Hub) -> None:
    names = ["org/portal", "org/elsewhere", "org/nothing", "org/good"]
    words = with_models(hub, *names)
    hub.fault(faults.portal(), "org/portal/", times=None)
    hub.fault(faults.redirect("http://elsewhere.example/x"), "org/elsewhere/", times=None)
    hub.fault(faults.status(404), "org/nothing/", times=None)
    said = failed(hub.run("run", *words, "-d", local_data(hub), "-o", "out", HF_TOKEN="hf_reader", timeout=400))
    assert value(hub, "org/good") == truth(3)
    found = rows(hub)
    assert all(name in said and found[f"hf-hub:{name}"]["status"] == "failed" for name in names[:3])
    assert all(hub.endpoint in found[f"hf-hub:{name}"]["error"] for name in names[:3])
    assert {request.token for request in hub.seen(origin="proxy")} <= {""}


def test_a_wrong_bit_is_fetched_again_then_an_error(hub: Hub) -> None:
    words = with_models(hub, "org/once", "org/always", "org/configuration")
    wrong = {name: hub.repositories["model", name].tree[WEIGHTS].sha256 for name in ("org/once", "org/always")}
    hub.fault(faults.flip(0.7), wrong["org/once"], origin="cdn")
    hub.fault(faults.flip(0.7), wrong["org/always"], origin="cdn", times=None)
    place = clip(2)[CONFIG].index(b"0.48145466") + 3  # 0.49145466 is a mean, too
    hub.fault(faults.flip(place), f"configuration/.*{CONFIG}", method="GET")
    failed(hub.run("run", *words, "-d", local_data(hub), "-o", "out"))
    assert [value(hub, "org/once"), value(hub, "org/configuration")] == [truth(0), truth(2)]
    assert wrong["org/always"] in rows(hub)["hf-hub:org/always"]["error"]
    assert [len(hub.seen(digest, "cdn")) for digest in wrong.values()] == [2, 2]
    assert wrong["org/always"] not in blobs(hub)


def test_a_new_commit_is_seen_and_named(hub: Hub) -> None:
    words = [*with_models(hub, "org/clip"), "-d", local_data(hub)]
    repository = hub.repositories["model", "org/clip"]
    commits = [repository.refs["main"]]
    found = []
    for seed, out in ((0, "out"), (1, "out"), (2, "new")):
        if seed:
            commits.append(repository.push(clip(seed)))
        assert hub.run("run", *words, "-o", out).returncode == 0
        found.append((value(hub, "org/clip", out), rows(hub, out)["hf-hub:org/clip"].get("revision")))
    assert found == [(truth(seed), commits[seed]) for seed in range(3)]
    repository.push(clip(3))
    hub.heal()
    assert hub.run("run", *words, "-o", "offline", "--offline").returncode == 0
    assert (value(hub, "org/clip", "offline"), hub.requests) == (truth(2), [])


def test_a_commit_during_the_run_is_not_mixed_in(hub: Hub) -> None:
    old, new = (models.repository_with_tokenizer("org/words", seed) for seed in (0, 1))
    new |= models.tokenizer_files(("moves", "all", "numbers"))
    repository = hub.repository("org/words", old)
    before = repository.refs["main"]
    hub.fault(faults.then(lambda: repository.push(new)), CONFIG, method="HEAD")
    done = hub.run("run", *with_models(hub, "org/words"), "-d", local_data(hub), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/words") == models.accuracy(old, DATA)
    assert rows(hub)["hf-hub:org/words"].get("revision") == before


def test_revisions_in_specs(hub: Hub) -> None:
    repository = hub.repository("org/clip", clip(0))
    repository.refs["v1"] = repository.refs["main"]
    repository.push(clip(1))
    files = datasets.parquet({"plain": datasets.digits(5), "other": OTHER})
    data = hub.repository("org/digits", files, kind="dataset")
    data.refs["refs/pr/1"] = data.refs["main"]
    data.push(datasets.parquet({"plain": DATA, "other": DATA}))
    done = hub.run("run", "-m", "hf-hub:org/clip@v1", "-d", "hf:org/digits:other@refs/pr/1", "-o", "out")
    assert done.returncode == 0, done.stderr
    row = rows(hub)["hf-hub:org/clip@v1"]
    assert (row["status"], row["n"]) == ("ok", "20")
    plan = hub.run("run", "-m", "ViT-B-32,hf://org/clip@v1/a.pt", "-d", local_data(hub), "-o", "o", "--plan", "--json")
    assert plan.returncode == 0
    assert "org/clip" in json.loads(plan.stdout)[0]["reason"]


def test_every_refusal_says_what_to_do(hub: Hub) -> None:
    words = with_models(hub, "org/gated", "org/private", "org/empty", "org/good")
    hub.repositories["model", "org/gated"].gated = True
    hub.repositories["model", "org/private"].private = True
    hub.repositories["model", "org/empty"].push({WEIGHTS: None})
    words += ["-m", "hf-hub:org/missing", "-d", local_data(hub)]

    def errors(out: str, token: str) -> dict[str, str]:
        failed(hub.run("run", *words, "-o", out, **({"HF_TOKEN": token} if token else {})))
        return {model.removeprefix("hf-hub:org/"): row["error"] for model, row in rows(hub, out).items()}

    for token in ("", "hf_stranger"):
        said = errors(f"as-{token}", token)
        assert said["good"] == ""
        assert "has no file" in said["empty"]
        assert "gated" in said["gated"]
        assert "private" in said["private"]
        assert "private" in said["missing"]
        if token:
            assert "access" in said["gated"]
        else:
            assert f"{hub.endpoint}/org/gated" in said["gated"]
            assert all("HF_TOKEN" in said[name] for name in ("gated", "private", "missing"))
    said = errors("as-expired", "hf_expired")
    assert "Invalid credentials" in said["gated"]
    assert "HF_TOKEN" in said["gated"]


def test_the_first_row_is_there_before_the_last_checkpoint_is_fetched(hub: Hub) -> None:
    words = with_models(hub, "org/a", "org/b", "org/c")
    lines: list[int] = []
    ledger = hub.folder / "out/ledger.jsonl"

    def look() -> None:
        deadline = time.monotonic() + 30  # the next one may be fetched while one is measured
        while not ledger.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        lines.append(len(ledger.read_text().splitlines()) if ledger.exists() else 0)

    digest = hub.repositories["model", "org/c"].tree[WEIGHTS].sha256
    hub.fault(faults.then(look), digest, origin="cdn")
    assert hub.run("run", *words, "-d", local_data(hub), "-o", "out", HF_HUB_DOWNLOAD_TIMEOUT="60").returncode == 0
    assert lines[0] >= 1


def test_a_file_is_announced_before_its_first_byte(hub: Hub) -> None:
    words = with_models(hub, "org/clip")
    said = hub.folder / "stderr"
    heard: list[str] = []
    digest = hub.repositories["model", "org/clip"].tree[WEIGHTS].sha256
    hub.fault(faults.then(lambda: heard.append(said.read_text())), digest, origin="cdn")
    assert hub.start("run", *words, "-d", local_data(hub), "-o", "out", stderr=said).wait(180) == 0
    assert WEIGHTS in heard[0]
    assert "org/clip" in heard[0]
    assert "MB" in heard[0]


def test_the_tokenizer_is_that_of_the_configuration(hub: Hub) -> None:
    files = models.repository_with_tokenizer("org/words")
    hub.repository("org/words", files)
    hub.fault(faults.status(404, "EntryNotFound"), CONFIG, method="HEAD", after=1, times=None)
    done = hub.run("run", *with_models(hub, "org/words"), "-d", local_data(hub), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert value(hub, "org/words") == models.accuracy(files, DATA)


def test_an_interrupted_download_goes_on_where_it_stood(hub: Hub) -> None:
    files = clip() | {WEIGHTS: clip()[WEIGHTS] + bytes(24_000_000)}  # no model, but its size counts
    digest = hub.repository("org/big", files).tree[WEIGHTS].sha256
    words = ["run", *with_models(hub, "org/big"), "-d", local_data(hub), "-o", "out"]
    hub.fault(faults.stall(60, at=0.9), digest, origin="cdn")
    first = hub.start(*words)
    while not hub.seen(digest, "cdn"):
        time.sleep(0.1)
    time.sleep(2)  # two of the client's pieces of 10 MiB arrive
    first.terminate()
    first.wait(30)
    hub.heal()
    hub.run(*words)
    assert "range" in hub.seen(digest, "cdn")[0].headers


def test_an_endpoint_that_is_away_is_not_asked_by_every_checkpoint(hub: Hub) -> None:
    words = with_models(hub, "org/a", "org/b", "org/c")
    hub.fault(faults.cut(0), origin="hub", times=None)
    failed(hub.run("run", *words, "-d", local_data(hub), "-o", "out", timeout=400))
    assert {row["status"] for row in rows(hub).values()} == {"failed"}
    assert all(hub.endpoint in row["error"] for row in rows(hub).values())
    assert hub.seen("org/a") != []
    assert hub.seen("org/b") == hub.seen("org/c") == []


def test_weights_of_this_run_are_removed_where_asked(hub: Hub) -> None:
    words = ["-d", local_data(hub)]
    assert hub.run("run", *with_models(hub, "org/before"), *words, "-o", "first").returncode == 0
    both = [*with_models(hub, "org/before", "org/now"), *words]
    assert hub.run("run", *both, "-o", "out", "--keep-weights", "no").returncode == 0
    kept = {
        name: hub.repositories["model", name].tree[WEIGHTS].sha256 in blobs(hub) for name in ("org/before", "org/now")
    }
    assert kept == {"org/before": True, "org/now": False}
    assert value(hub, "org/now") == truth(1)


def test_weights_that_several_checkpoints_share_are_removed_after_the_last(hub: Hub) -> None:
    """Of two repositories, and of two commits of one."""
    for name in ("org/one", "org/two"):
        hub.repository(name, clip()).push({"README.md": b"words"}, "v1")
    names = ["org/one", "org/two", "org/one@v1"]
    words = [word for name in names for word in ("-m", f"hf-hub:{name}")]
    done = hub.run("run", *words, "-d", local_data(hub), "-o", "out", "--keep-weights", "no")
    assert done.returncode == 0, done.stderr
    assert [value(hub, name) for name in names] == [truth()] * 3
    digest = hub.repositories["model", "org/one"].tree[WEIGHTS].sha256
    assert len(hub.seen(digest, "cdn")) == 2
    assert digest not in blobs(hub)


# --- data sets ---


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


# --- what works and must stay (section 3) ---


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
