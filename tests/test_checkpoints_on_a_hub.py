"""Checkpoints of a hub that misbehaves, changes and refuses: what must come out of ``clipeval run``.

Whole commands, as processes of their own; values are compared with open_clip's on the same files.
"""

from __future__ import annotations

import json
import time

from loopback_hub import Hub, datasets, endpoint, faults, models
from loopback_hub.runs import (
    CONFIG,
    DATA,
    OTHER,
    WEIGHTS,
    blobs,
    clip,
    failed,
    local_data,
    rows,
    truth,
    value,
    with_models,
)


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
