"""`unmask train grpo`: the learner of `unmask.train.grpo` on the tasks and models that a recipe names."""

from collections.abc import Callable, Sequence

import torch

from unmask.config import GrpoRecipe
from unmask.decode.text import completion_text, encode_prompts
from unmask.models.adapters import add_adapter
from unmask.models.load import load_denoiser
from unmask.rewards.compose import make_reward
from unmask.tasks.base import Problem, Task, training_problem
from unmask.tasks.load import load_task
from unmask.train.checkpoint import TrainState
from unmask.train.grpo import Learner
from unmask.train.loop import Metrics
from unmask.train.optim import adamw, clip_and_step, set_learning_rate
from unmask.train.planner_init import frozen_denoiser, new_planner
from unmask.trajectory import Trajectory
from unmask.workers import Workers


class GrpoStage:
    """A `Stage` (see `unmask.train.loop`)."""

    def __init__(self, recipe: GrpoRecipe, workers: Workers) -> None:
        self.recipe, self.workers, self.total = recipe, workers, recipe.updates
        if recipe.train_denoiser:
            self.denoiser = load_denoiser(recipe.denoiser, device=workers.device)
        else:
            self.denoiser = frozen_denoiser(recipe, workers)
        if self.denoiser.tokenizer is None:
            raise ValueError(f"{recipe.denoiser} has no tokenizer.json, so the tasks cannot be read")
        self.planner = new_planner(recipe.head, self.denoiser, recipe.seed).to(workers.device)
        groups: list[tuple[float, torch.nn.Module]] = [(recipe.optim.lr, self.planner)]
        adapter = None
        if recipe.train_denoiser:
            self.denoiser.requires_grad_(True)
            if recipe.lora is not None:
                adapter = add_adapter(self.denoiser, recipe.lora, recipe.denoiser, recipe.seed)
            groups.append((recipe.denoiser_lr, self.denoiser))
        trained = self.denoiser if recipe.train_denoiser else None
        self.state = TrainState(adamw(groups, recipe.optim), trained, self.planner, adapter=adapter)
        if recipe.compile:
            self.denoiser.compile_blocks()
        self.tasks: list[Task] = [load_task(name) for name in recipe.tasks]
        self.learner = Learner(
            recipe,
            self.denoiser,
            self.planner,
            make_reward(recipe.reward),
            self._problems,
            workers,
            [module for _, module in groups],
            self._update,
        )

    def prepare(self, first: int) -> None:
        """Nothing: problems are made when their update comes."""

    def step(self, index: int) -> Metrics:
        return self.learner.step(index)

    def _update(self, index: int) -> float:
        set_learning_rate(self.state.optimizer, self.recipe.optim, index, self.total)
        return clip_and_step(self.state.optimizer, self.recipe.optim)

    def _problems(
        self, update: int
    ) -> tuple[list[list[int]], Callable[[Sequence[Trajectory]], list[bool]], list[str]]:
        first = update * self.recipe.prompts
        numbers = self.workers.share(range(first, first + self.recipe.prompts))
        chosen = [self.tasks[number % len(self.tasks)] for number in numbers]
        problems = [
            training_problem(task, number // len(self.tasks))
            for task, number in zip(chosen, numbers, strict=True)
        ]
        prompts = encode_prompts(self.denoiser.tokenizer, problems)

        def grade(rows: Sequence[Trajectory]) -> list[bool]:
            group = self.recipe.group_size
            each = [
                (task, problem) for task, problem in zip(chosen, problems, strict=True) for _ in range(group)
            ]
            return self._grade(each, rows)

        return prompts, grade, [task.name for task in chosen]

    def _grade(self, pairs: Sequence[tuple[Task, Problem]], rows: Sequence[Trajectory]) -> list[bool]:
        """Right or wrong, each task's rows graded together."""
        texts = [completion_text(self.denoiser.tokenizer, row, self.denoiser.eos_id) for row in rows]
        verdicts = [False] * len(rows)
        for task in self.tasks:
            mine = [index for index, (owner, _) in enumerate(pairs) if owner is task]
            grades = task.grade([pairs[index][1] for index in mine], [texts[index] for index in mine])
            for index, grade in zip(mine, grades, strict=True):
                verdicts[index] = grade.correct
        return verdicts
