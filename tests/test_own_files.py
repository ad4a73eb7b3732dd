"""The home folder for ``~`` wherever a path is written, and files of the user's own, which are never overwritten."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval import config, datasets, models
from clipeval.errors import StoreError, UsageError
from clipeval.files import write_atomically
from clipeval.paths import with_home
from clipeval_train.config import parse_pretrain

ROW = "model,dataset,task,metric,value,n\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a checkpoint, data sets and a table in it, and a current folder elsewhere."""
    folder = tmp_path / "home"
    tiny_checkpoint(folder / "m.pt")
    image_folder(folder / "f", classes=2, per_class={"train": 3, "test": 3})
    caption_shards(folder / "w", images=4, captions=1, shards=1)
    (folder / "w" / "list.txt").write_text("~/w/test/0.tar\n")
    (folder / "r.csv").write_text(f"{ROW}m,d,t,acc1,0.5,9\n")
    monkeypatch.setenv("HOME", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_references_with_a_home():
    home = str(Path.home())
    assert with_home("~/a::b/~/c::~/d") == f"{home}/a::b/~/c::{home}/d"
    assert with_home("s3://x/~y") == "s3://x/~y"
    assert with_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"


@pytest.mark.parametrize("word", ["~/m.pt", "~/*.pt", "ViT-B-32,~/m.pt"])
def test_models_in_the_home_folder(home, word):
    [spec] = models.resolve([word], config.packaged())
    assert Path(spec.path) == home / "m.pt"
    assert "~" not in spec.name
    entry = {"spec": word} if "," not in word else {"arch": "ViT-B-32", "pretrained": "~/m.pt"}
    (home / "b.yaml").write_text(json.dumps({"models": [entry]}))
    assert models.resolve([], config.load("~/b.yaml")) == [spec]


def test_local_folders_in_the_home_folder(home):
    (home / "open_clip_config.json").write_text("{}")
    assert models.resolve(["local-dir:~"], config.packaged())[0].path == str(home)


@pytest.mark.parametrize("word", ["folder:~/f", "wds:~/w", "wds:~/w/test/0.tar::~/w/test/0.tar", "wds:~/w/list.txt"])
def test_data_sets_in_the_home_folder(home, word):
    [(name, entry)] = datasets.resolve([word], config.packaged()).datasets.items()
    assert name in ("f", "w", "0", "list.txt")
    if "::" not in word:
        assert len(datasets.open_dataset(name, entry, offline=True)) in (4, 7)


def test_commands_take_paths_in_the_home_folder(home, command):
    words = ["-m", "~/m.pt", "-d", "folder:~/f", "-t", "classification", "--workers", "0"]
    assert command("clipeval", "run", *words, "-o", "~/out")[0] == 0
    assert (home / "out" / "results.csv").exists()
    rules = home / "rules.yaml"
    rules.write_text("rules: [{max_drop: 2}]")
    for words in (
        ["check", "~/out", "--against", "~/out", "--rules", "~/rules.yaml", "--format", "json", "--output", "~/c.json"],
        ["import", "~/r.csv", "-o", "~/tidy"],
        ["report", "~/out", "-o", "~/page"],
        ["check", "~/r.csv", "--against", "~/base", "--update-baseline"],
    ):
        assert command("clipeval", *words)[0] == 0, words
    assert all((home / name).exists() for name in ("c.json", "tidy", "page/index.html", "base/results.csv"))
    assert command("clipeval-train", "export", "~/m.pt", "-o", "~/exported")[0] == 0
    assert not list(Path.cwd().iterdir())
    assert len(clipeval.read_results("~/out")) == len(clipeval.read_results(home / "out"))


def test_the_trainer_s_configuration(home):
    data = [{"source": "a", "shards": "~/a.tar::/b.tar"}]
    found = parse_pretrain(
        {"model": "ViT-B-32", "data": data, "samples": 8, "batch_size": 2, "lr": 1, "out": "~/run"}, "x"
    )
    assert (found.out, found.data[0].shards) == (f"{home}/run", f"{home}/a.tar::/b.tar")


@pytest.mark.parametrize("name", ["results.csv", "results.parquet"])
def test_a_run_leaves_a_table_of_the_user_s_own(home, command, name):
    mine = home / "mine"
    mine.mkdir()
    (mine / name).write_text("my own table")
    words = ["run", "-m", "~/m.pt", "-d", "folder:~/f", "-t", "classification", "--workers", "0", "-o", mine]
    for call in (words, ["import", home / "r.csv", "-o", mine], ["report", home / "r.csv", "-o", mine]):
        if name == "results.parquet" and call[0] == "report":
            continue  # it writes no such file
        code, _, said = command("clipeval", *call)
        assert code == 2
        assert f"holds {name}, and not of a" in said
        assert "Choose another -o, or move it." in said
    assert [path.name for path in mine.iterdir()] == [name]
    assert (mine / name).read_text() == "my own table"
    with pytest.raises(UsageError, match="would be overwritten"):
        clipeval.run(str(home / "m.pt"), "digits", "classification", out=mine)


def test_each_command_replaces_what_it_wrote_before(home, command):
    words = ["run", "-m", "~/m.pt", "-d", "folder:~/f", "-t", "classification", "--workers", "0", "-o", "~/out"]
    for _ in range(2):
        assert command("clipeval", *words)[0] == 0
        assert command("clipeval", "import", "~/r.csv", "-o", "~/tidy")[0] == 0
        assert command("clipeval", "report", "~/r.csv", "-o", "~/page")[0] == 0
    for other in (["import", "~/r.csv", "-o", "~/out"], ["report", "~/r.csv", "-o", "~/out"]):
        code, _, said = command("clipeval", *other)
        assert code == 2, "the table of a run belongs to its ledger"
        assert "would be overwritten" in said
    shutil.copy(home / "tidy/results.csv", home / "out2.csv")
    assert command("clipeval", *words[:-1], "~/tidy")[0] == 2, "nor does a run replace what was imported"


@pytest.mark.parametrize(
    ("content", "code"),
    [('{"time": 1, "event": "mine"}\n', 2), ("notes of mine", 2), ('{"kind": "cel\n{"ki', 0), ("\n", 0)],
)
def test_a_run_does_not_write_into_a_ledger_of_another_program(home, command, content, code):
    """Lines that a killed run has cut off are ours."""
    (home / "out").mkdir()
    (home / "out/ledger.jsonl").write_text(content)
    found, _, said = command(
        "clipeval", "run", "-m", "~/m.pt", "-d", "folder:~/f", "-t", "classification", "-o", "~/out"
    )
    assert found == code, said
    assert ("holds ledger.jsonl, and not of a run" in said) == (code == 2)
    if code == 2:
        assert (home / "out/ledger.jsonl").read_text() == content


def test_a_fit_leaves_files_of_the_user_s_own(tmp_path):
    found = clipeval.fit(task="classification", datasets="imagenet1k", bootstrap=100)
    (tmp_path / "fits.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"holds fits\.csv, and not of an earlier fit"):
        found.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fits.csv"]
    (tmp_path / "fits.csv").unlink()
    for _ in range(2):
        found.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "fits.csv")) == len(found.fits)
    (tmp_path / "fit_card.json").write_text("[]")
    with pytest.raises(UsageError, match="fit_card"):
        found.write(tmp_path)


@pytest.mark.parametrize("module", ["clipeval.results.table", "clipeval.scaling.output.result"])
def test_what_was_cut_off_is_replaced_by_the_same_command(home, command, monkeypatch, module):
    """Killed after its first file, an import or a fit is known again as one of ours."""
    words = ["import", "~/r.csv", "-o", "~/tidy"] if module.endswith("table") else ["fit", "-o", "~/tidy"]
    words += [] if words[0] == "import" else ["-d", "imagenet1k", "-t", "classification", "--bootstrap", "100"]
    left = [1 if words[0] == "import" else 0]

    def cut_off(path, write, real=write_atomically):
        if not left[0]:
            raise StoreError("killed")
        left[0] -= 1
        real(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.write_atomically", cut_off)
        assert command("clipeval", *words)[0] == 3
    assert len(list((home / "tidy").iterdir())) == 1
    assert command("clipeval", *words)[0] == 0


def test_each_failure_is_told_once_with_its_cells(home, command):
    (home / "bad.pt").write_bytes(b"no checkpoint")
    words = ["run", "-d", "folder:~/f", "-t", "classification", "-t", "probe", "--workers", "0", "-o", "~/out"]
    code, out, err = command("clipeval", *words, "-m", "ViT-B-32,~/bad.pt", "-m", "~/m.pt")
    assert code == 3
    assert (out + err).count("not readable as a checkpoint") == 1
    assert f"not measured: ViT-B-32,{home}/bad.pt · f · zeroshot_classification, " in err
    assert "· f · linear_probe: " in err
    table = clipeval.read_results("~/out")
    assert table[table["status"] == "failed"]["error"].str.contains("not readable").all()


def test_a_task_that_is_none_is_named_with_its_place(home, command):
    text = "datasets:\n  a: {spec: 'builtin:digits', tasks: [classification, clasification]}\n"
    (home / "b.yaml").write_text(text)
    code, _, said = command("clipeval", "run", "-c", "~/b.yaml", "-m", "~/m.pt", "-o", "~/out")
    assert code == 2
    assert f"{home}/b.yaml: datasets.a.tasks[1]: 'clasification' is not a task. Did you mean 'classification'?" in said


def test_a_folder_of_transformers_is_called_so(home):
    (home / "hf").mkdir()
    (home / "hf" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UsageError, match=r"is one of transformers \(model_type 'clip'\): use transformers:"):
        models.resolve(["local-dir:~/hf"], config.packaged())
    for word in ("transformers:~/hf", "~/hf"):
        [spec] = models.resolve([word], config.packaged())
        assert (spec.kind, spec.path) == ("transformers", f"{home}/hf")
    (home / "hf" / "config.json").write_text("[]")
    with pytest.raises(UsageError, match=r"has no file open_clip_config\.json"):
        models.resolve(["local-dir:~/hf"], config.packaged())


@pytest.mark.parametrize("side", ["current", "baseline"])
def test_names_that_no_baseline_can_have(home, command, side):
    good, long = home / "r.csv", "y" * 300
    words = (long, "--against", good) if side == "current" else (good, "--against", long)
    code, _, said = command("clipeval", "check", *words, "--update-baseline")
    assert code in (2, 3)
    assert "File name too long" in said


@pytest.mark.parametrize("to", ["> /dev/full", ">&-"])
def test_a_table_that_cannot_be_shown_is_saved_all_the_same(home, to):
    words = "run -m ~/m.pt -d folder:~/f -t classification --workers 0 -o ~/out"
    done = subprocess.run(
        f"{sys.executable} -m clipeval {words} {to}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("standard output: cannot write: ")
    assert len(clipeval.read_results(home / "out")) == 3


def test_a_hub_data_set_of_several_configurations_is_said_so(home, command):
    pictures = image_folder(home / "two", classes=2)
    (pictures / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files:\n  - {split: test, path: test/**}\n"
        "- config_name: b\n  data_files:\n  - {split: test, path: train/**}\n---\n"
    )
    code, _, said = command("clipeval", "run", "-m", "~/m.pt", "-d", "hf:~/two", "-t", "probe", "-o", "~/out")
    assert code == 3
    assert "two has the configurations a, b: write one as hf:" in said
    assert "load_dataset" not in said
