"""AdamW, its schedule, and the step that bad gradients skip."""

import pytest
import torch
from torch import nn

from unmask.config import OptimConfig
from unmask.train.optim import adamw, clip_and_step, rate, set_learning_rate


def test_warm_up_rises_in_a_line_to_the_peak() -> None:
    config = OptimConfig(warmup=4, schedule="constant")
    assert [rate(config, step, 100) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rate(OptimConfig(warmup=0, schedule="constant"), 0, 100) == 1


def test_the_cosine_falls_from_the_peak_towards_zero() -> None:
    config = OptimConfig(warmup=10, schedule="cosine")
    rates = [rate(config, step, 110) for step in range(110)]
    assert max(rates) == rates[10] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_a_run_shorter_than_its_warm_up_has_positive_rates() -> None:
    config = OptimConfig(warmup=100, schedule="cosine")
    assert all(0 < rate(config, step, 5) <= 0.05 for step in range(5))


def test_every_group_follows_its_own_peak() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    config = OptimConfig(warmup=1, schedule="constant", weight_decay=0.1)
    optimizer = adamw([(1.0, one), (0.5, other)], config)
    set_learning_rate(optimizer, config, 0, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(one.weight)] == rates[id(one.bias)] == 0.5
    assert rates[id(other.weight)] == rates[id(other.bias)] == 0.25


def test_matrices_decay_and_vectors_do_not() -> None:
    layer = nn.Linear(2, 2)
    optimizer = adamw([(1.0, layer)], OptimConfig(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(layer.weight): 0.1, id(layer.bias): 0.0}


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = adamw([(1.0, layer)], OptimConfig())
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(2, 2)]


def test_gradients_are_clipped_and_their_norm_is_told() -> None:
    layer = nn.Linear(1, 1, bias=False)
    config = OptimConfig(lr=1.0, grad_clip=0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = float(layer.weight.detach())
    layer.weight.grad = torch.full((1, 1), 4.0)
    assert clip_and_step(optimizer, config) == 4.0
    assert float(layer.weight.detach()) == pytest.approx(before - 0.5, abs=1e-4)
    assert layer.weight.grad is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    layer = nn.Linear(2, 2)
    optimizer = adamw([(0.1, layer)], OptimConfig())
    before = [p.clone() for p in layer.parameters()]
    layer.weight.grad = torch.tensor([[1.0, bad], [0.0, 0.0]])
    layer.bias.grad = torch.ones(2)
    norm = clip_and_step(optimizer, OptimConfig())
    assert not torch.isfinite(torch.tensor(norm))
    assert all(torch.equal(p, old) for p, old in zip(layer.parameters(), before, strict=True))
    assert optimizer.state_dict()["state"] == {}
    assert layer.weight.grad is None


def test_a_step_without_gradients_changes_nothing() -> None:
    layer = nn.Linear(2, 2)
    optimizer = adamw([(0.1, layer)], OptimConfig(weight_decay=0.5))
    before = [p.clone() for p in layer.parameters()]
    assert clip_and_step(optimizer, OptimConfig()) == 0
    assert all(torch.equal(p, old) for p, old in zip(layer.parameters(), before, strict=True))
