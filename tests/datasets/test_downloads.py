"""Remote webdatasets: downloaded once, whole or not at all, and available offline afterwards."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shard_writer as writer

from clipeval import datasets, digest
from clipeval.config import DatasetEntry
from clipeval.datasets.adapters.shards import _hub_root
from clipeval.errors import DataError, StoreError, UsageError
from clipeval.remote.copies import fetch, local_path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; ``requests`` records the paths asked for, ``cut`` makes every answer end early."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.cut = False
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(self.path)
        super().do_GET()

    def copyfile(self, source: object, outputfile: object) -> None:
        assert isinstance(self.server, Server)
        data = source.read()  # type: ignore[attr-defined]
        outputfile.write(data[: len(data) // 2] if self.server.cut else data)  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    served = Server(tmp_path / "served")
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def test_downloaded_once_and_the_same_as_local(tmp_path: Path, server: Server) -> None:
    writer.classification(tmp_path / "served" / "wds_fox", per_shard=(3, 2))
    entry = DatasetEntry(spec=f"wds:{server.url}/wds_fox")
    with pytest.raises(
        DataError, match=r"nshards\.txt is not in the cache, and nothing is downloaded now \(--offline or --plan\)"
    ):
        datasets.open_dataset("fox", entry, offline=True)
    assert server.requests == []

    remote = datasets.open_dataset("fox", entry)
    local = datasets.open_dataset("fox", DatasetEntry(spec=f"wds:{tmp_path}/served/wds_fox"))
    assert remote.fingerprint == local.fingerprint
    assert list(remote.ids) == list(local.ids)
    assert remote.prompts == local.prompts
    assert remote.image(4).tobytes() == local.image(4).tobytes()

    server.requests.clear()
    assert datasets.open_dataset("fox", entry).fingerprint == local.fingerprint
    assert datasets.open_dataset("fox", entry, offline=True).prompts == local.prompts
    assert server.requests == []


def test_a_broken_connection_leaves_nothing_behind(tmp_path: Path, server: Server) -> None:
    writer.classification(tmp_path / "served" / "wds")
    url = f"{server.url}/wds/test/0.tar"
    server.cut = True
    with pytest.raises(DataError, match=r"0\.tar: .*(the download failed|received \d+,?\d* of)"):
        fetch(url, offline=False)
    assert not local_path(url).exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    server.cut = False
    path = fetch(url, offline=False)
    assert path is not None
    assert path.read_bytes() == (tmp_path / "served" / "wds" / "test" / "0.tar").read_bytes()


def test_another_process_may_fetch_the_same_meanwhile(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.classification(tmp_path / "served" / "wds")
    url = f"{server.url}/wds/test/0.tar"
    real = digest._hashed

    def hashed(path: Path, limit: int | None) -> str:
        if path == local_path(url):
            same = path.with_name("same")
            shutil.copyfile(path, same)
            same.replace(path)
        return real(path, limit)

    monkeypatch.setattr(digest, "_hashed", hashed)
    assert fetch(url, offline=False) == local_path(url)
    monkeypatch.setattr(digest, "_hashed", real)
    assert fetch(url, offline=True) == local_path(url)


def test_what_is_missing_is_named(tmp_path: Path, server: Server) -> None:
    writer.classification(tmp_path / "served" / "wds", per_shard=(2, 2))
    (tmp_path / "served" / "wds" / "test" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"/wds/test/1\.tar: there is no such file"):
        datasets.open_dataset("x", DatasetEntry(spec=f"wds:{server.url}/wds"))
    with pytest.raises(DataError, match=r"/wds/val/nshards\.txt is missing: the number of shards is unknown"):
        datasets.open_dataset("x", DatasetEntry(spec=f"wds:{server.url}/wds"), "val")
    with pytest.raises(DataError, match=r"the download failed: ConnectionError"):
        fetch("http://127.0.0.1:9/wds/0.tar", offline=False)
    assert fetch(f"{server.url}/nothing.txt", offline=False, optional=True) is None
    with pytest.raises(
        DataError, match=r"nothing\.txt is not in the cache .* nothing is downloaded now \(--offline or --plan\)"
    ):
        fetch(f"{server.url}/nothing.txt", offline=True)


def test_an_unwritable_cache_is_named(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.classification(tmp_path / "served" / "wds")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot keep http://.*0\.tar: Not a directory"):
        fetch(f"{server.url}/wds/test/0.tar", offline=False)


def test_another_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hf://, s3:// and gs:// go through fsspec, here with its file system in memory in the place of one of them."""
    import fsspec

    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/repo/0.tar", b"x" * 3_000_000)
    path = fetch("memory://repo/0.tar", offline=False)
    assert path is not None
    assert path.read_bytes() == b"x" * 3_000_000
    assert fetch("memory://repo/1.tar", offline=False, optional=True) is None
    memory.rm("/repo", recursive=True)


def test_hugging_face_addresses() -> None:
    base = "https://huggingface.co/datasets/clip-benchmark/wds_vtab-pets"
    resolved = f"{base}/resolve/main"
    for form in (base, f"{base}/tree/main", f"{base}/resolve/main", f"{base}/raw/main"):
        assert _hub_root(form, None) == resolved
    assert _hub_root(f"{base}/tree/main/sub/folder", None) == f"{resolved}/sub/folder"
    assert _hub_root(f"{base}/tree/main", "0123abc") == f"{base}/resolve/0123abc"
    assert _hub_root("https://example.org/a/tree/main", None) == "https://example.org/a/tree/main"
    with pytest.raises(UsageError, match="revision: only repositories of the hub"):
        _hub_root("https://example.org/a", "0123abc")
