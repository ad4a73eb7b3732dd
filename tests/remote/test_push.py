"""Results go up to a hub of the loopback by huggingface_hub's own client, as it reads them back."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries

import clipeval
from clipeval.reporting.card import on_the_hub
from clipeval.results.schema import to_frame


@pytest.fixture
def writer(served, monkeypatch):
    """A hub that this process may write to."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return served


def row(model="m", dataset="imagenet1k", metric="acc1", value=0.5, **more):
    facts = {"arch": "X", "source": "S", "samples_seen": 1e6, "gmacs": 0.5, "status": "ok", "n": 50000}
    task = {"task": "zeroshot_classification", "split": "test", "clipeval_version": "9.9"}
    return facts | task | {"model": model, "dataset": dataset, "metric": metric, "value": value} | more


ROWS = [
    row(ci_low=0.49, ci_high=0.51, revision="a" * 40 + " " + "b" * 40, started_at="2026-01-02T03:04:05+00:00"),
    row(metric="acc5", value=0.7),
    row(task="linear_probe", shots=5, seed=1, value=0.61),
    row(task="linear_probe", shots=10, seed=1, value=0.62),
    row(task="finetune", value=0.63),
    *(row(dataset="mscoco_captions", task="zeroshot_retrieval", metric=f"{way}_retrieval_recall@5", value=0.3)
      for way in ("image", "text")),
    row(dataset="my-own", value=0.8),
    row(dataset="cars", value=math.nan, status="failed", error="no"),
]  # fmt: skip
TABLE = to_frame(ROWS)


def test_a_checkpoint_as_the_hub_reads_it(writer):
    """A new repository: every value is under its own task and data set, and the leaderboards' entries are the main
    metrics on data sets of the hub."""
    done = clipeval.push(TABLE, "me/m", yes=True)
    tree = writer.repositories["model", "me/m"].tree
    assert done.address == f"{writer.endpoint}/me/m/commit/{writer.repositories['model', 'me/m'].refs['main']}"
    card = ModelCard(tree["README.md"].data.decode())
    assert card.data.model_name == "m"
    found = {
        (r.task_type, r.dataset_type, r.dataset_config, r.metric_name): r.metric_value for r in card.data.eval_results
    }
    probe = "Linear probe, {} images per class, seed 1"
    assert found == {
        ("zero-shot-image-classification", "imagenet1k", None, "Top-1"): 0.5,
        ("zero-shot-image-classification", "imagenet1k", None, "Top-5"): 0.7,
        ("image-classification", "imagenet1k", probe.format(5), "Top-1"): 0.61,
        ("image-classification", "imagenet1k", probe.format(10), "Top-1"): 0.62,
        ("image-classification", "imagenet1k", "End-to-end fine-tuning", "Top-1"): 0.63,
        ("zero-shot-retrieval", "mscoco_captions", None, "Text→image R@5"): 0.3,
        ("zero-shot-retrieval", "mscoco_captions", None, "Image→text R@5"): 0.3,
        ("zero-shot-image-classification", "my-own", None, "Top-1"): 0.8,
    }
    assert sorted(path for path in tree if path.startswith(".eval")) == [
        ".eval_results/imagenet1k.yaml",
        ".eval_results/mscoco_captions.yaml",
    ]
    entries = parse_eval_result_entries(yaml.safe_load(tree[".eval_results/imagenet1k.yaml"].data))
    assert {(e.dataset_id, e.task_id, e.value) for e in entries} == {
        ("clip-benchmark/wds_imagenet1k", "zeroshot_classification", 0.5),
        ("clip-benchmark/wds_imagenet1k", "linear_probe_5shot", 0.61),
        ("clip-benchmark/wds_imagenet1k", "linear_probe_10shot", 0.62),
        ("clip-benchmark/wds_imagenet1k", "finetune", 0.63),
    }
    [first] = [e for e in entries if e.task_id == "zeroshot_classification"]
    assert (first.dataset_revision, first.date) == ("b" * 40, "2026-01-02T03:04:05+00:00")
    assert first.notes == "Top-1, split test, 95 % interval 0.4900 to 0.5100, n 50,000, measured with clipeval 9.9"
    of_pairs = parse_eval_result_entries(yaml.safe_load(tree[".eval_results/mscoco_captions.yaml"].data))
    assert {e.task_id for e in of_pairs} == {
        f"zeroshot_retrieval:{way}_retrieval_recall@5" for way in ("image", "text")
    }
    assert any("1 data set not on the hub" in note for note in done.notes)
    assert any("1 row not uploaded" in note for note in done.notes)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("clip_benchmark:wds/vtab/pets", "clip-benchmark/wds_vtab-pets"),
        ("clip_benchmark:wds/mscoco_captions@de", "clip-benchmark/wds_mscoco_captions"),
        ("clip_benchmark:imagenet1k", ""),
        ("wds:/data/pairs", ""),
        ("wds:https://elsewhere.example/datasets/org/set/tree/main", ""),
        ("hf:org/set@v2", "org/set"),
        ("hf:/data/org/set", ""),
        ("hf:here/set", ""),
        ("folder:org/set", ""),
        ("builtin:digits", ""),
    ],
)
def test_which_data_sets_the_hub_has(served, tmp_path, monkeypatch, spec, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/set").mkdir(parents=True)
    assert on_the_hub(spec) == place
    if spec.startswith("wds:/"):
        assert on_the_hub(f"wds:{served.endpoint}/datasets/org/set/tree/main") == "org/set"


OLD = """---
license: mit
model-index:
- name: Ours
  results:
  - task: {type: zero-shot-image-classification, name: Zero-shot classification}
    dataset: {type: imagenet1k, name: ImageNet, split: test}
    metrics: [{type: accuracy, value: 0.1, name: Top-1}]
  - task: {type: text-generation}
    dataset: {type: theirs, name: Theirs}
    metrics: [{type: bleu, value: 7.5, name: BLEU}]
---

# What they wrote

stays: as it is
"""


def test_of_a_card_that_is_there_only_the_results_change(writer):
    writer.repository("me/m", {"README.md": OLD.encode(), "weights.bin": b"w"})
    clipeval.push(TABLE, "me/m", yes=True)
    tree = writer.repositories["model", "me/m"].tree
    card = ModelCard(tree["README.md"].data.decode())
    assert tree["weights.bin"].data == b"w"
    assert card.text == ModelCard(OLD).text
    assert (card.data.license, card.data.model_name) == ("mit", "Ours")
    values = {(r.dataset_type, r.metric_name, r.task_type): r.metric_value for r in card.data.eval_results}
    assert values["theirs", "BLEU", "text-generation"] == 7.5
    assert values["imagenet1k", "Top-1", "zero-shot-image-classification"] == 0.5
    assert len(card.data.eval_results) == 9
    before = writer.repositories["model", "me/m"].refs["main"]
    clipeval.push(TABLE, "me/m", yes=True)
    assert writer.repositories["model", "me/m"].refs["main"] == before, "the same again is no commit"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of how huggingface_hub calls its library
def test_a_table_as_a_data_set(writer):
    clipeval.push(TABLE.assign(results_file="/home/me/secret"), "me/results", dataset=True, private=True, yes=True)
    made = writer.repositories["dataset", "me/results"]
    assert made.private
    read = pd.read_parquet(io.BytesIO(made.tree["results.parquet"].data))
    pd.testing.assert_frame_equal(clipeval.read_results(read), clipeval.read_results(TABLE))
    card = DatasetCard(made.tree["README.md"].data.decode())
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "results.parquet"}]
    assert "9 rows: 1 checkpoints on 4 data sets" in card.text
    tokens = {request.origin for request in writer.seen() if request.token}
    assert tokens == {"hub"}, "the token goes to the endpoint only"
    made.push({"README.md": b"---\nlicense: mit\n---\nours\n"})
    clipeval.push(TABLE[:3], "me/results", dataset=True, yes=True)
    assert made.tree["README.md"].data.endswith(b"ours\n")


def test_a_dry_run_asks_nobody(served, command, tmp_path):
    TABLE.to_parquet(tmp_path / "results.parquet")
    code, shown, _ = command("clipeval", "push", tmp_path, "me/m")
    assert code == 0
    assert served.requests == []
    assert f"Would upload to {served.endpoint}/me/m, as one commit:" in shown
    assert "  .eval_results/imagenet1k.yaml" in shown
    assert "    task_id: linear_probe_5shot\n  value: 0.61\n" in shown
    assert shown.endswith("Nothing was sent. Upload it with --yes.\n")
    code, shown, _ = command("clipeval", "push", tmp_path, "me/m", "--dataset")
    assert code == 0
    assert "  results.parquet  " in shown


def test_several_checkpoints_are_named(served, command, tmp_path):
    to_frame([*ROWS, row("n")]).to_parquet(tmp_path / "results.parquet")
    code, _, said = command("clipeval", "push", tmp_path, "me/m")
    assert code == 2
    assert "a model card holds one checkpoint, and these are 2: 'm', 'n'. Choose one with --model" in said
    code, _, said = command("clipeval", "push", tmp_path, "me/m", "-m", "o")
    assert code == 2
    assert "no checkpoint 'o'" in said
    code, shown, _ = command("clipeval", "push", tmp_path, "me/m", "-m", "n")
    assert (code, shown.count("task_id")) == (0, 1)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "uploading needs a token that may write: set HF_TOKEN"),
        ("hf_reader", "this HF_TOKEN may not write there"),
        ("hf_unknown", "refuses the token"),
    ],
)
def test_who_may_not_write_is_told(served, monkeypatch, token, message):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(clipeval.ClipevalError, match=message):
        clipeval.push(TABLE, "me/m", yes=True)
    assert ("model", "me/m") not in served.repositories


def test_what_cannot_be(writer, monkeypatch):
    for name in ("m", "a/b/c", "../m", "a/..", "a b/c"):
        with pytest.raises(clipeval.UsageError, match="not the name of a repository"):
            clipeval.push(TABLE, name)
    with pytest.raises(clipeval.MeasureError, match="no value of a whole data set"):
        clipeval.push(to_frame([row(status="limited", limit=3)]), "me/m")
    writer.repository("me/bad", {"README.md": b"---\nmodel-index: 3\n---\n"})
    with pytest.raises(clipeval.UsageError, match=r"the metadata of its README\.md"):
        clipeval.push(TABLE, "me/bad", yes=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(clipeval.UsageError, match="HF_HUB_OFFLINE is set"):
        clipeval.push(TABLE, "me/m", yes=True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(clipeval.UsageError, match="a token goes over https only"):
        clipeval.push(TABLE, "me/m", yes=True)


def test_somebody_else_commits_meanwhile(writer, monkeypatch):
    from clipeval.reporting import push

    def slow(self, path, then=push.Upload.text):
        text = then(self, path)
        writer.repositories["model", "me/m"].push({"theirs": b"1"})
        return text

    monkeypatch.setattr(push.Upload, "text", slow)
    with pytest.raises(clipeval.RemoteError, match="has changed meanwhile"):
        clipeval.push(TABLE, "me/m", yes=True)
