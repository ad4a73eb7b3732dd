"""The tiled losses against the whole matrix at once, at sizes, tiles and temperatures where shortcuts would show."""

import math
import types

import pytest
import torch
import torch.nn.functional as F
from worlds import in_processes, one

from clipeval_train.loss import contrastive, default_tile

BIAS = -3.0


def whole(loss, images, texts, scale, bias):
    """The definition: all logits at once."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T + bias
    if loss == "clip":
        target = torch.arange(len(logits))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def leaves(pairs, scale, dtype=torch.float64, width=5):
    """Embeddings of which neither is normalised, scale and bias."""
    generator = torch.Generator().manual_seed(pairs)
    features = [3 * torch.randn(pairs, width, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [value.to(dtype).requires_grad_() for value in (*features, torch.tensor(scale), torch.tensor(BIAS))]


def with_gradients(value, inputs):
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("tile", [1, 3, 7, 1024])
@pytest.mark.parametrize("pairs", [1, 7, 23])
def test_tiles_of_any_size_give_value_and_gradients_of_the_whole_matrix(loss, tile, pairs):
    inputs = leaves(pairs, 14.3)
    mine = with_gradients(contrastive(loss, *inputs, one(), tile), inputs)
    for found, expected in zip(mine, with_gradients(whole(loss, *inputs), inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_hand_worked_values():
    """Two orthogonal pairs at scale s and bias b: logits s + b for pairs and b for the others."""
    images, scale, bias = torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor(2.0), torch.tensor(-1.0)
    clip = contrastive("clip", images, images, scale, bias, one())
    assert clip.item() == pytest.approx(math.log(1 + math.exp(-2.0)), rel=1e-6)
    siglip = contrastive("siglip", images, images, scale, bias, one())
    assert siglip.item() == pytest.approx(math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(-1.0)), rel=1e-6)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("noise", [0.0, 0.2, 10.0])
def test_at_scale_100_fp32_is_finite_and_close_to_fp64(loss, noise):
    """From identical pairs, where all but rounding cancels, to random ones, whose exponentials overflow."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(19, 32, generator=generator, dtype=torch.float64)
    texts = images + noise * torch.randn(19, 32, generator=generator, dtype=torch.float64)
    exact = [value.clone().requires_grad_() for value in (images, texts, torch.tensor(100.0).double())]
    single = [value.detach().float().requires_grad_() for value in exact]
    bias = torch.tensor(BIAS)
    theirs = with_gradients(whole(loss, *exact, bias.double()), exact)
    mine = with_gradients(contrastive(loss, *single, bias, one(), tile=8), single)
    for found, expected in zip(mine, theirs, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5)


def test_the_gradient_of_a_learnt_pair_keeps_its_digits_in_siglip():
    inputs = [torch.ones(1, 2), torch.ones(1, 2), torch.tensor(30.0), torch.tensor(-10.0, requires_grad=True)]
    contrastive("siglip", *inputs, one()).backward()
    assert inputs[3].grad.item() == pytest.approx(-1 / (1 + math.exp(20)), rel=1e-4)


def test_the_bias_of_a_siglip_model_gets_a_gradient_of_exactly_zero_from_infonce():
    inputs = leaves(9, 14.3, torch.float32)
    contrastive("clip", *inputs, one()).backward()
    assert inputs[3].grad == 0


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_inside_autocast_the_logits_of_bf16_features_are_in_fp32(loss, monkeypatch):
    seen = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args: seen.append(addmm(*args)) or seen[-1])
    inputs = leaves(9, 100.0, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = contrastive(loss, *inputs, one(), tile=4)
        value.backward()
    assert value.dtype == torch.float32
    assert len(seen) == 2 * 9  # 3 x 3 tiles, forward and again in backward
    assert {logits.dtype for logits in seen} == {torch.float32}
    exact = [value.detach().double() for value in inputs]
    assert value.item() == pytest.approx(whole(loss, *exact).item(), rel=1e-4)
    assert inputs[0].grad.dtype == torch.bfloat16


def distributed(world, cases):
    """Loss shares and gradients of each process's own rows."""
    results = []
    for loss, tile in cases:
        images, texts, scale, bias = leaves(21, 30.0)
        n = 21 // world.size
        rows = slice(world.rank * n, (world.rank + 1) * n)
        inputs = [images[rows].detach().requires_grad_(), texts[rows].detach().requires_grad_(), scale, bias]
        results.append(with_gradients(contrastive(loss, *inputs, world, tile), inputs))
    return results


def test_shares_of_three_processes(tmp_path):
    cases = [(loss, tile) for loss in ("clip", "siglip") for tile in (1, 3, 5, 64)]
    ranks = in_processes(3, tmp_path, distributed, cases)
    for number, (loss, _) in enumerate(cases):
        inputs = leaves(21, 30.0)
        value, images, texts, scale, bias = with_gradients(whole(loss, *inputs), inputs)
        shares = [results[number] for results in ranks]
        close = {"rtol": 0, "atol": 1e-12}
        torch.testing.assert_close(sum(share[0] for share in shares) / 3, value, **close)
        torch.testing.assert_close(torch.cat([share[1] for share in shares]) / 3, images, **close)
        torch.testing.assert_close(torch.cat([share[2] for share in shares]) / 3, texts, **close)
        torch.testing.assert_close(sum(share[3] for share in shares) / 3, scale, **close)
        torch.testing.assert_close(sum(share[4] for share in shares) / 3, bias, **close)


@pytest.mark.parametrize(
    ("gigabytes", "side"), [(0.1, 1024), (4, 2048), (15, 4096), (24, 8192), (80, 8192), (141, 8192)]
)
def test_tiles_grow_with_the_memory_of_a_gpu(monkeypatch, gigabytes, side):
    """Four tiles of numbers of four bytes take at most a sixteenth of it."""
    properties = types.SimpleNamespace(total_memory=int(gigabytes * 1e9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert default_tile(torch.device("cuda", 0)) == side
    assert side == 1024 or 4 * 4 * side**2 <= gigabytes * 1e9 / 16
    assert default_tile(torch.device("cpu")) == 1024
