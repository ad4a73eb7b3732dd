"""Shards for training at addresses of the hub: the endpoint's, with its token, its digests and its commits."""

from __future__ import annotations

import pytest
from loopback_hub import Hub, datasets, faults

from clipeval.errors import DataError
from clipeval.remote import copies
from clipeval_train.input import files

SHARDS = datasets.webdataset(datasets.digits(12), 2)


@pytest.fixture
def shards(served: Hub, monkeypatch):
    """Their addresses at the public hub."""
    monkeypatch.setattr(copies, "_checked", set())
    monkeypatch.setattr(copies, "_away", set())
    served.repository("org/shards", SHARDS, kind="dataset")
    return files.expand("it", "https://huggingface.co/datasets/org/shards/tree/main/test/{0..1}.tar")


def contents(shards):
    return [files.local(path).read_bytes() for path in shards]


def test_they_come_from_the_endpoint(served: Hub, shards, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    repository = served.repositories["dataset", "org/shards"]
    repository.gated, repository.readers = True, {"hf_reader"}
    named = files.identities("it", shards)
    assert named == [[path, repository.tree[f"test/{n}.tar"].sha256] for n, path in enumerate(shards)]
    assert contents(shards) == [SHARDS["test/0.tar"], SHARDS["test/1.tar"]]
    assert {request.token for request in served.seen(origin="hub")} == {"hf_reader"}
    assert {request.token for request in served.seen(origin="cdn")} == {""}


def test_a_gate_says_what_to_do(served: Hub, shards) -> None:
    served.repositories["dataset", "org/shards"].gated = True
    with pytest.raises(DataError, match="HF_TOKEN"):
        files.identities("it", shards)


def test_a_wrong_bit_is_fetched_again_then_an_error(served: Hub, shards) -> None:
    tree = served.repositories["dataset", "org/shards"].tree
    once, always = tree["test/0.tar"].sha256, tree["test/1.tar"].sha256
    served.fault(faults.flip(0.7), once, origin="cdn", method="GET")
    served.fault(faults.flip(0.7), always, origin="cdn", method="GET", times=None)
    assert files.local(shards[0]).read_bytes() == SHARDS["test/0.tar"]
    with pytest.raises(DataError, match=always):
        files.local(shards[1])
    assert [len(served.seen(digest, "cdn", "GET")) for digest in (once, always)] == [2, 2]


def test_shards_are_not_small(served: Hub, shards) -> None:
    """Real ones have some hundred megabytes."""
    large = datasets.tar([("a.txt", bytes(70 << 20))])
    served.plain["/large.tar"] = large
    assert files.local(f"{served.cdn}/large.tar").stat().st_size == len(large)


def test_a_lost_connection_is_continued(served: Hub, shards, monkeypatch) -> None:
    digest = served.repositories["dataset", "org/shards"].tree["test/0.tar"].sha256
    served.fault(faults.reset(0.5), digest, origin="cdn", method="GET")
    assert files.local(shards[0]).read_bytes() == SHARDS["test/0.tar"]
    assert "range" in served.seen(digest, "cdn", "GET")[1].headers


def test_offline_is_offline(served: Hub, shards, monkeypatch) -> None:
    named = files.identities("it", shards[:1])
    assert contents(shards[:1]) == [SHARDS["test/0.tar"]]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    served.heal()
    assert files.identities("it", shards[:1]) == named
    assert contents(shards[:1]) == [SHARDS["test/0.tar"]]
    for attempt in (lambda: files.identities("it", shards), lambda: contents(shards)):
        with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
            attempt()
    assert served.requests == []


def test_a_new_commit_is_another_identity_where_bytes_differ(served: Hub, shards) -> None:
    repository = served.repositories["dataset", "org/shards"]
    before = files.identities("it", shards)
    repository.push({"README.md": b"words", "test/1.tar": SHARDS["test/0.tar"]})
    after = files.identities("it", shards)
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
