"""Input that means harm is refused or neutralised, with a message; what is refused elsewhere in the tests is not
repeated here (pickles: test_wrong_input.py, test_loader.py; pipe: URLs: test_wds.py; aliases: test_config.py)."""

from __future__ import annotations

import json
import struct
import time
import zlib
from pathlib import Path

import pytest
import torch
from helpers import TINY, add, encoded, image_folder, picture, tiny_checkpoint

import clipeval
from clipeval import yaml_file
from clipeval.errors import UsageError
from clipeval.results.reading import read_results
from clipeval.results.schema import to_frame
from clipeval.results.table import write_frame


@pytest.fixture
def zoo(tmp_path):
    tiny_checkpoint(tmp_path / "good.pt")
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 2})
    return tmp_path


@pytest.fixture
def run(command, zoo):
    """``clipeval run`` of the good checkpoint on ``dataset``."""

    def call(dataset, *words):
        return command(
            "clipeval",
            "run",
            "-m",
            zoo / "good.pt",
            "-d",
            dataset,
            "-o",
            zoo / "out",
            "--workers",
            "0",
            "--json",
            *words,
        )

    return call


def tree(*roots):
    return {path for root in roots for path in root.rglob("*")}


@pytest.mark.parametrize("name", ["../../outside", "/tmp/clipeval-outside", "a/../../../outside", "C:\\x"])
def test_tar_members_that_point_outside_write_nothing(zoo, run, tmp_path, name, cache):
    """Nothing is extracted: a member's name is only ever a sample's id."""
    import tarfile

    (zoo / "shards").mkdir()
    with tarfile.open(zoo / "shards" / "0.tar", "w") as tar:
        for number in range(3):
            add(tar, f"{name}{number}.cls", str(number % 2).encode())
            add(tar, f"{name}{number}.png", encoded(picture(number)))
    (zoo / "shards" / "classnames.txt").write_text("red\ngreen\n")
    before = tree(zoo.parent)
    code, out, err = run(f"wds:{zoo}/shards/0.tar")
    assert code == 0, err
    assert {row["status"] for row in json.loads(out)["rows"]} == {"ok", "skipped"}
    fresh = tree(zoo.parent) - before
    assert all(path.is_relative_to(zoo / "out") or path.is_relative_to(cache) for path in fresh)
    assert not (zoo / "shards" / f"{name}0.png").exists()


def bomb(side=40_000):
    """A PNG of 4.8 GB in a few megabytes: its rows are all zeros."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    rows = b"".join(squeezer.compress(row) for _ in range(50))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", rows + squeezer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_a_decompression_bomb_is_refused_by_its_header(zoo, run):
    (zoo / "colours/test/red/zz.png").write_bytes(bomb())
    code, _, err = run(f"folder:{zoo}/colours", "-t", "classification")
    assert code == 3
    assert "colours: sample red/zz.png: cannot decode the image: " in err
    assert "decompression bomb" in err


def test_a_yaml_bomb_is_refused_at_once(tmp_path, command):
    """Nine levels of nine aliases each would be 10 GB of names."""
    lines = ["a0: &a0 [" + ", ".join(["lollollollol"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    started = time.monotonic()
    code, _, err = command("clipeval", "run", "-c", tmp_path / "bomb.yaml")
    assert code == 2
    assert "bomb.yaml:2:10: not valid YAML: aliases (*name) are not supported here" in err
    with pytest.raises(UsageError, match="not valid YAML: maximum recursion"):
        yaml_file.parse_yaml("[" * 5000, "deep.yaml")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("line", ["pipe:touch {}", "file:{}", "file://{}", "PIPE:touch {}", "a.tar::pipe:touch {}"])
def test_commands_and_file_urls_in_a_list_of_shards(zoo, run, line):
    target = zoo / "executed"
    (zoo / "list.txt").write_text(line.format(target) + "\n")
    code, _, err = run(f"wds:{zoo}/list.txt")
    assert code in (2, 3)
    assert "list.txt" in err
    assert not target.exists()


def test_a_number_of_shards_that_would_fill_the_memory(zoo, run):
    (zoo / "shards" / "test").mkdir(parents=True)
    for count in ("999999999999", "9" * 6000):
        (zoo / "shards" / "test" / "nshards.txt").write_text(count)
        code, _, err = run(f"wds:{zoo}/shards")
        assert code == 3
        assert "nshards.txt: expected the number of shards" in err


NAMES = ["../../evil", "/tmp/clipeval-evil", "..", "a/b/../../../c", "con\n.\t|", "$\\bad$", "x" * 90]


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout not applied")
@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_name_cannot_leave_the_results_folder(zoo, command, name, cache):
    """Neither in a run nor in the figures of a fit; the name stays what it is in the table."""
    names = json.dumps(name)
    (zoo / "b.yaml").write_text(
        f"datasets: {{{names}: {{spec: 'folder:{zoo}/colours', tasks: [classification]}}}}\n"
        f"suites: {{{json.dumps('../' + name[:50])}: [{names}]}}\n"
    )
    before = tree(zoo.parent)
    code, _, err = command(
        "clipeval",
        "run",
        "-c",
        zoo / "b.yaml",
        "-m",
        zoo / "good.pt",
        "-d",
        "../" + name[:50],
        "-o",
        zoo / "out",
        "--workers",
        "0",
    )
    assert code == 0, err
    frame = read_results(zoo / "out")
    assert {name, "../" + name[:50]} == set(frame.dataset)
    laws = [
        {"model": f"m{n}", "source": "a$\\b$", "gmacs_total": 10.0**n, "value": 1 - 0.9 * 0.9**n} for n in range(1, 6)
    ]
    shared = {"dataset": name, "task": "zeroshot_classification", "metric": "acc1", "status": "ok"}
    write_frame(zoo / "laws", to_frame([row | shared for row in laws]))
    code, _, err = command("clipeval", "fit", zoo / "laws", "-o", zoo / "fits", "--bootstrap", "100")
    assert code in (0, 3), err
    fresh = tree(zoo.parent) - before
    inside = (zoo / "out", zoo / "laws", zoo / "fits", cache)
    assert all(any(path.is_relative_to(folder) for folder in inside) for path in fresh), fresh
    assert not Path("/tmp/clipeval-evil").exists()


FORMULAS = [
    '=HYPERLINK("http://x")',
    "+1",
    "-1+1|cmd",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "'=1",
    "''=1",
    "'tis",
    "a=1",
]


def test_no_cell_of_an_exported_table_is_a_formula(tmp_path):
    """A spreadsheet takes a cell for a formula by its first character; the apostrophe makes it text. Reading it back
    gives the name that was measured."""
    import csv

    frame = to_frame([{"model": name, "dataset": "d", "value": -0.5, "n": 3} for name in FORMULAS])
    frame["=extra"] = FORMULAS
    write_frame(tmp_path, frame)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    numbers = {rows[0].index("value")}
    for line in rows:
        assert not [cell for n, cell in enumerate(line) if n not in numbers and cell[:1] in tuple("=+-@\t\r\n")]
    assert [line[0] for line in rows[1:]] == [
        *(f"'{name}" for name in FORMULAS[:9]),
        *FORMULAS[9:],
    ]
    found = read_results(tmp_path / "results.csv")
    assert found["model"].tolist() == FORMULAS
    assert found["=extra"].tolist() == FORMULAS
    assert found["value"].tolist() == [-0.5] * len(FORMULAS)


def test_a_users_own_csv_is_read_as_it_is(tmp_path):
    (tmp_path / "mine.csv").write_text("model,dataset,value\n=odd,007,0.5\n'quoted',1e5,0.25\n")
    found = read_results(tmp_path / "mine.csv")
    assert found["model"].tolist() == ["=odd", "'quoted'"]
    assert found["dataset"].tolist() == ["007", "1e5"]


def test_wrong_cells_of_a_table_are_named(tmp_path, command):
    (tmp_path / "t.csv").write_text("model,dataset,value,n\nm,d,0.5,1\nm,e,high,1\n")
    code, _, err = command("clipeval", "check", tmp_path / "t.csv", "--against", tmp_path / "t.csv")
    assert code == 2
    assert "t.csv: not a readable results table: row 2, column value: 'high' is not of type float64" in err
    (tmp_path / "t.csv").write_text("model,dataset\nm,d,0.5\n")
    code, _, err = command("clipeval", "check", tmp_path / "t.csv", "--against", tmp_path / "t.csv")
    assert code == 2
    assert "its rows have more cells than its header" in err


def test_hostile_names_in_a_checkpoint(zoo, command):
    """Facts that a checkpoint says of itself are text in every output."""
    content = torch.load(tiny_checkpoint(zoo / "odd.pt"), weights_only=True)
    content["metadata"] |= {"source": "=cmd|' /C calc'!A0<script>[red]\x1b[31m"}
    torch.save({**content, "model_cfg": TINY}, zoo / "odd.pt")
    code, out, err = command(
        "clipeval", "run", "-m", zoo / "odd.pt", "-d", f"folder:{zoo}/colours", "-o", zoo / "out", "--workers", 0
    )
    assert code == 0, err
    assert "\x1b[31m" not in out
    assert (zoo / "out/results.csv").read_text().count("'=cmd|") > 0
    assert clipeval.read_results(zoo / "out/results.csv").source[0].startswith("=cmd|")
