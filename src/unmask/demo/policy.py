"""A real GRPO run of a confidence policy on the bundled net, small enough for two cores."""

from collections.abc import Callable

from unmask.config import GrpoRecipe, HeadConfig, OptimConfig, RewardConfig
from unmask.planners.learned import LearnedPlanner
from unmask.train.grpo_stage import GrpoStage
from unmask.train.loop import Metrics
from unmask.workers import workers

UPDATES = 10
START = "bundled/policy_init"
"""Copies Fast-dLLM's factor rule, its habit of fixing the last two tokens of a block together included."""


def recipe(updates: int = UPDATES) -> GrpoRecipe:
    """Policy mode on the chain task, 24 rollouts an update."""
    return GrpoRecipe(
        kind="grpo",
        head=HeadConfig(kind="confidence", start=START),
        tasks=("chain",),
        train_denoiser=False,
        temperature=0.0,
        updates=updates,
        prompts=3,
        group_size=8,
        advantage_floor=None,
        per_step="mean",
        reward=RewardConfig(kind="multiplicative", alpha=1.0),
        optim=OptimConfig(lr=1e-4, warmup=0, schedule="constant", weight_decay=0.0),
    )


def learn_policy(watch: Callable[[int, Metrics], None], *, updates: int = UPDATES) -> LearnedPlanner:
    """Train from `START`; `watch` is called with (updates done, metrics)."""
    stage = GrpoStage(recipe(updates), workers("cpu"))
    for index in range(updates):
        watch(index + 1, stage.step(index))
    return stage.planner
