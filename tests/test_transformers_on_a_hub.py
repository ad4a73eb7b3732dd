"""Repositories of transformers on a hub: whole commands, whose rows are those of the same files in a folder."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import transformers_folders
from loopback_hub import Hub
from loopback_hub.runs import failed, local_data, rows


@cache
def contents(place: Path, family: str, seed: int = 0, shards: str = "") -> dict[str, bytes]:
    saved = {"max_shard_size": shards} if shards else {}
    folder = transformers_folders.write(family, place / f"{family}-{seed}-{shards}", seed, **saved)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(hub: Hub, folder: Path) -> str:
    """acc1 of the same files without a hub."""
    done = hub.run("run", "-m", f"transformers:{folder}", "-d", local_data(hub), "-o", f"of-{folder.name}")
    assert done.returncode == 0, done.stderr
    return rows(hub, f"of-{folder.name}")[f"transformers:{folder}"]["value"]


def test_every_family_comes_from_a_hub_and_then_from_this_machine(hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "folders"
    words = []
    for family in transformers_folders.FAMILIES:
        files = contents(place, family, shards="40KB" if family == "clip" else "")
        hub.repository(f"org/{family}", files | {"README.md": b"x", "own.py": b"raise SystemExit\n"})
        words += ["-m", f"transformers:org/{family}"]
    words += ["-d", local_data(hub)]
    done = hub.run("run", *words, "-o", "out")
    assert done.returncode == 0, done.stderr
    found = rows(hub)
    for family in transformers_folders.FAMILIES:
        row = found[f"transformers:org/{family}"]
        shards = "40KB" if family == "clip" else ""
        assert row["value"] == expected(hub, place / f"{family}-0-{shards}")
        assert row["revision"] == hub.repositories["model", f"org/{family}"].refs["main"]
    assert not hub.seen("own.py")
    before = len(hub.seen())
    done = hub.run("run", *words, "-o", "again", "--offline")
    assert done.returncode == 0, done.stderr
    assert len(hub.seen()) == before
    assert {name: row["value"] for name, row in rows(hub, "again").items()} == {
        name: row["value"] for name, row in found.items()
    }


def test_revisions_and_new_commits(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repository("org/clip", contents(tmp_path, "clip", 0))
    first = repository.refs["main"]
    repository.push(contents(tmp_path, "clip", 1))
    words = ["-m", f"transformers:org/clip@{first}", "-m", "transformers:org/clip", "-d", local_data(hub)]
    done = hub.run("run", *words, "-o", "out")
    assert done.returncode == 0, done.stderr
    found = rows(hub)
    names = (f"transformers:org/clip@{first}", "transformers:org/clip")
    for seed, name in enumerate(names):
        assert found[name]["value"] == expected(hub, tmp_path / f"clip-{seed}-")
    assert [found[name]["revision"] for name in names] == [first, repository.refs["main"]]


def test_repositories_that_are_none_of_these(hub: Hub, tmp_path: Path) -> None:
    good = contents(tmp_path, "clip")
    bert = {name: data.replace(b'"clip"', b'"bert"') for name, data in good.items() if name.endswith(".json")}
    hub.repository("org/bert", bert)
    hub.repository("org/empty", {"README.md": b"x"})
    hub.repository("org/weightless", {name: data for name, data in good.items() if "safetensors" not in name})
    hub.repository("org/good", good)
    names = ["bert", "empty", "weightless", "missing", "good"]
    words = [word for name in names for word in ("-m", f"transformers:org/{name}")]
    failed(hub.run("run", *words, "-d", local_data(hub), "-o", "out"))
    found = {name.removeprefix("transformers:org/"): row for name, row in rows(hub).items()}
    assert found["good"]["status"] == "ok"
    for name, says in (
        ("bert", "model_type is 'bert', which is no model of images and texts"),
        ("empty", "has no file 'config.json'"),
        ("weightless", "has no file 'model.safetensors' or"),
        ("missing", "org/missing"),
    ):
        assert found[name]["status"] == "failed"
        assert says in found[name]["error"]


def test_a_repository_of_transformers_is_told_to_who_asks_for_open_clip(hub: Hub, tmp_path: Path) -> None:
    hub.repository("org/clip", contents(tmp_path, "clip"))
    said = failed(hub.run("run", "-m", "hf-hub:org/clip", "-d", local_data(hub), "-o", "out"))
    assert "Use transformers:org/clip" in said


def test_facts_of_the_zoo(hub: Hub, tmp_path: Path) -> None:
    """A name proves nothing of weights, but the zoo's facts belong to the repository that people name."""
    hub.repository("openai/clip-vit-base-patch32", contents(tmp_path, "clip"))
    words = ["-m", "transformers:openai/clip-vit-base-patch32", "-d", local_data(hub), "-o", "out"]
    assert hub.run("run", *words).returncode == 0
    with (hub.folder / "out/results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["source"], row["source_family"], float(row["samples_seen"])) == ("CLIP-WIT", "CLIP-WIT", 12.8e9)
