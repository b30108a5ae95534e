"""A real GRPO run of a confidence policy, small enough for two cores."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from unmask.config import GrpoRecipe, HeadConfig, InitRecipe, OptimConfig, RewardConfig
from unmask.planners.load import save_planner
from unmask.train.grpo_stage import GrpoStage
from unmask.train.parallel import workers
from unmask.train.planner_init import InitStage

INIT_STEPS, UPDATES = 6, 12

Watch = Callable[[float, str, float | None], None]
"""Called with (share done, text, mean reward of the update or None)."""


def learn_policy(watch: Watch, *, updates: int = UPDATES) -> None:
    """Imitate for a few steps, then reinforce."""
    group = workers("cpu")
    init = InitRecipe(
        kind="init",
        head=HeadConfig(kind="confidence"),
        tasks=("chain",),
        steps=INIT_STEPS,
        batch_size=16,
        optim=OptimConfig(lr=3e-3, warmup=0, schedule="constant"),
    )
    imitation = InitStage(init, group)
    imitation.prepare(0)
    for index in range(INIT_STEPS):
        metrics = imitation.step(index)
        watch((index + 1) / (INIT_STEPS + 5 * updates), f"imitation {metrics['agreement']:.0%}", None)
    with tempfile.TemporaryDirectory() as folder:
        save_planner(Path(folder), imitation.planner)
        stage = GrpoStage(policy_recipe(folder, updates), group)
    for index in range(updates):
        metrics = stage.step(index)
        text = f"reward {metrics['score']:.3f}  right {metrics['accuracy']:4.0%}  NFE {metrics['nfe']:4.1f}"
        watch((INIT_STEPS + 5 * (index + 1)) / (INIT_STEPS + 5 * updates), text, metrics["score"])


def policy_recipe(start: str, updates: int) -> GrpoRecipe:
    """Policy mode on the chain task."""
    return GrpoRecipe(
        kind="grpo",
        head=HeadConfig(kind="confidence", start=start),
        tasks=("chain",),
        train_denoiser=False,
        temperature=0.0,
        updates=updates,
        prompts=4,
        group_size=8,
        advantage_floor=None,
        per_step="mean",
        reward=RewardConfig(kind="multiplicative", alpha=3.0),
        optim=OptimConfig(lr=2e-4, warmup=0, schedule="constant"),
    )
