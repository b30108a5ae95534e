"""GRPO: advantages, the clipped loss, and updates on a net of random weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.learners import LENGTH, MULTIPLICATIVE, Tiny, even, grpo_settings
from unmask.config import RewardConfig
from unmask.decode.sampling import token_log_prob
from unmask.planners.base import make_view
from unmask.rewards.compose import make_reward
from unmask.train.grpo import advantages, grpo_loss
from unmask.train.optim import clip_and_step
from unmask.train.replay import Replay
from unmask.trajectory import Trajectory
from unmask.workers import ALONE

REWARDS = st.lists(st.floats(-10, 10), min_size=4, max_size=4)
MODES = {
    "dultra, nonempty": ("dultra", "nonempty", True),
    "dultra, fallback": ("dultra", "fallback", True),
    "dultra, plackett_luce": ("dultra", "plackett_luce", True),
    "policy, nonempty": ("confidence", "nonempty", False),
    "policy, fallback": ("confidence", "fallback", False),
    "policy, plackett_luce": ("confidence", "plackett_luce", False),
}
every_mode = pytest.mark.parametrize(("kind", "law", "train_denoiser"), MODES.values(), ids=MODES)


@given(REWARDS, REWARDS)
def test_advantages_have_zero_mean_in_each_group(one: list[float], other: list[float]) -> None:
    found = advantages(one + other, 4, None)
    assert sum(found[:4]) == pytest.approx(0, abs=1e-5)
    assert sum(found[4:]) == pytest.approx(0, abs=1e-5)
    assert found[:4] == advantages(one, 4, None)


@given(REWARDS, st.floats(-10, 10))
def test_a_constant_added_to_all_rewards_changes_no_advantage(rewards: list[float], shift: float) -> None:
    shifted = advantages([reward + shift for reward in rewards], 4, None)
    assert shifted == pytest.approx(advantages(rewards, 4, None), abs=2e-6)


@given(st.floats(-10, 10))
def test_a_group_of_equal_rewards_has_no_advantage(reward: float) -> None:
    assert advantages([reward] * 4, 4, None) == [0.0] * 4


def test_advantages_are_not_divided_by_the_deviation() -> None:
    assert advantages([0.0, 0.2], 2, None) == pytest.approx([-0.1, 0.1])
    assert advantages([0.0, 20.0], 2, None) == pytest.approx([-10.0, 10.0])


def test_advantages_under_the_floor_count_as_nothing() -> None:
    rewards = [0.0, 1.0, 0.9, 0.1]
    assert advantages(rewards, 4, 0.0) == pytest.approx([0.0, 0.5, 0.4, 0.0])
    assert advantages(rewards, 4, -0.45) == pytest.approx([0.0, 0.5, 0.4, -0.4])


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.lists(st.floats(-5, 0), min_size=3, max_size=3))
def test_at_ratio_one_the_gradient_is_the_policy_gradient(advantage: list[float], log_p: list[float]) -> None:
    new_N = torch.tensor(log_p, requires_grad=True)
    advantage_N = torch.tensor(advantage)
    loss_N = grpo_loss(new_N, new_N.detach().clone(), advantage_N, 0.2, 1.0)
    torch.testing.assert_close(loss_N, -advantage_N)
    loss_N.sum().backward()
    torch.testing.assert_close(new_N.grad, -advantage_N)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.5, 1.0, -1.5, True),
        (2.5, 1.0, -2.0, False),  # good and already much likelier: no more of it
        (0.1, 1.0, -0.1, True),  # good and less likely: come back
        (0.5, -1.0, 0.8, False),  # bad and already less likely
        (2.5, -1.0, 2.5, True),  # bad and likelier: away
    ],
)
def test_the_ratio_is_clipped_only_where_that_is_pessimistic(
    ratio: float, advantage: float, loss: float, moves: bool
) -> None:
    new_N = torch.tensor([ratio]).log().requires_grad_()
    loss_N = grpo_loss(new_N, torch.zeros(1), torch.tensor([advantage]), 0.2, 1.0)
    assert loss_N.item() == pytest.approx(loss)
    loss_N.sum().backward()
    assert new_N.grad is not None
    assert bool(new_N.grad != 0) is moves


@every_mode
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("micro_batch_tokens", [1, 10**6], ids=["one by one", "together"])
def test_the_first_update_sees_the_likelihoods_of_the_rollout(
    kind: str, law: Any, train_denoiser: bool, temperature: float, micro_batch_tokens: int
) -> None:
    recipe = grpo_settings(
        train_denoiser=train_denoiser,
        temperature=temperature,
        micro_batch_tokens=micro_batch_tokens,
        rollout_batch=5,
    )
    tiny = Tiny(recipe, kind=kind, law=law)
    metrics = tiny.learner.step(0)
    assert len({len(prompt) for prompt in tiny.prompts}) > 1
    assert metrics["with_advantage"] > 0
    assert metrics["drift"] <= 1e-5
    assert metrics["ratio_clipped"] == 0
    assert any(gradient.abs().sum() > 0 for gradient in tiny.gradients)


@pytest.mark.parametrize("law", ["nonempty", "fallback", "plackett_luce"])
def test_a_policy_is_replayed_from_the_confidences_it_saw(law: Any) -> None:
    """As the denoiser would replay it, and without calling the denoiser."""
    tiny = Tiny(grpo_settings(train_denoiser=False, stop_at_eos=True), kind="confidence", law=law)
    tiny.learner.step(0)
    assert len({row.nfe for row in tiny.rows}) > 1
    without = [replace(row, confidence=None) for row in tiny.rows]
    found = []
    for rows in (tiny.rows, without):
        replay = Replay.of(rows, [True] * len(rows), tiny.net.pad_id, ALONE.device, with_tokens=False)
        calls: list[Any] = []
        handle = tiny.net.register_forward_hook(lambda *given, calls=calls: calls.append(given))
        pairs = replay.micro_batches(10**6)
        found.append(torch.cat([replay.log_prob(tiny.net, tiny.planner, *each) for each in pairs]))
        handle.remove()
        assert bool(calls) is (rows is without)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@every_mode
def test_micro_batches_add_up_to_the_gradient_of_one_batch(kind: str, law: Any, train_denoiser: bool) -> None:
    found = []
    for micro_batch_tokens in (1, 100, 10**6):
        recipe = grpo_settings(train_denoiser=train_denoiser, micro_batch_tokens=micro_batch_tokens)
        tiny = Tiny(recipe, kind=kind, law=law)
        tiny.learner.step(0)
        found.append(tiny.gradients)
    for gradients in found[:2]:
        for one, other in zip(gradients, found[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def log_likelihood(tiny: Tiny, row: Trajectory, with_tokens: bool) -> torch.Tensor:
    """(S,) of each step of a row, from its states alone: no padding, no packing."""
    steps_S = torch.arange(row.nfe)
    states_SL = torch.stack([row.state_at(step) for step in range(row.nfe)])
    tokens_ST = torch.cat([row.prompt.expand(row.nfe, -1), states_SL], dim=1)
    out = tiny.net(tokens_ST)
    settings: dict[str, Any] = {"length": LENGTH, "block_length": row.block_length, "step_B": steps_S}
    view = make_view(out.logits, out.hidden, tokens_ST, None, mask_id=row.mask_id, **settings)
    chosen_SL = row.unmask_step == steps_S[:, None]
    value_S = tiny.planner(view).log_prob(chosen_SL)
    if with_tokens:
        tokens_SL = row.tokens.expand(row.nfe, -1)
        value_S = value_S + token_log_prob(view.logits_BLV, tokens_SL, chosen_SL, row.temperature)
    return value_S


@every_mode
@pytest.mark.parametrize(("per_step", "stop"), [("sum", False), ("mean", False), ("mean", True)])
def test_the_gradient_is_the_policy_gradient_of_the_rollouts(
    kind: str, law: Any, train_denoiser: bool, per_step: Any, stop: bool
) -> None:
    recipe = grpo_settings(
        train_denoiser=train_denoiser, per_step=per_step, advantage_floor=0.0, stop_at_eos=stop
    )
    tiny = Tiny(recipe, kind=kind, law=law)
    tiny.learner.step(0)
    reward = make_reward(recipe.reward)
    scores = [reward(row, ok).score for row, ok in zip(tiny.rows, even(tiny.rows), strict=True)]
    weights = advantages(scores, recipe.group_size, 0.0)
    total = torch.zeros(())
    for row, weight in zip(tiny.rows, weights, strict=True):
        steps = row.nfe if per_step == "mean" else LENGTH
        total = total - weight * log_likelihood(tiny, row, train_denoiser).sum() / steps / len(tiny.rows)
    expected = torch.autograd.grad(total, tiny.parameters, allow_unused=True)
    for found, wanted, parameter in zip(tiny.gradients, expected, tiny.parameters, strict=True):
        wanted = torch.zeros_like(parameter) if wanted is None else wanted
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "train_denoiser"), [("dultra", True), ("confidence", False)])
def test_an_update_changes_what_is_trained_and_nothing_else(kind: str, train_denoiser: bool) -> None:
    def step(parameters: Any) -> None:
        clip_and_step(torch.optim.SGD(parameters, lr=0.1), grpo_settings().optim)

    reward = RewardConfig() if train_denoiser else MULTIPLICATIVE
    tiny = Tiny(grpo_settings(train_denoiser=train_denoiser, reward=reward), kind=kind, step=step)
    net = {name: value.clone() for name, value in tiny.net.state_dict().items()}
    head = {name: value.clone() for name, value in tiny.planner.state_dict().items()}
    tiny.learner.step(0)
    assert any(not torch.equal(value, head[name]) for name, value in tiny.planner.state_dict().items())
    same = all(torch.equal(value, net[name]) for name, value in tiny.net.state_dict().items())
    assert same is not train_denoiser
    assert all(parameter.grad is None for parameter in tiny.net.parameters())


@pytest.mark.parametrize(("kind", "train_denoiser"), [("dultra", True), ("confidence", False)])
def test_an_update_without_any_advantage_changes_nothing(kind: str, train_denoiser: bool) -> None:
    recipe = grpo_settings(train_denoiser=train_denoiser, reward=MULTIPLICATIVE, inner_updates=2)
    optimizer: list[torch.optim.Optimizer] = []

    def step(parameters: Any) -> None:
        optimizer[:] = optimizer or [torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)]
        clip_and_step(optimizer[0], recipe.optim)

    tiny = Tiny(recipe, kind=kind, grade=lambda rows: [False] * len(rows), step=step)
    before = [parameter.clone() for parameter in tiny.parameters]
    metrics = tiny.learner.step(0)
    assert metrics["with_advantage"] == metrics["score"] == metrics["accuracy"] == metrics["drift"] == 0
    assert all(torch.equal(p, old) for p, old in zip(tiny.parameters, before, strict=True))
    assert optimizer[0].state_dict()["state"] == {}


def test_a_second_pass_over_the_same_rollouts_is_off_policy() -> None:
    def step(parameters: Any) -> None:
        torch.optim.SGD(parameters, lr=3.0).step()

    tiny = Tiny(grpo_settings(inner_updates=2), step=step)
    metrics = tiny.learner.step(0)
    assert metrics["drift"] <= 1e-5
    assert metrics["ratio_clipped"] > 0


def test_updates_take_the_block_lengths_in_turn() -> None:
    tiny = Tiny(grpo_settings(block_lengths=(3, 12)))
    seen = []
    for update in range(3):
        tiny.learner.step(update)
        seen.append({row.block_length for row in tiny.rows})
    assert seen == [{3}, {12}, {3}]


def test_rollouts_differ_between_updates_and_within_a_group_and_repeat_with_the_seed() -> None:
    def rollouts(seed: int, update: int) -> list[list[int]]:
        tiny = Tiny(grpo_settings(seed=seed))
        tiny.learner.step(update)
        return [row.tokens.tolist() for row in tiny.rows]

    first = rollouts(0, 0)
    assert len({tuple(tokens) for tokens in first}) == len(first)
    assert rollouts(0, 0) == first
    assert rollouts(0, 1) != first
    assert rollouts(1, 0) != first
