"""Shards as LAION, DataComp and img2dataset write them: indexed once, read by place; broken ones counted by reason."""

import gzip
import json
import multiprocessing
import os
import shutil
import subprocess
import tarfile
import time

import numpy as np
import pytest
import webdataset
from helpers import add
from shard_files import bomb, image, sound, truncated_jpeg, write

from clipeval import digest
from clipeval.errors import DataError, UsageError
from clipeval_train.config import SourceEntry
from clipeval_train.input import files, shard_index
from clipeval_train.input.bad import BadSample
from clipeval_train.input.decode import decode_image
from clipeval_train.input.shards import ShardSource
from clipeval_train.input.source import open_source


def opened(reference, name="s", **keys):
    return ShardSource(SourceEntry(source=name, shards=str(reference), **keys))


def captions(source):
    return [source.read(index)[1][0] for index in range(int(source.units.sum()))]


def test_samples_are_read_at_their_place(tmp_path):
    source = opened(sound(tmp_path, [5, 1, 4]))
    assert source.units.tolist() == [5, 1, 4]
    assert captions(source) == [f"sample {s}-{i}" for s, n in enumerate([5, 1, 4]) for i in range(n)]
    assert np.array_equal(source.read(7)[0], decode_image(image(201)))
    assert source.where(7) == f"{tmp_path}/00002.tar: 000020001.jpg"
    assert not source.tally.bad
    assert source.tally.read == 10


def test_what_webdataset_writes_is_read(tmp_path):
    """Its writer adds a header of another kind to every file, and files that are not samples may lie between."""
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for i in range(4):
            metadata = {"caption": f"from json {i}", "key": i}
            sample = {"__key__": f"a/b.c/{i:09d}", "jpg": image(i), "json": json.dumps(metadata).encode()}
            writer.write(sample if i % 2 else sample | {"txt": f"from txt {i}".encode()})
    with tarfile.open(tmp_path / "0.tar", "a", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "README", b"no key")
        add(tar, "__meta__/x.jpg", b"metadata")
        add(tar, f"{'long/' * 60}ü.PNG", image(4, "PNG"))
        add(tar, f"{'long/' * 60}ü.txt", b"from txt 4")
        add(tar, "only.pyd", b"not a sample")
    source = opened(tmp_path / "0.tar")
    expected = ["from txt 0", "from json 1", "from txt 2", "from json 3", "from txt 4"]
    assert captions(source) == expected
    assert not source.tally.bad


def test_globs_braces_and_lists_of_both(tmp_path):
    sound(tmp_path / "a", [2, 3])
    sound(tmp_path / "b", [4])
    assert opened(f"{tmp_path}/a/*.tar::{tmp_path}/b/0000{{0..0}}.tar").units.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("pipe:cat x.tar", UsageError, "pipe: runs a command"),
        ("PIPE:aws s3 cp x -", UsageError, "pipe: runs a command"),
        ("gopher://h/x.tar", UsageError, "'gopher://' is not a URL scheme"),
        ("{tmp}/no*.tar", DataError, "s: no file matches '.*no\\*.tar'"),
        ("{tmp}/no.tar", DataError, r"s: 1 of 1 shards is missing or damaged: .*no.tar \(missing\). Check the path"),
        ("{tmp}/x{{0..1.tar", DataError, "s: .*x.0..1.tar.* Write {00000..00099}"),
        ("{tmp}", DataError, r"\(not a regular file\)"),
    ],
)
def test_references_that_name_nothing_to_read(tmp_path, reference, error, message):
    with pytest.raises(error, match=message):
        opened(reference.replace("{tmp}", str(tmp_path)).replace("{{", "{"))


def good(number):
    return {"jpg": image(number), "txt": f"good {number}".encode()}


HEADERS = {
    "no captions": ({"a": good(0), "b": {"jpg": image(1)}, "c": {"png": image(2, "PNG")}}, {"no caption": 2}),
    "no images": ({"a": good(0), "b": {"txt": b"x"}, "c": {"cls": b"3"}}, {"no image": 1}),
    "names with dots": ({"a": good(0), "v1": {"0.jpg": image(1), "0.txt": b"x", "1.jpg": b"", "1.txt": b"y"}},
                        {"a name with dots, and keys end at the first dot": 1}),
    "empty files": ({"a": good(0), "b": {"jpg": b"", "txt": b"x"}, "c": {"jpg": image(1), "txt": b""}},
                    {"empty image": 1, "empty caption": 1}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_what_headers_tell_is_left_out_and_counted(tmp_path, kind):
    samples, reasons = HEADERS[kind]
    source = opened(write(tmp_path / "0.tar", samples))
    assert captions(source) == ["good 0"]
    assert source.tally.bad == reasons
    assert source.tally.read == 1 + sum(reasons.values())
    assert f"0.tar: {list(samples)[1]}" in source.tally.example


def test_two_files_of_one_kind_are_counted_and_the_first_is_read(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in (0, 1):
            add(tar, "a.jpg", image(number))
            add(tar, "a.txt", f"good {number}".encode())
    source = opened(tmp_path / "0.tar")
    assert captions(source) == ["good 0"]
    assert source.tally.bad == {"two files of one kind": 2}


@pytest.mark.parametrize("cut", [100, 1024, 5000, 9999, -1024, -10240])
def test_a_truncated_tar_gives_what_it_holds_whole(tmp_path, cut):
    path = write(tmp_path / "0.tar", {str(i): good(i) for i in range(9)})
    data = path.read_bytes()
    sound_rows = shard_index.build_index(path, "", tmp_path / "whole.npz").rows
    path.write_bytes(data[: cut if cut > 0 else len(data) + cut])
    size = path.stat().st_size
    whole = sum((row["text"] + row["text_size"]) <= size for row in sound_rows)
    rows, tally, damage = shard_index.build_index(path, "cut", tmp_path / "cut.npz")[:3]
    if cut == -1024:  # a part of the padding is gone, and nothing else
        assert len(rows) == 9
        assert not tally.bad
        assert not damage
        return
    assert tally.bad["truncated or damaged tar"] == 1
    assert damage.startswith("not a tar" if cut == 100 else "truncated or damaged after ")
    with pytest.raises(DataError, match=r"1 of 1 shards is missing or damaged: .*0\.tar \((truncated or|not a tar)"):
        opened(path)
    assert whole - 1 <= len(rows) <= whole
    assert np.array_equal(rows, sound_rows[: len(rows)])


def test_a_damaged_header_ends_a_shard_and_is_counted(tmp_path):
    path = write(tmp_path / "0.tar", {str(i): good(i) for i in range(9)})
    data = bytearray(path.read_bytes())
    rows = shard_index.build_index(path, "", tmp_path / "a.npz").rows
    data[int(rows[4]["image"]) - 512 + 150] ^= 0x3F  # in its checksum
    path.write_bytes(data)
    source = opened(path, bad_shards=1)
    assert captions(source) == [f"good {i}" for i in range(4)]
    assert source.tally.bad == {"truncated or damaged tar": 1}


def test_an_empty_set_is_an_error(tmp_path):
    (tmp_path / "0.tar").write_bytes(bytes(10240))
    with pytest.raises(DataError, match=r"s: no usable sample in the 1 shards of .*0.tar.*A sample is KEY.jpg"):
        opened(tmp_path / "0.tar")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><p>403 Forbidden", "a web page, not a tar"),
        (b"<html>403", "a web page, not a tar"),
        (gzip.compress(bytes(10240), mtime=0), "compressed; unpack it"),
        (b"not a tar" * 99, "not a tar"),
        (b'{"a": 1}', "not a tar"),
    ],
)
def test_what_is_no_tar_is_named_and_left_out_only_where_that_is_allowed(tmp_path, content, what, capsys):
    reference = sound(tmp_path, [3, 2, 4])
    (tmp_path / "00001.tar").write_bytes(content)
    for _ in range(2):  # the second time from the index
        with pytest.raises(DataError) as error:
            opened(reference)
        assert str(error.value) == (
            f"data: s: 1 of 3 shards is missing or damaged: {tmp_path}/00001.tar ({what}). Check the path and download "
            "them again, or allow so many with `bad_shards: 1` in this source."
        )
    for _ in range(2):
        source = opened(reference, bad_shards=1)
        assert source.units.tolist() == [3, 4]
        assert source.tally.facts()["bad"] == {"truncated or damaged tar": 1}
        assert f"s: 1 of 3 shards is missing or damaged: {tmp_path}/00001.tar ({what})." in capsys.readouterr().err


def test_bad_shards_are_counted_and_eight_of_them_named(tmp_path):
    reference = sound(tmp_path, [1] * 12)
    for number in range(1, 11):
        (tmp_path / f"{number:05d}.tar").unlink() if number % 2 else (tmp_path / f"{number:05d}.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"5 of 12 shards are .*1.tar \(missing\).*allow so many with `bad_shards: 5`"):
        opened(reference)
    with pytest.raises(DataError, match=r"10 of 12 shards are .* and 2 more\. Check") as error:
        opened(reference, bad_shards=9)
    assert str(error.value).count(".tar (") == 8
    source = opened(reference, bad_shards=10)
    assert captions(source) == ["sample 0-0", "sample 11-0"]
    assert source.tally.bad == {"truncated or damaged tar": 5, "missing or unreadable shard": 5}


def test_a_missing_shard_that_comes_is_read(tmp_path):
    reference = sound(tmp_path / "a", [3, 2])
    data = (tmp_path / "a" / "00001.tar").read_bytes()
    (tmp_path / "a" / "00001.tar").unlink()
    assert opened(reference, bad_shards=1).units.tolist() == [3]
    (tmp_path / "a" / "00001.tar").write_bytes(data)
    assert opened(reference, bad_shards=1).units.tolist() == [3, 2]


def test_lists_and_shards_are_not_one_source(tmp_path):
    reference = sound(tmp_path, [2])
    (tmp_path / "a.csv").write_text("image,caption\nx.jpg,x\n")
    for mixed in (
        f"{tmp_path}/a.csv::{reference}",
        f"{reference}::{tmp_path}/a.csv",
        f"{tmp_path}/{{a.csv,00000.tar}}",
    ):
        with pytest.raises(UsageError, match=r"data: s: '.*/a\.csv' is a list and '.*/00000\.tar' is not.*two entries"):
            open_source(SourceEntry(source="s", shards=mixed), 8)


def test_no_captions_at_all_is_an_error_that_says_so(tmp_path):
    """open_clip waits for ever here (its issue 569)."""
    write(tmp_path / "0.tar", {str(i): {"jpg": image(i), "cls": b"1"} for i in range(3)})
    with pytest.raises(DataError, match=r"no usable sample in the 1 shards .*\(no caption: 3\)"):
        opened(tmp_path / "0.tar")


def test_an_empty_shard_among_others_is_passed_over(tmp_path):
    reference = sound(tmp_path, [3, 2, 4])
    write(tmp_path / "00001.tar", {})
    source = opened(reference)
    assert source.units.tolist() == [3, 4]
    assert captions(source) == [f"sample {s}-{i}" for s, n in ((0, 3), (2, 4)) for i in range(n)]


CONTENTS = {
    "bad image": ({"jpg": b"no image at all", "txt": b"x"}, "undecodable image"),
    "half an image": ({"jpg": truncated_jpeg(), "txt": b"x"}, "undecodable image"),
    "huge image": ({"png": bomb(), "txt": b"x"}, "image too large"),
    "wrong UTF-8": ({"jpg": image(0), "txt": b"caf\xe9"}, "caption is not UTF-8"),
    "blank caption": ({"jpg": image(0), "txt": b" \n"}, "empty caption"),
    "no caption key": ({"jpg": image(0), "json": b"{}"}, "no caption in the JSON"),
    "broken JSON": ({"jpg": image(0), "json": b'{"caption'}, "no caption in the JSON"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_reading_tells_has_a_reason(tmp_path, kind):
    files_of_sample, reason = CONTENTS[kind]
    source = opened(write(tmp_path / "0.tar", {"a": files_of_sample}))
    with pytest.raises(BadSample, match=f"^{reason}$"):
        source.read(0)


def test_a_shard_that_shrinks_or_goes_while_training_is_a_bad_sample(tmp_path):
    source = opened(sound(tmp_path, [3, 3]))
    os.truncate(tmp_path / "00000.tar", 700)
    (tmp_path / "00001.tar").unlink()
    with pytest.raises(BadSample, match="file ends early"):
        source.read(2)
    with pytest.raises(BadSample, match="file cannot be read"):
        source.read(4)
    assert source.where(4) == f"{tmp_path}/00001.tar: sample 4"


def test_the_index_is_made_once_and_anew_for_a_changed_shard(tmp_path, monkeypatch):
    built = []
    original = shard_index.build_index

    def counted(shard, name, path, chosen):
        built.append(shard.name)
        return original(shard, name, path, chosen)

    monkeypatch.setattr("clipeval_train.input.shards.build_index", counted)
    reference = sound(tmp_path, [3, 2])
    first = opened(reference)
    assert sorted(built) == ["00000.tar", "00001.tar"]
    again = opened(reference)
    assert len(built) == 2
    assert again.fingerprint == first.fingerprint
    assert captions(again) == captions(first)
    write(tmp_path / "00001.tar", {str(i): good(i) for i in range(6)})
    changed = opened(reference)
    assert built[2:] == ["00001.tar"]
    assert changed.units.tolist() == [3, 6]
    assert changed.fingerprint != first.fingerprint


def test_a_damaged_index_is_made_anew(tmp_path, cache):
    reference = sound(tmp_path, [3])
    expected = captions(opened(reference))
    for path in (cache / "indexes" / "train").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert captions(opened(reference)) == expected


def test_what_is_open_is_read_when_the_cache_is_cleared(tmp_path, cache):
    source = opened(sound(tmp_path, [2, 1]))
    shutil.rmtree(cache)
    assert captions(source) == ["sample 0-0", "sample 0-1", "sample 1-0"]


def _die(*shard, chosen):
    os._exit(9)


def test_a_process_that_is_killed_while_it_indexes(tmp_path, monkeypatch):
    monkeypatch.setattr("clipeval_train.input.shards.indexed", _die)
    with pytest.raises(DataError, match=r"data: s: a process that indexes shards was killed\. If memory ran out"):
        opened(sound(tmp_path, [1] * 9))


def test_the_fingerprint_is_of_the_data_not_of_its_folder(tmp_path):
    first, moved = opened(sound(tmp_path / "a", [3, 2])), opened(sound(tmp_path / "b", [3, 2]), "other name")
    assert first.fingerprint == moved.fingerprint
    assert opened(sound(tmp_path / "c", [2, 3])).fingerprint != first.fingerprint


def _open_and_report(reference, answers):
    source = opened(reference)
    answers.put((source.units.tolist(), source.fingerprint, captions(source)))


def test_processes_that_index_at_the_same_time_agree(tmp_path):
    reference = sound(tmp_path, [3, 1, 4, 1, 5, 2, 6, 5, 3, 5])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_open_and_report, args=(reference, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    results = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert results[0] == results[1] == results[2]
    assert results[0][0] == [3, 1, 4, 1, 5, 2, 6, 5, 3, 5]


def test_another_process_may_put_the_same_table_in_its_place_meanwhile(tmp_path, cache, monkeypatch):
    real = digest._hashed

    def hashed(path, limit):
        if path.suffix == ".npy":
            same = path.with_name("same")
            shutil.copyfile(path, same)
            same.replace(path)
        return real(path, limit)

    reference = sound(tmp_path, [2, 3])
    expected = opened(reference).fingerprint
    shutil.rmtree(cache / "indexes")
    monkeypatch.setattr(digest, "_hashed", hashed)
    for _ in range(2):
        assert opened(reference).fingerprint == expected


def test_remote_shards_are_fetched_once_and_again_when_they_change(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))

    fetched = []
    original = files.fetch
    monkeypatch.setattr(files, "fetch", lambda url, **how: fetched.append(url) or original(url, **how))
    sound(tmp_path, [3, 2])
    bucket = fsspec.filesystem("memory")
    for name in ("00000.tar", "00001.tar"):
        bucket.pipe(f"/bucket/{name}", (tmp_path / name).read_bytes())
    source = opened("memory://bucket/{00000..00001}.tar")
    assert source.is_remote
    expected = captions(source)
    assert expected == captions(opened(f"{tmp_path}/*.tar"))
    opened("memory://bucket/{00000..00001}.tar")
    assert len(fetched) == 2
    bucket.pipe("/bucket/00001.tar", write(tmp_path / "x.tar", {"a": good(0), "b": good(1), "c": good(2)}).read_bytes())
    changed = opened("memory://bucket/{00000..00001}.tar")
    assert captions(changed) == [*expected[:3], "good 0", "good 1", "good 2"]
    assert len(fetched) == 3
    with pytest.raises(DataError, match=r"memory://bucket/00002.tar \(missing\)"):
        opened("memory://bucket/{00000..00002}.tar")


def test_processes_that_fetch_and_index_the_same_shard_wait_for_each_other(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))

    original = shard_index._files
    monkeypatch.setattr(shard_index, "_files", lambda *shard: time.sleep(0.3) or original(*shard))
    sound(tmp_path, [3])
    fsspec.filesystem("memory").pipe("/bucket/00000.tar", (tmp_path / "00000.tar").read_bytes())
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    arguments = ("memory://bucket/00000.tar", answers)
    processes = [context.Process(target=_open_and_report, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
        time.sleep(0.1)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [answers.get(timeout=60)[0] for _ in processes] == [[3]] * 3


def test_copies_of_remote_shards_make_room_for_others(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))

    sound(tmp_path, [3, 3, 3])
    bucket = fsspec.filesystem("memory")
    for shard in range(3):
        bucket.pipe(f"/rooms/{shard:05d}.tar", (tmp_path / f"{shard:05d}.tar").read_bytes())
    size = (tmp_path / "00000.tar").stat().st_size
    free = type("Usage", (), {"free": 1.5 * size})  # with one copy here 2.5 sizes in all: half of them is one copy
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: free)
    source = opened("memory://rooms/{00000..00002}.tar")
    copies = [files.local_path(f"memory://rooms/{shard:05d}.tar") for shard in range(3)]
    assert 1 <= sum(copy.exists() for copy in copies) <= 2
    assert captions(source) == captions(opened(f"{tmp_path}/*.tar"))


def test_another_shard_of_the_same_size_and_time_is_indexed_anew(tmp_path):
    """As ``tar x`` and ``rsync -t`` leave them: captions of the one were read at the places of the other."""
    path = write(tmp_path / "0.tar", {"a": {"jpg": image(0), "txt": b"first"}})
    stat = path.stat()
    first = opened(path)
    assert captions(first) == ["first"]
    picture = image(0)
    data = path.read_bytes()
    write(path, {"a": {"txt": b"other", "jpg": picture}})
    assert len(path.read_bytes()) == len(data)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert captions(opened(path)) == ["other"]


def test_a_shard_that_changes_while_it_is_indexed_is_an_error(tmp_path, monkeypatch):
    path = write(tmp_path / "0.tar", {"a": good(0)})
    original = shard_index.tar.members

    def meanwhile(shard):
        path.write_bytes(path.read_bytes() + bytes(512))
        return original(shard)

    monkeypatch.setattr(shard_index.tar, "members", meanwhile)
    with pytest.raises(DataError, match=r"0\.tar: cannot read the shard: it changed while it was read"):
        opened(path)


def test_no_bit_flip_of_an_index_changes_a_sample(tmp_path, cache):
    reference = sound(tmp_path, [2])
    expected = captions(opened(reference))
    folder = cache / "indexes" / "train"
    for path in list(folder.iterdir()):
        data = path.read_bytes()
        for place in range(0, len(data), 7):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
            assert captions(opened(reference)) == expected
        path.write_bytes(data)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_file_is_left_out_and_counted(tmp_path, form):
    for name, data in (("a.jpg", image(0)), ("b.jpg", image(1)), ("b.txt", b"good")):
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(8 << 30)
        file.seek(1 << 20)
        file.write(b"caption")
    names = ["a.jpg", "a.txt", "b.jpg", "b.txt"]
    subprocess.run(["tar", "-S", f"--format={form}", "-cf", tmp_path / "0.tar", "-C", tmp_path, *names], check=True)
    source = opened(tmp_path / "0.tar")
    assert captions(source) == ["good"]
    assert source.tally.bad.total() <= 2
    assert "sparse" in str(source.tally)


@pytest.mark.parametrize(
    "pattern", ["{0..999999999}.tar", "{a,b}" * 22 + ".tar", "{" * 3000, "{1..9" + "9" * 5000 + "}"]
)
def test_patterns_of_too_many_shards_are_an_error_at_once(tmp_path, pattern):
    started = time.monotonic()
    with pytest.raises(DataError, match=r"data: s: .*Write \{00000\.\.00099\}"):
        opened(f"{tmp_path}/{pattern}")
    assert time.monotonic() - started < 2


def test_a_shard_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.tar")
    with pytest.raises(DataError, match=r"0\.tar \(not a regular file\)"):
        opened(tmp_path / "0.tar")
