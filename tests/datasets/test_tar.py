"""Members of tar files against Python's tarfile and webdataset's own pattern; hostile headers end at once."""

from __future__ import annotations

import io
import itertools
import random
import re
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import shard_writer as writer
from hypothesis import given, settings
from hypothesis import strategies as st

from clipeval import tar
from clipeval.datasets.adapters.tar_index import index_tar
from clipeval.errors import DataError

PATTERN = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
"""How webdataset splits a name (tariterators.base_plus_ext)."""


def test_names_are_split_as_webdataset_does() -> None:
    for length in range(8):
        for letters in itertools.product("a./_", repeat=length):
            name = "".join(letters)
            match = PATTERN.fullmatch(name)
            assert tar.split_name(name) == ((match[1], match[2]) if match else None)
            assert tar.is_metadata(name) == bool(re.search(r"(^|/)__[^/]*__($|/)", name))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text("ab./_é\n", max_size=40))
def test_any_name_is_split_as_webdataset_does(name: str) -> None:
    match = PATTERN.fullmatch(name)
    assert tar.split_name(name) == ((match[1], match[2]) if match else None)


def by_tarfile(path: Path) -> list[tuple[str, str, int, int]]:
    found = []
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            match = PATTERN.fullmatch(member.name)
            if member.isfile() and match and not re.search(r"(^|/)__[^/]*__($|/)", member.name):
                found.append((match[1], match[2].lower(), member.offset_data, member.size))
    return found


def by_us(path: Path) -> list[tuple[str, str, int, int]]:
    return [(member.key, member.extension, member.offset, member.size) for member in tar.members(path)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path: Path, form: int) -> None:
    kinds = [tarfile.REGTYPE] * 6 + [
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
    ]
    parts = ["a", "é", "dir/", "b.c/", "0", "__meta__/", "long" * 20 + "/"]
    rng = random.Random(form)
    path = tmp_path / "a.tar"
    for _ in range(60):
        with tarfile.open(path, "w", format=form, pax_headers={"comment": "x"}) as archive:
            for _ in range(rng.randint(1, 9)):
                count = rng.randint(1, 2 if form == tarfile.USTAR_FORMAT else 7)
                name = "".join(rng.choices(parts, k=count)) + rng.choice(["x.jpg", "x.PNG", "x", "x.seg.txt"])
                member = tarfile.TarInfo(name)
                member.type = rng.choice(kinds)
                data = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 2000]))
                member.size = len(data) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
        assert by_us(path) == by_tarfile(path)


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_what_the_systems_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    if form != "v7":
        names += [f"{'d' * 70}/{number}{'n' * 70}.jpg" for number in range(3)]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x" * 700 * number)
    command = ["tar", f"--format={form}", "-cf", tmp_path / "a.tar", "-C", tmp_path / "in", *names]
    subprocess.run(command, check=True)
    assert by_us(tmp_path / "a.tar") == by_tarfile(tmp_path / "a.tar")
    assert len(by_us(tmp_path / "a.tar")) == len(names)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_file_is_refused_by_its_name(tmp_path: Path, form: str) -> None:
    """What tar stores of it is not its content: read as it lies there, headers were taken for a caption."""
    with (tmp_path / "0.txt").open("wb") as file:
        file.truncate(8 << 30)
        file.seek(1 << 20)
        file.write(b"caption")
    (tmp_path / "0.png").write_bytes(writer.encoded(writer.picture(0), "png"))
    command = ["tar", "-S", f"--format={form}", "-cf", tmp_path / "s.tar", "-C", tmp_path, "0.png", "0.txt"]
    subprocess.run(command, check=True)
    assert [member.is_sparse for member in tar.members(tmp_path / "s.tar")] == [False, True]
    with pytest.raises(DataError, match=r"s\.tar: sample .*0: \.txt is a sparse file\. Write the tar without the"):
        index_tar(tmp_path / "s.tar")


def header(name: bytes = b"0.txt", kind: bytes = b"0", size: bytes = b"00000000000\0", **fields: bytes) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136], block[156:157], block[257:265] = size, kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def pax(**records: str) -> bytes:
    content = b""
    for key, value in records.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        content += str(length).encode() + body
    size = f"{len(content):011o}\0".encode()
    return header(b"pax", b"x", size) + content.ljust(-(-len(content) // 512) * 512, b"\0")


END = bytes(1024)
HOSTILE = {
    "negative size": header(size=b"\xff" * 12) + END,
    "size that goes back": pax(size="-1024") + header() + END,
    "size of many digits": pax(size="9" * 5000) + header() + END,
    "size far beyond the end": header(size=b"\x80" + b"\xff" * 11) + END,
    "long name of a terabyte": header(kind=b"L", size=b"\x80" + (1 << 40).to_bytes(11, "big")) + END,
    "sparse map without an end": pax(GNU__sparse__major="1", GNU__sparse__minor="0") + header() + b"9" * 512,
    "old sparse without its map": header(kind=b"S")[:482] + b"\x01" + header(kind=b"S")[483:],
    "digits": header(kind=b"x", size=b"00003640000\0") + b"1" * 1_000_000,
    "name of 300,000 slashes": pax(path="/" * 300_000 + ".txt") + header() + END,
    "name of 300,000 folders": pax(path="a/" * 150_000 + "b") + header() + END,
    "name of 300,000 dots": pax(path="." * 300_000) + header() + END,
    "no octal size": header(size=b"0_000000001\0") + END,
    "nothing": b"",
    "half a header": header()[:300],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers_end_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "h.tar").write_bytes(HOSTILE[kind])
    started = time.monotonic()
    with pytest.raises(tar.Damaged):
        list(tar.members(tmp_path / "h.tar"))
    with pytest.raises(
        DataError, match=r"h\.tar: (the tar is truncated or damaged after .*Dow|sample 0: .txt is a spa)"
    ):
        index_tar(tmp_path / "h.tar")
    assert time.monotonic() - started < 2


def test_many_headers_in_a_row_are_no_recursion(tmp_path: Path) -> None:
    data = (header(kind=b"L", size=b"00000000006\0") + b"name.a".ljust(512, b"\0")) * 5000
    (tmp_path / "l.tar").write_bytes(data + header() + END)
    assert by_us(tmp_path / "l.tar") == [("name", "a", 5000 * 1024 + 512, 0)]


def test_any_damage_of_a_tar_is_a_message(tmp_path: Path) -> None:
    """10,000 tars with damaged headers: none raises anything else, and none hangs."""
    content = [(f"{i}.{kind}", data) for i in range(2) for kind, data in (("png", b"p" * 600), ("cls", b"1"))]
    writer.write_tar(tmp_path / "good.tar", content)
    good = (tmp_path / "good.tar").read_bytes()[:6144]
    path = tmp_path / "bad.tar"
    rng, damaged = random.Random(0), 0
    for _ in range(10_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            start = rng.choice([0, 1536, 2560, 4096]) + rng.choice([0, 100, 124, 148, 156, 345, 482])
            data[start : start + 12] = rng.choice([rng.randbytes(12), b"\xff" * 12, b"0" * 12, b"7" * 12, bytes(12)])
        if rng.random() < 0.8:  # headers that are sound again, and say something else
            for start in (0, 1536, 2560, 4096):
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = f"{sum(data[start : start + 512]):06o}\0 ".encode()
        path.write_bytes(data)
        try:
            list(tar.members(path))
        except tar.Damaged:
            damaged += 1
    assert 1000 < damaged < 10_000


def test_names_that_are_no_utf8_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "n.tar").write_bytes(header(b"caf\xe9.cls") + header(b"caf\xe9.png") + END)
    assert [member.key for member in tar.members(tmp_path / "n.tar")] == ["caf\\xe9", "caf\\xe9"]
