"""The door to the hub, inside this process, against a hub that does what real hubs, mirrors and disks do."""

from __future__ import annotations

import hashlib
import threading
from urllib.parse import quote

import pytest
from hub_files import BIG, FILES
from loopback_hub import Hub, faults

from clipeval.errors import AbsentError, DataError, RemoteError, UsageError
from clipeval.remote import blobs, door
from clipeval.remote import hub as remote
from clipeval.remote.hub import Repository, Snapshot


def it(revision: str = "", name: str = "org/it", wanted: str = "weights.bin", offline: bool = False) -> Snapshot:
    remote.begin()
    return remote.snapshot(Repository("model", name, revision), (wanted,), offline=offline)


def content(snapshot: Snapshot, path: str = "weights.bin") -> bytes:
    return snapshot.file(path).read_bytes()


def blob(hub: Hub, data: bytes = BIG):
    return hub.folder / "hf/hub/models--org--it/blobs" / hashlib.sha256(data).hexdigest()


# --- who is asked, and who is told the token ---


def test_a_mirror_that_sends_to_another_hub_keeps_the_token(served: Hub, tmp_path, monkeypatch) -> None:
    """Every address of the endpoint is sent round to the same one of a second hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    (tmp_path / "other").mkdir()
    with Hub(tmp_path / "other") as other:
        other.repository("org/it", FILES)

        def moved(answer):
            request = served.requests[-1]
            target = f"{other.endpoint}{request.target}?{request.query}"
            return faults.redirect(target, 307)(faults.replace(answer, headers={}))

        served.fault(moved, origin="hub", times=None)
        found = it()
        assert {path: content(found, path) for path in found.paths()} == FILES
        assert {request.token for request in served.seen(origin="hub")} == {"hf_reader"}
        assert {request.token for request in other.requests} == {""}


def test_pages_of_a_listing_come_from_the_endpoint(served: Hub, tmp_path, monkeypatch) -> None:
    """A mirror passes on the public hub's Link to the second page."""
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    elsewhere = f"{served.cdn}/api/models/org/it/tree/main?cursor=abc&recursive=true"
    served.fault(lambda answer: answer.with_headers(Link=f'<{elsewhere}>; rel="next"'), "/tree/", times=1)
    assert set(it().paths()) == set(FILES)
    _, second = served.seen("/tree/")
    assert (second.origin, "cursor=abc" in second.query) == ("hub", True)
    assert served.seen(origin="cdn") == []


@pytest.mark.parametrize("path", ["/", "/hf", "/a/mirror/"])
def test_an_endpoint_with_a_path(served: Hub, monkeypatch, path: str) -> None:
    from loopback_hub import endpoint

    real = endpoint.of_hub

    def below(hub, request):
        prefix = path.rstrip("/")
        assert request.target.startswith(f"{prefix}/")
        cut = {"target": request.target.removeprefix(prefix), "path": request.path.removeprefix(prefix)}
        return real(hub, faults.replace(request, **cut))

    monkeypatch.setattr(endpoint, "of_hub", below)
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint + path)
    found = it()
    assert {name: content(found, name) for name in found.paths()} == FILES
    address = f"{served.endpoint}{path.rstrip('/')}/org/it/resolve/main/notes"
    assert door.fetch(address, offline=False).read_bytes() == FILES["notes"]


@pytest.mark.parametrize("text", ["mirror.example", "http://host:port", "ftp://host", "http://", "https://a b/"])
def test_an_endpoint_that_is_no_address(served: Hub, monkeypatch, text: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        it()


def test_a_renamed_repository(served: Hub) -> None:
    served.renamed["model", "org/old"] = "org/it"
    found = it(name="org/old")
    assert {name: content(found, name) for name in found.paths()} == FILES


def test_small_files_that_are_sent_round_and_packed(served: Hub) -> None:
    served.caches = True
    found = it()
    assert {name: content(found, name) for name in FILES} == FILES


def test_a_size_of_packed_bytes_is_no_size(served: Hub) -> None:
    """A proxy that packs whatever it passes on, and says the size of the pack for a HEAD too."""
    packed = {"Content_Encoding": "gzip", "Content_Length": "77"}
    served.fault(
        lambda answer: faults.replace(answer.with_headers(**packed), announced=77), "config", method="HEAD", times=None
    )
    assert content(it(), "config.json") == FILES["config.json"]


def test_a_signed_address_that_has_expired_is_asked_for_again(served: Hub) -> None:
    found = it()
    assert found.sha256("weights.bin") == hashlib.sha256(BIG).hexdigest()
    served.fault(faults.status(403), origin="cdn", times=1)
    assert content(found) == BIG


def test_a_storage_that_refuses_for_ever(served: Hub) -> None:
    served.fault(faults.status(403), origin="cdn", times=None)
    with pytest.raises(RemoteError, match="403"):
        it().file("weights.bin")
    assert len(served.seen(origin="cdn")) < 5


@pytest.mark.parametrize("where", ["hub", "cdn"])
def test_too_many_requests(served: Hub, where: str) -> None:
    fault = served.fault(faults.status(429, retry_after=1), origin=where, times=1)
    assert content(it()) == BIG
    first, second = served.seen("weights|lfs", origin=where)[:2]
    assert second.at - first.at >= 1
    assert fault.met == 1


def test_a_storage_away_is_not_the_hub_away(served: Hub) -> None:
    served.repository("org/other", FILES)
    served.fault(faults.redirect("http://127.0.0.1:9/gone", 307), "org/it/resolve/.*/notes", times=None)
    with pytest.raises(RemoteError) as raised:
        it(wanted="notes").file("notes")
    assert "127.0.0.1:9" in str(raised.value)
    found = remote.snapshot(Repository("model", "org/other"), ("notes",), offline=False)
    assert content(found, "notes") == FILES["notes"]


# --- what arrives ---


@pytest.mark.parametrize("said", [len(BIG) + 5, len(BIG) - 5, 0])
def test_an_announced_size_that_is_wrong(served: Hub, said: int) -> None:
    """The digest decides."""
    served.fault(lambda answer: answer.with_headers(X_Linked_Size=str(said)), "weights", method="HEAD", times=None)
    assert content(it()) == BIG
    assert len(served.seen(origin="cdn")) <= 3


def test_a_storage_without_ranges(served: Hub) -> None:
    served.fault(faults.reset(0.5), origin="cdn", times=1)
    served.fault(lambda answer: faults.replace(answer, status=200, body=BIG), origin="cdn", after=1, times=None)
    assert content(it()) == BIG


def test_a_download_that_was_whole_when_it_was_killed(served: Hub, cache) -> None:
    (cache / "downloads").mkdir()
    (cache / "downloads" / f"{hashlib.sha256(BIG).hexdigest()}.part").write_bytes(BIG)
    assert content(it()) == BIG
    assert served.seen(origin="cdn") == []


def test_a_partial_file_with_wrong_bytes(served: Hub, cache) -> None:
    (cache / "downloads").mkdir()
    (cache / "downloads" / f"{hashlib.sha256(BIG).hexdigest()}.part").write_bytes(b"wrong" * 1000)
    assert content(it()) == BIG


@pytest.mark.parametrize("tag", ['W/"{}"', '"{}"', "{}", 'W/"5f-3e:a+b/c="', '"{}-gzip"'])
def test_digests_as_servers_write_them(served: Hub, tag: str) -> None:
    served.fault(
        lambda answer: answer.with_headers(ETag=tag.format(answer.headers["ETag"].strip('"'))), "notes", times=None
    )
    assert content(it(wanted="notes"), "notes") == FILES["notes"]
    served.heal()
    assert content(it(wanted="notes", offline=True), "notes") == FILES["notes"]


def test_a_server_that_tells_no_digest(served: Hub) -> None:
    def without(answer):
        return faults.replace(answer, headers={k: v for k, v in answer.headers.items() if k != "ETag"})

    served.fault(without, "notes", times=None)
    with pytest.raises(RemoteError, match="no digest"):
        it(wanted="notes").file("notes")


# --- which commit ---


def test_revisions_with_slashes_and_signs(served: Hub) -> None:
    repository = served.repositories["model", "org/it"]
    for number, name in enumerate(["refs/pr/1", "feature/a+b", "v1.0(old)", "50%", "é"]):
        repository.push({"weights.bin": b"%d" % number}, name)
        assert content(it(name)) == b"%d" % number
        assert content(it(name, offline=True)) == b"%d" % number
        address = f"https://huggingface.co/org/it/resolve/{quote(name, safe='')}/weights.bin"
        assert door.fetch(address, offline=True).read_bytes() == b"%d" % number
    pull = "https://huggingface.co/org/it/resolve/refs/pr/1/weights.bin"
    assert door.fetch(pull, offline=False).read_bytes() == b"0"


def test_a_tag_that_moves(served: Hub) -> None:
    repository = served.repositories["model", "org/it"]
    repository.refs["v1"] = repository.refs["main"]
    assert content(it("v1")) == BIG
    repository.push({"weights.bin": b"new"}, "v1")
    assert content(it("v1", offline=True)) == BIG
    assert content(it("v1")) == b"new"
    assert content(it("v1", offline=True)) == b"new"
    assert content(it()) == BIG


def test_another_branch_is_not_taken_for_main(served: Hub) -> None:
    served.repositories["model", "org/it"].push({"weights.bin": b"an experiment"}, "v1")
    assert content(it("v1")) == b"an experiment"
    with pytest.raises(RemoteError, match="v1"):
        it(offline=True)


@pytest.mark.parametrize("revision", ["../../../../evil", "/tmp/evil", "a/../../b", "a\0b", "x" * 300, "a\nb"])
def test_revisions_that_are_paths(served: Hub, revision: str) -> None:
    """A hub that knows every revision."""
    served.repositories["model", "org/it"].resolve = lambda _: served.repositories["model", "org/it"].refs["main"]
    before = {path for path in served.folder.parent.rglob("*") if path.is_file()}
    with pytest.raises(AbsentError, match="branch"):
        it(revision)
    assert {path for path in served.folder.parent.rglob("*") if path.is_file()} == before


def test_a_hub_that_names_no_commit_of_git(served: Hub) -> None:
    served.fault(lambda answer: answer.with_headers(X_Repo_Commit="../../../../evil"), times=None)
    with pytest.raises(RemoteError, match="commit"):
        it()


# --- what is on this machine ---


def test_a_damaged_copy(served: Hub) -> None:
    place = it().file("weights.bin")
    blob(served).write_bytes(BIG[:-1] + b"!")
    with pytest.raises(RemoteError, match="damaged"):
        it(offline=True).file("weights.bin")
    assert content(it()) == BIG
    assert place.read_bytes() == BIG


def test_a_damaged_copy_that_a_new_commit_shares(served: Hub) -> None:
    it().file("weights.bin")
    blob(served).write_bytes(BIG[:-1] + b"!")
    served.repositories["model", "org/it"].push({"notes": b"other"})
    assert content(it()) == BIG


def test_a_cache_that_cannot_be_written(served: Hub, monkeypatch) -> None:
    """All is there, and the folder belongs to somebody else."""
    from clipeval.errors import StoreError

    assert content(it()) == BIG
    served.repositories["model", "org/it"].push({"notes": b"other"}, "v1")

    def refused(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(remote, "write_text", refused)
    assert content(it()) == BIG
    assert content(it("v1"), "notes") == b"other"


def test_two_caches_share_one_partial_file(served: Hub, cache) -> None:
    """Two programs with HF_HOME of their own and one cache folder."""
    served.fault(faults.slow(4_000_000), origin="cdn", times=None)
    announced = it().announced("weights.bin")
    found: list[bytes] = []

    def fill(home: str) -> None:
        place = served.folder / home / "blobs" / announced.etag
        blobs._fill(place, announced, "it")
        found.append(place.read_bytes())

    threads = [threading.Thread(target=fill, args=(home,)) for home in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BIG, BIG]


def test_without_a_description_offline(served: Hub) -> None:
    data = remote.snapshot(Repository("model", "org/it"), ("README.md", "other.md"), offline=False)
    data.paths()
    data.file("notes")
    remote.begin()
    again = remote.snapshot(Repository("model", "org/it"), ("README.md",), offline=True)
    assert content(again, "notes") == FILES["notes"]


def test_addresses_without_an_organisation(served: Hub) -> None:
    served.repository("alone", FILES, kind="dataset")
    address = "https://huggingface.co/datasets/alone/resolve/main/notes"
    assert door.fetch(address, offline=False).read_bytes() == FILES["notes"]
    with pytest.raises(DataError, match="has no file"):
        door.fetch(f"{address}-not", offline=False)


def test_a_full_disk(served: Hub) -> None:
    """A limit to the size of files is the same to a program."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    found = it()
    found.announced("weights.bin")
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BIG) // 2, before[1]))
    try:
        with pytest.raises(RemoteError, match="cannot be kept"):
            found.file("weights.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(served.seen(origin="cdn")) == 1
    assert content(it()) == BIG


def test_a_person_hears_whom_the_program_waits_for(served: Hub, capsys, monkeypatch) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 0.2)
    heard: list[str] = []
    served.fault(faults.stall(1), "weights", method="HEAD", times=None)
    served.fault(faults.then(lambda: heard.append(capsys.readouterr().err)), "lfs", origin="cdn")
    assert content(it()) == BIG
    assert heard[0].count(f"waiting for {served.endpoint}") == 1


def test_no_memory_is_no_fault_of_the_hub(served: Hub, monkeypatch) -> None:
    found = it()

    def full(*_: object) -> None:
        raise MemoryError

    for name in ("listing", "ask"):
        monkeypatch.setattr(f"clipeval.remote.client.{name}", full)
    for call in (found.paths, lambda: found.announced("other.txt")):
        with pytest.raises(MemoryError):
            call()
    assert remote._away == {}
