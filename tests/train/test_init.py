"""Training that begins with a checkpoint: its loss, its preprocessing, locked towers, other sizes, what is told."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from finetune_runs import NANO, base_checkpoint
from helpers import tiny_checkpoint
from open_clip.loss import ClipLoss
from tiny_run import MODEL, tiny_config
from worlds import one

import clipeval
from clipeval.errors import DataError, UsageError
from clipeval_train import checkpoint
from clipeval_train.contrastive import ContrastiveTask
from clipeval_train.initial import Initial
from clipeval_train.loop import pretrain
from clipeval_train.model import resolve


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The last checkpoint of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return pretrain(tiny_config(tmp_path_factory.mktemp("run") / "run", samples=160))


def batch(side=16, context=12, n=24):
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    texts = [f"a photo of {number} {'and more ' * (number % 5)}" for number in range(n)]
    return images, open_clip.SimpleTokenizer(context_length=context)(texts)


def first_loss(config, side=16, context=12):
    task = ContrastiveTask(config)
    task.open(config, one(), None)
    return task.step.backward(*batch(side, context)).item()


def test_the_first_loss_is_that_of_the_exported_checkpoint(trained, tmp_path):
    """open_clip itself loads the export, mean and std included, and computes the loss with its own code."""
    content = torch.load(trained) | {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    torch.save(content, tmp_path / "squash.pt")
    checkpoint.export(tmp_path / "squash.pt", tmp_path / "exported")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/exported")
    images, tokens = batch()
    normalise = transform.transforms[-1]
    assert list(normalise.mean) == [0.5] * 3
    with torch.no_grad():
        features = model.encode_image(normalise(images / 255)), model.encode_text(tokens)
        features = [torch.nn.functional.normalize(feature, dim=-1) for feature in features]
        expected = ClipLoss()(*features, model.logit_scale.exp()).item()
    for word in (f"local-dir:{tmp_path}/exported", str(tmp_path / "squash.pt")):
        config = tiny_config(tmp_path / "run", model=None, init=word)
        assert first_loss(config) == pytest.approx(expected, abs=1e-5)
    drawn = first_loss(tiny_config(tmp_path / "run"))
    assert abs(drawn - expected) > 0.1, "the comparison says something"


def test_preprocessing_goes_on_into_the_checkpoint(trained, tmp_path):
    content = torch.load(trained) | {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    torch.save(content, tmp_path / "base.pt")
    path = pretrain(tiny_config(tmp_path / "run", model=None, init=str(tmp_path / "base.pt"), samples=32, warmup=0))
    saved = checkpoint.load(path)
    assert saved["preprocess_cfg"]["mean"] == [0.5] * 3
    assert saved["model_cfg"] == content["model_cfg"]
    checkpoint.export(path, tmp_path / "out")
    written = json.loads((tmp_path / "out/open_clip_config.json").read_text())
    assert written["preprocess_cfg"]["std"] == [0.25] * 3


@pytest.mark.parametrize("micro_batch", [None, 8])
@pytest.mark.parametrize("lock", ["image", "text"])
@pytest.mark.parametrize("custom", [False, True])
def test_a_locked_tower_stays_bit_for_bit(tmp_path, lock, micro_batch, custom):
    model = MODEL | ({"custom_text": True} if custom else {})
    base = pretrain(tiny_config(tmp_path / "base", model=model, samples=32, warmup=0))
    settings = {"lock": lock, "micro_batch": micro_batch, "samples": 96, "warmup": 0, "ema": 0.9, "weight_decay": 0.5}
    path = pretrain(tiny_config(tmp_path / "run", model=None, init=str(base), **settings))
    before, after = torch.load(base)["state_dict"], torch.load(path)
    for weights in (after["state_dict"], after["ema"]):
        changed = {name for name in before if not torch.equal(before[name], weights[name])}
        of_image = {name for name in before if name.startswith("visual.")}
        trained = of_image if lock == "text" else set(before) - of_image
        assert changed - {"logit_scale"} == {name for name in trained if "attn_mask" not in name} - {"logit_scale"}


def test_what_it_began_with_is_told(tmp_path):
    base = base_checkpoint(tmp_path / "base.pt", source="toy")
    path = pretrain(tiny_config(tmp_path / "run", model=None, init=str(base), samples=64, warmup=0, save_every=32))
    row = clipeval.run(str(path), "digits", "classification", out=tmp_path / "out", workers=0).iloc[0]
    assert (row["init"], row["stage"], row["source"]) == (base.as_posix(), "contrastive", "digits")
    assert (row["arch"], row["samples_seen"]) == ("tiny", 64)
    assert row["from_scratch_filter"] == f"began with {base.as_posix()}"
    assert len(torch.load(path)["metadata"]["init_sha256"]) == 64


def test_other_weights_do_not_continue_a_run(tmp_path):
    base = base_checkpoint(tmp_path / "base.pt")
    config = tiny_config(tmp_path / "run", model=None, init=str(base), samples=64, schedule="constant", warmup=0)
    pretrain(config.model_copy(update={"schedule": "constant"}))
    base_checkpoint(tmp_path / "base.pt", seed=1)
    longer = config.model_copy(update={"samples": 96, "start_from": config.out, "out": str(tmp_path / "more")})
    with pytest.raises(DataError, match=r"init: .* has changed since this run began"):
        pretrain(longer)


def test_positions_are_stretched_to_other_sizes(tmp_path):
    base = base_checkpoint(tmp_path / "base.pt")
    changes = {"vision_cfg": {"image_size": 24}, "text_cfg": {"context_length": 20}}
    config = tiny_config(tmp_path / "run", model=changes, init=str(base))
    clip = Initial(config).build()
    assert clip.visual.positional_embedding.shape == (37, 32)
    assert clip.positional_embedding.shape == (20, 16)
    own = torch.load(base)["state_dict"]["visual.positional_embedding"][1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(own, size=(6, 6), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(clip.visual.positional_embedding[1:], expected.permute(0, 2, 3, 1).reshape(36, 32))
    assert torch.isfinite(torch.tensor(first_loss(config, side=24, context=20)))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    base = tiny_checkpoint(tmp_path / "base.pt", cfg=NANO)
    with pytest.raises(
        UsageError, match=r"init: the weights of '.*base.pt' do not fit the model: .* Leave `model` out"
    ):
        pretrain(tiny_config(tmp_path / "run", init=str(base)))
    with pytest.raises(UsageError, match=r"absent.pt' does not exist"):
        pretrain(tiny_config(tmp_path / "run", model=None, init=str(tmp_path / "absent.pt")))


def test_a_sigmoid_loss_begins_at_its_own_bias(trained, tmp_path):
    clip = Initial(tiny_config(tmp_path / "run", model=None, init=str(trained), loss="siglip")).build()
    assert clip.logit_bias == -10
    assert torch.equal(clip.text_projection, torch.load(trained)["state_dict"]["text_projection"])


def test_a_named_architecture_is_changed_in_a_key():
    plain = resolve("ViT-B-32", "custom")
    changed = resolve({"base": "ViT-B-32", "vision_cfg": {"patch_dropout": 0.5}}, "custom")
    assert changed.config["vision_cfg"] == plain.config["vision_cfg"] | {"patch_dropout": 0.5}
    assert changed.config["text_cfg"] == plain.config["text_cfg"]
    assert changed.name == "ViT-B-32-custom"
    assert resolve("ViT-B-32", "custom") == plain, "the base stays as it is"
    for model, message in (
        ({"base": "ViT-B-3"}, r"model: 'ViT-B-3' is not an architecture of open_clip. Did you mean 'ViT-B-32'"),
        (
            {"base": "ViT-B-32", "vision_cfg": {"patchdropout": 1}},
            r"vision_cfg.patchdropout: unknown key. Did you mean",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            resolve(model, "custom")
