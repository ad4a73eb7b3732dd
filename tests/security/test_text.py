"""Names that mean harm in every place where a name can stand, through every command: what reaches a terminal, a log or
a CI runner shows them and does nothing else. What `printable` itself does is in test_console.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata

import pandas as pd
import pytest
import torch
import yaml
from helpers import TINY, image_folder, tiny_checkpoint

from clipeval.plain import public

SECRET = "S3CRET"
NAMES = [
    "[/]",
    "[/red]",
    "[red]x[/red]",
    "[link=http://evil]x[/link]",
    ":warning: {0} %s",
    "esc\x1b[31m\x1b]0;title\x07",
    "osc8\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\",
    "csi\x9b31m\x85",
    "cr\rover",
    "lf\n::error file=a::b",
    "::error::start",
    "  ::set-output name=a::b",
    "a\r\n##[error]b",
    "##[command]c",
    "bidi\u202eevil\u2066x\u2069",
    "zero\u200bwidth\ufeff\u00ad",
    "tag\U000e0041\U000e0042",
    "sep\u2028::error::x\u2029y",
    "del\x7f\x08\x08\x0b\x0c",
    f"wds:https://user:{SECRET}@host/x",
    "x" * 300,
    "Zürich 日本 → 👍🏽",
]
MIXED = [  # several at once, where every name is a command of its own
    "[/]\x1b[31m\n::error file=a::b\u202e##[command]c\x9b[/red]",
    f"::error::[red]x[/red]\r\nhttps://u:{SECRET}@host/x\u200b",
    "\ufeff  ::set-output name=a::b[link=http://evil]x[/link]\x7f\u2028::error::y",
]
FILE_NAMES = [name.replace("/", "_")[:200] for name in [*MIXED, *NAMES[5:9]] if SECRET not in name]


def assert_harmless(*texts, annotations=False):
    """What GitHub's runner takes for a command, what a terminal obeys, and what a person cannot see."""
    for text in texts:
        for line in text.split("\n"):
            allowed = annotations and line.startswith(("::error title=clipeval", "::warning title=clipeval"))
            assert allowed or not line.lstrip().startswith("::"), line
            assert "##[" not in line, line
        bad = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} - {"\n"}
        assert not bad, (bad, text)
        assert SECRET not in text


@pytest.fixture
def clipeval(command):
    """Run a command; its output is harmless, it is no bug, and no name was taken for markup."""

    def call(*words, program="clipeval", annotations=False):
        code, out, err = command(program, *words)
        assert code in (0, 1, 2, 3), err
        assert "Traceback" not in err
        assert_harmless(out.replace("\t", " ") if "tsv" in words else out, err, annotations=annotations)
        return code, out, err

    return call


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "good.pt")
    image_folder(tmp_path / "colours", per_class={"train": 1, "test": 2})
    return tmp_path


@pytest.fixture
def everywhere(zoo):
    """A configuration with hostile names for data sets, suites, models and zoos."""
    entry = {"spec": f"folder:{zoo}/colours", "tasks": ["classification"], "prompts": "default"}
    document = {
        "models": [{"name": name, "spec": f"{zoo}/good.pt"} for name in NAMES[:3]],
        "datasets": json.loads(json.dumps(dict.fromkeys(NAMES, entry))),
        "suites": {f"suite {name}": [name] for name in NAMES},
    }
    (zoo / "b.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    return zoo


@pytest.fixture
def table(zoo):
    """A results table whose every text column is hostile, with laws that can be fitted."""
    rows = []
    for name in NAMES:
        for size in range(5):
            samples = 1e8 * 10 ** (size / 2)
            rows.append(
                {
                    "model": f"{name} {size}" if size else name,
                    "source": name,
                    "arch": name,
                    "gmacs": 7.4,
                    "samples_seen": samples,
                    "dataset": name,
                    "task": "zeroshot_classification",
                    "metric": "acc1",
                    "value": 1 - 2 * samples**-0.1 * (1 + 0.01 * (size % 2)),
                    "n": 1000,
                    "status": "ok",
                }
            )
            rows.append(rows[-1] | {"dataset": "common", "model": f"{name} {size}", "source": name})
    frame = pd.DataFrame(rows)
    frame.to_csv(zoo / "t.csv", index=False, errors="replace", lineterminator="\r\n")
    worse = frame.assign(value=frame["value"] - 0.2)
    worse.to_csv(zoo / "worse.csv", index=False, lineterminator="\r\n")
    (zoo / "rules.yaml").write_text("rules: [{min: 0.99}]")
    return zoo / "t.csv"


def test_run_and_plan_and_list(clipeval, everywhere):
    words = ("-c", "b.yaml", "-o", "out", "--workers", 0)
    code, out, _ = clipeval("run", *words, "--plan")
    assert code == 0
    assert all(mark in out for mark in ("[/]", "[red]x[/red]", ":warning:", r"cr\rover", "Zürich 日本 → 👍🏽"))
    code, out, err = clipeval("run", *words, *(word for name in NAMES for word in ("-d", name)))
    assert "[red]x[/red]" in out
    assert "[link=http://evil]x[/link]" in out + err
    for what in ("datasets", "suites", "models", "tasks"):
        assert clipeval("list", what, "-c", "b.yaml")[0] == 0
        document = json.loads(_json(clipeval, "list", what, "-c", "b.yaml"))
        if what == "datasets":
            assert {public(name) for name in NAMES} <= {row["name"] for row in document}
    document = json.loads(_json(clipeval, "run", *words, "-d", "::error::start"))
    assert {row["dataset"] for row in document["rows"]} >= {"::error::start"}


def _json(clipeval, *words):
    return clipeval(*words, "--json")[1]


def test_words_of_the_command_line(clipeval, zoo):
    for name in MIXED:
        for words in (
            ["run", "-m", name, "-d", "digits"],
            ["run", "-m", "good.pt", "-d", name],
            ["run", "-m", "good.pt", "-d", "digits", "-t", name],
            ["run", "-m", "good.pt", "-d", "digits", "--limit", name],
            ["run", "-m", "good.pt", "-d", "digits", "--device", name],
            ["run", "-m", "good.pt", "-d", "digits", "--shots", name],
            ["run", "-c", name],
            ["list", name],
            [name],
            [f"--{name}"],
            ["run", f"--{name}"],
            ["fit", name],
            ["fit", "--law", name],
            ["check", name, "--against", name],
            ["check", "good.pt", "--against", "good.pt", "--format", name],
            ["report", name, "-o", "page"],
            ["import", name, "-o", "table"],
        ):
            assert clipeval(*words)[0] in (2, 3), words
        assert clipeval("ladder", name, program="clipeval-train")[0] == 2
        assert clipeval("pretrain", name, f"{name}=1", program="clipeval-train")[0] == 2
        assert clipeval("export", name, "-o", "x", program="clipeval-train")[0] in (2, 3)


@pytest.mark.parametrize("width", [60, 200])
def test_fit(clipeval, table, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    sets = [word for name in ("x" * 300, "[[]red[]]x[[]/red[]]", "::error::start", "lf*") for word in ("-d", name)]
    code, out, _ = clipeval("fit", table, "--bootstrap", "100", "--by", "source", *sets)
    assert code == 0
    if width == 200:
        assert "[red]x[/red]" in out
        code, out, _ = clipeval("fit", table, "--bootstrap", "100", "--by", "source", *sets, "--json")
        assert "::error::start" in {fit["dataset"] for fit in json.loads(out)["fits"]}
        for form in ("md", "tsv"):
            code, out, _ = clipeval("fit", table, "--bootstrap", "100", "--by", "source", *sets, "--format", form)
            assert code == 0
            assert "x" * 300 in out


WORSE = ("check", "worse.csv", "--against", "t.csv", "--rules", "rules.yaml", "--format")


def test_check(clipeval, table, monkeypatch, zoo):
    for form in ("text", "json", "junit", "github"):
        code, out, err = clipeval(
            "check",
            "worse.csv",
            "--against",
            "t.csv",
            "--rules",
            "rules.yaml",
            "--format",
            form,
            annotations=form == "github",
        )
        assert code == 1, err
        assert len(out) > 100
    assert clipeval("check", "t.csv", "--against", "t.csv")[0] == 0
    for name in MIXED:
        assert clipeval("check", "t.csv", "--against", "t.csv", "-m", name + "typo")[0] == 2
    code, _, _ = clipeval("check", "t.csv", "--against", "base\x1b.csv", "--update-baseline")
    assert code in (0, 2, 3)


def test_report_and_import(clipeval, table, zoo):
    assert clipeval("report", table, "-o", zoo / "page\x1b[31m\n::error::x")[0] == 0
    for name in FILE_NAMES:
        (zoo / f"{name}.csv").write_text("model,dataset\nx,y,z\n")
        assert clipeval("import", zoo / f"{name}.csv", "-o", zoo / "imported")[0] in (2, 3)


def test_files_classes_and_facts(clipeval, zoo):
    """Names of folders, images, classes and checkpoints, and what a checkpoint says of itself."""
    content = torch.load(zoo / "good.pt", weights_only=True)
    for number, name in enumerate(FILE_NAMES):
        folder = zoo / f"set {name}"
        image_folder(folder / "data", classes=2, per_class={"test": 1})
        (folder / "data/test/red").rename(folder / f"data/test/{name}")
        (folder / f"data/test/{name}/{name}.png").write_bytes(b"no image")
        checkpoint = zoo / f"{name}.pt"
        facts = {"source": name, "samples_seen_from": "measured"}
        with checkpoint.open("wb") as file:
            torch.save({**content, "arch": name, "metadata": content["metadata"] | facts, "model_cfg": TINY}, file)
        words = ("-m", checkpoint, "-d", f"folder:{folder}/data", "-o", f"o{number}", "--workers", 0)
        code, _, err = clipeval("run", *words)
        assert code == 3 or "[" in name  # which is a glob
        assert "cannot decode" in err or "[" in name


def test_keys_of_configurations(clipeval, zoo):
    for name in [*MIXED, NAMES[-2]]:
        for document in (
            {name: 1},
            {"datasets": {"x": {"spec": "folder:x", name: 1}}},
            {"datasets": {name: {"n": name}}},
            {"suites": {"s": [name]}, "rules": [{"suite": name}]},
            {"models": [name]},
        ):
            (zoo / "c.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
            clipeval("run", "-c", "c.yaml", "-m", "good.pt", "-d", "s")
            for command in ("pretrain", "finetune", "patch", "ladder"):
                assert clipeval(command, "c.yaml", program="clipeval-train")[0] == 2


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
def test_bytes_of_a_real_process(table, zoo, form):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "clipeval",
            "check",
            "worse.csv",
            "--against",
            "t.csv",
            "--rules",
            "rules.yaml",
            "--format",
            form,
        ],
        capture_output=True,
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(zoo / "s.md"), "FORCE_COLOR": "", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 1, done.stderr
    assert_harmless(done.stdout.decode(), done.stderr.decode(), annotations=form == "github")
    if form == "github":
        assert_harmless((zoo / "s.md").read_text("utf-8"))


def test_an_undecodable_word(zoo):
    """A word of the command line that is not UTF-8 has lone surrogates."""
    for words in (
        ["run", "-m", b"\xff\xfe.pt", "-d", "digits"],
        ["list", b"\xff"],
        ["check", b"\xff", "--against", b"\xff"],
    ):
        done = subprocess.run([sys.executable, "-m", "clipeval", *words], capture_output=True)
        assert done.returncode in (2, 3), done.stderr
        assert rb"\udcff" in done.stderr
        assert_harmless(done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))
