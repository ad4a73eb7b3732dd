"""The learning-rate curve by hand, and which parameters decay."""

import math

import pytest
import torch
from tiny_run import tiny_config

from clipeval_train.model import build, resolve
from clipeval_train.optim import adamw, learning_rate


def test_warmup_then_cosine_by_hand(tmp_path):
    config = tiny_config(tmp_path, samples=1100, warmup=100, lr=0.8)
    assert learning_rate(25, config) == pytest.approx(0.2)
    assert learning_rate(100, config) == pytest.approx(0.8)
    assert learning_rate(350, config) == pytest.approx(0.4 * (1 + math.sqrt(0.5)))  # a quarter of the way: cos 45°
    assert learning_rate(600, config) == pytest.approx(0.4)
    assert learning_rate(1100, config) == pytest.approx(0.0, abs=1e-15)


def test_without_warmup_the_curve_starts_at_the_peak(tmp_path):
    assert learning_rate(0, tiny_config(tmp_path, warmup=0, lr=0.8)) == pytest.approx(0.8)


def test_only_matrices_decay_and_every_parameter_is_in_one_group(tmp_path):
    config = tiny_config(tmp_path)
    model = build(resolve(config.model, "tiny"), seed=0)
    groups = adamw(model, config).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    others = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed | others == set(names.values())
    assert decayed & others == set()
    assert {"logit_scale", "visual.class_embedding", "ln_final.bias", "visual.ln_pre.weight"} <= others
    assert {"token_embedding.weight", "text_projection", "visual.conv1.weight"} <= decayed


def test_fused_step_equals_the_formula(tmp_path):
    """First AdamW step: w (1 - lr wd) - lr g / (|g| + eps), as both moments are corrected to g and g²."""
    config = tiny_config(tmp_path, lr=0.1, weight_decay=0.5)
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimizer = adamw(layer, config)
    gradient = torch.tensor([[0.3, -2.0]])
    layer.weight.grad, layer.bias.grad = gradient.clone(), torch.ones(1)
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + config.eps)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-5, atol=1e-6)
