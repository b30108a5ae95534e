"""GRPO on unmasking trajectories: learn which positions to unmask, and, in dUltra mode, what to put there.

dUltra (arXiv 2512.21446) trains denoiser and planner together with an additive reward; the learned policies
paper (arXiv 2512.09106) trains a policy on a frozen denoiser with a multiplicative one. Both are settings
of `GrpoRecipe`. G rows a group, N (row, step) pairs.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.config import GrpoRecipe
from unmask.decode.engine import Engine, EngineSettings
from unmask.decode.loop import decode
from unmask.models.base import Denoiser
from unmask.models.transformer import Transformer
from unmask.planners.learned import LearnedPlanner
from unmask.rewards.compose import Reward, Scored
from unmask.rng import derive
from unmask.train.loop import Metrics
from unmask.train.replay import Replay
from unmask.trajectory import Trajectory
from unmask.workers import Workers


def advantages(rewards: Sequence[float], group_size: int, floor: float | None) -> list[float]:
    """Reward minus the mean of its group; not divided by the deviation.

    Those under `floor` become 0 (dUltra's clipping at C); None keeps all.
    """
    result = []
    for start in range(0, len(rewards), group_size):
        group = rewards[start : start + group_size]
        mean = sum(group) / len(group)
        result += [reward - mean for reward in group]
    return [0.0 if abs(a) < 1e-6 or (floor is not None and a < floor) else a for a in result]


def grpo_loss(new_N: Tensor, old_N: Tensor, advantage_N: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """(N,) clipped surrogate of each step, to be minimised; its log-likelihoods cover all positions fixed."""
    ratio_N = (new_N - old_N).exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)


class Graded(NamedTuple):
    """Rollouts of an update on this process, groups next to each other."""

    rows: list[Trajectory]
    is_correct: list[bool]
    labels: list[str]
    """The task of each row."""


RolloutProblems = Callable[
    [int], tuple[list[list[int]], Callable[[Sequence[Trajectory]], list[bool]], list[str]]
]
"""Update number -> prompts of this process, a grader of `group_size` rows for each in turn, task names."""


class Learner:
    """One update after another, for any denoiser, planner, reward and source of problems.

    Args:
        trained: what the optimiser updates; the denoiser is in it in dUltra mode.
        update: performs one optimiser step and returns the gradient norm.
    """

    def __init__(
        self,
        recipe: GrpoRecipe,
        denoiser: Denoiser,
        planner: LearnedPlanner,
        reward: Reward,
        problems: RolloutProblems,
        workers: Workers,
        trained: Sequence[torch.nn.Module],
        update: Callable[[int], float],
    ) -> None:
        self.recipe, self.denoiser, self.planner = recipe, denoiser, planner
        self.reward, self.problems, self.workers = reward, problems, workers
        self.trained, self.update = trained, update
        self.engine: Engine | None = None
        if isinstance(denoiser, Transformer):  # it sees new weights at once: they are updated in place
            settings = EngineSettings(
                max_rows=recipe.rollout_batch,
                graphs=recipe.graphs,
                cache=recipe.cache,
                refresh_every=recipe.refresh_every,
            )
            self.engine = Engine(denoiser, planner, settings)
        elif recipe.cache != "none":
            raise ValueError(f"rollouts of a {type(denoiser).__name__} have no cache; leave cache out")

    def step(self, index: int) -> Metrics:
        """One batch of rollouts and the optimiser steps on it."""
        recipe = self.recipe
        started = time.perf_counter()
        graded = self._rollout(index)
        decoded = time.perf_counter()
        scored = [self.reward(row, ok) for row, ok in zip(graded.rows, graded.is_correct, strict=True)]
        advantage = advantages([each.score for each in scored], recipe.group_size, recipe.advantage_floor)
        replay = Replay.of(
            graded.rows,
            [a != 0 for a in advantage],
            self.denoiser.pad_id,
            self.workers.device,
            recipe.train_denoiser,
        )
        learned = {"drift": 0.0, "ratio_clipped": 0.0}
        for inner in range(recipe.inner_updates):
            found = self._learn(replay, advantage, graded.rows)
            learned = found if inner == 0 else {**learned, "ratio_clipped": found["ratio_clipped"]}
            learned["grad_norm"] = self.update(index)
        metrics = self._summary(graded, scored, advantage)
        drift = self.workers.max(learned.pop("drift"))
        return {
            **metrics,
            **learned,
            "drift": drift,
            "rollout_seconds": decoded - started,
            "learn_seconds": time.perf_counter() - decoded,
        }

    def _rollout(self, index: int) -> Graded:
        recipe = self.recipe
        prompts, grade, labels = self.problems(index)
        repeated = [prompt for prompt in prompts for _ in range(recipe.group_size)]
        first = self.workers.share(range(recipe.prompts))[0] * recipe.group_size
        seeds = [derive(recipe.seed, "rollout", index, first + row) for row in range(len(repeated))]
        with self.workers.autocast(recipe.precision):
            settings: dict[str, Any] = {
                "length": recipe.length,
                "block_length": recipe.block_lengths[index % len(recipe.block_lengths)],
                "temperature": recipe.temperature,
                "seed": seeds,
                "record_log_probs": True,
                "stop_at_eos": recipe.stop_at_eos,
            }
            if self.engine is not None:
                rows = self.engine.decode(repeated, **settings)
            else:
                size = recipe.rollout_batch
                rows = decode(self.denoiser, repeated, self.planner, batch_size=size, **settings)
        return Graded(rows, grade(rows), [label for label in labels for _ in range(recipe.group_size)])

    def _learn(self, replay: Replay, advantage: Sequence[float], rows: Sequence[Trajectory]) -> Metrics:
        """Accumulate the gradient of one optimiser step over the packed pairs."""
        recipe, device = self.recipe, self.workers.device
        num_rows = recipe.prompts * recipe.group_size
        steps = [row.nfe if recipe.per_step == "mean" else recipe.length for row in rows]
        weight_B = torch.tensor([1 / (num_rows * count) for count in steps], device=device)
        advantage_B = torch.tensor(advantage, device=device)
        drift, clipped = torch.zeros((), device=device), torch.zeros((), device=device)
        for row_N, step_N in replay.micro_batches(recipe.micro_batch_tokens):
            with self.workers.autocast(recipe.precision):
                new_N = replay.log_prob(self.denoiser, self.planner, row_N, step_N)
            old_N = replay.old_BS[row_N, step_N]
            loss_N = grpo_loss(new_N, old_N, advantage_B[row_N], recipe.clip_low, recipe.clip_high)
            (loss_N * weight_B[row_N]).sum().backward()
            log_ratio_N = (new_N - old_N).detach()
            drift = torch.maximum(drift, log_ratio_N.abs().max())
            outside = (log_ratio_N.exp() < 1 - recipe.clip_low) | (log_ratio_N.exp() > 1 + recipe.clip_high)
            clipped = clipped + outside.sum()
        self.workers.sum_gradients(p for module in self.trained for p in module.parameters())
        pairs = self.workers.sum({"clipped": float(clipped), "all": float(len(replay.row_N))})
        return {"drift": float(drift), "ratio_clipped": pairs["clipped"] / max(1.0, pairs["all"])}

    def _summary(self, graded: Graded, scored: Sequence[Scored], advantage: Sequence[float]) -> Metrics:
        """Means over all processes, of all rows and of each task's."""
        rows = list(zip(graded.rows, graded.is_correct, graded.labels, strict=True))
        sums = {"rows": float(len(scored)), "score": sum(each.score for each in scored)}
        for part in scored[0].parts:
            sums[f"part_{part}"] = sum(each.parts[part] for each in scored)
        sums["accuracy"] = float(sum(graded.is_correct))
        sums["nfe"] = float(sum(row.nfe for row in graded.rows))
        if self.recipe.cache != "none":
            sums["nfe_block"] = float(sum(row.num_cached_steps for row in graded.rows))
        sums["with_advantage"] = float(sum(a != 0 for a in advantage))
        for task in self.recipe.tasks:
            mine = [(row.nfe, is_correct) for row, is_correct, label in rows if label == task]
            sums[f"rows/{task}"] = float(len(mine))
            sums[f"accuracy/{task}"] = float(sum(is_correct for _, is_correct in mine))
            sums[f"nfe/{task}"] = float(sum(nfe for nfe, _ in mine))
        total = self.workers.sum(sums)
        counts = {name: total["rows" + "".join(name.partition("/")[1:])] for name in total}
        means = {name: value / counts[name] for name, value in total.items() if counts[name]}
        return {name: mean for name, mean in means.items() if not name.startswith("rows")}
