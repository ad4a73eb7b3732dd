"""Pixels are kept where another checkpoint of the run reads them later, and where they are few; a plan says so."""

from __future__ import annotations

import json

import pytest
from helpers import TINY, image_folder, tiny_checkpoint

import clipeval
from clipeval.evaluation import keeping

BYTES = 31 * 32 * 32 * 3
"""Of the 31 test images of ``image_folder`` at 32 x 32."""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Two checkpoints of 32 x 32 pixels and one of 48 x 48, and a set of images that is not small."""
    monkeypatch.setattr(keeping, "SMALL", 1000)
    tiny_checkpoint(tmp_path / "a.pt", 1)
    tiny_checkpoint(tmp_path / "b.pt", 2)
    large = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 48}}
    tiny_checkpoint(tmp_path / "large.pt", 3, large)
    image_folder(tmp_path / "colours")
    return tmp_path


@pytest.fixture
def run(zoo, command):
    def call(names, *words, data=("colours",), tasks=("classification",)):
        models = [word for name in names for word in ("-m", zoo / f"{name}.pt")]
        chosen = [word for name in data for word in ("-d", f"folder:{zoo}/{name}")]
        asked = [word for name in tasks for word in ("-t", name)]
        rest = ["-o", zoo / "out", "--workers", "0", *words]
        code, out, err = command("clipeval", "run", *models, *chosen, *asked, *rest)
        assert code == 0, err
        return out

    return call


def planned(run, names, *words, **more):
    return [cell["pixels_bytes"] for cell in json.loads(run(names, *words, "--plan", "--json", **more))]


def entries(cache):
    """Bytes of every entry of pixels."""
    return sorted(path.stat().st_size for path in cache.glob("pixels-*/*/*/pixels.rec"))


STORED = 31 * (32 * 32 * 3 + 4)


def test_one_checkpoint_keeps_none(run, cache):
    assert planned(run, ["a"]) == [0]
    run(["a"])
    assert list(cache.glob("pixels-*/*/*")) == []


def test_the_first_of_two_keeps_them_for_the_second(zoo, run, cache):
    assert planned(run, ["a", "b"]) == [BYTES, BYTES]
    run(["a", "b"])
    assert entries(cache) == [STORED]


def test_other_pixels_and_the_same_weights_are_no_second_reader(zoo, run, cache):
    (zoo / "again.pt").write_bytes((zoo / "a.pt").read_bytes())
    assert planned(run, ["a", "large", "again"]) == [0, 0, 0]
    run(["a", "large", "again"])
    assert entries(cache) == []


def test_what_is_done_reads_nothing(run, cache):
    run(["b"])
    assert planned(run, ["a", "b"]) == [0, 0]
    run(["a", "b"])
    assert entries(cache) == []


def test_sets_of_one_content_share(zoo, run, cache):
    image_folder(zoo / "twin")
    run(["a"], data=("colours", "twin"))
    assert entries(cache) == [], "their embeddings are shared"
    run(["b", "large", "a"], data=("colours", "twin"))
    assert entries(cache) == []


def test_small_sets_are_kept(run, cache, monkeypatch):
    monkeypatch.setattr(keeping, "SMALL", BYTES)
    assert planned(run, ["a"]) == [BYTES]
    run(["a"])
    assert entries(cache) == [STORED]
    monkeypatch.setattr(keeping, "SMALL", BYTES - 1)
    assert planned(run, ["b"]) == [0]


def test_splits_are_kept_by_those_who_train_on_them(run, cache):
    """55 images to train on; zero-shot cells of the same checkpoints read only the scored ones."""
    run(["b"], tasks=("classification",))
    both = ("classification", "probe")
    words = ("--shots", "full")
    train = 55 * 32 * 32 * 3
    assert planned(run, ["a", "b"], *words, tasks=both) == [BYTES, BYTES + train, 0, BYTES + train]
    run(["a", "b"], *words, tasks=both)
    assert entries(cache) == sorted([STORED, 55 * (32 * 32 * 3 + 4)])


def test_what_has_no_room_is_not_kept(run, cache, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_PIXELS", str(BYTES - 1))
    assert planned(run, ["a", "b"]) == [0, 0]
    run(["a", "b"])
    assert entries(cache) == []


def test_kept_pixels_are_read_by_a_run_that_keeps_none(run, cache, zoo, monkeypatch):
    run(["a", "b"])
    [path] = cache.glob("pixels-*/*/*/pixels.rec")
    before = path.read_bytes()
    tiny_checkpoint(zoo / "c.pt", 4)
    monkeypatch.setattr("clipeval.datasets.adapters.folder.decode", None)
    run(["c"])
    assert path.read_bytes() == before
    assert set(clipeval.read_results(zoo / "out").status) == {"ok"}


def test_a_limit_counts_what_is_read(run, cache):
    assert planned(run, ["a", "b"], "--limit", "7") == [7 * 32 * 32 * 3] * 2
