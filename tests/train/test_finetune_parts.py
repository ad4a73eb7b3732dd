"""Layer-wise rates, drop path, and the batches of several data sets, against closed forms."""

from __future__ import annotations

import itertools
import random

import numpy as np
import open_clip
import pytest
import torch
from finetune_runs import NANO
from timm.data import create_transform
from timm.data.auto_augment import RandAugment

from clipeval.config import DatasetEntry
from clipeval.datasets import open_dataset
from clipeval.datasets.subset import Subset
from clipeval.errors import DataError, UsageError
from clipeval.models.base import Preprocessing
from clipeval_train.finetune.config import parse_recipe
from clipeval_train.finetune.data import LabelledSet, LabelledStream, augmentation, without_held_out
from clipeval_train.finetune.layers import add_drop_path, parameter_groups

PREPROCESSING = Preprocessing((16, 16), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic", "shortest")


def tower(layers: int = 3) -> torch.nn.Module:
    """The image tower of a small CLIP."""
    torch.manual_seed(0)
    return open_clip.CLIP(**NANO | {"vision_cfg": NANO["vision_cfg"] | {"layers": layers}}).visual


def test_layer_decay_in_closed_form():
    visual, head = tower(), torch.nn.Linear(16, 5)
    groups = parameter_groups(visual, [head], weight_decay=0.3, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(visual.named_parameters())
    expected = {
        "class_embedding": 0.5**4,
        "positional_embedding": 0.5**4,
        "conv1.weight": 0.5**4,
        "ln_pre.bias": 0.5**4,
        "transformer.resblocks.0.attn.in_proj_weight": 0.5**3,
        "transformer.resblocks.1.mlp.c_fc.weight": 0.5**2,
        "transformer.resblocks.2.ln_2.weight": 0.5**1,
        "ln_post.weight": 1.0,
        "proj": 1.0,
    }
    assert {name: scale[id(named[name])] for name in expected} == expected
    assert scale[id(head.weight)] == scale[id(head.bias)] == 1.0
    every = [*named.values(), *head.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(scale) == len(every), "each parameter once"
    assert all(decay[id(p)] == (0.3 if p.ndim >= 2 else 0.0) for p in every)


def test_without_layer_decay_any_tower_will_do():
    resnet = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
        text_cfg=NANO["text_cfg"],
    ).visual
    assert {group["lr_scale"] for group in parameter_groups(resnet, [], 0.1, 1.0)} == {1.0}
    with pytest.raises(UsageError, match="this image tower has no row of them"):
        parameter_groups(resnet, [], 0.1, 0.9)
    with pytest.raises(UsageError, match="Leave both out"):
        add_drop_path(resnet, 0.1)


def test_frozen_parameters_are_in_no_group():
    visual, head = tower(), torch.nn.Linear(16, 5).requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(visual, [head], 0.1, 1.0)) == len(list(visual.parameters()))


def test_drop_path_drops_whole_branches_at_linear_rates():
    visual, plain = tower(3), tower(3)
    add_drop_path(visual, 0.5)
    assert visual.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(visual.eval()(images), plain.eval()(images)), "nothing is dropped in inference"
    visual.train()
    for block, rate in zip(visual.transformer.resblocks, (0.0, 0.25, 0.5), strict=True):
        branch = torch.ones(4000, 2, 3)
        kept = block.ls_1(branch)
        whole = (kept == 0).all(dim=(1, 2)) | (kept == 1 / (1 - rate)).all(dim=(1, 2))
        assert whole.all(), "a sample keeps all of the branch, scaled up, or nothing"
        dropped = (kept[:, 0, 0] == 0).float().mean().item()
        assert abs(dropped - rate) <= 4 * (rate * (1 - rate) / 4000) ** 0.5


@pytest.fixture(scope="module")
def digits():
    """The training split of the built-in digits."""
    return open_dataset("digits", DatasetEntry(spec="builtin:digits"), "train")


def some(digits, n):
    return Subset(digits, np.arange(n))


SIZE = 8


def stream(digits, sizes=(50, 23, 11), seed=3, extra=""):
    """Data sets whose labels tell them apart."""
    recipe = parse_recipe(f"ilharco2022 batch_size={SIZE} {extra}", "test")
    train = [(some(digits, n), 100 * task + digits.labels[:n]) for task, n in enumerate(sizes)]
    return LabelledStream(train, PREPROCESSING, recipe, seed)


def batches(made, start, stop, rank=0, world=1, workers=0):
    """Those of iterations ``start`` to ``stop``."""
    return list(made.batches(start * SIZE, stop * SIZE, rank, world, workers))


def test_data_sets_take_turns_and_each_comes_in_whole_passes(digits):
    sizes, made = (50, 23, 11), stream(digits)
    told = [batch.tokens for batch in batches(made, 0, 7)]
    assert [set(tokens[:, 0].tolist()) for tokens in told] == [{t} for t in range(7)]
    assert [set((tokens[:, 1] // 100).tolist()) for tokens in told] == [{0}, {1}, {2}, {0}, {1}, {2}, {0}]
    for task, size in enumerate(sizes):
        rows = np.concatenate([made.rows(t * SIZE, (t + 1) * SIZE) for t in range(task, 300, 3)])
        passes = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
        assert all(sorted(p) == list(range(size)) for p in passes), "without repetition within a pass"
        assert len({tuple(p) for p in passes}) == len(passes), "shuffled anew for each"


def test_processes_share_a_batch(digits):
    whole = batches(stream(digits), 0, 5)
    for world in (2, 4):
        parts = [batches(stream(digits), 0, 5, rank, world) for rank in range(world)]
        for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
            assert torch.equal(torch.cat([share.tokens for share in shares]), batch.tokens)


def test_augmentation_depends_on_seed_and_iteration_alone(digits):
    settings = "flip=0.5 randaugment=rand-m9-mstd0.5 crop=[0.5,1]"
    first, second, other = (stream(digits, extra=settings, seed=seed) for seed in (3, 3, 4))
    torch.manual_seed(0)
    state, others = torch.get_rng_state(), (random.getstate(), np.random.get_state()[1].tolist())
    [batch] = batches(first, 5, 6)
    images = batch.images
    assert torch.equal(torch.get_rng_state(), state), "the global generators are left as they were"
    assert (random.getstate(), np.random.get_state()[1].tolist()) == others
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    assert torch.equal(batches(second, 4, 6)[1].images, images)
    assert not torch.equal(batches(other, 5, 6)[0].images, images)
    assert images.dtype == torch.uint8
    assert images.shape == (8, 3, 16, 16)


def test_randaugment_is_that_of_timms_own_training_transforms():
    def found(made):
        [augment] = [step for step in made.transforms if isinstance(step, RandAugment)]
        return augment.num_layers, [vars(op) for op in augment.ops]

    theirs = create_transform(
        PREPROCESSING.size,
        is_training=True,
        auto_augment="rand-m8-inc1-mstd101",
        interpolation=PREPROCESSING.interpolation,
        mean=PREPROCESSING.mean,
        std=PREPROCESSING.std,
    )
    assert found(augmentation(PREPROCESSING, parse_recipe("imagenet", "test"))) == found(theirs)


def test_worker_processes_change_nothing(digits):
    alone, helped = (batches(stream(digits), 2, 6, workers=workers) for workers in (0, 2))
    for one, other in itertools.zip_longest(alone, helped):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.images, other.images)


def test_a_broken_image_ends_the_run_with_its_name(digits):
    class Broken(Subset):
        def image(self, index):
            raise DataError(f"digits: sample {self.ids[index]}: cannot decode the image")

    train = [(Broken(digits, np.arange(9)), digits.labels[:9])]
    made = LabelledStream(train, PREPROCESSING, parse_recipe(f"ilharco2022 batch_size={SIZE}", "test"), 0)
    with pytest.raises(DataError, match="cannot decode"):
        batches(made, 0, 1, workers=1)


def test_held_out_samples_are_a_share_of_each_class(digits):
    kept, held = without_held_out(digits, 0.1)
    assert sorted([*kept.ids, *held.ids]) == sorted(digits.ids)
    assert np.bincount(held.labels).tolist() == [round(0.1 * n) for n in np.bincount(digits.labels)]
    assert without_held_out(digits, 0.0) == (digits, None)


def test_one_class_is_no_classification(digits):
    threes = Subset(digits, np.flatnonzero(digits.labels == 3))
    with pytest.raises(
        DataError, match=r"digits \(train\): all images have the label 3; a classifier needs at least two"
    ):
        LabelledSet("digits", threes, digits)
