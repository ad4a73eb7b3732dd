"""CSV, TSV and Parquet lists of images and captions."""

import os
import pickle

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from shard_files import image

from clipeval.errors import DataError, UsageError
from clipeval_train.config import SourceEntry
from clipeval_train.input import lists
from clipeval_train.input.bad import BadSample
from clipeval_train.input.decode import decode_image
from clipeval_train.input.lists import ListSource


def opened(reference):
    return ListSource(SourceEntry(source="s", shards=str(reference)))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(image(number))
    return tmp_path


def captions(source):
    return [source.read(index)[1][0] for index in range(int(source.units.sum()))]


def test_a_csv_with_odd_captions(folder):
    (folder / "a.csv").write_bytes(
        b'id,image,caption\n7,pictures/0.jpg,"one, ""two""\nthree"\n8,pictures/1.jpg,null\n9,pictures/2.jpg,42\n'
    )
    source = opened(folder / "a.csv")
    assert captions(source) == ['one, "two"\nthree', "null", "42"]
    assert np.array_equal(source.read(2)[0], decode_image(image(2)))
    assert not source.tally.bad


def test_open_clips_default_columns_and_separator(folder):
    (folder / "a.tsv").write_text("filepath\ttitle\npictures/3.jpg\ta, b\n" + f"{folder}/pictures/4.jpg\tc\n")
    assert captions(opened(folder / "a.tsv")) == ["a, b", "c"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "A.CSV"])
@pytest.mark.parametrize("separator", [*"\t,;"])
@pytest.mark.parametrize("header", [b"filepath%stitle", b'\xef\xbb\xbf"image"%s"caption"\r', b"id, x%simage%scaption"])
def test_the_separator_is_what_makes_columns(folder, name, separator, header):
    """open_clip's lists have tabs and are called .csv."""
    if separator == "," and b"id" in header:
        header = header.replace(b", ", b"%s")
    cells = [b"7"] * (header.count(b"%s") - 1)
    row = [*cells, b"pictures/3.jpg", b'"a, b; c"']
    lines = header.replace(b"%s", separator.encode()) + b"\n" + separator.encode().join(row) + b"\n"
    (folder / name).write_bytes(lines)
    assert captions(opened(folder / name)) == ["a, b; c"]


def test_parquet_and_several_lists_each_with_its_folder(folder):
    other = folder / "other"
    other.mkdir()
    (other / "x.jpg").write_bytes(image(9))
    pyarrow.parquet.write_table(pyarrow.table({"image": ["x.jpg"], "caption": ["nine"]}), other / "b.parquet")
    names = [f"pictures/{number}.jpg" for number in range(3)]
    table = pyarrow.table({"caption": ["p", "q", "r"], "image": names, "similarity": [0.1, 0.2, 0.3]})
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    source = opened(f"{folder}/a.parquet::{folder}/other/b.parquet")
    assert captions(source) == ["p", "q", "r", "nine"]
    assert np.array_equal(source.read(3)[0], decode_image(image(9)))
    assert captions(pickle.loads(pickle.dumps(source))) == captions(source)


def test_bad_rows_are_counted_by_reason(folder):
    (folder / "a.csv").write_bytes(
        b"image,caption\npictures/0.jpg,zero\npictures/1.jpg,\n,two\npictures/3.jpg,caf\xe9\nno.jpg,x\na.csv,y\n"
    )
    source = opened(folder / "a.csv")
    assert source.tally.read == 6
    assert source.tally.bad == {"no image or no caption": 2}
    assert source.units.tolist() == [4]
    for index, reason in ((1, "caption is not UTF-8"), (2, "image file cannot be read"), (3, "undecodable image")):
        with pytest.raises(BadSample, match=f"^{reason}$"):
            source.read(index)
    assert source.where(2) == f"{folder}/no.jpg"


def test_long_lists_are_cut_into_units(folder, monkeypatch):
    monkeypatch.setattr(lists, "_UNIT", 3)
    (folder / "a.csv").write_text("image,caption\n" + "pictures/0.jpg,x\n" * 7)
    assert opened(folder / "a.csv").units.tolist() == [3, 3, 1]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", b"url,caption\nx,y\n", DataError, "has no column image or filepath, only url, caption"),
        ("a.csv", b"image,text\nx,y\n", DataError, "has no column caption or title, only image, text"),
        ("a.csv", b"image,caption\n", DataError, "s: no usable sample among the 0 rows"),
        ("a.csv", b"image,caption\nx,\n", DataError, "s: no usable sample among the 1 rows"),
        ("a.csv", b"", DataError, "a.csv: cannot read the list: Empty CSV file"),
        ("a.csv", b"image,caption\nx,y,z\n", DataError, "a.csv: cannot read the list: .*Expected 2 columns, got 3"),
        ("a.parquet", b"PAR1", DataError, "a.parquet: cannot read the list"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, name, content, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        opened(tmp_path / name)


def test_a_missing_list_and_a_remote_one(tmp_path):
    with pytest.raises(DataError, match=r"no.csv: cannot read the list"):
        opened(tmp_path / "no.csv")
    with pytest.raises(UsageError, match="lists have to be on this machine"):
        opened("https://host/a.csv")


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_what_is_no_image_file_is_a_bad_sample(folder, kind):
    path = folder / "pictures" / "0.jpg"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(100 << 30)
    (folder / "a.csv").write_text("image,caption\npictures/0.jpg,x\npictures/1.jpg,y\n")
    source = opened(folder / "a.csv")
    with pytest.raises(BadSample, match="image file cannot be read"):
        source.read(0)
    assert source.read(1)[1] == ["y"]


def test_file_names_that_are_no_utf8_are_read_and_can_be_printed(folder):
    (folder / "pictures" / "1.jpg").rename(os.fsdecode(os.fsencode(folder) + b"/pictures/caf\xe9.jpg"))
    (folder / "a.csv").write_bytes(b"image,caption\npictures/caf\xe9.jpg,x\n")
    source = opened(folder / "a.csv")
    assert np.array_equal(source.read(0)[0], decode_image(image(1)))
    assert source.where(0) == f"{folder}/pictures/caf\\xe9.jpg"


HUB = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def written(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary(), HUB, pyarrow.struct([HUB.field(0)])])
def test_images_inside_a_parquet_list(folder, cached, kind):
    is_struct = pyarrow.types.is_struct(kind)
    data = [image(number) for number in range(5)]
    cells = pyarrow.array([{"bytes": one, "path": "x"} if is_struct else one for one in data], kind)
    path = written(folder / "a.parquet", image=cells, caption=[*"abcd", None], size=[1] * 5)
    for _ in range(2):  # the second time from what was unpacked
        source = opened(path)
        assert captions(source) == [*"abcd"]
        assert source.tally.bad == {"no image or no caption": 1}
        for number in range(4):
            assert np.array_equal(source.read(number)[0], decode_image(data[number]))
        assert source.where(2) == f"{path}: row 2"
        assert captions(pickle.loads(pickle.dumps(source))) == [*"abcd"]


def test_images_of_the_hub_may_be_files_and_lists_may_be_mixed(folder, cached):
    cells = [{"bytes": None, "path": "pictures/3.jpg"}, None, {"bytes": image(9), "path": None}]
    cells += [{"bytes": b"", "path": None}, {"bytes": b"\x89PNG no image", "path": None}]
    hub = written(folder / "hub.parquet", image=pyarrow.array(cells, HUB), caption=[*"abcde"])
    (folder / "b.csv").write_text("image,caption\npictures/1.jpg,f\n")
    source = opened(f"{folder}/b.csv::{hub}")
    assert source.tally.bad == {"no image or no caption": 2}
    assert [np.array_equal(source.read(k)[0], decode_image(image(n))) for k, n in ((0, 1), (1, 3), (2, 9))] == [
        True
    ] * 3
    with pytest.raises(BadSample, match=r"^undecodable image$"):
        source.read(3)
    places = [source.where(index) for index in range(4)]
    assert places == [f"{folder}/pictures/1.jpg", f"{folder}/pictures/3.jpg", f"{hub}: row 2", f"{hub}: row 4"]


@pytest.mark.parametrize("kind", ["paths", "dictionary"])
def test_other_forms_of_the_image_column(folder, cached, kind):
    if kind == "paths":  # as Arrow writes a struct whose bytes are all missing
        cells = pyarrow.array([{"bytes": None, "path": f"pictures/{number}.jpg"} for number in (3, 1)])
    else:
        cells = pyarrow.array([image(number) for number in (3, 1)], pyarrow.binary()).dictionary_encode()
    source = opened(written(folder / "a.parquet", image=cells, caption=["a", "\ufeffb"]))
    assert captions(source) == ["a", "b"]
    for index, number in enumerate((3, 1)):
        assert np.array_equal(source.read(index)[0], decode_image(image(number)))


def test_bytes_that_are_names_of_files(folder, cached):
    names = pyarrow.array([None, b"pictures/1.jpg", b"pictures/2.jpg"], pyarrow.binary())
    source = opened(written(folder / "a.parquet", filepath=names, title=["x", "y", "z"]))
    assert captions(source) == ["y", "z"]
    assert np.array_equal(source.read(1)[0], decode_image(image(2)))
    assert not (folder / "cache" / "indexes").exists()


def test_several_captions_of_an_image(folder, cached):
    texts = [["one", " ", None, "two"], [], None, [" "], ["x" * (1 << 20), "y"], [""]]
    for name, images in (("a", ["pictures/0.jpg"] * 6), ("b", [image(0)] * 6)):
        source = opened(written(folder / f"{name}.parquet", image=images, caption=texts))
        assert source.tally.bad == {"no image or no caption": 3}
        assert source.read(0)[1] == ["one", "two"]
        for index, reason in ((1, "empty caption"), (2, "caption too large")):
            with pytest.raises(BadSample, match=f"^{reason}$"):
                source.read(index)


def test_texts_that_stand_in_a_dictionary(folder, cached):
    names = pyarrow.array(["pictures/0.jpg", "pictures/0.jpg"]).dictionary_encode()
    path = written(folder / "a.parquet", image=names, caption=pyarrow.array(["x", "x"]).dictionary_encode())
    assert captions(opened(path)) == ["x", "x"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1], "caption": ["x"]}, "the column 'image' holds int64; read are paths of image files, bytes"),
        ({"image": [["a.jpg"]], "caption": ["x"]}, "the column 'image' holds list<.*>; read are paths"),
        ({"image": [{"path": "x"}], "caption": ["x"]}, "the column 'image' holds struct<path: string>; read are"),
        ({"image": [{"bytes": "x"}], "caption": ["x"]}, "the column 'image' holds struct<bytes: string>; read are"),
        ({"image": ["x"], "caption": [0.5]}, "the column 'caption' holds double; read are texts and lists of them"),
        ({"image": ["x"], "caption": [[1]]}, "the column 'caption' holds list<.*: int64>; read are texts"),
        ({"image": [None], "caption": ["x"]}, "the column 'image' holds null; read are"),
    ],
)
def test_columns_of_other_types_are_named(tmp_path, cached, columns, message):
    with pytest.raises(DataError, match=rf"a\.parquet: {message}"):
        opened(written(tmp_path / "a.parquet", **columns))


def test_images_of_more_than_the_limit_are_bad(folder, cached, monkeypatch):
    monkeypatch.setattr(lists, "BYTE_LIMIT", len(image(0)) - 1)
    source = opened(written(folder / "a.parquet", image=[image(0)], caption=["x"]))
    with pytest.raises(BadSample, match=r"^image too large$"):
        source.read(0)
