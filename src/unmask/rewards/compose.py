"""Scores of a decoded row, and how they combine. L completion positions.

A reward is a function of (trajectory, is the completion correct?) that returns a score and its named parts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from unmask.config import RewardConfig
from unmask.trajectory import Trajectory


class Scored(NamedTuple):
    score: float
    parts: dict[str, float]
    """What the score was made of, before weighting."""


Part = Callable[[Trajectory, bool], float]
Reward = Callable[[Trajectory, bool], Scored]


def correctness(trajectory: Trajectory, is_correct: bool) -> float:
    """1 for a right completion, else 0."""
    return float(is_correct)


def steps(trajectory: Trajectory, is_correct: bool) -> float:
    """The NFE."""
    return float(trajectory.nfe)


def speed(alpha: float) -> Part:
    """((L - NFE + 1) / L) ** alpha, in (0, 1] (arXiv 2512.09106, equation 3.1, as released)."""

    def score(trajectory: Trajectory, is_correct: bool) -> float:
        length = len(trajectory.tokens)
        return float(((length - trajectory.nfe + 1) / length) ** alpha)

    return score


def weighted_sum(parts: Mapping[str, Part], weights: Mapping[str, float]) -> Reward:
    """Sum of weight * part; dUltra's additive reward is correctness minus a cost a step."""

    def score(trajectory: Trajectory, is_correct: bool) -> Scored:
        values = {name: part(trajectory, is_correct) for name, part in parts.items()}
        return Scored(sum(weights[name] * value for name, value in values.items()), values)

    return score


def product(parts: Mapping[str, Part]) -> Reward:
    """The product of the parts: no part can be traded for another, and a wrong answer earns nothing."""

    def score(trajectory: Trajectory, is_correct: bool) -> Scored:
        values = {name: part(trajectory, is_correct) for name, part in parts.items()}
        total = 1.0
        for value in values.values():
            total *= value
        return Scored(total, values)

    return score


def make_reward(config: RewardConfig) -> Reward:
    """The reward that a recipe names."""
    if config.kind == "additive":
        return weighted_sum(
            {"correct": correctness, "steps": steps}, {"correct": 1.0, "steps": -config.step_cost}
        )
    return product({"correct": correctness, "speed": speed(config.alpha)})
