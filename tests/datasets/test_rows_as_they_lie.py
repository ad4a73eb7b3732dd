"""Labels, captions and class names as data sets have them: by content, never by a guess."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
import shard_writer as writer
from sklearn.preprocessing import MultiLabelBinarizer

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets import labels
from clipeval.datasets.base import Dataset
from clipeval.datasets.prompts import aligned, load_prompts
from clipeval.datasets.subset import Subset
from clipeval.errors import DataError, UsageError

TEXT = hf.Value("string")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    hf.disable_progress_bars()


def opened(spec: str, split: str | None = None, **entry: Any) -> Dataset:
    return datasets.open_dataset("set", DatasetEntry(spec=spec, **entry), split)


def image(seed: int) -> dict[str, Any]:
    return {"bytes": writer.encoded(writer.picture(seed), "png"), "path": None}


def table(path: Path, seeds: list[int], **columns: tuple[list[Any], Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = hf.Features({"image": hf.Image()} | {name: kind for name, (_, kind) in columns.items()})
    values = {"image": [image(seed) for seed in seeds]} | {name: found for name, (found, _) in columns.items()}
    hf.Dataset.from_dict(values, features).to_parquet(str(path))
    return f"hf:{path}"


# --- labels ---


def test_texts_under_a_label_are_classes_of_all_splits(tmp_path: Path) -> None:
    table(tmp_path / "s" / "train-0.parquet", [0, 1, 2], label=(["wolf", "ant_hill", "wolf"], TEXT))
    table(tmp_path / "s" / "test-0.parquet", [3, 4], label=(["wolf", "zebra"], TEXT))
    for split, expected in (("train", [1, 0, 1]), ("test", [1, 2])):
        dataset = opened(f"hf:{tmp_path / 's'}", split)
        assert dataset.labels is not None
        assert dataset.labels.tolist() == expected
        assert dataset.captions is None
        assert dataset.prompts is not None
        assert dataset.prompts.classes == ("ant hill", "wolf", "zebra")


def test_texts_under_a_chosen_column_and_beside_captions(tmp_path: Path) -> None:
    species, words = (["b", "a"], TEXT), (["one", "two"], TEXT)
    dataset = opened(table(tmp_path / "a.parquet", [0, 1], species=species, words=words), label_key="species")
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.captions) == ([1, 0], None)
    spec = table(tmp_path / "b.parquet", [0, 1], label=species, text=words)
    assert datasets.capabilities(opened(spec)) == {"labels", "prompts", "captions"}
    only = opened(spec, caption_key="label", label_key=None)
    assert only.captions == [("b",), ("a",)]
    assert only.labels is None


def folders(root: Path, split: str, **seeds: int) -> None:
    for name, seed in seeds.items():
        path = root / split / name / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))


def test_the_classes_of_image_folders_are_those_of_all_splits(tmp_path: Path) -> None:
    folders(tmp_path / "f", "train", ant=0, bee=1, yak=2)
    folders(tmp_path / "f", "test", bee=3, yak=4)
    folders(tmp_path / "one", "train", ant=0, bee=1)
    folders(tmp_path / "one", "test", bee=2)
    for name, split, expected in (("f", "test", [1, 2]), ("f", "train", [0, 1, 2]), ("one", "test", [1])):
        dataset, oracle = (opened(f"{kind}:{tmp_path / name}", split) for kind in ("hf", "folder"))
        assert dataset.labels is not None
        assert oracle.labels is not None
        assert dataset.labels.tolist() == oracle.labels.tolist() == expected
        assert dataset.prompts is not None
        assert dataset.prompts == oracle.prompts


def test_images_of_a_folder_at_different_depths_have_no_classes(tmp_path: Path) -> None:
    folders(tmp_path / "f", "test", ant=0, bee=1)
    (tmp_path / "f" / "test" / "stray.png").write_bytes(png(2))
    with pytest.raises(DataError, match=r"do not lie in class folders, SPLIT/CLASS/\*.jpg, all equally deep"):
        opened(f"hf:{tmp_path / 'f'}")


@pytest.mark.parametrize("column", ["class", "category", "target"])
def test_columns_of_classes_under_other_names(tmp_path: Path, column: str) -> None:
    dataset = opened(table(tmp_path / "a.parquet", [0, 1, 2], **{column: (["b", "a", "b"], TEXT)}))
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.captions) == ([1, 0, 1], None)


@pytest.mark.parametrize("values", [[7, 8], [1.5, 2.5], [{"a": 1}, {"a": 2}]])
def test_captions_that_are_not_even_lists(tmp_path: Path, values: list[Any]) -> None:
    kind = {"a": hf.Value("int64")} if isinstance(values[0], dict) else hf.Value(type(values[0]).__name__ + "64")
    with pytest.raises(DataError, match="set: sample 0: column 'c' holds no text"):
        opened(table(tmp_path / "a.parquet", [0, 1], c=(values, kind)), caption_key="c")


def test_lists_of_texts_are_several_classes(tmp_path: Path) -> None:
    values = [["wolf", "ant"], [], ["zebra"]]
    dataset = opened(table(tmp_path / "a.parquet", [0, 1, 2], labels=(values, hf.List(TEXT))))
    assert dataset.labels is not None
    expected = MultiLabelBinarizer().fit_transform(values)
    assert dataset.labels.astype(int).tolist() == expected.tolist()


INTEGERS = hf.List(hf.Value("int64"))


@pytest.mark.parametrize("given", [True, False])
def test_lists_of_indices_become_nought_and_one(tmp_path: Path, given: bool) -> None:
    values = [[0, 3], [], [1], [2, 1]]
    (tmp_path / "p.json").write_text(json.dumps({"classes": list("abcde"), "templates": ["{c}"]}))
    entry = {"prompts": str(tmp_path / "p.json")} if given else {}
    dataset = opened(table(tmp_path / "a.parquet", [0, 1, 2, 3], label=(values, INTEGERS)), label_key="label", **entry)
    expected = MultiLabelBinarizer(classes=range(5 if given else 4)).fit_transform(values)
    assert dataset.labels is not None
    assert dataset.labels.astype(int).tolist() == expected.tolist()


def test_lists_by_their_values() -> None:
    def found(rows: list[list[Any]], classes: int | None) -> list[list[int]]:
        result: list[list[int]] = labels.of_lists(rows, classes, lambda row: f"row {row}").astype(int).tolist()
        return result

    assert found([[0, 1, 1], [0, 0, 0]], 3) == [[0, 1, 1], [0, 0, 0]]
    assert found([[0, 1, 1], [0, 0, 0]], None) == [[0, 1, 1], [0, 0, 0]]
    assert found([[1.0, 0.0, 0.0]], None) == [[1, 0, 0]]
    assert found([[0, 1], [1, 0]], 3) == [[1, 1, 0], [1, 1, 0]]  # three classes: no list of two is a row of them
    assert found([[True, False], [False, True]], 2) == [[1, 0], [0, 1]]
    assert found([[0, 0], [1, 0]], 2) == [[0, 0], [1, 0]]  # no class twice
    assert found([[], []], None) == [[0], [0]]
    for rows, classes, message in (
        ([[0, 1], [1, 0]], 2, "row 0: lists like"),
        ([[0, 1], [1, 2]], 2, "row 1: class list and labels disagree: class 2 of 2"),
        ([[1, -1, 1]], 3, "row 0: -1 is no class index"),
        ([[0.5]], None, "row 0: 0.5 is no class index"),
        ([[0, None]], None, "row 0: None is no class index"),
        ([[10**7]], None, "row 0: 10000000 is no class index"),
        ([[True, 2]], None, None),
    ):
        if message:
            with pytest.raises(DataError, match=message):
                found(rows, classes)


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def shards(root: Path, *samples: dict[str, bytes], **texts: str) -> str:
    members = [(f"{row}.{kind}", data) for row, files in enumerate(samples) for kind, data in files.items()]
    writer.write_split(root, "test", [members])
    for name, text in texts.items():
        (root / f"{name}.txt").write_text(text)
    return f"wds:{root}"


def png(seed: int) -> bytes:
    return writer.encoded(writer.picture(seed), "png")


def faces(count: int = 5) -> list[dict[str, bytes]]:
    """Three numbers beside the label of one of three classes: they would pass for labels."""
    return [{"png": png(k), "cls": str(k % 3).encode(), "npy": npy([k, 7, 2.0])} for k in range(count)]


def test_an_array_beside_a_class_is_metadata_where_its_numbers_are_named(tmp_path: Path) -> None:
    spec = shards(tmp_path / "w", *faces(), classnames="a\nb\nc\n")
    unnamed, found = opened(spec), opened(spec, metadata=["region", "year", "y"])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1]
    assert unnamed.metadata is None
    assert found.metadata is not None
    assert {name: values.tolist() for name, values in found.metadata.items()} == {
        "region": [0, 1, 2, 3, 4],
        "year": [7] * 5,
        "y": [2] * 5,
    }
    assert {str(values.dtype) for values in found.metadata.values()} == {"int64"}
    assert unnamed.remarks == found.remarks == ()
    part = Subset(found, np.array([1, 4]))
    assert part.metadata is not None
    assert part.metadata["region"].tolist() == [1, 4]


def test_what_is_trained_on_needs_no_metadata(tmp_path: Path) -> None:
    spec = shards(tmp_path / "w", *faces(), classnames="a\nb\nc\n")
    bare = [(f"{k}.{kind}", data) for k, row in enumerate(faces()) for kind, data in row.items() if kind != "npy"]
    writer.write_split(tmp_path / "w", "train", [bare])
    train = opened(spec, "train", metadata=["region", "year", "y"])
    assert train.metadata is None
    assert train.fingerprint == opened(spec).fingerprint


def test_metadata_that_is_named_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    rows = faces()
    bare = [{kind: data for kind, data in row.items() if kind != "npy"} for row in rows]
    changed = [*rows[:4], rows[4] | {"npy": npy([3, 7, 2])}]
    plain, one, other = (
        shards(tmp_path / name, *found, classnames="a\nb\nc\n")
        for name, found in (("bare", bare), ("one", rows), ("other", changed))
    )
    assert opened(plain).fingerprint == opened(one).fingerprint == opened(other).fingerprint
    named = [
        opened(spec, metadata=names).fingerprint
        for spec, names in ((one, ["a", "b", "c"]), (other, ["a", "b", "c"]), (one, ["a", "c", "b"]))
    ]
    assert len({*named, opened(plain).fingerprint}) == 4


def test_metadata_that_does_not_fit_is_said(tmp_path: Path) -> None:
    rows = faces()
    cut = shards(tmp_path / "cut", *rows[:3], *({**row, "npy": npy([-1, 7.5, -2.5])} for row in rows[3:]))
    dataset = opened(cut, metadata=["region", "income", "y"])
    assert dataset.metadata is not None
    assert [values.tolist()[3:] for values in dataset.metadata.values()] == [[-1, -1], [7, 7], [-2, -2]]
    assert dataset.remarks[:2] == (
        "2 of 5 values of the metadata 'income' have a fraction, which was cut off",
        "2 of 5 values of the metadata 'y' have a fraction, which was cut off",
    )
    for number, (row, names, message) in enumerate(
        [
            (
                rows[2],
                ["region", "y"],
                r"set: sample 0/0 has 3 numbers in \.npy, but metadata: .* names 2: region, y\.",
            ),
            (
                {"png": png(2), "cls": b"2"},
                ["a", "b", "c"],
                r"sample 0/2 has no \.npy, but metadata: .* names 3: a, b, c",
            ),
            (rows[2] | {"npy": npy([1, np.nan, 2])}, ["a", "b", "c"], r"sample 0/2: the metadata 'b' is nan"),
            (rows[2] | {"npy": npy([1, 2, 1e19])}, ["a", "b", "c"], r"sample 0/2: the metadata 'c' is 1e\+19"),
        ]
    ):
        spec = shards(tmp_path / str(number), *rows[:2], row, *rows[3:], classnames="a\nb\nc\n")
        with pytest.raises(DataError, match=message):
            opened(spec, metadata=names)


def test_metadata_where_it_means_nothing_is_an_error(tmp_path: Path) -> None:
    labels = shards(
        tmp_path / "many", *({"png": png(k), "npy": npy([k % 2, 1])} for k in range(3)), classnames="a\nb\n"
    )
    with pytest.raises(DataError, match=r"set: metadata: means nothing here: the \.npy files hold the labels"):
        opened(labels, metadata=["a", "b"])
    for spec in (f"folder:{tmp_path}", f"hf:{tmp_path}", "clip_benchmark:cifar10", "builtin:digits"):
        with pytest.raises(UsageError, match=r"set\.metadata: means nothing for .* only for wds:, clip_benchmark:wds/"):
            opened(spec, metadata=["a"])


@pytest.mark.parametrize("label", [b"-1", b"1000000"])
def test_a_label_is_a_class_where_no_names_are_known_too(tmp_path: Path, label: bytes) -> None:
    with pytest.raises(DataError, match=rf"set: sample 0/1, label \(\.cls\): {label.decode()} is no class index"):
        opened(shards(tmp_path / "w", {"png": png(0), "cls": b"0"}, {"png": png(1), "cls": label}))


# --- class names ---


def test_blank_lines_at_the_end_are_no_classes(tmp_path: Path) -> None:
    rows = [{"png": png(k), "cls": str(k).encode()} for k in range(2)]
    templates = {"zeroshot_classification_templates": "a {c}\n\n"}
    prompts = opened(shards(tmp_path / "w", *rows, classnames="cat\ndog\n \n\n", **templates)).prompts
    assert prompts is not None
    assert (prompts.classes, prompts.templates) == (("cat", "dog"), ("a {c}",))
    with pytest.raises(DataError, match="set: class name 2 of 3 is empty"):
        opened(shards(tmp_path / "v", *rows, classnames="cat\n\ndog\n"))


def test_a_name_that_stands_twice_is_said(tmp_path: Path) -> None:
    rows = [{"png": png(k), "cls": str(k).encode()} for k in range(3)]
    remarks = opened(shards(tmp_path / "w", *rows, classnames="crane\ncat\ncrane\n")).remarks
    assert remarks == ("1 class names stand more than once ('crane'): only the first of equal names can win",)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"], [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"], [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
        (["00", "01", "02"], [0, 1, 2]),
        (["3", "5", "9"], [0, 1, 2]),
        (["b10", "b2", "c"], [0, 1, 2]),
        (["class_1", "class_2"], [0, 1]),
    ],
)
def test_names_go_by_the_number_of_their_class(own: list[str], expected: list[int]) -> None:
    names = [f"name {k}" for k in range(len(own))]
    assert aligned(own, names, "list") == [f"name {k}" for k in expected]


@pytest.mark.parametrize(
    "own",
    [["0", "10", "2"], ["1", "100", "11"], ["class_1", "class_10", "class_2"], ["10", "9"], ["01", "1", "10", "2"]],
)
def test_numbers_of_which_nobody_knows_the_order_are_refused(own: list[str]) -> None:
    with pytest.raises(DataError, match=rf"list: its names may be in the order of the numbers .* {own[0]}, {own[1]}"):
        aligned(own, ["a"] * len(own), "list")


def test_names_of_the_classes_in_another_order_go_by_name(tmp_path: Path) -> None:
    assert aligned(["ant", "red fox", "zebu"], ["Zebu", "ant", "red_fox"], "list") == ["ant", "red_fox", "Zebu"]
    assert aligned(["a", "b"], ["x", "a"], "list") == ["x", "a"]  # other names: by their lines
    assert aligned(["a", "b"], ["A", "a"], "list") == ["A", "a"]
    folders(tmp_path / "f", "test", ant=0, red_fox=1)
    (tmp_path / "f" / "classnames.txt").write_text("red fox\nant\n")
    (tmp_path / "p.json").write_text(json.dumps({"classes": ["red fox", "ant"], "templates": ["{c}"]}))
    column = (["red fox", "ant"], TEXT)
    for spec in (f"folder:{tmp_path / 'f'}", table(tmp_path / "a.parquet", [1, 0], label=column)):
        for given in ({}, {"prompts": str(tmp_path / "p.json")}):
            dataset = opened(spec, **given)
            assert dataset.labels is not None
            assert dataset.prompts is not None
            shown = {dataset.image(k).tobytes(): dataset.prompts.classes[dataset.labels[k]] for k in range(2)}
            assert shown == {writer.picture(0).tobytes(): "ant", writer.picture(1).tobytes(): "red fox"}


def test_numbered_folders_with_names_in_every_form(tmp_path: Path) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    for number in range(12):
        folder = tmp_path / "f" / "test" / str(number)
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png(number))
    (tmp_path / "p.json").write_text(json.dumps({"classes": names, "templates": ["{c}"]}))

    def called(spec: str, **entry: Any) -> list[str]:
        dataset = opened(spec, **entry)
        assert dataset.labels is not None
        assert dataset.prompts is not None
        pixels = [dataset.image(index).tobytes() for index in range(12)]
        by_number = [pixels.index(writer.picture(number).tobytes()) for number in range(12)]
        return [dataset.prompts.classes[dataset.labels[index]] for index in by_number]

    prompts = {"prompts": str(tmp_path / "p.json")}
    assert called(f"folder:{tmp_path / 'f'}", **prompts) == names
    assert called(f"hf:{tmp_path / 'f'}", **prompts) == names
    spec = table(tmp_path / "t.parquet", list(range(12)), label=([str(k) for k in range(12)], TEXT))
    assert called(spec, **prompts) == names
    (tmp_path / "f" / "classnames.txt").write_text("\n".join(names))
    assert called(f"folder:{tmp_path / 'f'}") == names
    assert called(f"folder:{tmp_path / 'f'}", **prompts) == names


def test_one_class_alone_is_said(tmp_path: Path) -> None:
    folders(tmp_path / "f", "test", images=0)
    said = ("there is one class only, 'images': every answer is right",)
    assert opened(f"folder:{tmp_path / 'f'}").remarks == said
    assert opened(table(tmp_path / "a.parquet", [0], label=([0], hf.ClassLabel(names=["images"])))).remarks == said


def test_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "flat" / split / f"{number}.png").write_bytes(png(number))
    with pytest.raises(DataError, match="its classes are called 'test', 'train', as splits are: the images lie in no"):
        opened(f"hf:{tmp_path / 'flat'}")
    kind = hf.ClassLabel(names=["train", "car"])
    assert opened(table(tmp_path / "vehicles.parquet", [0, 1], label=([0, 1], kind))).labels is not None


def test_a_language_takes_the_list_of_that_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clip_benchmark

    lists = Path(clip_benchmark.__file__).parent / "datasets"
    italian = json.loads((lists / "it_classnames.json").read_text())["imagenet1k"]
    templates = json.loads((lists / "it_zeroshot_classification_templates.json").read_text())["imagenet1k"]
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path))
    english = "\n".join(f"name {k}" for k in range(1000))
    shards(tmp_path / "wds_imagenet1k", {"png": png(0), "cls": b"7"}, classnames=english)
    for spec, entry in (("wds/imagenet1k@it", {}), ("wds/imagenet1k", {"language": "it"})):
        prompts = opened(f"clip_benchmark:{spec}", **entry).prompts
        assert prompts is not None
        assert (list(prompts.classes), list(prompts.templates)) == (italian, templates)
    with pytest.raises(DataError, match="no class names in the language 'xx'"):
        opened("clip_benchmark:wds/imagenet1k@xx")
    with pytest.raises(DataError, match="disagree: CLIP_benchmark has 1000 class names in the language 'it', the data"):
        load_prompts("imagenet1k", language="it", classes=["a"])
    with pytest.raises(DataError, match="set: CLIP_benchmark has no class names of it in the language 'it'"):
        opened(f"wds:{tmp_path / 'wds_imagenet1k'}", language="it")
    pairs = shards(tmp_path / "wds_pairs", {"png": png(0), "txt": b"a"})
    for spec, entry in ((pairs, {"language": "it"}), ("clip_benchmark:wds/pairs@it", {})):
        with pytest.raises(UsageError, match="means nothing here: there are no class names"):
            opened(spec, **entry)


# --- captions ---


def test_blank_captions_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = [b"one\n\n", b"two\n \nand more\n", b"three"]
    dataset = opened(shards(tmp_path / "w", *({"png": png(k), "txt": text} for k, text in enumerate(lines))))
    assert dataset.captions == [("one",), ("two", "and more"), ("three",)]
    assert dataset.remarks == ("2 of 6 captions are blank and were left out",)
    clean = [b"one", b"two\nand more", b"three"]
    other = opened(shards(tmp_path / "v", *({"png": png(k), "txt": text} for k, text in enumerate(clean))))
    assert other.captions == dataset.captions
    assert other.remarks == ()
    spec = table(tmp_path / "t.parquet", [0, 1], caption=([["a", ""], ["\t", "b"]], hf.List(TEXT)))
    assert opened(spec).captions == [("a",), ("b",)]


def test_a_byte_order_mark_is_no_caption(tmp_path: Path) -> None:
    marked = {"png": png(0), "txt": "\ufeffa dog\n".encode()}
    assert opened(shards(tmp_path / "w", marked, dataset_type="retrieval")).captions == [("a dog",)]


@pytest.mark.parametrize(("text", "what"), [(b"\n \n", "no caption that is not blank"), (b"", "no caption")])
def test_a_sample_without_a_caption_is_named(tmp_path: Path, text: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"set: sample 0/1 has {what}\."):
        opened(shards(tmp_path / "w", {"png": png(0), "txt": b"a"}, {"png": png(1), "txt": text}))


def test_rows_of_one_image_are_one_sample(tmp_path: Path) -> None:
    """However they are mixed, and in whatever format: as if they had been written together."""
    seeds, texts = [4, 9, 4, 7, 9, 4], ["a", "b", "c", "d", "e", "f"]
    together = shards(
        tmp_path / "one",
        *({"png": png(seed), "txt": text} for seed, text in ((4, b"a\nc\nf"), (9, b"b\ne"), (7, b"d"))),
    )
    expected = opened(together)
    apart = shards(tmp_path / "w", *({"png": png(s), "txt": t.encode()} for s, t in zip(seeds, texts, strict=True)))
    for spec, ids in (
        (apart, ["0/0", "0/1", "0/3"]),
        (table(tmp_path / "t.parquet", seeds, caption=(texts, TEXT)), ["0", "1", "3"]),
    ):
        dataset = opened(spec)
        assert dataset.captions == expected.captions == [("a", "c", "f"), ("b", "e"), ("d",)]
        assert list(dataset.ids) == ids
        assert [dataset.image(k).tobytes() for k in range(3)] == [writer.picture(s).tobytes() for s in (4, 9, 7)]
        assert dataset.remarks[0].startswith("6 rows hold 3 different images")
        assert len(opened(spec, n=6)) == len(opened(spec, n=3)) == 3
        with pytest.raises(DataError, match=r"found 3 samples in .* expected 5"):
            opened(spec, n=5)
    before = opened(apart).fingerprint
    order = [0, 1, 2, 3, 5, 4]  # the same image, its captions in another order
    other = table(tmp_path / "u.parquet", seeds, caption=([texts[k] for k in order], TEXT))
    assert opened(other).fingerprint != before


def test_labelled_images_that_are_there_twice(tmp_path: Path) -> None:
    kind = hf.ClassLabel(names=["x", "y"])
    agreeing = opened(table(tmp_path / "a.parquet", [1, 2, 1], label=([0, 1, 0], kind), text=(["a", "b", "c"], TEXT)))
    assert agreeing.labels is not None
    assert (agreeing.labels.tolist(), agreeing.captions) == ([0, 1], [("a", "c"), ("b",)])
    odd = opened(table(tmp_path / "b.parquet", [1, 2, 1], label=([0, 1, 1], kind), text=(["a", "b", "c"], TEXT)))
    assert len(odd) == 3
    assert odd.remarks == ("1 rows repeat an image, some with another label: each counts for itself",)
    labelled = opened(table(tmp_path / "c.parquet", [1, 2, 1], label=([0, 1, 0], kind)))
    assert len(labelled) == 3
    assert labelled.remarks == ()
