"""The hub of the tests, met by the real clients: first, again, offline, with a fault, with a new commit."""

from __future__ import annotations

import json

import pytest
from loopback_hub import Hub, Repository, datasets, endpoint, faults, models

BLOB = bytes(range(256)) * 1000
FILES = {"config.json": b'{"a": 1}\n' * 200, "sub/weights.bin": BLOB, "README.md": b"# hello\n"}

DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
revision, offline = sys.argv[2:4] if len(sys.argv) > 3 else (None, "")
try:
    path = hf_hub_download("org/name", sys.argv[1], revision=revision or None, local_files_only=bool(offline))
    print(path.split("/")[-2 if "/" not in sys.argv[1] else -3], len(open(path, "rb").read()))
except Exception as error:
    print(type(error).__name__, str(error).replace("\\n", " "), getattr(error, "server_message", ""))
"""


def download(hub: Hub, *words: str, **environment: str) -> str:
    return hub.python(DOWNLOAD, *words, **environment).strip()


def asked(hub: Hub) -> list[tuple[str, str, str]]:
    return [(request.origin, request.method, request.path) for request in hub.requests]


def test_a_file_in_git_and_one_in_lfs(hub: Hub) -> None:
    repository = hub.repository("org/name", FILES)
    commit = repository.refs["main"]
    assert download(hub, "config.json") == f"{commit} 1800"
    assert asked(hub) == [
        ("hub", "HEAD", "/org/name/resolve/main/config.json"),
        ("hub", "GET", "/org/name/resolve/main/config.json"),
    ]
    hub.heal()
    assert download(hub, "sub/weights.bin", HF_TOKEN="hf_reader") == f"{commit} 256000"
    digest = repository.tree["sub/weights.bin"].sha256
    assert asked(hub) == [("hub", "HEAD", "/org/name/resolve/main/sub/weights.bin"), ("cdn", "GET", f"/lfs/{digest}")]
    assert [request.token for request in hub.requests] == ["hf_reader", ""]
    blobs = {path.name for path in (hub.folder / "hf/hub/models--org--name/blobs").iterdir()}
    assert blobs == {digest, repository.tree["config.json"].oid}
    hub.heal()
    assert download(hub, "config.json") == f"{commit} 1800"
    assert [request.method for request in hub.requests] == ["HEAD"]
    hub.heal()
    assert download(hub, "config.json", "", "offline") == f"{commit} 1800"
    assert download(hub, "sub/weights.bin", HF_HUB_OFFLINE="1") == f"{commit} 256000"
    assert download(hub, "README.md", "", "offline").startswith("LocalEntryNotFoundError")
    assert hub.requests == []


def test_digests_are_those_of_git_and_git_lfs() -> None:
    repository = Repository("org/name")
    repository.push({"hello.txt": b"hello\n", "hello.bin": b"hello\n"})
    assert repository.tree["hello.txt"].etag == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert repository.tree["hello.bin"].etag == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_revisions(hub: Hub) -> None:
    repository = hub.repository("org/name", {"config.json": b"1"})
    first = repository.refs["main"]
    repository.refs["v1.0"] = first
    second = repository.push({"config.json": b"22"})
    other = repository.push({"config.json": b"333"}, branch="refs/pr/1")
    for revision, found in (("", second), ("v1.0", first), (first, first), ("refs/pr/1", other)):
        assert download(hub, "config.json", revision, "").split()[0] == found
    hub.heal()
    assert download(hub, "config.json", first, "").split() == [first, "1"]
    assert hub.requests == []  # a commit whose file is here needs no question
    third = repository.push({"config.json": b"4444"})
    assert download(hub, "config.json", "", "offline").split() == [second, "2"]
    assert download(hub, "config.json").split() == [third, "4"]
    assert download(hub, "config.json", "nowhere", "").startswith("RevisionNotFoundError")


def test_every_refusal_has_its_class(hub: Hub) -> None:
    repository = hub.repository("org/name", FILES)
    assert download(hub, "absent.json").startswith("RemoteEntryNotFoundError")
    assert "Invalid credentials" in download(hub, "config.json", HF_TOKEN="hf_expired")
    repository.gated = True
    assert download(hub, "config.json").startswith("GatedRepoError 401")
    assert download(hub, "config.json", HF_TOKEN="hf_stranger").startswith("GatedRepoError 403")
    repository.private = True
    assert download(hub, "config.json").startswith("RepositoryNotFoundError 401")
    assert download(hub, "config.json", HF_TOKEN="hf_stranger").startswith("RepositoryNotFoundError 404")
    repository.readers.add("hf_reader")
    assert download(hub, "config.json", HF_TOKEN="hf_reader").endswith("1800")
    assert hub.seen(origin="cdn") == hub.seen(origin="proxy") == []


def test_a_renamed_repository_and_small_files_sent_round(hub: Hub) -> None:
    hub.repository("new/name", FILES)
    hub.renamed["model", "org/name"] = "new/name"
    hub.caches = True
    assert download(hub, "config.json", HF_TOKEN="hf_reader").endswith("1800")
    assert {request.path.split("/")[1] for request in hub.requests} == {"org", "new", "api"}
    assert {request.token for request in hub.requests} == {"hf_reader"}
    assert download(hub, "sub/weights.bin").endswith("256000")


SNAPSHOT = """
import os, sys
from huggingface_hub import HfApi, snapshot_download
folder = snapshot_download("org/data", repo_type="dataset", revision=sys.argv[1] or None)
print(sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names))
if not os.environ.get("HF_HUB_OFFLINE"):
    api = HfApi()
    print([type(entry).__name__ + " " + entry.path for entry in api.list_repo_tree("org/data", repo_type="dataset")])
    print([entry.path for entry in api.get_paths_info("org/data", ["a", "a/b/c.txt", "none"], repo_type="dataset")])
    print(api.dataset_info("org/data").sha, api.list_repo_files("org/data", repo_type="dataset"))
"""


def test_snapshots_and_listings(hub: Hub) -> None:
    repository = hub.repository("org/data", {"a/b/c.txt": b"c", "a/d.tar": b"d", "e.md": b"e"}, kind="dataset")
    files, tree, paths, info = hub.python(SNAPSHOT, "").splitlines()
    assert files == "['a/b/c.txt', 'a/d.tar', 'e.md']"
    assert tree == "['RepoFolder a', 'RepoFile e.md']"
    assert paths == "['a', 'a/b/c.txt']"
    assert info == f"{repository.refs['main']} {files}"
    hub.heal()
    assert hub.python(SNAPSHOT, "", HF_HUB_OFFLINE="1").strip() == files
    assert hub.requests == []
    repository.push({"e.md": None, "f.md": b"f"})
    assert hub.python(SNAPSHOT, "").splitlines()[0] == "['a/b/c.txt', 'a/d.tar', 'f.md']"


CDN_FAULTS = {
    "cut": (faults.cut(0.5), "256000"),
    "no answer": (faults.cut(0), "256000"),
    "reset": (faults.reset(0.5), "ReadError"),
    "reset at once": (faults.reset(0), "ReadError"),
    "stall": (faults.stall(9), "256000"),
    "stall inside": (faults.stall(9, at=0.5), "256000"),
    "429": (faults.status(429, retry_after=0), "256000"),
    "slow": (faults.slow(1_000_000), "256000"),
    "503": (faults.status(503), "HfHubHTTPError Server error '503"),
    "short": (faults.short(), "OSError Consistency check failed"),
    "portal": (faults.portal(), "OSError Consistency check failed"),
    "redirect": (faults.redirect("http://elsewhere.example/x"), "HfHubHTTPError"),
    "flip": (faults.flip(), "256000"),  # the client compares sizes only
}


@pytest.mark.parametrize("name", CDN_FAULTS)
def test_faults_of_the_cdn(hub: Hub, name: str) -> None:
    fault, told = CDN_FAULTS[name]
    hub.repository("org/name", FILES)
    rule = hub.fault(fault, origin="cdn")
    answer = download(hub, "sub/weights.bin", HF_HUB_DOWNLOAD_TIMEOUT="1", HF_TOKEN="hf_reader")
    assert rule.met == 1
    assert told in answer, answer
    assert {request.token for request in hub.seen(origin="cdn") + hub.seen(origin="proxy")} == {""}
    assert len(hub.seen("elsewhere", "proxy")) == (name == "redirect")


def test_one_bit_is_flipped_and_what_is_announced_stays(hub: Hub) -> None:
    file = hub.repository("org/name", FILES).tree["sub/weights.bin"]
    hub.fault(faults.flip(1000), origin="cdn")
    download(hub, "sub/weights.bin")
    data = (hub.folder / "hf/hub/models--org--name/blobs" / file.sha256).read_bytes()
    assert [index for index in range(len(BLOB)) if data[index] != BLOB[index]] == [1000]


def test_faults_of_the_endpoint(hub: Hub) -> None:
    repository = hub.repository("org/name", FILES)
    old = repository.refs["main"]
    hub.fault(faults.status(502), method="HEAD", times=2)
    hub.fault(faults.status(429, retry_after=0), method="GET")
    assert download(hub, "config.json").split() == [old, "1800"]
    assert [request.method for request in hub.requests] == ["HEAD"] * 3 + ["GET"] * 2
    hub.heal()
    repository.push({"config.json": b"new"})
    hub.fault(faults.then(lambda: repository.push({"config.json": b"newer"})), method="HEAD")
    assert download(hub, "config.json").startswith("OSError Consistency check failed")  # main moved in between
    assert download(hub, "config.json").split() == [repository.refs["main"], "5"]
    hub.fault(faults.portal(), origin="hub", times=None)
    assert download(hub, "README.md").startswith("LocalEntryNotFoundError Response from http")


GET = """
import sys, urllib.request
for headers in eval(sys.argv[2]):
    try:
        answer = urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers))
        print(answer.status, answer.read().decode(), answer.headers["ETag"])
    except urllib.request.HTTPError as error:
        print(error.code)
"""


def get(hub: Hub, url: str, *headers: dict[str, str]) -> list[str]:
    return hub.python(GET, url, repr(headers or ({},))).splitlines()


def test_ranges(hub: Hub) -> None:
    hub.plain["/x.tar"] = b"0123456789"
    (status, whole, tag), *_ = (line.split() for line in get(hub, f"{hub.cdn}/x.tar"))
    assert (status, whole) == ("200", "0123456789")
    asked_for = [
        {"Range": "bytes=4-"},
        {"Range": "bytes=4-5"},
        {"Range": "bytes=-2"},
        {"Range": "bytes=10-"},
        {"Range": "bytes=4-", "If-Range": '"other"'},
        {"Range": "bytes=4-", "If-Range": tag},
    ]
    said = [" ".join(line.split()[:2]) for line in get(hub, f"{hub.cdn}/x.tar", *asked_for)]
    assert said == ["206 456789", "206 45", "206 89", "416", "200 0123456789", "206 456789"]


def test_the_cdn_needs_a_signed_address_and_takes_no_token(hub: Hub) -> None:
    file = hub.repository("org/name", {"x.bin": b"content"}).tree["x.bin"]
    signed = f"{hub.cdn}/lfs/{file.sha256}?Signature={endpoint.SIGNATURE}"
    assert [line.split()[:2] for line in get(hub, signed, {}, {"Authorization": "Bearer t"})] == [
        ["200", "content"],
        ["403"],
    ]
    assert get(hub, f"{hub.cdn}/lfs/{file.sha256}") == ["403"]
    assert get(hub, f"{hub.cdn}/lfs/{file.oid}?Signature={endpoint.SIGNATURE}") == ["404"]


def test_nothing_leaves_the_loopback(hub: Hub) -> None:
    program = """
import httpx2, requests, urllib.request as library
def old(url, headers):
    library.urlopen(library.Request(url, headers=headers))
for get in (httpx2.get, requests.get, old):
    for url in ("https://huggingface.co/x", "http://huggingface.co/x"):
        try:
            get(url, headers={"Authorization": "Bearer t"})
        except Exception:
            pass
"""
    hub.python(program)
    assert [(request.origin, request.method, request.path) for request in hub.requests] == [
        ("proxy", "CONNECT", "huggingface.co:443"),
        ("proxy", "GET", "http://huggingface.co/x"),
    ] * 3
    assert [request.token for request in hub.requests] == ["", "t"] * 3  # of https the proxy sees the host only


LOAD = """
import sys, datasets
try:
    rows = datasets.load_dataset("org/digits", sys.argv[1] or None, split="test", revision=sys.argv[2] or None)
    print(rows.num_rows, rows.features["label"].names[:2], rows[0]["label"], rows[0]["image"].size)
except Exception as error:
    print(type(error).__name__, str(error).replace("\\n", " "))
"""


def test_load_dataset(hub: Hub) -> None:
    first, second = datasets.digits(7), datasets.digits(9, 100)
    repository = hub.repository("org/digits", datasets.parquet({"plain": first, "other": second}), kind="dataset")
    old = repository.refs["main"]
    named = "['zero', 'one'] 0 (32, 32)"
    assert hub.python(LOAD, "", "").strip() == f"7 {named}"
    assert hub.seen(origin="proxy") != []  # a counter and the viewer's API are on other hosts
    hub.heal()
    assert hub.python(LOAD, "", "", HF_HUB_OFFLINE="1").strip() == f"7 {named}"
    assert hub.requests == []
    repository.push(datasets.parquet({"plain": datasets.digits(5)}))
    assert hub.python(LOAD, "", "").strip() == f"5 {named}"
    assert hub.python(LOAD, "other", old).strip() == "9 ['zero', 'one'] 4 (32, 32)"
    repository.gated = True
    assert hub.python(LOAD, "", "", HF_HOME=str(hub.folder / "elsewhere")).startswith("DatasetNotFoundError")


OPEN = """
import json, logging, open_clip, torch
found = []
for name in ("hf-hub:org/new", "hf-hub:org/old", "hf-hub:org/words"):
    model, transform = open_clip.create_model_from_pretrained(name)
    tokens = open_clip.get_tokenizer(name)(["a photo of the digit seven."])
    with torch.inference_mode():
        found.append([tokens.shape[1], int((tokens != 0).sum()), model.encode_text(tokens).abs().sum().item()])
print(json.dumps(found))
"""


def test_open_clip_and_its_tokenizers(hub: Hub) -> None:
    new = hub.repository("org/new", models.repository(0))
    hub.repository("org/old", models.repository(0, "bin"))
    hub.repository("org/words", models.repository_with_tokenizer("org/words"))
    first = json.loads(hub.python(OPEN))
    assert [found[:2] for found in first] == [[77, 9], [77, 9], [12, 7]]
    assert first[0] == first[1]
    assert hub.seen(origin="proxy") == []
    hub.heal()
    assert json.loads(hub.python(OPEN, HF_HUB_OFFLINE="1")) == first
    assert hub.requests == []
    new.push(models.repository(1))
    again = json.loads(hub.python(OPEN))
    assert again[0][2] != first[0][2]
    assert again[1:] == first[1:]


def test_auto_tokenizer(hub: Hub) -> None:
    program = """
from transformers import AutoTokenizer
print(AutoTokenizer.from_pretrained("org/words")("a photo of seven").input_ids)
"""
    repository = hub.repository("org/words", models.tokenizer_files())
    first = hub.python(program)
    assert hub.seen("/api/models/org/words", "hub", "GET") != []
    hub.heal()
    assert hub.python(program, HF_HUB_OFFLINE="1") == first
    assert hub.requests == []
    repository.push(models.tokenizer_files(("other", "words")))
    assert hub.python(program) != first
