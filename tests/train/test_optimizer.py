"""Learning-rate curves and running averages against closed forms, which parameters decay, clipping, skipped steps."""

import math

import pytest
import torch
from timm.utils import ModelEmaV3
from tiny_run import tiny_config

from clipeval_train.model import build, resolve
from clipeval_train.optim import adamw, clip_gradient, decay_groups, set_rate, step
from clipeval_train.schedule import learning_rate


def test_warmup_then_cosine_by_hand(tmp_path):
    config = tiny_config(tmp_path, samples=1100, warmup=100, lr=0.8)
    assert learning_rate(25, config) == pytest.approx(0.2)
    assert learning_rate(100, config) == pytest.approx(0.8)
    assert learning_rate(350, config) == pytest.approx(0.4 * (1 + math.sqrt(0.5)))  # a quarter of the way: cos 45°
    assert learning_rate(600, config) == pytest.approx(0.4)
    assert learning_rate(1100, config) == 0


def test_without_warmup_the_curve_starts_at_the_peak(tmp_path):
    assert learning_rate(0, tiny_config(tmp_path, warmup=0, lr=0.8)) == pytest.approx(0.8)


def test_warmup_constant_and_cooldown_by_hand(tmp_path):
    config = tiny_config(tmp_path, samples=1000, warmup=100, lr=0.8, schedule="constant", cooldown=200)
    rates = [learning_rate(clock, config) for clock in (0, 50, 100, 500, 800, 900, 950, 1000)]
    assert rates == pytest.approx([0, 0.4, 0.8, 0.8, 0.8, 0.4, 0.2, 0])
    trunk = tiny_config(tmp_path, samples=1000, warmup=100, lr=0.8, schedule="constant")
    assert [learning_rate(clock, trunk) for clock in (50, 999, 1000)] == pytest.approx([0.4, 0.8, 0.8])


def test_the_average_of_weights_that_move_in_a_line():
    """Weights w_t = t: e_T = sum of (1 - d) d^(T - t) t over t = 1..T, as e_0 = 0."""
    decay, module = 0.9, torch.nn.Linear(3, 2).double()
    module.register_buffer("seen", torch.zeros((), dtype=torch.long))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    ema = ModelEmaV3(module, decay)
    for _ in range(17):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 1
            module.seen += 2
        ema.update(module)
    expected = sum((1 - decay) * decay ** (17 - t) * t for t in range(1, 18))
    average = ema.module.state_dict()
    assert average["weight"].flatten().tolist() == pytest.approx([expected] * 6, abs=1e-12)
    assert average["seen"] == 34


def test_only_matrices_decay_and_every_parameter_is_in_one_group(tmp_path):
    model = build(resolve(tiny_config(tmp_path).model, "tiny"), seed=0)
    groups = decay_groups(model.parameters(), 0.2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    others = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed | others == set(names.values())
    assert decayed & others == set()
    assert {"logit_scale", "visual.class_embedding", "ln_final.bias", "visual.ln_pre.weight"} <= others
    assert {"token_embedding.weight", "text_projection", "visual.conv1.weight"} <= decayed


def layer_with_gradient(scale=1.0):
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 4.0]]) * scale, torch.tensor([12.0]) * scale
    return layer, adamw(decay_groups(layer.parameters(), 0.5), 0.1, (0.9, 0.98), 1e-6)


def no_scaler():
    return torch.amp.GradScaler("cpu", enabled=False)


def test_fused_step_equals_the_formula():
    """First AdamW step: w (1 - lr wd) - lr g / (|g| + eps), as both moments are corrected to g and g²."""
    layer, optimizer = layer_with_gradient()
    before, gradient = layer.weight.detach().clone(), layer.weight.grad.clone()
    set_rate(optimizer, 0.2)
    step(optimizer, no_scaler(), layer.weight.grad.norm())
    expected = before * (1 - 0.2 * 0.5) - 0.2 * gradient / (gradient.abs() + 1e-6)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert layer.weight.grad is None


def test_groups_may_have_a_share_of_the_rate():
    _, optimizer = layer_with_gradient()
    optimizer.param_groups[1]["lr_scale"] = 0.25
    set_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4, 0.1])


@pytest.mark.parametrize(("limit", "factor"), [(None, 1), (100.0, 1), (6.5, 0.5)])
def test_the_gradient_is_cut_to_the_limit(limit, factor):
    """The gradient (3, 4, 12) has the norm 13."""
    layer, optimizer = layer_with_gradient()
    assert clip_gradient(optimizer, no_scaler(), limit) == pytest.approx(13)
    assert layer.weight.grad.flatten().tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-5)
    assert layer.bias.grad.item() == pytest.approx(12 * factor, rel=1e-5)


def test_the_scale_is_taken_out_before_clipping():
    layer, optimizer = layer_with_gradient(scale=1024.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.tensor(1.0))
    assert clip_gradient(optimizer, scaler, 6.5) == pytest.approx(13)
    assert layer.weight.grad.flatten().tolist() == pytest.approx([1.5, 2], rel=1e-5)
    step(optimizer, scaler, torch.tensor(13.0))
    assert layer.weight.grad is None


def test_an_overflow_leaves_the_weights_and_is_told():
    layer, optimizer = layer_with_gradient()
    before = layer.weight.detach().clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.tensor(1.0))
    layer.weight.grad[0, 1] = math.inf
    norm = clip_gradient(optimizer, scaler, 1.0)
    assert norm == math.inf
    step(optimizer, scaler, norm)
    assert torch.equal(layer.weight.detach(), before)
    assert scaler.get_scale() == 512


def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments():
    layer, optimizer = layer_with_gradient()
    step(optimizer, no_scaler(), torch.tensor(13.0))
    before = [value.clone() for state in optimizer.state.values() for value in state.values()]
    weights = [parameter.detach().clone() for parameter in layer.parameters()]
    for value in (math.inf, math.nan):
        layer.weight.grad, layer.bias.grad = torch.full((1, 2), value), torch.ones(1)
        step(optimizer, no_scaler(), clip_gradient(optimizer, no_scaler(), None))
        after = [value for state in optimizer.state.values() for value in state.values()]
        assert all(map(torch.equal, before, after))
        assert all(map(torch.equal, weights, layer.parameters()))
    layer.weight.grad, layer.bias.grad = torch.ones(1, 2), torch.ones(1)
    step(optimizer, no_scaler(), torch.tensor(1.0))
    assert not torch.equal(weights[0], layer.weight)


def test_a_run_warms_up_by_itself(tmp_path):
    """A twentieth, at most 10,000 batches, and never into the cooldown."""
    given = {"warmup": None, "batch_size": 4}
    assert tiny_config(tmp_path, **given, samples=1000).warmup_samples == 50
    assert tiny_config(tmp_path, **given, samples=10**9).warmup_samples == 40_000
    assert tiny_config(tmp_path, **given, samples=1000, schedule="constant", cooldown=990).warmup_samples == 10
    assert tiny_config(tmp_path, warmup=0, samples=1000).warmup_samples == 0
    assert learning_rate(25, tiny_config(tmp_path, **given, samples=1000, lr=0.8)) == pytest.approx(0.4)
