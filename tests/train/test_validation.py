"""Loss and recall on held-out pairs, against open_clip's own towers and loss on the same pixels."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss
from test_loop import Kill, killed_after
from test_torchrun import run
from tiny_run import tiny_config
from worlds import in_processes

import clipeval
from clipeval.errors import DataError, UsageError
from clipeval.tasks.zeroshot_retrieval import evaluate as retrieval
from clipeval_train import model
from clipeval_train.config import PretrainConfig
from clipeval_train.input import open_corpus, to_input
from clipeval_train.loop import pretrain

VALIDATE = {
    "every": 200,
    "data": [{"source": "icons", "shards": "builtin:icons/material"}],
    "samples": 100,
    "batch_size": 24,
}
"""Four whole batches, 96 pairs."""


def rows(out):
    table = clipeval.read_results(out / "results")
    return table[table["task"] == "validation"]


def losses(out):
    found = rows(out)
    return found[found["metric"] == "contrastive_loss"].sort_values("samples_seen")


def reference(path, config, weights="state_dict"):
    """By open_clip alone, from the same bytes: mean loss over batches, and recall among all pairs."""
    saved = torch.load(path)
    clip = open_clip.CLIP(**saved["model_cfg"])
    clip.load_state_dict(saved[weights])
    clip.eval()
    source = config.validate.data
    reading = config.model_copy(update={"data": source, "seed": 0, "batch_size": 2})
    corpus = open_corpus(reading, model.resolve(config.model, "x"), "test")
    trained_on = open_corpus(reading, model.resolve(config.model, "x"))
    assert corpus.fingerprint != trained_on.fingerprint
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.IMAGE_MEAN, model.IMAGE_STD))
    values, images, texts = [], [], []
    for batch in corpus.batches(0, 96, 24):
        pixels, tokens = to_input(batch, torch.device("cpu"))
        with torch.no_grad():
            image = clip.encode_image((pixels / 255 - mean) / std, normalize=True)
            text = clip.encode_text(tokens, normalize=True)
            values.append(ClipLoss()(image, text, clip.logit_scale.exp()).item())
        images.append(image)
        texts.append(text)
    ids = [str(n) for n in range(96)]
    found = retrieval(torch.cat(images).numpy(), torch.cat(texts).numpy(), np.arange(96), ids)
    return np.mean(values), {metric.name: metric.value for metric in found.metrics}


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = tiny_config(tmp_path_factory.mktemp("run") / "run", ema=0.9, validate=VALIDATE)
        return config, pretrain(config)


def test_values_are_those_of_open_clip_at_every_checkpoint(validated):
    config, path = validated
    out = path.parents[1]
    found = losses(out)
    assert found["samples_seen"].tolist() == [224, 416, 423]
    assert found["higher_is_better"].tolist() == [False] * 3
    assert found["n"].tolist() == [96] * 3
    for row in found.itertuples():
        loss, recall = reference(config.path(int(row.samples_seen)), config)
        assert row.value == pytest.approx(loss, abs=1e-5)
        theirs = rows(out).query("samples_seen == @row.samples_seen and metric != 'contrastive_loss'")
        assert dict(zip(theirs["metric"], theirs["value"], strict=True)) == recall
    assert found["value"].nunique() == 3
    last = rows(out).iloc[-1]
    assert (last["dataset"], last["split"], last["status"], last["source"]) == ("icons", "validation", "ok", "digits")


def test_training_is_the_same_with_and_without(validated, tmp_path):
    """Dropout draws and modes too: an image tower with patch dropout."""
    config, _ = validated
    changes = {"model": config.model | {"vision_cfg": config.model["vision_cfg"] | {"patch_dropout": 0.5}}}
    changes |= {"samples": 256}
    with_it = pretrain(config.model_copy(update=changes | {"out": str(tmp_path / "with")}))
    without = pretrain(config.model_copy(update=changes | {"out": str(tmp_path / "without"), "validate": None}))
    first, second = (torch.load(path)["state_dict"] for path in (with_it, without))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_stands_beside_evaluations_and_a_resumed_run_goes_on(validated, tmp_path, monkeypatch):
    config, path = validated
    evaluate = {"every": 200, "datasets": ["digits"], "tasks": ["classification"]}
    both = PretrainConfig.model_validate(config.model_dump() | {"out": str(tmp_path / "run"), "evaluate": evaluate})
    with monkeypatch.context() as patch:
        killed_after(patch, 9)
        with pytest.raises(Kill):
            pretrain(both)
    pretrain(both)
    assert losses(tmp_path / "run")["value"].tolist() == losses(path.parents[1])["value"].tolist()
    table = clipeval.read_results(tmp_path / "run/results")
    assert sorted(table[table["metric"] == "acc1"]["samples_seen"]) == [224, 416, 423]


def test_the_running_average_is_what_is_measured_where_that_is_asked_for(validated, tmp_path):
    config, _ = validated
    evaluate = {"every": 300, "datasets": ["digits"], "tasks": ["classification"], "use_ema": True}
    changes = {"out": str(tmp_path / "run"), "validate": VALIDATE | {"use_ema": True}, "evaluate": evaluate}
    averaged = PretrainConfig.model_validate(config.model_dump() | changes)
    path = pretrain(averaged)
    loss, _ = reference(path, averaged, "ema")
    last = losses(tmp_path / "run").iloc[-1]
    assert last["value"] == pytest.approx(loss, abs=1e-5)
    assert last["model"] == (tmp_path / "run/ema/samples_000000000423.pt").as_posix()
    assert losses(tmp_path / "run")["from_scratch_filter"].notna().tolist() == [True, True, False]
    assert len(list((tmp_path / "run/ema").iterdir())) == 1
    weights = torch.load(last["model"])["state_dict"]
    assert all(torch.equal(weights[key], tensor) for key, tensor in torch.load(path)["ema"].items())
    measured = clipeval.read_results(tmp_path / "run/results").query("metric == 'acc1'")
    again = clipeval.run(last["model"], "digits", "classification", out=tmp_path / "own", workers=0)
    assert measured["value"].iloc[-1] == again[again["metric"] == "acc1"]["value"].item()


def of_two(world, config):
    odd = config.validate.model_copy(update={"batch_size": 25})
    with pytest.raises(UsageError, match=r"validate.batch_size: 25 cannot be divided by 2 processes. Give a multiple"):
        run(world, config.model_copy(update={"validate": odd, "out": f"{config.out}-odd"}))
    run(world, config)


def test_two_processes_find_what_one_finds(validated, tmp_path):
    config, path = validated
    both = config.model_copy(update={"out": str(tmp_path / "run"), "samples": 416})
    in_processes(2, tmp_path / "processes", of_two, both)
    found, alone = losses(tmp_path / "run"), losses(path.parents[1])
    assert found["value"].tolist()[0] == pytest.approx(alone["value"].tolist()[0], abs=1e-3)
    assert len(rows(tmp_path / "run")) == 2 * 7


def test_what_cannot_be_validated_is_said(tmp_path):
    with pytest.raises(DataError, match=r"validate: icons: .* pairs do not fill a batch of 100000"):
        pretrain(tiny_config(tmp_path, validate=VALIDATE | {"batch_size": 100_000, "samples": 100_000}))
    from clipeval_train.config import parse_pretrain

    document = tiny_config(tmp_path, validate=VALIDATE | {"use_ema": True}).model_dump()
    with pytest.raises(UsageError, match=r"validate.use_ema: there is no running average of the weights. Set `ema`"):
        parse_pretrain(document, "x")
    with pytest.raises(UsageError, match=r"validate.evry: unknown key. Did you mean 'every'"):
        parse_pretrain(document | {"validate": VALIDATE | {"evry": 3}}, "x")
    with pytest.raises(UsageError, match=r"validate.data\[0\].shard: unknown key. Did you mean 'shards'"):
        parse_pretrain(document | {"validate": VALIDATE | {"data": [{"source": "a", "shard": "b"}]}}, "x")
