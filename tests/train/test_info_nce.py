"""InfoNCE against a loop over F.cross_entropy, and where bf16 or a large scale would break it."""

import math

import pytest
import torch
import torch.nn.functional as F

from clipeval_train.loss import info_nce


def by_rows(images, texts, scale):
    """One query at a time, by cosine similarity."""
    n = len(images)
    total = 0.0
    for i in range(n):
        to_texts = torch.stack([scale * F.cosine_similarity(images[i], texts[j], dim=0) for j in range(n)])
        to_images = torch.stack([scale * F.cosine_similarity(images[j], texts[i], dim=0) for j in range(n)])
        for logits in (to_texts, to_images):
            total = total + F.cross_entropy(logits[None], torch.tensor([i]))
    return total / (2 * n)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_loss_and_gradients_equal_a_loop_in_fp64(n):
    torch.manual_seed(n)
    leaves = [torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    mine = info_nce(*leaves, scale)
    theirs = by_rows(*leaves, scale)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    expected = torch.autograd.grad(theirs, [*leaves, scale])
    found = torch.autograd.grad(mine, [*leaves, scale])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_hand_worked_value():
    """Two orthogonal pairs at scale s: each softmax is e^s / (e^s + 1)."""
    images = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    loss = info_nce(images, images.clone(), torch.tensor(2.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2.0)), rel=1e-6)


def test_bf16_features_are_scored_in_fp32_and_stay_finite_at_the_largest_scale():
    features = torch.randn(9, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = info_nce(features, features, torch.tensor(100.0))
    assert loss.dtype == torch.float32
    exact = info_nce(features.double(), features.double(), torch.tensor(100.0, dtype=torch.float64))
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)
