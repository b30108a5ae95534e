"""GRPO whose rollouts use a cache: updates see what each step saw, cached keys and values included."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import tests.train.learners as learners
from tests.models.tiny import tiny_net
from tests.train.learners import LENGTH, Tiny, even, grpo_settings
from unmask.decode.layouts import KeyValueCache, Recording, Windows
from unmask.decode.sampling import token_log_prob
from unmask.layers import Padded
from unmask.models.exact import Pairs
from unmask.planners.base import Canvas, Logits, View, make_view, without_mask
from unmask.rewards.compose import make_reward
from unmask.train.grpo import Learner, advantages
from unmask.train.replay import Replay
from unmask.trajectory import Trajectory
from unmask.workers import ALONE

CACHES = [("prefix", None), ("dual", None), ("dual", 1)]
every_cache = pytest.mark.parametrize(("cache", "refresh_every"), CACHES)
shifts = pytest.mark.parametrize("shift", [False, True], ids=["plain", "shifted"])


@pytest.fixture
def shifted(shift: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "tiny_net", lambda: tiny_net(shift=shift))


@every_cache
@shifts
@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("law", ["nonempty", "fallback", "plackett_luce"])
@pytest.mark.parametrize(
    ("kind", "train_denoiser"),
    [("dultra", True), ("dultra", False), ("confidence", True), ("confidence", False)],
)
def test_the_first_update_sees_the_likelihoods_of_the_cached_rollout(
    kind: str, train_denoiser: bool, law: Any, cache: Any, refresh_every: int | None
) -> None:
    settings: dict[str, Any] = {"cache": cache, "refresh_every": refresh_every, "stop_at_eos": True}
    recipe = grpo_settings(train_denoiser=train_denoiser, rollout_batch=5, micro_batch_tokens=100, **settings)
    tiny = Tiny(recipe, kind=kind, law=law)
    metrics = tiny.learner.step(0)
    assert len({len(prompt) for prompt in tiny.prompts}) > 1
    assert metrics["with_advantage"] > 0
    assert 0 < metrics["nfe_block"] < metrics["nfe"]
    assert metrics["drift"] <= 1e-5
    assert any(gradient.abs().sum() > 0 for gradient in tiny.gradients)


def test_a_replay_without_the_cache_would_see_other_likelihoods() -> None:
    """So that the drift above says something."""
    tiny = Tiny(grpo_settings(cache="dual"))
    tiny.learner.step(0)
    blind = [replace(row, cache="none", seen_whole=None) for row in tiny.rows]
    replay = Replay.of(blind, [True] * len(blind), tiny.net.pad_id, ALONE.device, with_tokens=True)
    for row_N, step_N in replay.micro_batches(10**6):
        new_N = replay.log_prob(tiny.net, tiny.planner, row_N, step_N)
        assert (new_N - replay.old_BS[row_N, step_N]).abs().max() > 1e-2


def log_likelihood(tiny: Tiny, row: Trajectory, step: int, with_tokens: bool) -> torch.Tensor:
    """Of one step, through a real cache: filled by the last whole step, then read by the window."""
    assert row.seen_whole is not None
    net, lookback = tiny.net, int(tiny.net.config.shift)
    prompt, seen = len(row.prompt), int(row.seen_whole[step])
    size, index = prompt + LENGTH, torch.arange(prompt + LENGTH)[None]
    cache = KeyValueCache()
    cache.reserve(1, 1, size)
    whole = Recording(Padded(index, None), cache, torch.zeros_like(index), index)
    then_1T = torch.cat([row.prompt, row.state_at(seen)])[None]
    hidden_1TD = net.encode(then_1T, whole)
    settings: dict[str, Any] = {"length": LENGTH, "block_length": row.block_length, "mask_id": row.mask_id}
    view = make_view(net.head(hidden_1TD), hidden_1TD, then_1T, None, step_B=torch.tensor([seen]), **settings)
    subset = tiny.planner(replace(view, canvas=replace(view.canvas, layout=whole)))
    tokens_1L = row.tokens[None]
    if seen < step:
        now_1T = torch.cat([row.prompt, row.state_at(step)])[None]
        start = int(row.masked_at(step).byte().argmax()) // row.block_length * row.block_length
        end = start + row.block_length if row.cache == "dual" else LENGTH
        column_1Q = torch.arange(prompt + start - lookback, prompt + end)[None]
        places = (column_1Q, column_1Q, torch.zeros(1, dtype=torch.long), slice(0, 1), cache)
        window = Windows(*places, torch.zeros(1, 1, 1, size))
        hidden_1QD = net.encode(now_1T[:, column_1Q[0]], window)
        kept_1Q = column_1Q.masked_fill(torch.arange(column_1Q.shape[1]) < lookback, size)
        open_in = slice(lookback, lookback + row.block_length)
        position_1L = torch.arange(start, start + row.block_length)[None]
        masked_1C = row.masked_at(step)[None]
        view = View(
            readout=Logits(without_mask(net.head(hidden_1QD[:, open_in]), row.mask_id)),
            open_BL=masked_1C[:, start : start + row.block_length],
            position_BL=position_1L,
            step_B=torch.tensor([step]),
            masked_BC=masked_1C,
            length_B=torch.tensor([LENGTH]),
            confidence_BC=lambda: torch.zeros(0),  # a dUltra head does not ask
            canvas=Canvas(
                hidden_XTD=hidden_1QD,
                layout=replace(window, column_BQ=kept_1Q),
                row_XT=torch.zeros_like(column_1Q),
                shown_BL=position_1L - start + lookback,
                size_B=torch.tensor([size]),
            ),
        )
        subset, tokens_1L = tiny.planner(view), tokens_1L[:, start : start + row.block_length]
    chosen_1L = row.unmask_step[view.position_BL] == step
    value_1 = subset.log_prob(chosen_1L)
    if with_tokens:
        value_1 = value_1 + token_log_prob(view.logits_BLV, tokens_1L, chosen_1L, row.temperature)
    return value_1[0]


@every_cache
@shifts
@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("train_denoiser", [True, False])
def test_the_gradient_is_the_policy_gradient_of_the_cached_rollouts(
    train_denoiser: bool, cache: Any, refresh_every: int | None
) -> None:
    """Through what was cached, too."""
    recipe = grpo_settings(train_denoiser=train_denoiser, cache=cache, refresh_every=refresh_every)
    tiny = Tiny(recipe)
    tiny.learner.step(0)
    reward = make_reward(recipe.reward)
    scores = [reward(row, ok).score for row, ok in zip(tiny.rows, even(tiny.rows), strict=True)]
    total = torch.zeros(())
    for row, weight in zip(tiny.rows, advantages(scores, recipe.group_size, None), strict=True):
        for step in range(row.nfe if weight else 0):
            value = log_likelihood(tiny, row, step, train_denoiser)
            total = total - weight * value / LENGTH / len(tiny.rows)
    expected = torch.autograd.grad(total, tiny.parameters, allow_unused=True)
    for found, wanted, parameter in zip(tiny.gradients, expected, tiny.parameters, strict=True):
        wanted = torch.zeros_like(parameter) if wanted is None else wanted
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_denoiser_without_a_cache_is_refused() -> None:
    tiny = Tiny(grpo_settings())
    learner = tiny.learner
    with pytest.raises(ValueError, match="leave cache out"):
        Learner(
            grpo_settings(cache="dual"),
            Pairs(num_pairs=2, num_symbols=3),
            tiny.planner,
            learner.reward,
            learner.problems,
            ALONE,
            [tiny.planner],
            learner.update,
        )
