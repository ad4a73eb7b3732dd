"""Shards counted by img2dataset's ``NNNNN_stats.json``: none is fetched before its block, the stream is the same."""

import json
import threading

import fsspec
import numpy as np
import pytest
import torch
from shard_files import image, sound, write
from tiny_run import tiny_config

from clipeval.errors import DataError, UsageError
from clipeval.remote import copies
from clipeval_train.config import SourceEntry
from clipeval_train.input import files, open_corpus, order, shard_index
from clipeval_train.input.bad import BadSample
from clipeval_train.input.counted_shards import CountedShardSource
from clipeval_train.input.source import open_source
from clipeval_train.model import resolve

SIZES = [31, 40, 7, 33, 20]


def opened(reference, **keys):
    return open_source(SourceEntry(source="s", shards=str(reference), counts="stats", **keys), 8)


def counted(folder, sizes, **changes):
    """Shards, and beside each what img2dataset says of it; ``changes`` are other counts by shard."""
    reference = sound(folder, sizes)
    for shard, size in enumerate(sizes):
        facts = {"count": size + 3, "successes": changes.get(f"s{shard}", size), "duration": 1.5}
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(facts))
    return reference


def corpus(reference, workers=0, **keys):
    data = [{"source": "s", "shards": str(reference)} | keys]
    config = tiny_config("out", data=data, batch_size=12, workers=workers)
    return open_corpus(config, resolve(config.model, "tiny"))


def joined(batches):
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "tokens", "keys")]


def assert_equal(first, second):
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(order, "_BLOCK", 1)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder's files as ``memory://NAME/...``, and what was fetched of them."""
    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))
    fetched = []
    original = files.fetch
    monkeypatch.setattr(files, "fetch", lambda url, **how: fetched.append(url) or original(url, **how))

    def served(name):
        for path in tmp_path.glob("0*"):
            fsspec.filesystem("memory").pipe(f"/{name}/{path.name}", path.read_bytes())
        return f"memory://{name}/{{00000..{len(list(tmp_path.glob('0*.tar'))) - 1:05d}}}.tar", fetched

    return served


def test_the_stream_is_that_of_indexed_shards_for_all_ranks_workers_and_resumes(tmp_path):
    reference = counted(tmp_path, SIZES)
    whole = joined(list(corpus(reference).batches(0, 396, 12)))
    assert (np.sort(whole[2][:131].numpy()) == np.arange(131)).all()
    assert_equal(joined(list(corpus(reference, counts="stats").batches(0, 396, 12))), whole)
    rest = joined(list(corpus(reference, 2, counts="stats").batches(72, 396, 12)))
    assert_equal(rest, [part[72:] for part in whole])
    ranks = [list(corpus(reference, counts="stats").batches(0, 396, 12, rank, 3)) for rank in range(3)]
    assert_equal(joined([part for parts in zip(*ranks, strict=True) for part in parts]), whole)


def test_no_shard_is_read_before_its_block(tmp_path, bucket, monkeypatch):
    counted(tmp_path, [50] * 9)
    url, fetched = bucket("late")
    data = corpus(url, counts="stats")
    assert len(data) == 450
    assert fetched == []
    monkeypatch.setattr("clipeval_train.input.loader._FetchAhead._fetch", lambda *_: None)
    batches = data.batches(0, 450, 12)
    first = next(batches)
    assert 0 < len(set(fetched)) <= 3  # a block is of two shards and more: 8 batches of 12
    expected = joined(list(corpus(f"{tmp_path}/*.tar").batches(0, 450, 12)))
    assert_equal(joined([first, *batches]), expected)
    assert len(fetched) == 9


def test_a_copy_from_before_its_counts_changed_is_fetched_again(tmp_path, bucket):
    counted(tmp_path, [5, 4])
    url, fetched = bucket("changing")
    assert opened(url).read(6)[1] == ["sample 1-1"]
    assert opened(url).read(6)[1] == ["sample 1-1"]
    assert len(fetched) == 1
    write(tmp_path / "00001.tar", {str(i): {"jpg": image(i), "txt": f"new {i}".encode()} for i in range(3)})
    (tmp_path / "00001_stats.json").write_text('{"successes": 3}')
    bucket("changing")
    copies.begin()  # a new run asks again
    assert opened(url).read(6)[1] == ["new 1"]
    assert len(fetched) == 2


def test_shards_are_fetched_side_by_side(tmp_path, bucket, monkeypatch):
    """Eight at a time: each waits until eight are under way."""
    counted(tmp_path, [50] * 17)
    url, _ = bucket("wide")
    monkeypatch.setattr(order, "_BLOCK", 1000)
    together, original, met = threading.Barrier(8), files.fetch, []

    def waiting(url, **how):
        if threading.current_thread() is not threading.main_thread() and len(met) < 8:
            together.wait(timeout=60)
            met.append(url)
        return original(url, **how)

    monkeypatch.setattr(files, "fetch", waiting)
    expected = joined(list(corpus(f"{tmp_path}/*.tar").batches(0, 120, 12)))
    assert_equal(joined(list(corpus(url, counts="stats").batches(0, 120, 12))), expected)
    assert len(met) >= 8
    assert not together.broken


def test_an_index_is_made_once_for_all_processes(tmp_path, monkeypatch):
    reference = counted(tmp_path, SIZES)
    built, original = [], shard_index.build_index

    def build(shard, *more):
        built.append(shard.name)
        return original(shard, *more)

    monkeypatch.setattr("clipeval_train.input.shards.build_index", build)
    source = opened(reference)
    assert built == []
    for index in (0, 30, 31, 130):
        source.read(index)
    assert built == ["00000.tar", "00001.tar", "00004.tar"]
    opened(reference).read(5)
    assert len(built) == 3
    assert source.where(33) == f"{tmp_path}/00001.tar: 000010002.jpg"


def test_counts_that_are_not_those_of_the_shard(tmp_path):
    """Too many: the others are bad samples with a reason, and replaced. Too few: so many are used."""
    reference = counted(tmp_path, SIZES, s0=35, s1=38)
    source = opened(reference)
    assert source.units.tolist() == [35, 38, 7, 33, 20]
    with pytest.raises(BadSample, match=r"not in its shard, though its _stats\.json counts it"):
        source.read(33)
    assert source.where(33) == f"{tmp_path}/00000.tar: sample 33"
    assert source.read(35)[1] == ["sample 1-0"]
    assert source.read(72)[1] == ["sample 1-37"]
    assert source.read(73)[1] == ["sample 2-0"]
    batches = list(
        corpus(
            reference,
            counts="stats",
        ).batches(0, 264, 12)
    )
    assert sum(batch.bad.get("not in its shard, though its _stats.json counts it", 0) for batch in batches) >= 4
    for batch in batches:
        assert len(set(batch.keys.tolist())) == 12
        assert not set(batch.keys.tolist()) & {31, 32, 33, 34}


def test_a_damaged_shard_is_met_as_bad_samples(tmp_path):
    reference = counted(tmp_path, [3, 4])
    (tmp_path / "00000.tar").write_bytes(b"<html>403")
    source = opened(reference)
    with pytest.raises(BadSample, match="not in its shard"):
        source.read(0)
    assert source.read(3)[1] == ["sample 1-0"]
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(DataError, match=r"00000\.tar: cannot read the shard: No such file"):
        opened(reference).read(0)
    assert opened(reference).where(0) == f"{tmp_path}/00000.tar: sample 0"


def test_counts_that_cannot_be_read_are_named(tmp_path, bucket, capsys):
    reference = counted(tmp_path, SIZES)
    (tmp_path / "00001_stats.json").unlink()
    (tmp_path / "00003_stats.json").write_text('{"successes": "many"}')
    for place in (reference, bucket("some")[0]):
        with pytest.raises(DataError) as error:
            opened(place)
        folder = str(place).partition("{")[0]
        assert str(error.value).startswith(
            f"data: s: 2 of 5 shards are missing or damaged: {folder}00001.tar (no _stats.json beside it), "
            f"{folder}00003.tar (its _stats.json has no number `successes`)."
        )
        source = opened(place, bad_shards=2)
        assert source.units.tolist() == [31, 7, 20]
        assert source.tally.bad == {"missing or unreadable shard": 2}
        assert "s: 2 of 5 shards are missing or damaged" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"its name does not end in \.tar"):
        opened(tmp_path / "*.json")
    with pytest.raises(UsageError, match="where: how many samples are left is known by `counts: index` only"):
        opened(reference, where="width > 2")
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match=r"the _stats\.json of '.*' count no sample"):
        opened(counted(tmp_path / "e", [2], s0=0))


def test_captions_may_be_chosen_and_the_fingerprint_is_of_what_was_counted(tmp_path):
    sample = {"jpg": image(1), "txt": b"t", "json": b'{"re": "r"}'}
    write(tmp_path / "00000.tar", {"a": sample, "b": sample})
    (tmp_path / "00000_stats.json").write_text('{"successes": 2}')
    source = opened(tmp_path / "*.tar", caption={"txt": 1, "json.re": 1})
    assert isinstance(source, CountedShardSource)
    assert [source.read(1, draw)[1] for draw in (0.4, 0.6)] == [["t"], ["r"]]
    assert source.fingerprint == opened(tmp_path / "*.tar", caption={"txt": 1, "json.re": 1}).fingerprint
    assert source.fingerprint != opened(tmp_path / "*.tar").fingerprint
    before = opened(tmp_path / "*.tar").fingerprint
    (tmp_path / "00000_stats.json").write_text('{"successes": 2, "end_time": 3}')
    assert opened(tmp_path / "*.tar").fingerprint != before
