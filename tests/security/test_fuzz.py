"""Whatever a configuration, a spec or a table holds: a result or an error for people, never a traceback."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clipeval
from clipeval import config, datasets, models
from clipeval.checks import emit
from clipeval.checks.rules import Rules
from clipeval.errors import ClipevalError
from clipeval.importers.import_files import import_files
from clipeval.results.ledger import Ledger
from clipeval.results.reading import read_results, read_tables
from clipeval.results.schema import COLUMNS
from clipeval.results.table import current_rows, write_frame

fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", "..", "/etc/passwd", "../../x", "pipe:id", "wds:pipe:id", "~", "\x00", "a" * 300, "*", "[", "=1"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SCALARS, inner, max_size=3)),
    max_leaves=6,
)


def entries(model):
    return st.dictionaries(st.sampled_from(list(model.model_fields)), VALUES, max_size=4)


CONFIGS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "models": st.one_of(VALUES, st.lists(entries(config.ModelEntry), max_size=2)),
            "zoos": st.one_of(
                VALUES, st.dictionaries(SCALARS, st.lists(entries(config.ModelEntry), max_size=2), max_size=2)
            ),
            "datasets": st.one_of(
                VALUES, st.dictionaries(st.text(max_size=5), entries(config.DatasetEntry), max_size=2)
            ),
            "suites": st.one_of(VALUES, st.dictionaries(st.text(max_size=5), entries(config.SuiteEntry), max_size=2)),
            "tasks": st.one_of(VALUES, st.fixed_dictionaries({"linear_probe": entries(config.LinearProbeEntry)})),
            "rules": st.one_of(VALUES, st.lists(entries(config.RuleEntry), max_size=2)),
        },
    ),
)


@pytest.fixture
def quietly(tmp_path, monkeypatch):
    """Call a function; only errors meant for people may come out of it. Nothing but its own folder is within reach."""
    monkeypatch.chdir(tmp_path)

    def call(function, *arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except ClipevalError as error:
            if not str(error) or error.exit_code not in (2, 3):
                raise
            return None

    return call


@fuzz
@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1")), st.text("{}[]&*!|>-:#'\",? \n\tab1")))
def test_any_text_as_yaml(quietly, text):
    Path("c.yaml").write_text(text, "utf-8", errors="replace")
    quietly(config.load, "c.yaml")


@fuzz
@given(CONFIGS)
def test_any_values_in_a_configuration(quietly, document):
    Path("c.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8", errors="replace")
    found = quietly(config.load, "c.yaml")
    if found is not None:
        quietly(models.resolve, [], found)
        quietly(Rules, found)
        for name in found.own_datasets:
            quietly(datasets.resolve, [name], found)
            entry = found.datasets[name]
            if not entry.spec.startswith(("hf:", "clip_benchmark:", "builtin:", "folder:", "wds:http")):
                quietly(datasets.open_dataset, name, entry, offline=True)


SPECS = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(
        [
            "",
            "wds:",
            "hf:",
            "folder:",
            "clip_benchmark:",
            "builtin:",
            "hf-hub:",
            "local-dir:",
            "hf://",
            "ViT-B-32,",
            ",",
            "**/",
        ]
    ),
    st.one_of(st.text(max_size=20), st.text("./{}0,9*[]:@~%\\\x00 -", max_size=12)),
)


@fuzz
@given(SPECS)
def test_any_word_as_a_spec(quietly, word):
    packaged = config.packaged()
    quietly(models.resolve, [word], packaged)
    selection = quietly(datasets.resolve, [word], packaged)
    if selection and word.startswith(("wds:", "folder:")) and "://" not in word:
        for name, entry in selection.datasets.items():
            assert ".." not in Path(name).parts
            quietly(datasets.open_dataset, name, entry, offline=True)


def cells(values):
    names = st.sampled_from([*COLUMNS, "my column", "=1+1", "acc1"])
    return st.lists(names, min_size=1, max_size=8, unique=True).flatmap(
        lambda columns: st.lists(st.fixed_dictionaries(dict.fromkeys(columns, values)), max_size=4)
    )


PLAUSIBLE = st.one_of(
    st.sampled_from(
        ["m", "d", "acc1", "zeroshot_classification", "ok", "true", "0.5", "1", "-1", "nan", "inf", "1e400", ""]
    ),
    SCALARS,
)


def as_csv(records):
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else ["model"])
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


TABLES = st.one_of(
    cells(PLAUSIBLE).map(as_csv),
    st.text(",\n\"' ab1-=.\t\r\x00", max_size=40),
    st.fixed_dictionaries(
        dict.fromkeys(["model", "source", "dataset", "task", "metric", "value", "gmacs", "samples_seen"], PLAUSIBLE)
    ).map(lambda record: as_csv([record, record])),
)


@fuzz
@given(TABLES)
def test_any_csv_table(quietly, text):
    Path("t.csv").write_text(text, "utf-8", errors="replace", newline="")
    quietly(read_results, "t.csv")
    quietly(import_files, [Path("t.csv")])
    result = quietly(clipeval.check, "t.csv", "t.csv")
    if result is not None:
        assert all(form(result) for form in emit.FORMATS.values())
    quietly(lambda: clipeval.fit(read_tables(["t.csv"]), bootstrap=100))


RECORDS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"dataset": PLAUSIBLE, "model": PLAUSIBLE, "pretrained": PLAUSIBLE, "task": PLAUSIBLE, "metrics": VALUES},
        optional={
            "language": PLAUSIBLE,
            "fewshot_k": PLAUSIBLE,
            "pretrained_full_path": PLAUSIBLE,
            "fewshot_lr": PLAUSIBLE,
        },
    ),
)


@fuzz
@given(st.one_of(RECORDS, st.lists(RECORDS, max_size=3)).map(json.dumps) | st.text(string.printable, max_size=30))
def test_any_json_results(quietly, text):
    Path("t.json").write_text(text, "utf-8", errors="replace")
    quietly(import_files, [Path("t.json")])


LINES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["cell", "suite"]), "cell": SCALARS, "rows": VALUES, "suite": VALUES}
)


@fuzz
@given(st.lists(st.one_of(VALUES, LINES), max_size=4))
def test_any_ledger(quietly, entries):
    Path("ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    ledger = quietly(Ledger, Path())
    if ledger is not None:
        quietly(current_rows, ledger)


FORMULAS = st.sampled_from(["=1", "'=1", "''@", "'tis", "-2", "+", "\tx", "\rx", "\n=", "'"])


@settings(fuzz, max_examples=25)
@given(st.lists(st.text(max_size=9) | FORMULAS, min_size=1, max_size=4))
def test_any_names_come_back_from_csv_and_parquet(tmp_path_factory, names):
    """Whatever a name begins with; what CSV and this table cannot hold (NUL, empty text, lone surrogates) aside."""
    import pandas as pd

    from clipeval.results.schema import to_frame

    missing = {"", "NA", "NaN", "nan", "null", "NULL", "None", "N/A", "n/a", "<NA>", "-nan", "-NaN", "#N/A", "1.#QNAN"}
    names = [name.replace("\x00", "") or "x" for name in names]
    names = ["x" if name in missing else name for name in names]
    frame = to_frame([{"model": name, "dataset": name[::-1] or "x", "value": 0.5} for name in names])
    out = tmp_path_factory.mktemp("names")
    write_frame(out, frame)
    pd.testing.assert_frame_equal(read_results(out), frame)
    found = read_results(out / "results.csv")
    for read, written in zip(found["model"], names, strict=True):
        assert read == written
