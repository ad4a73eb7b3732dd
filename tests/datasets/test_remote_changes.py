"""Remote files that change, servers that misbehave, and secrets that stay secret, by real servers on the loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shard_writer as writer

from clipeval import datasets
from clipeval.config import DatasetEntry, packaged
from clipeval.errors import DataError, UsageError
from clipeval.remote import copies, origin
from clipeval.remote.copies import ask, fetch, local_path
from clipeval.remote.origin import public
from clipeval_train.config import SourceEntry
from clipeval_train.input.shards import ShardSource

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers each request by ``answer``, and keeps what was asked with which headers."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.answer: Answer = lambda handler: None
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.seen.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.answer(self)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


def reply(handler: http.server.BaseHTTPRequestHandler, body: bytes, code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    for key, value in headers.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body)


def sized(body: bytes, **headers: str) -> Answer:
    return lambda handler: reply(handler, body, Content_Length=str(len(body)), **headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def another_process() -> Callable[[], None]:
    """What a process knows of servers ends with it."""

    def forget() -> None:
        copies._checked.clear()
        copies._away.clear()
        copies._silent.clear()
        copies._unreachable.clear()

    forget()
    return forget


VERSIONS = {
    "an ETag": [{"ETag": '"1"'}, {"ETag": '"2"'}],
    "a time": [{"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last_Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}],
    "nothing but the size": [{}, {}],
}


@pytest.mark.parametrize("kind", VERSIONS)
def test_a_file_that_changes_on_its_server_is_fetched_anew(
    server: Server, another_process: Callable[[], None], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    url = f"{server.url}/wds/0.tar"
    first, second = VERSIONS[kind]
    bodies = [b"one", b"three"]
    server.answer = sized(bodies[0], **first)
    path = fetch(url, offline=False)
    assert path is not None
    assert path.read_bytes() == bodies[0]
    for _ in range(3):
        assert fetch(url, offline=False) == path
    assert len(server.seen) == 1  # asked once per process
    another_process()
    capsys.readouterr()
    assert fetch(url, offline=False) == path
    assert len(server.seen) == 2
    assert ("a change may be missed" in capsys.readouterr().err) == (not first)
    server.answer = sized(bodies[1], **second)
    another_process()
    assert fetch(url, offline=True) == path
    assert path.read_bytes() == bodies[0]
    assert len(server.seen) == 2
    assert fetch(url, offline=False) == path
    assert path.read_bytes() == bodies[1]
    assert "it changed on the server" in capsys.readouterr().err


def test_an_unchanged_file_is_not_sent_again(server: Server, another_process: Callable[[], None]) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        same = handler.headers.get("If-None-Match") == '"7"'
        reply(
            handler,
            b"" if same else b"body",
            304 if same else 200,
            ETag='"7"',
            **({} if same else {"Content_Length": "4"}),
        )

    server.answer = answer
    for _ in range(2):
        another_process()
        path = fetch(f"{server.url}/a.tar", offline=False)
        assert path is not None
        assert path.read_bytes() == b"body"
    assert [headers.get("if-none-match") for _, _, headers in server.seen] == [None, '"7"']


def test_a_server_that_says_nothing_of_a_file_sends_it_each_time(
    server: Server, another_process: Callable[[], None]
) -> None:
    for body in (b"one", b"two"):
        server.answer = lambda handler, body=body: reply(handler, body)  # type: ignore[misc]
        another_process()
        path = fetch(f"{server.url}/a.txt", offline=False)
        assert path is not None
        assert path.read_bytes() == body


@pytest.mark.parametrize("how", ["gone", "error", "silent"])
def test_a_copy_is_used_where_the_server_cannot_be_asked_and_that_is_said_once(
    server: Server,
    another_process: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    server.answer = sized(b"body", ETag='"1"')
    urls = [f"{server.url}/{number}.tar" for number in range(3)]
    paths = [fetch(url, offline=False) for url in urls]
    another_process()
    monkeypatch.setenv("CLIPEVAL_TIMEOUT", "0.5")
    if how == "gone":
        server.socket.close()
    server.answer = (lambda handler: reply(handler, b"", 503)) if how == "error" else lambda handler: time.sleep(3)
    capsys.readouterr()
    assert [fetch(url, offline=False) for url in urls] == paths
    said = capsys.readouterr().err
    assert said.count("is used; whether it has changed is unknown") == 1
    assert server.url in said


def test_a_copy_that_was_damaged_is_fetched_anew(server: Server, another_process: Callable[[], None]) -> None:
    server.answer = sized(b"body", ETag='"1"')
    url = f"{server.url}/0.tar"
    path = fetch(url, offline=False)
    assert path is not None
    path.write_bytes(b"bodx")
    with pytest.raises(DataError, match=r"0\.tar is damaged in the cache .* nothing is downloaded now"):
        fetch(url, offline=True)
    assert fetch(url, offline=False) == path
    assert path.read_bytes() == b"body"


def test_a_data_set_that_is_corrected_on_its_server(
    tmp_path: Path, server: Server, another_process: Callable[[], None]
) -> None:
    """Labels, class names, and a list of class names that was not there before."""
    root = tmp_path / "wds"

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        file = root / handler.path.removeprefix("/wds/")
        sized(file.read_bytes())(handler) if file.is_file() else reply(handler, b"", 404)

    server.answer = answer
    entry = DatasetEntry(spec=f"wds:{server.url}/wds")
    writer.write_split(root, "test", [[("0.png", b"x"), ("0.cls", b"0"), ("1.png", b"y"), ("1.cls", b"1")]])
    first = datasets.open_dataset("animals", entry)
    assert first.prompts is None
    another_process()
    (root / "classnames.txt").write_bytes(b"\xef\xbb\xbfred fox\ngrey wolf\n")
    writer.write_split(root, "test", [[("0.png", b"x"), ("0.cls", b"1"), ("1.png", b"yy"), ("1.cls", b"00")]])
    os.utime(root / "test" / "0.tar", (1, 1))
    server.answer = lambda handler: answer(handler)
    tar = root / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes() + bytes(512))
    second = datasets.open_dataset("animals", entry)
    assert second.prompts is not None
    assert second.prompts.classes == ("red fox", "grey wolf")
    assert second.labels is not None
    assert second.labels.tolist() == [1, 0]
    assert second.fingerprint != first.fingerprint
    another_process()
    server.socket.close()
    assert datasets.open_dataset("animals", entry).fingerprint == second.fingerprint
    assert datasets.open_dataset("animals", entry, offline=True).fingerprint == second.fingerprint


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drip_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(3000):
        handler.wfile.write(b"x" * 100_000)


@pytest.mark.parametrize("answer", [drip, drip_headers, lambda handler: time.sleep(10)])
def test_a_server_that_hardly_moves_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("CLIPEVAL_TIMEOUT", "1")
    server.answer = answer
    started = time.monotonic()
    with pytest.raises(DataError, match=r"/0\.tar: .*(CLIPEVAL_TIMEOUT=SECONDS|[Tt]imed? ?out)"):
        fetch(f"{server.url}/0.tar", offline=False)
    assert time.monotonic() - started < 4
    if answer is not drip:  # a body that drips is of no concern to who only asks
        with pytest.raises(DataError, match=r"CLIPEVAL_TIMEOUT=SECONDS|[Tt]imed? ?out"):
            ask(f"{server.url}/0.tar")


def test_a_server_that_never_ends_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = endless
    with pytest.raises(DataError, match=r"classnames\.txt: the server sends more than 67,108,864 bytes"):
        fetch(f"{server.url}/classnames.txt", offline=False, optional=True)
    monkeypatch.setattr(copies, "_RESERVE", copies.shutil.disk_usage("/tmp").free - 1_000_000)
    with pytest.raises(DataError, match=r"0\.tar: the server sends more than [0-9,]* bytes"):
        fetch(f"{server.url}/0.tar", offline=False)


def tar_file(folder: Path) -> bytes:
    writer.write_tar(folder / "x.tar", [("0.png", b"p" * 5000), ("0.cls", b"1")])
    return (folder / "x.tar").read_bytes()


PAGE = b"\n<!DOCTYPE html><html><body>Please sign in</body></html>"


@pytest.mark.parametrize("name", ["0.tar", "t.parquet", "classnames.txt"])
@pytest.mark.parametrize("with_size", [True, False])
def test_a_web_page_is_not_kept_as_data(server: Server, name: str, with_size: bool) -> None:
    server.answer = sized(PAGE) if with_size else lambda handler: reply(handler, PAGE)
    with pytest.raises(DataError, match=rf"{name}: the server sent a web page and not the file\. Is a login needed"):
        fetch(f"{server.url}/{name}", offline=False)
    assert not local_path(f"{server.url}/{name}").exists()


@pytest.mark.parametrize("end", [100, 512, 3000, 6656])
def test_a_connection_that_breaks_without_a_word_leaves_nothing(tmp_path: Path, server: Server, end: int) -> None:
    """Without Content-Length the end of a connection looks like the end of the file."""
    body = tar_file(tmp_path)
    server.answer = lambda handler: reply(handler, body[:end])
    url = f"{server.url}/0.tar"
    with pytest.raises(
        DataError, match=r"0\.tar: received [0-9,]+ bytes, truncated .*the connection broke\. Run it aga"
    ):
        fetch(url, offline=False)
    assert [path for path in local_path(url).parent.rglob("*") if path.is_file()] == []
    server.answer = lambda handler: reply(handler, body)
    path = fetch(url, offline=False)
    assert path is not None
    assert path.read_bytes() == body
    server.answer = lambda handler: reply(handler, b"PAR1 and half a table")
    with pytest.raises(DataError, match=r"t\.parquet: received 21 bytes, which do not end as a table does"):
        fetch(f"{server.url}/t.parquet", offline=False)


SECRET = "S3CRET"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:S3CRET@host/a/0.tar failed", "http://host/a/0.tar failed"),
        ("http://S3CRET@host:80/a", "http://host:80/a"),
        ("s3://b/0.tar?X-Amz-Signature=S3CRET&y=1 and more", "s3://b/0.tar?... and more"),
        (
            "Max retries exceeded with url: /a?token=S3CRET (Caused by",
            "Max retries exceeded with url: /a?... (Caused by",
        ),
        ("'https://h/a?S3=S3CRET': what?", "'https://h/a?...': what?"),
        ("https://h/org/repo@v1/0.tar. Did you mean 'x'?", "https://h/org/repo@v1/0.tar. Did you mean 'x'?"),
    ],
)
def test_what_is_public_of_a_text(text: str, expected: str) -> None:
    assert public(text) == expected


def test_no_secret_of_a_url_reaches_a_message_or_a_file(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    body = tar_file(tmp_path)
    server.answer = sized(body)
    place = server.url.removeprefix("http://")
    urls = [f"http://user:{SECRET}@{place}/a/0.tar", f"http://{place}/b/0.tar?token={SECRET}"]
    messages = []
    for url in urls:
        server.answer = lambda handler: reply(handler, b"", 403)
        for attempt in (
            lambda url=url: fetch(url, offline=False),
            lambda url=url: fetch(url, offline=True),
            lambda url=url: ask(url),
            lambda url=url: datasets.open_dataset("x", DatasetEntry(spec=f"wds:{url}")),
            lambda url=url: datasets.open_dataset("x", DatasetEntry(spec=f"wds:{url}.tar")),
            lambda url=url: datasets.resolve([f"wds:{url}::gopher://x"], packaged()),
            lambda url=url: datasets.resolve([f"wsd:{url}"], packaged()),
            lambda url=url: ShardSource(SourceEntry(source="s", shards=url)),
            lambda url=url: ShardSource(SourceEntry(source="s", shards=url + "{")),
        ):
            with pytest.raises((DataError, UsageError)) as caught:
                attempt()
            messages.append(str(caught.value))
        server.answer = sized(body)
        assert fetch(url, offline=False) is not None
        names = list(datasets.resolve([f"wds:{url}", f"wds:http://user:{SECRET}@{place}"], packaged()).datasets)
        messages += names
    said = capsys.readouterr()
    assert SECRET not in "\n".join([*messages, said.out, said.err])
    for path in cache.rglob("*"):
        assert SECRET not in str(path)
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert {
        headers.get("authorization", "")[:6] for _, path, headers in server.seen if path.startswith("/a/0.tar")
    } == {"Basic "}


def test_the_token_goes_to_the_hub_alone_and_never_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_S3CRET")
    has_token = {
        url: "authorization" in {name.lower() for name in origin.headers_for(url)}
        for url in (
            "https://huggingface.co/datasets/a/b/resolve/main/0.tar",
            "http://huggingface.co/datasets/a/b/resolve/main/0.tar",
            "https://huggingface.co:8080/x",
            "https://huggingface.co.evil.org/x",
            "https://evil.org/huggingface.co",
            "https://user@evil.org/x",
            "https://huggingface.co@evil.org/x",
        )
    }
    assert [url for url, sent in has_token.items() if sent] == [
        "https://huggingface.co/datasets/a/b/resolve/main/0.tar"
    ]


def test_the_token_does_not_follow_a_redirect_to_another_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's stand-in is on the loopback, where http is allowed; ``localhost`` is another host than its."""
    monkeypatch.setenv("HF_TOKEN", "hf_S3CRET")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    elsewhere = f"http://localhost:{server.server_port}/cdn/0.tar"

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/cdn"):
            sized(b"body")(handler)
        else:
            reply(handler, b"", 302, Location=elsewhere, Content_Length="0")

    server.answer = answer
    path = fetch(f"{server.url}/datasets/a/b/resolve/main/0.tar", offline=False)
    assert path is not None
    assert path.read_bytes() == b"body"
    sent = [(path, headers.get("authorization")) for _, path, headers in server.seen]
    assert sent == [("/datasets/a/b/resolve/main/0.tar", "Bearer hf_S3CRET"), ("/cdn/0.tar", None)]


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/x.tar",
        "http://127.0.0.1:99999/x.tar",
        "http://127.0.0.1:port/x.tar",
        "http://a..b/x.tar",
        f"http://{'a' * 300}/x.tar",
        "http:///x.tar",
        "http://127.0.0.1:9/" + "n" * 300 + ".tar",
        "http://127.0.0.1:9/" + "é" * 200 + ".tar",
        "http://127.0.0.1:9/..",
        "http://127.0.0.1:9/.tar",
        "s3://",
        "memory2://x/y.tar",
    ],
)
def test_odd_addresses_are_messages(url: str) -> None:
    for offline in (False, True):
        with pytest.raises((DataError, UsageError)):
            fetch(url, offline=offline)
    for word in (f"wds:{url}", f"wds:{url}/x"):
        try:
            selection = datasets.resolve([word], packaged())
        except UsageError:
            continue
        for name, entry in selection.datasets.items():
            with pytest.raises((DataError, UsageError)):
                datasets.open_dataset(name, entry)
    with pytest.raises((DataError, UsageError)):
        ShardSource(SourceEntry(source="s", shards=url))


def test_long_names_have_copies(server: Server, another_process: Callable[[], None]) -> None:
    server.answer = sized(b"body")
    for name in ("n" * 300 + ".tar", ".hidden", "é" * 200 + ".tar"):
        path = fetch(f"{server.url}/{name}", offline=False)
        assert path is not None
        assert path.read_bytes() == b"body"
        assert fetch(f"{server.url}/{name}", offline=True) == path


def test_what_is_kept_of_a_copy(server: Server) -> None:
    server.answer = sized(b"body", ETag='"1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    path = fetch(f"{server.url}/0.tar", offline=False)
    assert path is not None
    assert json.loads((path.parent / ".0.tar.origin.json").read_text()) == {
        "size": 4,
        "etag": '"1"',
        "modified": "Mon, 01 Jan 2024 00:00:00 GMT",
        "digest": None,
        "sha256": "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5",
    }


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e3", "nan", "9" * 5000])
def test_a_wrong_time_out_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CLIPEVAL_TIMEOUT", value)
    with pytest.raises(UsageError, match="CLIPEVAL_TIMEOUT: expected a number of seconds"):
        fetch("http://127.0.0.1:9/0.tar", offline=False)


def test_every_run_of_a_process_asks_for_changes(server: Server) -> None:
    server.answer = sized(b"old", ETag='"1"')
    path = fetch(f"{server.url}/0.tar", offline=False)
    assert path is not None
    server.answer = sized(b"new", ETag='"2"')
    fetch(f"{server.url}/0.tar", offline=False)
    assert path.read_bytes() == b"old"
    copies.begin()
    fetch(f"{server.url}/0.tar", offline=False)
    assert path.read_bytes() == b"new"


def test_a_server_without_connection_is_asked_once_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    copies.begin()
    monkeypatch.setattr("clipeval.remote.transfer.WAITS", ())
    with pytest.raises(DataError, match="download failed"):
        fetch("http://127.0.0.1:9/0.tar", offline=False)
    with pytest.raises(DataError, match=r"1\.tar: not asked for, as the server was away before"):
        fetch("http://127.0.0.1:9/1.tar", offline=False)
    copies.begin()
    with pytest.raises(DataError, match="download failed"):
        fetch("http://127.0.0.1:9/1.tar", offline=False)
