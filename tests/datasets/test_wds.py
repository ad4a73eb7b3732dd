"""``wds:`` against CLIP_benchmark's own reader, and everything that can be wrong with a webdataset."""

from __future__ import annotations

import gc
import io
import os
import pickle
import shutil
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import shard_writer as writer
from PIL import Image

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets import images
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError, UsageError

CAPTIONS = [["a red fox", "fox in snow"], ["a leopard"], ["one", "two", "three"]]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))


def opened(root: Path | str, split: str | None = None, **entry: object) -> Dataset:
    return datasets.open_dataset("animals", DatasetEntry(spec=f"wds:{root}", **entry), split)


def clip_benchmark_reads(
    root: Path, task: str = "zeroshot_classification"
) -> tuple[list[tuple[Image.Image, object]], object]:
    """The oracle. It warns about webdataset's defaults and leaves shards open, which is not ours to mend."""
    from clip_benchmark.datasets.builder import build_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = build_dataset("wds/animals", root=str(root), transform=lambda image: image, split="test", task=task)
        items = list(source)
        gc.collect()
    return items, source


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_classification_is_what_clip_benchmark_reads(tmp_path: Path, kind: str) -> None:
    labels = writer.classification(tmp_path / "wds", per_shard=(4, 3, 1), kind=kind)
    theirs, source = clip_benchmark_reads(tmp_path / "wds")
    ours = opened(tmp_path / "wds", n=8)

    assert ours.labels is not None
    assert ours.labels.dtype == np.int64
    assert ours.labels.tolist() == labels == [label for _, label in theirs]
    assert ours.prompts is not None
    assert list(ours.prompts.classes) == source.classes == writer.CLASSES
    assert list(ours.prompts.templates) == source.templates == writer.TEMPLATES
    assert ours.captions is None
    assert datasets.capabilities(ours) == {"labels", "prompts"}
    for index, (image, _) in enumerate(theirs):
        mine = ours.image(index)
        assert (mine.mode, mine.size) == (image.mode, image.size)
        assert mine.tobytes() == image.tobytes()
    assert ours.ids[0] == "0/s0000000"
    assert ours.ids[4] == "1/s0000004"
    assert ours.ids[7] == "2/s0000007"


def test_retrieval_is_what_clip_benchmark_reads(tmp_path: Path) -> None:
    writer.retrieval(tmp_path / "wds", CAPTIONS)
    theirs, _ = clip_benchmark_reads(tmp_path / "wds", "zeroshot_retrieval")
    ours = opened(tmp_path / "wds")

    assert ours.captions == [tuple(texts) for texts in CAPTIONS] == [tuple(texts) for _, texts in theirs]
    assert ours.labels is None
    assert ours.prompts is None
    assert datasets.capabilities(ours) == {"captions"}
    assert all(ours.image(i).tobytes() == theirs[i][0].tobytes() for i in range(3))


def test_multilabel_is_what_clip_benchmark_reads(tmp_path: Path) -> None:
    root = tmp_path / "wds"
    expected = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]])
    members = []
    for index, row in enumerate(expected):
        buffer = io.BytesIO()
        np.save(buffer, row.astype(np.float32))
        members += [(f"{index}.png", writer.encoded(writer.picture(index), "png")), (f"{index}.npy", buffer.getvalue())]
    writer.write_split(root, "test", [members])
    (root / "dataset_type.txt").write_text("multilabel\n")
    (root / "classnames.txt").write_text("\n".join(writer.CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("{c}\n")
    theirs, _ = clip_benchmark_reads(root)
    ours = opened(root)

    assert ours.labels is not None
    assert ours.labels.dtype == bool
    assert np.array_equal(ours.labels, expected)
    assert np.array_equal(ours.labels, np.stack([label for _, label in theirs]))


def test_other_split_and_random_access(tmp_path: Path) -> None:
    writer.classification(tmp_path / "wds", "test", (3,))
    writer.classification(tmp_path / "wds", "train", (5, 6))
    train = opened(tmp_path / "wds", "train", n=3)  # n is about the test split
    assert len(train) == 11
    assert train.split == "train"
    forwards = [train.image(index).tobytes() for index in range(11)]
    again = pickle.loads(pickle.dumps(train))
    assert [again.image(index).tobytes() for index in reversed(range(11))] == forwards[::-1]


def test_tar_files_brace_patterns_and_lists(tmp_path: Path) -> None:
    labels = writer.classification(tmp_path / "wds", per_shard=(4, 3))
    folder = tmp_path / "wds" / "test"
    listing = tmp_path / "shards.txt"
    listing.write_text(f"{folder}/0.tar\n\n{folder}/1.tar\n")
    for form in (f"{folder}/{{0..1}}.tar", f"{folder}/0.tar::{folder}/1.tar", str(listing)):
        dataset = opened(form)
        assert dataset.labels is not None
        assert dataset.labels.tolist() == labels
        assert dataset.prompts is None  # no class names beside the tar files
    assert opened(f"{folder}/1.tar").ids[0] == "1/s0000004"
    with pytest.raises(DataError, match=r"is the split 'test'; it has no split 'train'"):
        opened(f"{folder}/{{0..1}}.tar", "train")


def test_fingerprint_is_of_content_only(tmp_path: Path) -> None:
    writer.classification(tmp_path / "one" / "wds")
    shutil.copytree(tmp_path / "one" / "wds", tmp_path / "other name")
    original = opened(tmp_path / "one" / "wds")
    copy = opened(tmp_path / "other name")
    assert copy.fingerprint == original.fingerprint
    assert copy.ids == original.ids


def members(n: int = 3) -> list[tuple[str, bytes]]:
    result = []
    for index in range(n):
        result += [
            (f"{index}.png", writer.encoded(writer.picture(index), "png")),
            (f"{index}.cls", b"%d" % (index % 5)),
        ]
    return result


def test_fingerprint_changes_with_a_pixel_a_label_and_a_caption(tmp_path: Path) -> None:
    image = writer.picture(1)
    red, green, blue = image.getpixel((5, 5))
    image.putpixel((5, 5), (red ^ 1, green, blue))
    pixel, label, swapped = members(), members(), members()
    pixel[2] = ("1.png", writer.encoded(image, "png"))
    label[1] = ("0.cls", b"4")
    swapped = [*swapped[2:4], *swapped[0:2], *swapped[4:]]
    found = {}
    for name, content in {"original": members(), "pixel": pixel, "label": label, "order": swapped}.items():
        writer.write_split(tmp_path / name, "test", [content])
        found[name] = opened(tmp_path / name).fingerprint
    for name, texts in {"a": CAPTIONS, "b": [*CAPTIONS[:2], ["one", "two", "thre"]]}.items():
        writer.retrieval(tmp_path / name, texts)
        found[name] = opened(tmp_path / name).fingerprint
    assert len(set(found.values())) == 6


def test_a_changed_shard_is_read_anew(tmp_path: Path) -> None:
    writer.write_split(tmp_path / "wds", "test", [members()])
    before = opened(tmp_path / "wds")
    changed = members()
    changed[1] = ("0.cls", b"4")
    writer.write_split(tmp_path / "wds", "test", [changed])
    after = opened(tmp_path / "wds")
    assert before.labels is not None
    assert after.labels is not None
    assert (before.labels[0], after.labels[0]) == (0, 4)
    assert before.fingerprint != after.fingerprint


def test_member_names_are_only_keys(tmp_path: Path) -> None:
    image = writer.encoded(writer.picture(0), "png")
    names = ["../../escaped", "/absolute/path", "folder.v2/inner", "__meta__/x"]
    content = [(f"{name}.{kind}", data) for name in names for kind, data in (("png", image), ("cls", b"1"))]
    writer.write_split(tmp_path / "deep" / "er" / "wds", "test", [content])
    dataset = opened(tmp_path / "deep" / "er" / "wds")
    assert list(dataset.ids) == ["0/../../escaped", "0//absolute/path", "0/folder.v2/inner"]
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], r"sample 0/1: cannot decode the image: .*truncated"),
        (lambda data: b"not an image", r"sample 0/1: cannot decode the image: cannot identify"),
        (lambda data: b"", r"sample 0/1: cannot decode the image"),
    ],
)
def test_a_broken_image_is_named(tmp_path: Path, damage: object, message: str) -> None:
    content = [
        (name.replace("png", "jpg"), writer.encoded(writer.picture(7, 200, 200), "jpg") if "png" in name else data)
        for name, data in members()
    ]
    content[2] = (content[2][0], damage(content[2][1]))  # type: ignore[operator]
    writer.write_split(tmp_path / "wds", "test", [content])
    dataset = opened(tmp_path / "wds")
    dataset.image(0)
    with pytest.raises(DataError, match=message):
        dataset.image(1)


def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXEL_LIMIT", 37 * 23 - 1)
    writer.write_split(tmp_path / "wds", "test", [members()])
    with pytest.raises(DataError, match=r"animals: sample 0/2: 37 x 23 pixels are more than the limit of 850\."):
        opened(tmp_path / "wds").image(2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (members()[:-1], r"0\.tar: sample 2 has no label \(\.cls, \.npy\) and no caption \(\.txt\), only \.png\."),
        (
            [(f"v1.{name}", data) for name, data in members()],
            r"0\.tar: sample v1 has no image of its own, but \.0\.png, .*: keys end at the first dot of a name",
        ),
        (members()[1:], r"0\.tar: sample 0 has no image \(\.webp, \.png, \.jpg, \.jpeg, \.\.\.\), only \.cls\."),
        ([*members()[:-1], ("2.cls", b"fox")], r"0\.tar: sample 2: its label or caption cannot be read: .*'fox'"),
        ([*members(), ("2.cls", b"1")], r"0\.tar: sample 2 has two files \.cls\."),
        ([*members()[:-1], ("2.txt", b"a fox")], r"sample 0/2 has no label \(\.cls\), and others have one"),
        ([*members()[:-1], ("2.cls", b"5")], r"class list and labels disagree: sample 0/2 has the label 5.* 5 names"),
        ([*members()[:-1], ("2.cls", b"-1")], r"sample 0/2, label \(.cls\): -1 is no class index"),
        ([], r"the split 'test' of wds:.* is empty"),
    ],
)
def test_wrong_samples_are_named(tmp_path: Path, content: list[tuple[str, bytes]], message: str) -> None:
    root = tmp_path / "wds"
    writer.write_split(root, "test", [content])
    (root / "classnames.txt").write_text("\n".join(writer.CLASSES) + "\n")
    with pytest.raises(DataError, match=message):
        opened(root)


def test_an_image_without_captions_is_named(tmp_path: Path) -> None:
    writer.retrieval(tmp_path / "wds", [["a"], [], ["b"]])
    with pytest.raises(DataError, match=r"animals: sample 0/s0000001 has no caption\."):
        opened(tmp_path / "wds")


def test_every_truncation_of_a_tar_is_noticed(tmp_path: Path) -> None:
    writer.write_split(tmp_path / "wds", "test", [members()])
    whole = (tmp_path / "wds" / "test" / "0.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # where the blocks of zeros that end a tar begin
    for size in [0, 100, 512, *range(1024, end + 1, 512), end - 300]:
        (tmp_path / "wds" / "test" / "0.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"0\.tar: the tar is truncated or damaged"):
            opened(tmp_path / "wds")


def test_of_several_damaged_shards_the_first_is_named(tmp_path: Path) -> None:
    """They are read at the same time; the first takes longest."""
    big = [(f"{i}.{kind}", data) for i in range(300) for kind, data in (("png", b"x" * 9000), ("cls", b"1"))]
    writer.write_split(tmp_path / "wds", "test", [members(), big, members(), members()])
    for number in (1, 2, 3):
        path = tmp_path / "wds" / "test" / f"{number}.tar"
        path.write_bytes(path.read_bytes().rstrip(b"\0")[:-600])
    with pytest.raises(DataError, match=r"/1\.tar: the tar is truncated or damaged"):
        opened(tmp_path / "wds")


def test_a_damaged_header_in_the_middle_is_noticed(tmp_path: Path) -> None:
    writer.write_split(tmp_path / "wds", "test", [members()])
    path = tmp_path / "wds" / "test" / "0.tar"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"2.png")
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0\.tar: the tar is truncated or damaged after 1"):
        opened(tmp_path / "wds")


def test_shards_must_match_their_count(tmp_path: Path) -> None:
    root = tmp_path / "wds"
    writer.classification(root, per_shard=(2, 2, 2))
    (root / "test" / "nshards.txt").write_text("4\n")
    with pytest.raises(DataError, match=r"animals: the shard .*/test/3\.tar is missing"):
        opened(root)
    (root / "test" / "nshards.txt").write_text("2\n")
    with pytest.raises(DataError, match=r"nshards\.txt says 2, but there is 2\.tar too"):
        opened(root)
    (root / "test" / "nshards.txt").write_text("three\n")
    with pytest.raises(DataError, match=r"expected the number of shards, found 'three'"):
        opened(root)
    (root / "test" / "nshards.txt").unlink()
    with pytest.raises(DataError, match=r"nshards\.txt is missing"):
        opened(root)
    with pytest.raises(DataError, match=r"has no split 'validation' \(no folder there holds"):
        opened(root, "validation")


def test_expected_count(tmp_path: Path) -> None:
    writer.classification(tmp_path / "wds", per_shard=(4, 3))
    with pytest.raises(DataError, match=r"found 7 samples in wds:.*, split 'test', expected 8: .* cut short"):
        opened(tmp_path / "wds", n=8)
    with pytest.raises(DataError, match=r"found 7 samples .* expected 6: .* another version"):
        opened(tmp_path / "wds", n=6)


@pytest.mark.parametrize(
    "form",
    [
        "pipe:touch {marker}",
        "PIPE:touch {marker}",
        "{{pipe:touch {marker},x.tar}}",
        "x.tar::pipe:touch {marker}",
        "p{{i,i}}pe:touch {marker} #.tar",
        "sftp://host/x.tar",
        "{folder}/sources.txt",
    ],
)
def test_commands_are_refused_and_not_run(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "sources.txt").write_text(f"{tmp_path}/0.tar\npipe:touch {marker}\n")
    spec = "wds:" + form.format(marker=marker, folder=tmp_path)
    with pytest.raises(UsageError, match=r"refused .* nothing was executed"):
        datasets.open_dataset("x", DatasetEntry(spec=spec))
    assert not marker.exists()


def npy(values: object, **keywords: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, **keywords))  # type: ignore[call-overload]
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=[0, 1])
    return buffer.getvalue()


def huge_npy(shape: str) -> bytes:
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


WRONG_LABELS = {
    "digits": ("cls", b"1" * 4000, r"\.cls has 4,000 bytes, more than the limit of 100"),
    "large": ("cls", str(2**63).encode(), "expected a class index in .cls"),
    "negative large": ("cls", str(-(2**70)).encode(), "expected a class index in .cls"),
    "long": ("cls", b"1" + b" " * 200, r"\.cls has 201 bytes, more than the limit of 100"),
    "underscore": ("cls", b"1_0", "expected a class index in .cls, found '1_0'"),
    "float": ("cls", b"1.0", "expected a class index in .cls"),
    "no text": ("cls", b"\xff\x00", "expected a class index in .cls"),
    "empty": ("npy", b"", "the .npy file is damaged or none"),
    "npz": ("npy", npz(), "the .npy file is damaged or none"),
    "no magic": ("npy", b"1" * 100, "the .npy file is damaged or none"),
    "complex": ("npy", npy([1j, 0]), "the .npy file holds complex128 and not numbers"),
    "text": ("npy", npy(["0", "1"]), "the .npy file holds <U1 and not numbers"),
    "struct": ("npy", npy([(0, 1)], dtype=[("a", int), ("b", int)]), "the .npy file holds .* and not numbers"),
    "object": ("npy", b"\x93NUMPY\x01\x00" + npy([0])[8:].replace(b"<i8", b"|O "), "the .npy file (is dam|holds obj)"),
    "huge": ("npy", huge_npy("(1000000000,)"), r"says it has the shape \(1000000000,\), which is not what it holds"),
    "huger": ("npy", huge_npy("(10**3,)"), "the .npy file is damaged or none"),
    "negative": ("npy", huge_npy("(-2,)"), "says it has the shape"),
    "nested": ("npy", huge_npy("(" * 200 + "1," + ")" * 200), "the .npy file is damaged or none"),
    "deep": ("npy", huge_npy("(" * 4000), "the .npy file is damaged or none"),
    "no number": ("npy", npy([]), "the .npy file holds no number"),
    "5 is not yes": ("npy", npy([0, 5]), r"sample 0/0, label \(\.npy\): a label is 5; 0 is no and 1 is yes"),
    "-3 is not yes": ("npy", npy([0, -3]), r"sample 0/0, label \(\.npy\): a label is -3"),
    "half is not yes": ("npy", npy([0, 0.5]), r"sample 0/0, label \(\.npy\): a label is 0\.5"),
    "NaN is not yes": ("npy", npy([0, np.nan]), r"sample 0/0, label \(\.npy\): a label is nan"),
    "large file": ("npy", npy(np.zeros(200_000)), r"\.npy has 1,600,128 bytes, more than the limit"),
    "long caption": ("txt", b"a" * (1 << 21), r"\.txt has 2,097,152 bytes, more than the limit"),
    "caption of bytes": ("txt", b"caf\xe9", "its label or caption cannot be read"),
}


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_labels_and_captions_that_are_none_are_named(tmp_path: Path, kind: str) -> None:
    extension, data, message = WRONG_LABELS[kind]
    writer.write_split(tmp_path / "wds", "test", [[("0.png", b"x"), (f"0.{extension}", data)]])
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "wds")


@pytest.mark.parametrize(
    "values", [[[0, 1]], np.array([False, True]), np.array([0.0, 1.0]), np.array([0, 1], np.uint8)]
)
def test_any_array_of_noughts_and_ones_is_labels(tmp_path: Path, values: object) -> None:
    writer.write_split(tmp_path / "wds", "test", [[("0.png", b"x"), ("0.npy", npy(values))]])
    labels = opened(tmp_path / "wds").labels
    assert labels is not None
    assert labels.tolist() == [[False, True]]


def test_text_files_beside_the_data_are_bounded_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    root = tmp_path / "wds"
    writer.classification(root)
    expected = opened(root).prompts
    for name in ("classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"):
        (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes())
    assert opened(root).prompts == expected
    (root / "dataset_type.txt").write_bytes(b"\xef\xbb\xbfclassification\n")
    assert opened(root).prompts == expected
    (root / "classnames.txt").write_text("a\n" + "b" * 20_000)
    with pytest.raises(DataError, match=r"classnames\.txt:2: 20,000 characters are more than the limit of 10,000"):
        opened(root)
    with (root / "classnames.txt").open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(DataError, match=r"classnames\.txt: cannot read it: its 107,374,182,400 bytes are more than"):
        opened(root)
    (root / "classnames.txt").unlink()
    os.mkfifo(root / "classnames.txt")
    with pytest.raises(DataError, match=r"classnames\.txt: cannot read it: it is not a regular file"):
        opened(root)


def test_a_flip_of_a_bit_in_an_index_changes_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipeval.digest._SETTLED_NS", -(10**18))
    monkeypatch.setenv("CLIPEVAL_CACHE", str(cache))
    writer.write_split(tmp_path / "wds", "test", [members()[:4]])
    expected = opened(tmp_path / "wds")
    [kept] = (cache / "indexes").glob("*.json")
    data = kept.read_bytes()
    for place in range(len(data)):
        kept.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        found = opened(tmp_path / "wds")
        assert (found.fingerprint, list(found.ids)) == (expected.fingerprint, list(expected.ids))
        assert np.array_equal(found.labels, expected.labels)  # type: ignore[arg-type]


def test_a_name_of_300_000_characters_ends_at_once(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("/" * 300_000 + "x", "a/" * 150_000 + "x.png"):
            info = tarfile.TarInfo(name)
            tar.addfile(info)
    with pytest.raises(DataError, match=r"truncated or damaged after its start: a name of 300,00\d bytes"):
        datasets.open_dataset("x", DatasetEntry(spec=f"wds:{tmp_path}/0.tar"))
