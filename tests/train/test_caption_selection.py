"""``where`` and ``caption`` of a source, against a plain reading of the same files."""

import io
import json
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from helpers import add
from shard_files import image, write
from tiny_run import tiny_config

from clipeval.errors import DataError, UsageError
from clipeval_train.config import SourceEntry
from clipeval_train.input import open_corpus, order
from clipeval_train.input.selection import choose, field_of, place_of
from clipeval_train.input.source import open_source
from clipeval_train.loop import pretrain
from clipeval_train.model import resolve

SHARES = {"txt": 0.3, "json.recaption": 0.6, "syn.json.deep.text": 0.1}


def opened(reference, **keys):
    return open_source(SourceEntry(source="s", shards=str(reference), **keys), 8)


def sample(number, **facts):
    """As img2dataset writes it, with what re-captioning adds."""
    facts = {"key": f"{number:09d}", "width": 30 + number % 7, "caption": f"old {number}"} | facts
    return {"jpg": image(number), "txt": f"txt {number}".encode(), "json": json.dumps(facts).encode()}


@pytest.fixture
def shards(tmp_path):
    """Three shards of odd sizes; of every kind of text some samples have none."""
    rng = np.random.default_rng(4)
    for shard, size in enumerate((41, 60, 37)):
        samples = {}
        for i in range(size):
            number = 100 * shard + i
            facts = {"similarity": float(rng.uniform(0, 0.5))} if i % 9 else {}
            if i % 2:
                facts["recaption"] = [f"re {number}", " ", f"again {number}"] if i % 3 else f"re {number}"
            files = sample(number, language=("en", "de")[i % 2], **facts)
            if i % 5 == 0:
                files["syn.json"] = json.dumps({"deep": {"text": f"syn {number}"}}).encode()
            if i % 4 == 2:
                del files["txt"]
            samples[f"{number:09d}"] = files
        write(tmp_path / "d" / f"{shard}.tar", samples)
    return tmp_path / "d"


def plain(folder):
    """Key to files, in the order of the tars, by tarfile."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


def texts(files, key):
    """The captions at one place of captions."""
    if key == "txt":
        return [files["txt"].decode()] if "txt" in files else []
    name = "json" if key.startswith("json") else "syn.json"
    value = json.loads(files.get(name, b"{}"))
    for part in key.removeprefix(f"{name}.").split("."):
        value = value.get(part, {})
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text.strip()]


def test_captions_come_from_their_places_in_their_shares(shards):
    source = opened(shards / "*.tar", caption=SHARES)
    expected = [files for files in plain(shards).values() if any(texts(files, key) for key in SHARES)]
    assert source.units.sum() == len(expected) < 138
    assert source.tally.bad == {"no caption": 138 - len(expected)}
    draws = (np.arange(1000) + 0.5) / 1000
    mixed = 0
    for index in range(0, len(expected), 3):
        present = {key: found for key in SHARES if (found := texts(expected[index], key))}
        total, end = sum(SHARES[key] for key in present), 0.0
        mixed += len(present) > 1
        for key, found in present.items():
            begin, end = end, end + SHARES[key] / total
            inside = draws[(draws > begin + 1e-9) & (draws < end - 1e-9)]
            for draw in (inside[0], inside[-1]):
                assert source.read(index, float(draw))[1] == found
    assert mixed > 20


def test_the_shares_of_draws_are_the_weights():
    weights, present = np.array([3.0, 0.5, 6.0, 1.0]), np.array([True, False, True, True])
    counts = np.bincount([choose(weights, present, (i + 0.5) / 1000) for i in range(1000)], minlength=4)
    assert counts.tolist() == [300, 0, 600, 100]
    assert choose(weights, present, 0.0) == 0
    assert choose(weights, np.array([False, True, False, False]), 1 - 2**-24) == 1
    assert choose(np.array([0.1] * 3), np.array([True, True, False]), 1 - 2**-53) == 1


def test_one_place_of_captions_or_several_alike(shards):
    assert opened(shards / "*.tar", caption="json.caption").read(3)[1] == ["old 3"]
    assert SourceEntry(source="s", shards="x", caption=["txt", "json.a"]).caption == {"txt": 1.0, "json.a": 1.0}


def test_places_of_captions():
    assert [place_of(key) for key in ("txt", "json.caption", "syn.json.a.b", "json", "cap.txt")] == [
        ("txt", ""), ("json", "caption"), ("syn.json", "a.b"), ("json", ""), ("cap.txt", "")
    ]  # fmt: skip
    document = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}}
    assert [field_of(document, name, 0) for name in ("a.b", "a.c.d", "a.c.e", "x", "a.b.c")] == [1, 3, 0, 0, 0]


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("similarity > 0.28", lambda facts: facts.get("similarity", 0) > 0.28),
        ("not similarity > 0.28", lambda facts: "similarity" in facts and not facts["similarity"] > 0.28),
        ("language == 'de' and width <= 33", lambda facts: facts["language"] == "de" and facts["width"] <= 33),
        ("key != '000000004'", lambda facts: facts["key"] != "000000004"),
    ],
)
def test_samples_are_those_for_which_the_condition_holds(shards, where, rule, capsys):
    everything = plain(shards)
    expected = [key for key, files in everything.items() if rule(json.loads(files["json"]))]
    for _ in range(2):  # the second time from the index
        source = opened(shards / "*.tar", where=where)
        assert source.units.sum() == len(expected)
        assert source.dropped == 138 - len(expected) > 0
        assert [source.where(i).split(": ")[1] for i in range(len(expected))] == [f"{key}.jpg" for key in expected]
        assert not source.tally.bad
        assert source.tally.read == 138
    assert opened(shards / "*.tar").units.sum() == 138  # an index for each choice
    assert opened(shards / "*.tar").dropped == 0


def test_a_shard_of_which_nothing_is_left_is_passed_over(shards):
    assert opened(shards / "*.tar", where="100 <= width and width == 1 or key < '000000100'").units.tolist() == [41]
    with pytest.raises(DataError, match=r"no usable sample in the 3 shards .* where width > 999"):
        opened(shards / "*.tar", where="width > 999")


def test_fields_that_no_sample_has_and_kinds_that_do_not_fit_are_named(shards, tmp_path):
    with pytest.raises(DataError, match=r"data: s: where: the JSON of no sample has a field 'simil'") as error:
        opened(shards / "*.tar", where="simil > 0.3")
    assert "There are: key, width, caption, language" in str(error.value)
    with pytest.raises(DataError, match=r"data: s: where: .*/[012]\.tar: cannot compare .*: language holds string"):
        opened(shards / "*.tar", where="language > 3")
    mixed = {"a": sample(0, score=1), "b": sample(1, score="high")}
    with pytest.raises(DataError, match=r"data: s: where: .*x\.tar: score holds int, str"):
        opened(write(tmp_path / "x.tar", mixed), where="score > 0")
    with pytest.raises(DataError, match="There are: none"):
        opened(write(tmp_path / "y.tar", {"a": {"jpg": image(0), "txt": b"x", "json": b"no json"}}), where="score > 0")


def test_samples_that_hold_too_little_or_too_much_are_counted(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key, data in (("a", b"{"), ("b", b'{"re": 3}'), ("c", b'{"re": "good"}'), ("d", b"[1]"), ("e", b"\xff")):
            add(tar, f"{key}.jpg", image(0))
            add(tar, f"{key}.json", data)
    source = opened(tmp_path / "0.tar", caption="json.re")
    assert source.read(0)[1] == ["good"]
    assert source.tally.bad == {"no caption": 4}


def test_the_stream_is_the_same_for_all_ranks_and_workers(shards, monkeypatch):
    monkeypatch.setattr(order, "_BLOCK", 1)
    keys = {"caption": SHARES, "where": "similarity > 0.1"}

    def batches(workers, rank=0, ranks=1, start=0):
        data = [{"source": "s", "shards": f"{shards}/*.tar"} | keys]
        config = tiny_config("out", data=data, batch_size=6, workers=workers)
        return list(open_corpus(config, resolve(config.model, "t")).batches(start, 120, 6, rank, ranks))

    whole = torch.cat([batch.tokens for batch in batches(0)])
    assert torch.equal(torch.cat([batch.tokens for batch in batches(2, start=18)]), whole[18:])
    parts = zip(*(batches(0, rank, 3) for rank in range(3)), strict=True)
    assert torch.equal(torch.cat([batch.tokens for part in parts for batch in part]), whole)


def test_a_run_says_and_records_what_is_left(shards, tmp_path, capsys):
    data = {"source": "laion", "shards": f"{shards}/*.tar", "where": "similarity > 0.28", "caption": SHARES}
    keys = {"batch_size": 6, "samples": 18, "warmup": 0, "workers": 0}
    metadata = torch.load(pretrain(tiny_config(tmp_path / "out", data=[data], **keys)), weights_only=True)["metadata"]
    rows = [files for files in plain(shards).values() if any(texts(files, key) for key in SHARES)]
    left = sum(json.loads(files["json"]).get("similarity", 0) > 0.28 for files in rows)
    assert metadata["unique_samples"] == left
    assert metadata["filtered"] == [{"source": "laion", "where": data["where"], "left": left, "of": len(rows)}]
    assert f"laion: {left} of {len(rows)} samples are left where similarity > 0.28" in capsys.readouterr().err
    with pytest.raises(UsageError, match="holds a run with data: "):
        pretrain(tiny_config(tmp_path / "out", data=[data | {"where": "similarity > 0.2"}], **keys | {"samples": 24}))


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "embedded"])
def test_lists(tmp_path, kind):
    """Columns of captions in their shares, and rows for which the condition holds."""
    count = 23
    (tmp_path / "p").mkdir()
    for number in range(count):
        (tmp_path / "p" / f"{number}.jpg").write_bytes(image(number))
    columns = {
        "image": [f"p/{number}.jpg" for number in range(count)],
        "alt": ["" if number % 3 == 0 else f"alt {number}" for number in range(count)],
        "recaption": ["" if number % 4 == 0 else f"re {number}" for number in range(count)],
        "score": [number / 10 for number in range(count)],
    }
    if kind == "embedded":
        columns["image"] = [image(number) for number in range(count)]
    if kind in ("csv", "tsv"):
        buffer = io.StringIO()
        separator = "," if kind == "csv" else "\t"
        for row in [columns, *zip(*columns.values(), strict=True)]:
            buffer.write(separator.join(map(str, row)) + "\n")
        path = tmp_path / f"a.{kind}"
        path.write_text(buffer.getvalue())
    else:
        path = tmp_path / "a.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=5)
    source = opened(path, caption={"alt": 0.25, "recaption": 0.75}, where="score >= 0.5")
    expected = [number for number in range(5, count) if number % 3 or number % 4]
    assert source.units.sum() == len(expected)
    assert source.tally.bad == {"no image or no caption": 2}
    assert source.dropped == 4
    for index, number in enumerate(expected):
        alt, again = [f"alt {number}"], [f"re {number}"]
        low, high = (again if number % 3 == 0 else alt), (alt if number % 4 == 0 else again)
        assert [source.read(index, draw)[1] for draw in (0.0, 0.24, 0.26, 0.99)] == [low, low, high, high]
    assert opened(path, caption="recaption").units.sum() == count - 6
    with pytest.raises(DataError, match=r"where: .*a\.\w+ has no field 'similarity'. There are: image, alt"):
        opened(path, caption="alt", where="similarity > 1")
    with pytest.raises(DataError, match=r"no usable sample among the 23 rows of .* where score > 9"):
        opened(path, caption="alt", where="score > 9")
    with pytest.raises(DataError, match="has no column nope, only image, alt"):
        opened(path, caption="nope")


def test_keys_that_cannot_be_are_refused():
    for keys in ({"caption": "txt"}, {"where": "a > 1"}, {"bad_shards": 1}):
        with pytest.raises(UsageError, match="caption, where, bad_shards and counts are not for built-in"):
            opened("builtin:digits", **keys)
    with pytest.raises(UsageError, match="bad_shards and counts are for shards"):
        opened("a.csv", bad_shards=1)
