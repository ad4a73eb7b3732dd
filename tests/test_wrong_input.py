"""Whatever is wrong, the message says what and where, the exit code is the documented one, and other cells finish."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import TINY, add, caption_shards, encoded, image_folder, picture, tiny_checkpoint


@pytest.fixture
def zoo(tmp_path):
    tiny_checkpoint(tmp_path / "good.pt")
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 2})
    caption_shards(tmp_path / "pairs")
    return tmp_path


@pytest.fixture
def clipeval(zoo, command):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    return partial(command, "clipeval")


@pytest.fixture
def run(clipeval, zoo):
    """``clipeval run`` with a good checkpoint, a good data set and zero-shot tasks unless given otherwise."""

    def call(*words, model=None, dataset=None, good=True):
        models = ["-m", model] if model else ["-m", f"{zoo}/good.pt"]
        datasets = ["-d", dataset] if dataset else []
        datasets += ["-d", f"folder:{zoo}/colours"] if good else []
        return clipeval("run", *models, *datasets, "-o", zoo / "out", "--workers", "0", "--json", *words)

    return call


def statuses(out):
    return {(row["dataset"], row["task"]): row["status"] for row in json.loads(out)["rows"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "ViT-B-33,openai"], "Did you mean 'ViT-B-32'"),
        (["-m", "ViT-B-32,laion2b_s34b"], "is not a tag of ViT-B-32. Did you mean 'laion2b_s34b_b79k'?"),
        (["-m", "nothing/here.pt"], "nothing/here.pt"),
        (["-m", "ViT-B-32,nothing/here.pt"], "nothing/here.pt"),
        (["-m", "runs/*.pt"], "runs/*.pt"),
        (["-d", "digitz"], "Did you mean 'digits'"),
        (["-d", "ftp2:x"], "ftp2"),
        (["-t", "clasification"], "Did you mean 'classification'"),
        (["-t", "segmentation"], "is not a task"),
        (["-c", "nothing.yaml"], "nothing.yaml: cannot read"),
        (["--limit", "0"], "--limit 0"),
        (["--shots", "a"], "--shots a"),
        (["--shots", "0"], "--shots"),
        (["--precision", "fp64"], "--precision fp64"),
        (["--device", "cuda:7"], "cuda:7"),
        (["--device", "cdua"], "Did you mean 'cuda'"),
        (["--rerun", "sometimes"], "--rerun sometimes"),
        (["--executor", "slurm"], "--executor slurm"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--batch-size", "many"], "--batch-size many: expected a number of images, or auto"),
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32 needs a CUDA GPU"),
        (["--device", "cpu", "--precision", "fp16"], "--precision fp16 needs a CUDA GPU"),
    ],
)
def test_usage_errors(run, words, message):
    code, out, err = run(*words)
    assert code == 2
    assert message in err
    assert out == ""


def test_unknown_option_and_command(clipeval):
    assert clipeval("run", "--modle", "x")[0] == 2
    assert clipeval("rnu")[0] == 2
    code, _, err = clipeval("list", "model")
    assert code == 2
    assert "Did you mean 'models'" in err


def test_nothing_asked_for(clipeval, zoo, monkeypatch):
    monkeypatch.chdir(zoo)
    assert "no model given" in clipeval("run", "-d", "digits")[2]
    assert "no data set given" in clipeval("run", "-m", zoo / "good.pt")[2]


def test_pipe_url_is_refused_and_not_run(run, zoo):
    code, _, err = run(dataset=f"wds:pipe:touch {zoo}/executed")
    assert code == 2
    assert "pipe:" in err
    assert not (zoo / "executed").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_that_would_execute_code_is_refused(run, zoo, kind):
    path = zoo / "bad.pt"
    if kind == "torch":
        torch.save({"state_dict": Bomb(str(zoo / "executed"))}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb(str(zoo / "executed"))}))
    code, out, err = run("-m", f"ViT-B-32,{path}")
    assert code == 3
    assert not (zoo / "executed").exists()
    assert "bad.pt" in err
    assert statuses(out)[("colours", "zeroshot_classification")] == "ok" or "ok" in {
        row["status"] for row in json.loads(out)["rows"]
    }


def test_checkpoint_of_another_shape(run, zoo):
    wide = json.loads(json.dumps(TINY))
    wide["vision_cfg"]["width"] = 64
    path = tiny_checkpoint(zoo / "wide.pt", cfg=wide)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "model_cfg": TINY}, path)
    code, out, err = run("-m", path)
    assert code == 3
    assert "shape" in err or "size" in err
    assert sorted({row["status"] for row in json.loads(out)["rows"]}) == ["failed", "ok"]


def test_truncated_checkpoint(run, zoo):
    data = (zoo / "good.pt").read_bytes()
    (zoo / "cut.pt").write_bytes(data[: len(data) // 2])
    code, _, err = run("-m", zoo / "cut.pt")
    assert code == 3
    assert "cut.pt" in err


@pytest.mark.parametrize("damage", ["corrupt", "truncated"])
def test_a_broken_image_fails_its_cell_and_is_named(run, zoo, damage):
    image_folder(zoo / "broken")
    victim = zoo / "broken/test/green/003.png"
    data = encoded(picture(1))
    victim.write_bytes(b"not an image" if damage == "corrupt" else data[: len(data) // 2])
    code, out, err = run(dataset=f"folder:{zoo}/broken")
    assert code == 3
    assert "green/003.png" in err
    assert statuses(out) == {
        ("broken", "zeroshot_classification"): "failed",
        ("colours", "zeroshot_classification"): "ok",
    }


def test_missing_data(run, zoo):
    code, _, err = run(dataset=f"wds:{zoo}/nowhere")
    assert code in (2, 3)
    assert "nowhere" in err


def test_truncated_shard(run, zoo):
    path = zoo / "pairs/test/1.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, out, err = run(dataset=f"wds:{zoo}/pairs")
    assert code == 3
    assert "1.tar" in err
    assert statuses(out)["colours", "zeroshot_classification"] == "ok"


def test_image_without_captions(run, zoo):
    import tarfile

    with tarfile.open(zoo / "pairs/test/1.tar", "a") as tar:
        add(tar, "s9999999.png", encoded(picture(3)))
        add(tar, "s9999999.txt", b"")
    code, _, err = run("-t", "retrieval", dataset=f"wds:{zoo}/pairs", good=False)
    assert code == 3
    assert "s9999999" in err


def test_class_list_and_labels_disagree(run, zoo):
    root = zoo / "labels"
    caption_shards(root)
    import tarfile

    (root / "dataset_type.txt").unlink()
    for shard in range(2):
        with tarfile.open(root / f"test/{shard}.tar", "w") as tar:
            for i in range(6):
                add(tar, f"s{i}.cls", str(i).encode())
                add(tar, f"s{i}.png", encoded(picture(i, i)))
    (root / "classnames.txt").write_text("red\ngreen\nblue\nyellow")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}.")
    code, _, err = run(dataset=f"wds:{root}", good=False)
    assert code == 3
    assert "disagree" in err


def test_recall_among_too_few_candidates(run, zoo):
    caption_shards(zoo / "few", images=4)
    code, out, _ = run("-t", "retrieval", dataset=f"wds:{zoo}/few", good=False)
    assert code == 0
    assert "at least 5" in out
    by_metric = {row["metric"]: row["status"] for row in json.loads(out)["rows"]}
    assert by_metric["image_retrieval_recall@1"] == "ok"
    assert by_metric["image_retrieval_recall@5"] == "skipped"


def test_class_with_too_few_shots(run):
    code, out, err = run("-t", "probe", "-t", "classification", "--shots", "4")
    assert code == 3
    assert "red" in err or "blue" in err
    assert statuses(out)["colours", "zeroshot_classification"] == "ok"


def test_no_training_split(run, zoo):
    import shutil

    shutil.rmtree(zoo / "colours/train")
    code, out, err = run("-t", "probe", "-t", "classification")
    assert code == 3
    assert "train" in err
    assert statuses(out)["colours", "zeroshot_classification"] == "ok"


@pytest.mark.parametrize("tower", ["visual.proj", "text_projection"])
def test_non_finite_embedding(run, zoo, tower):
    content = torch.load(zoo / "good.pt", weights_only=True)
    content["state_dict"][tower][0, 0] = float("nan")
    torch.save(content, zoo / "nan.pt")
    code, _, err = run(model=zoo / "nan.pt")
    assert code == 3
    assert "not finite" in err


def test_unwritable_output(clipeval, zoo):
    code, _, err = clipeval("run", "-m", zoo / "good.pt", "-d", f"folder:{zoo}/colours", "-o", zoo / "good.pt" / "out")
    assert code == 3
    assert "cannot write" in err


def test_disk_full_in_the_cache(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    code, out, err = run()
    assert code == 3
    assert "no space is left" in err
    assert set(statuses(out).values()) == {"failed"}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_disk_full_for_pixels_only(run, monkeypatch, zoo, workers):
    """They only save time: one line, and the values are what they are with them."""
    _, out, _ = run("-o", zoo / "kept", "--workers", workers)
    right = {row["metric"]: row["value"] for row in json.loads(out)["rows"]}
    write = os.pwrite

    def full(file, data, offset):
        if "/pixels-" in str(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(28, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(
        "clipeval.embeddings.entries._keep", lambda path, content: path.parent.mkdir(parents=True, exist_ok=True)
    )
    monkeypatch.setenv("CLIPEVAL_CACHE", str(zoo / "another"))
    code, out, err = run("-o", zoo / "full", "--workers", workers)
    assert code == 0, err
    assert {row["metric"]: row["value"] for row in json.loads(out)["rows"]} == right
    assert err.count("pixels are not kept, so another checkpoint decodes them again") == 1
    assert not list((zoo / "another").glob("pixels-*/*/*/pixels.rec")) or not any(
        path.stat().st_size for path in (zoo / "another").glob("pixels-*/*/*/pixels.rec")
    )


def test_disk_full_in_the_results(run, zoo, monkeypatch):
    assert run()[0] == 0
    before = (zoo / "out/ledger.jsonl").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("-t", "probe")
    assert code == 3
    assert "No space left" in err
    assert (zoo / "out/ledger.jsonl").read_bytes() == before


def test_unknown_yaml_key(run, zoo):
    (zoo / "b.yaml").write_text("datasets: {x: {spec: 'folder:y', splitt: test}}")
    code, _, err = run("-c", zoo / "b.yaml")
    assert code == 2
    assert "b.yaml: datasets.x.splitt: unknown key. Did you mean 'split'?" in err


def test_yaml_names_the_model_entry(run, zoo, clipeval):
    (zoo / "b.yaml").write_text("models: ['ViT-B-32-quickgelu,openai', {arch: ViT-B-32, pretrained: laion2b_s34b}]")
    code, _, err = clipeval("run", "-c", zoo / "b.yaml", "-d", "digits", "-o", zoo / "out")
    assert code == 2
    assert "b.yaml: models[1].pretrained: 'laion2b_s34b' is not a tag of ViT-B-32. Did you mean" in err


def test_offline_names_what_is_missing(run):
    code, out, err = run("-m", "ViT-B-32,laion2b_s34b_b79k", "--offline")
    assert code == 3
    assert "laion2b_s34b_b79k" in err or "CLIP-ViT-B-32-laion2B-s34B-b79K" in err
    assert "ok" in {row["status"] for row in json.loads(out)["rows"]}


def test_a_zip_that_is_no_checkpoint(run, zoo):
    with zipfile.ZipFile(zoo / "x.pt", "w") as file:
        file.writestr("a", "b")
    code, _, err = run("-m", zoo / "x.pt")
    assert code in (2, 3)
    assert "x.pt" in err
