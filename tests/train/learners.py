"""A GRPO learner on a net of random weights, with a grader that any net can please now and then."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.tiny import ragged_prompts, tiny_net
from unmask.config import GrpoRecipe, RewardConfig
from unmask.models.transformer import Transformer
from unmask.planners.learned import Law, LearnedPlanner
from unmask.planners.load import make_head
from unmask.rewards.compose import make_reward
from unmask.train.grpo import Learner
from unmask.trajectory import Trajectory
from unmask.workers import ALONE

LENGTH = 12
MULTIPLICATIVE = RewardConfig(kind="multiplicative", alpha=1.0)


def shaken(module: nn.Module, seed: int = 2) -> nn.Module:
    """Weights far from the symmetric ones that heads start with."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.2)
    return module


def head(kind: str) -> nn.Module:
    if kind == "dultra":
        return shaken(make_head("dultra", hidden_size=16, num_heads=2, mlp_dim=24))
    return shaken(make_head("confidence", dim=16, mlp_dim=24))


def grpo_settings(**changes: Any) -> GrpoRecipe:
    settings: dict[str, Any] = {"kind": "grpo", "length": LENGTH, "block_lengths": (6,), "temperature": 0.7}
    settings |= {"prompts": 3, "group_size": 4, "advantage_floor": None}
    return GrpoRecipe(**(settings | changes))


def even(rows: Sequence[Trajectory]) -> list[bool]:
    return [int(row.tokens.sum()) % 2 == 0 for row in rows]


class Tiny:
    """A learner, its parts, and what the last update would have stepped along."""

    def __init__(
        self,
        recipe: GrpoRecipe,
        *,
        kind: str = "dultra",
        law: Law = "nonempty",
        grade: Callable[[Sequence[Trajectory]], list[bool]] = even,
        step: Callable[[Sequence[nn.Parameter]], None] | None = None,
    ) -> None:
        self.net: Transformer = tiny_net().requires_grad_(recipe.train_denoiser)
        self.planner = LearnedPlanner(head(kind), law=law)
        modules = [self.planner, self.net] if recipe.train_denoiser else [self.planner]
        self.parameters = [p for module in modules for p in module.parameters()]
        self.rows: list[Trajectory] = []
        self.gradients: list[Tensor] = []
        self.prompts = ragged_prompts(torch.Generator().manual_seed(1), recipe.prompts)

        def problems(update: int) -> tuple[list[list[int]], Any, list[str]]:
            return self.prompts, self._grade(grade), ["toy"] * recipe.prompts

        def update(index: int) -> float:
            self.gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters
            ]
            if step is not None:
                step(self.parameters)
            for parameter in self.parameters:
                parameter.grad = None
            return 0.0

        reward = make_reward(recipe.reward)
        self.learner = Learner(recipe, self.net, self.planner, reward, problems, ALONE, modules, update)

    def _grade(
        self, grade: Callable[[Sequence[Trajectory]], list[bool]]
    ) -> Callable[[Sequence[Trajectory]], list[bool]]:
        def remember(rows: Sequence[Trajectory]) -> list[bool]:
            self.rows = list(rows)
            return grade(rows)

        return remember
