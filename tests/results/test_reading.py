"""Tables of anybody: what is read, what is refused, and that it is refused soon and with the place."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipeval import read_results
from clipeval.errors import UsageError
from clipeval.importers import raw
from clipeval.results import bounded, reading, samples
from clipeval.results.columns import records
from clipeval.results.schema import COLUMNS

GOOD = {"model": "m", "dataset": "d", "task": "zeroshot_classification", "metric": "acc1", "value": 0.5, "status": "ok"}


def parquet(path, rows=1, **columns):
    columns = {name: pa.array([value] * rows) for name, value in GOOD.items()} | columns
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Files that are no results tables by name, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    equal = pa.DictionaryArray.from_arrays(pa.array(np.zeros(reading.MOST_ROWS + 1, np.int8)), pa.array(["m"]))
    pq.write_table(pa.table({"model": equal, "value": np.zeros(len(equal))}), "rows.parquet")
    pq.write_table(pa.table({f"c{i}": [1] for i in range(bounded.MOST_COLUMNS + 1)}), "wide.parquet")
    (tmp_path / "wide.csv").write_text("," * 10_000 + "\n")
    (tmp_path / "header.csv").write_text("a" * 3_000_000)
    (tmp_path / "lines.csv").write_text("value\n" + "1\n" * (reading.MOST_ROWS + 1))
    with open("sparse.csv", "wb") as file:
        file.truncate(100 << 30)
    with open("sparse.parquet", "wb") as file:
        file.truncate(100 << 30)
    os.mkfifo("pipe.csv")
    os.mkfifo("pipe.parquet")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder/results.parquet").mkdir(parents=True)
    (tmp_path / "short.parquet").write_bytes(parquet(tmp_path / "x.parquet").read_bytes()[:-9])
    (tmp_path / "not.csv.gz").write_bytes(b"\x1f\x8b\x08 no")
    (tmp_path / "nul.csv").write_bytes(b"model,value\n\0\0,1\n\xff\xfe,2\n")
    return tmp_path


REFUSED = {
    "rows.parquet": "more than 1,000,000 rows",
    "wide.parquet": "more than 2,000 columns",
    "wide.csv": "more than 2,000 columns",
    "header.csv": "not a readable",
    "lines.csv": "more than 1,000,000 rows",
    "sparse.csv": "more than 2,147,483,648 bytes",
    "sparse.parquet": "not a readable",
    "pipe.csv": "not a file",
    "pipe.parquet": "not a file",
    "device.csv": "not a file",
    "loop.csv": "cannot read it",
    "folder.csv": "no results table here",
    "folder": "not a file",
    "short.parquet": "not a readable",
    "not.csv.gz": "not a readable",
    "nul.csv": "not a readable",
    "x" * 300 + ".csv": "cannot read it: File name too long",
    "a\0b.csv": "cannot read it",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused(hostile, monkeypatch, name):
    if name == "sparse.csv":  # the bound, without reading two gigabytes
        monkeypatch.setattr(bounded, "MOST_BYTES", 1 << 20)
    message = REFUSED[name].replace("2,147,483,648", "1,048,576")
    with pytest.raises(UsageError, match=message):
        read_results(name)


@pytest.mark.parametrize("name", ["rows.parquet", "pipe.csv", "folder", "x" * 300, "x" * 300 + ".csv"])
def test_every_command_refuses_it_with_exit_2(hostile, command, name):
    table = parquet(hostile / "good.parquet")
    calls = (
        ["check", name, "--against", str(table)],
        ["check", str(table), "--against", name],
        ["fit", name],
        ["report", name, "-o", "page"],
        ["import", name, "-o", "imported"],
    )
    for call in calls:
        code, _, err = command("clipeval", *call)
        assert (call[0], code) == (call[0], 2), err
        assert "Traceback" not in err


def nested(values, kind):
    return {"column": pa.array(values, kind)}


@pytest.mark.parametrize(
    ("columns", "place"),
    [
        ({"value": pa.array(["0.5", "many"])}, "row 2, column value: 'many'"),
        ({"shots": pa.array([1.0, 2.5])}, "row 2, column shots: 2.5"),
        ({"n": pa.array([3, 2**64 - 1], pa.uint64())}, "row 2, column n: 18446744073709551615"),
        ({"n": pa.array([float("inf"), 1.0])}, "row 1, column n: inf"),
        ({"higher_is_better": pa.array(["yes", "no"])}, "row 1, column higher_is_better: 'yes'"),
        ({"model": pa.array([["a"], ["b"]])}, "row 1, column model"),
        ({"model": pa.array([b"a", b"b"])}, "row 1, column model"),
        ({"dataset": pa.array([None, {"a": 1}])}, "row 2, column dataset"),
        ({"value": pa.array([[0.5], [0.5]])}, "row 1, column value"),
        ({"my_column": pa.array([None, [1]])}, "row 2, column my_column"),
        ({"my_column": pa.array([{"a": 1}, None])}, "row 1, column my_column"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, columns, place):
    with pytest.raises(UsageError, match=place.replace("[", r"\[")):
        read_results(parquet(tmp_path / "t.parquet", rows=2, **columns))


def test_the_first_of_many_wrong_cells_is_found(tmp_path):
    rng = np.random.default_rng(0)
    for first in (0, 1, 4999, 7777, 9999):
        values = ["0.25"] * 10_000
        for at in {first, *rng.integers(first, 10_000, 5).tolist()}:
            values[at] = "x"
        with pytest.raises(UsageError, match=f"row {first + 1}, column value: 'x'"):
            read_results(parquet(tmp_path / "t.parquet", rows=10_000, value=pa.array(values)))


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["model", "model"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="two columns 'model'"):
        read_results(tmp_path / "t.parquet")


def test_pandas_indices_and_types_do_not_matter(tmp_path):
    """A column is a column though pandas made it an index; categories and texts of numbers are typed."""
    frame = pd.DataFrame([GOOD | {"seed": "3", "n": 7.0, "limit": None, "split": "", "task_version": 2}] * 2)
    expected = read_results(parquet(tmp_path / "plain.parquet", rows=2))
    frame.astype({"dataset": "category"}).set_index("model").to_parquet(tmp_path / "indexed.parquet")
    found = read_results(tmp_path / "indexed.parquet")
    for name in GOOD:
        pd.testing.assert_series_equal(found[name], expected[name])
    assert list(found) == list(COLUMNS)
    assert found["seed"].tolist() == [3, 3]
    assert found["n"].dtype == "Int64"
    assert found["split"].isna().all()
    assert found["task_version"].tolist() == ["2", "2"]


def test_compressed_csv(tmp_path):
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("model,value\n'=a,0.5\n")
    assert read_results(tmp_path / "t.csv.gz")["model"].tolist() == ["=a"]


def test_records_are_plain_values():
    frame = reading.typed(pd.DataFrame({"value": [0.5, np.nan], "n": [1, None], "higher_is_better": [True, None]}))
    first, second = records(frame)
    assert [first[name] for name in ("value", "n", "higher_is_better", "model")] == [0.5, 1, True, None]
    assert [type(first[name]) for name in ("value", "n", "higher_is_better")] == [float, int, bool]
    assert set(second.values()) == {None}


def test_a_text_that_is_no_utf_8_is_a_fault_of_the_file(tmp_path):
    """Not of whoever looks at that text first: pyarrow checks none when it reads."""
    offsets, data = pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfe")
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    pq.write_table(pa.table({"model": texts, "value": [0.5, 0.5]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t.parquet: not a readable results table: .*UTF-?8"):
        read_results(tmp_path / "t.parquet")


def csv(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


HEAD = "model,dataset,task,metric,value,n"


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("acc1", "60.5", r"row 2 \(m, d\), column value: acc1 = 60.5 is outside \[0, 1\]: in percent\? Write 0.605"),
        ("mean_average_precision", "1.5", "mean_average_precision = 1.5 is outside"),
        ("acc_worst_region", "-0.25", r"= -0.25 is outside \[0, 1\]\. Values are fractions"),
        ("image_retrieval_recall@7", "250", r"= 250 is outside \[0, 1\]\. Values"),
    ],
)
def test_every_command_refuses_a_share_outside_0_and_1(tmp_path, command, metric, value, expected):
    good = csv(tmp_path / "good.csv", HEAD, f"m,d,t,{metric},0.5,9")
    bad = csv(tmp_path / "bad.csv", HEAD, f"m,c,t,{metric},0.5,9", f"m,d,t,{metric},{value},9")
    frame = pd.read_csv(bad)
    frame.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(UsageError, match=f"bad.parquet: .*{expected}"):
        read_results(tmp_path / "bad.parquet")
    with pytest.raises(UsageError, match=expected):
        reading.typed(frame)
    for words in (
        ["check", bad, "--against", good],
        ["check", good, "--against", bad],
        ["report", bad, "-o", tmp_path / "page"],
        ["fit", bad],
        ["import", bad, "-o", tmp_path / "tidy"],
    ):
        code, _, said = command("clipeval", *words)
        assert code == 2, words
        assert f"{metric} = {value} is outside [0, 1]" in said
    assert not (tmp_path / "page").exists()
    assert not (tmp_path / "tidy").exists()


def test_what_is_no_share_or_no_value_may_be_anything(tmp_path):
    lines = ["m,d,t,loss,60.5,9,ok", "m,d,t,acc1,60,9,failed", "m,e,t,acc1,1.0000000000000002,9,", "m,f,t,acc1,,9,ok"]
    found = read_results(csv(tmp_path / "a.csv", HEAD + ",status", *lines))
    assert found["value"].tolist()[:2] == [60.5, 60]
    wide = csv(tmp_path / "b.csv", HEAD + ",ci_low,ci_high", "m,d,t,acc1,0.5,9,0.4,60")
    with pytest.raises(UsageError, match="column ci_high: acc1 = 60 is outside"):
        read_results(wide)


def test_a_column_without_a_name_is_left_out_and_said(tmp_path, capsys):
    frame = pd.DataFrame([GOOD, GOOD | {"dataset": "e"}])
    frame.to_csv(tmp_path / "index.csv")  # pandas writes its index under no name
    found = read_results(tmp_path / "index.csv")
    assert capsys.readouterr().err == f"{tmp_path / 'index.csv'}: without a name and left out: column 1.\n"
    assert found["dataset"].tolist() == ["d", "e"]
    assert set(found.columns) == set(COLUMNS)
    two = csv(tmp_path / "two.csv", "model,,dataset,task,metric,value,", "m,7,d,t,acc1,0.5,")
    assert read_results(two)["value"].tolist() == [0.5]
    assert "left out: column 2, 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD.replace(",", ";") + "\nm;d;t;acc1;0,5;9\n", "one column, 'model;dataset;.*separated by semicolons"),
        (HEAD.replace(",", "\t") + "\nm\td\n", "it is separated by tabs"),
        (HEAD.replace(",", "|") + "\n", "it is separated by vertical bars"),
        (HEAD.replace(",", ", ") + "\nm, d\n", "blanks around names of columns: ' dataset', ' task'"),
        (HEAD + ",value\nm,d,t,acc1,0.5,9,0.6\n", "it has two columns 'value'"),
        (HEAD + '\nm,d,t,acc1,"0,5",9\n', "row 1, column value: '0,5' .* with a point, not a comma"),
        (HEAD + "\nm,d,t,acc1,0.5,9,7\n", r"more cells than its header \(model, dataset, task, metric, value, n\)"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_its_words(tmp_path, text, expected):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(UsageError, match=expected):
        read_results(tmp_path / "a.csv")


def test_the_other_encodings_of_spreadsheets(tmp_path):
    text = f"{HEAD}\nm,d,t,acc1,0.5,9\n"
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_results(tmp_path / "a.csv")["model"].tolist() == ["m"]
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16"))
    with pytest.raises(UsageError, match="it is UTF-16 text: save it as UTF-8"):
        read_results(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "read", [reading.read_results, lambda path: raw.read(path), lambda path: samples.read(path, "c")]
)
def test_no_memory_is_not_the_file_s_fault(tmp_path, monkeypatch, read):
    path = parquet(tmp_path / "a.parquet")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(bounded, "parquet", full)
    with pytest.raises(MemoryError):
        read(path)
