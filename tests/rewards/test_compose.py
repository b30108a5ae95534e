"""What a decoded row is worth."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.config import RewardConfig
from unmask.rewards.compose import correctness, make_reward, product, speed, steps, weighted_sum
from unmask.trajectory import Trajectory

ALPHAS = st.floats(0, 5)
LENGTHS = st.integers(1, 64)


def row_of(nfe: int, length: int) -> Trajectory:
    """A row that one step after another unmasked, the last one taking what is left."""
    unmask_step = torch.arange(length).clamp_max(nfe - 1).to(torch.int16)
    tokens = torch.zeros(length, dtype=torch.int64)
    return Trajectory(torch.tensor([1]), tokens, unmask_step, block_length=length, mask_id=9)


def multiplicative(alpha: float) -> RewardConfig:
    return RewardConfig(kind="multiplicative", alpha=alpha)


@given(LENGTHS, ALPHAS)
def test_the_multiplicative_reward_of_a_wrong_row_is_nothing(length: int, alpha: float) -> None:
    reward = make_reward(multiplicative(alpha))
    assert all(reward(row_of(nfe, length), False).score == 0 for nfe in range(1, length + 1))


@given(LENGTHS, ALPHAS)
def test_the_multiplicative_reward_never_rises_with_the_nfe(length: int, alpha: float) -> None:
    reward = make_reward(multiplicative(alpha))
    scores = [reward(row_of(nfe, length), True).score for nfe in range(1, length + 1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1
    assert scores[-1] > 0


@pytest.mark.parametrize(
    ("nfe", "alpha", "score"), [(1, 1.0, 1.0), (5, 1.0, 0.5), (8, 1.0, 0.125), (5, 2.0, 0.25), (8, 0.0, 1.0)]
)
def test_the_multiplicative_reward_is_the_published_formula(nfe: int, alpha: float, score: float) -> None:
    assert make_reward(multiplicative(alpha))(row_of(nfe, 8), True).score == pytest.approx(score)


@given(LENGTHS, st.floats(0, 1), st.booleans())
def test_the_additive_reward_is_correctness_minus_a_cost_a_step(
    length: int, step_cost: float, is_correct: bool
) -> None:
    reward = make_reward(RewardConfig(kind="additive", step_cost=step_cost))
    for nfe in (1, length):
        scored = reward(row_of(nfe, length), is_correct)
        assert scored.score == pytest.approx(is_correct - step_cost * nfe)
        assert scored.parts == {"correct": float(is_correct), "steps": float(nfe)}


@given(st.integers(1, 16), st.booleans(), ALPHAS)
def test_the_breakdown_of_a_product_multiplies_to_the_score(nfe: int, is_correct: bool, alpha: float) -> None:
    scored = make_reward(multiplicative(alpha))(row_of(nfe, 16), is_correct)
    assert scored.parts.keys() == {"correct", "speed"}
    assert scored.score == pytest.approx(scored.parts["correct"] * scored.parts["speed"])


@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 16), st.booleans())
def test_the_breakdown_of_a_sum_adds_up_to_the_score(one: float, two: float, nfe: int, ok: bool) -> None:
    weights = {"right": one, "fast": two}
    scored = weighted_sum({"right": correctness, "fast": speed(1.0)}, weights)(row_of(nfe, 16), ok)
    assert scored.score == pytest.approx(sum(weights[name] * part for name, part in scored.parts.items()))


def test_parts_compose_into_new_rewards() -> None:
    scored = product({"right": correctness, "steps": steps})(row_of(3, 8), True)
    assert scored.score == 3
    assert scored.parts == {"right": 1.0, "steps": 3.0}


def test_steps_after_a_settled_eos_cost_nothing() -> None:
    row = row_of(3, 8)
    stopped = Trajectory(row.prompt, row.tokens, row.unmask_step.clone(), 8, 9)
    stopped.unmask_step[2:] = -1
    reward = make_reward(multiplicative(1.0))
    assert reward(stopped, True).score == reward(row_of(2, 8), True).score
