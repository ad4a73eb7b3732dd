"""Gradients of N processes x k micro-batches against plain torch on the whole batch in one process."""

from __future__ import annotations

import copy
import types
from itertools import product

import numpy as np
import open_clip
import pytest
import torch
from finetune_runs import NANO
from torch import nn
from worlds import in_processes, one

from clipeval_train.finetune.config import FinetuneConfig
from clipeval_train.finetune.heads import Head
from clipeval_train.finetune.step import ClassificationStep

IMAGES, CLASSES = 12, (3, 5)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class DoubleHead(Head):
    """The classifier in fp64: the one that trains computes in fp32 whatever the tower does."""

    def forward(self, embeddings):
        unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
        return self.scale * unit @ self.weight.T + self.bias


def parts_of(train_head):
    """An encoder as the step knows it, and a classifier for each of two data sets."""
    torch.manual_seed(4)
    clip = open_clip.CLIP(**copy.deepcopy(NANO)).double().requires_grad_(False).eval()
    preprocessing = types.SimpleNamespace(mean=MEAN, std=STD)
    heads = [DoubleHead(torch.randn(k, 16), torch.randn(k), 7.0, np.arange(k), train_head).double() for k in CLASSES]
    return types.SimpleNamespace(model=clip, preprocessing=preprocessing), heads


def batch(iteration):
    generator = torch.Generator().manual_seed(iteration)
    images = torch.randint(0, 256, (IMAGES, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, CLASSES[iteration % 2], (IMAGES,), generator=generator)


def reference(iteration, train_head):
    """The loss, and the gradients by name."""
    encoder, heads = parts_of(train_head)
    images, columns = batch(iteration)
    mean, std = ((255 * torch.tensor(values)).view(3, 1, 1) for values in (MEAN, STD))
    tower = encoder.model.visual.requires_grad_(True)
    embeddings = tower.train()(((images - mean) / std).double())
    loss = nn.functional.cross_entropy(heads[iteration % 2](embeddings), columns, label_smoothing=0.1)
    loss.backward()
    return loss.item(), gradients(nn.ModuleDict({"tower": tower, "heads": nn.ModuleList(heads)}))


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


CASES = list(product((True, False), (None, 2, 5), (0, 1)))


def of_a_process(world, folder):
    """Loss and gradients of every case, each after an iteration of the other data set that leaves nothing behind."""
    found = []
    for train_head, micro_batch, iteration in CASES:
        keys = {"model": "x", "data": ["a", "b"], "batch_size": IMAGES, "lr": 1e-3, "label_smoothing": 0.1, "out": "x"}
        config = FinetuneConfig(**keys, train_head=train_head, micro_batch=micro_batch, precision="fp32")
        encoder, heads = parts_of(train_head)
        encoder.model.encode_image = lambda images, clip=encoder.model: clip.visual(images.double())
        step = ClassificationStep(encoder, heads, config, world)
        for number in (iteration + 1, iteration):
            step.module.zero_grad()
            images, columns = (part.chunk(world.size)[world.rank] for part in batch(number))
            tokens = torch.stack([torch.full_like(columns, number), columns], dim=1)
            loss = step.backward(images, step.arrange(tokens))
        found.append((loss.item(), gradients(step.module)))
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_gradient_equals_that_of_one_process_with_the_whole_batch(size, tmp_path):
    ranks = in_processes(size, tmp_path, of_a_process) if size > 1 else [of_a_process(one(), None)]
    for found in ranks:
        for (train_head, micro_batch, iteration), (loss, gradient) in zip(CASES, found, strict=True):
            case = train_head, micro_batch, iteration
            expected, theirs = reference(iteration, train_head)
            assert loss == pytest.approx(expected, abs=1e-10), case
            assert gradient.keys() == theirs.keys()
            for name, value in theirs.items():
                mine = gradient[name]
                assert (value is None) == (mine is None), (case, name)
                assert value is None or (mine - value).abs().max() <= 1e-10, (case, name)
