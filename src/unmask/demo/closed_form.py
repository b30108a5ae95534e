"""GRPO on closed-form denoisers: a head of 9 numbers finds the best order in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unmask.config import GrpoRecipe, OptimConfig, RewardConfig
from unmask.decode.loop import decode
from unmask.models.exact import EXACT, ExactDenoiser
from unmask.planners.base import Planner
from unmask.planners.heads import LinearHead, LinearHeadConfig
from unmask.planners.learned import LearnedPlanner
from unmask.rewards.compose import make_reward
from unmask.train.grpo import Learner
from unmask.train.loop import Metrics
from unmask.train.optim import adamw, clip_and_step
from unmask.trajectory import Trajectory
from unmask.workers import Workers

ALPHA = {"pairs": 1.0, "slots": 1.0, "markov": 1.0, "permutation": 0.1}
"""The price of a step. In a permutation speed costs validity: at 1.0, four steps with clashes earn more."""
OPTIM = OptimConfig(lr=0.5, schedule="constant", warmup=0, weight_decay=0.0)


@dataclass(frozen=True, slots=True)
class Reached:
    """What a planner reaches on a closed-form denoiser."""

    accuracy: float
    nfe: float
    optimal_nfe: int


def recipe_for(name: str, denoiser: ExactDenoiser, updates: int, seed: int) -> GrpoRecipe:
    """Policy mode: multiplicative reward, all advantages kept, tokens drawn from the exact marginals."""
    return GrpoRecipe(
        kind="grpo",
        seed=seed,
        length=denoiser.length,
        block_lengths=(denoiser.length,),
        train_denoiser=False,
        reward=RewardConfig(kind="multiplicative", alpha=ALPHA[name]),
        updates=updates,
        prompts=8,
        group_size=32,
        temperature=1.0,
        advantage_floor=None,
        per_step="sum",
    )


def learn(
    name: str, *, updates: int = 120, seed: int = 0, watch: Callable[[int, Metrics], None] | None = None
) -> tuple[ExactDenoiser, LearnedPlanner]:
    """Train a linear head on one of `unmask.models.exact.EXACT` by GRPO, on the CPU."""
    denoiser = EXACT[name]()
    planner = LearnedPlanner(LinearHead(LinearHeadConfig(denoiser.hidden_size)))
    recipe = recipe_for(name, denoiser, updates, seed)
    optimizer = adamw([(OPTIM.lr, planner)], OPTIM)

    def problems(
        update: int,
    ) -> tuple[list[list[int]], Callable[[Sequence[Trajectory]], list[bool]], list[str]]:
        def grade(rows: Sequence[Trajectory]) -> list[bool]:
            return [denoiser.is_valid(row.tokens) for row in rows]

        return [denoiser.prompt] * recipe.prompts, grade, [name] * recipe.prompts

    alone = Workers(rank=0, size=1, device=torch.device("cpu"))
    learner = Learner(
        recipe,
        denoiser,
        planner,
        make_reward(recipe.reward),
        problems,
        alone,
        [planner],
        lambda index: clip_and_step(optimizer, OPTIM),
    )
    for update in range(updates):
        metrics = learner.step(update)
        if watch is not None:
            watch(update, metrics)
    return denoiser, planner


def measure(denoiser: ExactDenoiser, planner: Planner, *, num_rows: int = 1000, seed: int = 1) -> Reached:
    """Share of valid completions and mean NFE of fresh decodes."""
    rows = decode(
        denoiser,
        [denoiser.prompt] * num_rows,
        planner,
        length=denoiser.length,
        block_length=denoiser.length,
        temperature=1.0,
        seed=seed,
    )
    num_valid = sum(denoiser.is_valid(row.tokens) for row in rows)
    return Reached(num_valid / num_rows, sum(row.nfe for row in rows) / num_rows, denoiser.optimal_nfe)
