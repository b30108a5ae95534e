"""What a task is: problems, reference completions for training, and an exact grader."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

from unmask.rng import derive, python_random

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `data` is what the grader needs, as JSON values."""

    id: str
    prompt: str
    data: dict[str, Any]
    chat: bool = False
    """The prompt is a user's turn: a tokenizer with a chat template wraps it (`decode.text.prompt_text`)."""
    prefill: str = ""
    """How the completion begins, given to the model and not decoded."""
    question: str = ""
    """The bare question, as published: finds the problem of a generation made elsewhere."""
    published_id: str = ""
    """What its publisher calls it, where it has a name: "HumanEval/0"."""


@dataclass(frozen=True, slots=True)
class Grade:
    correct: bool
    reason: str
    """Why it is wrong, for people; empty when correct."""
    score: float | None = None
    """Partial credit, a fraction, where the task knows one."""
    usage: dict[str, float] = field(default_factory=dict, compare=False)
    """What running the completion took, where it is a program: wall_seconds, cpu_seconds, memory_mb."""


def name_of(kind: str, /, *, check: bool = True, **settings: object) -> str:
    """A task's name, `gsm8k(style=d1)`: with the settings that are told, and with `check=no`."""
    told = [f"{key}={value}" for key, value in settings.items() if value not in (None, "plain")]
    told += [] if check else ["check=no"]
    return f"{kind}({', '.join(told)})" if told else kind


class Task(Protocol):
    """Problems with a grader. A change of prompts, problems or grading raises `version`."""

    name: str
    """With the settings that change a prompt: `load_task(task.name)` asks the same questions of published
    data; `check=no` stands in it where the data may be other."""
    version: int

    def num_problems(self, split: Split) -> int | None:
        """The size of a split; None for an endless stream."""
        ...

    def problem(self, split: Split, index: int) -> Problem:
        """Problem `index` of a split, with the id "split-index"; train and test share no prompt.

        Raises:
            ValueError: beyond the end of a finite split.
        """
        ...

    def reference(self, problem: Problem, variant: int) -> str:
        """A right completion; `variant` picks among the many right ones."""
        ...

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        """One grade per pair, whatever the completions contain."""
        ...


def training_problem(task: Task, number: int) -> Problem:
    """Problem `number` of a training run: a finite split comes in a new order every epoch.

    Raises:
        ValueError: where the task has no training problems.
    """
    size = task.num_problems("train")
    if size is None:
        return task.problem("train", number)
    if size == 0:
        raise ValueError(f"{task.name} has no training problems; it can only be evaluated")
    epoch, place = divmod(number, size)
    return task.problem("train", _order(task.name, size, epoch)[place])


@lru_cache(maxsize=16)
def _order(name: str, size: int, epoch: int) -> list[int]:
    return python_random(epoch, "order", name).sample(range(size), size)


def split_of(prompt: str) -> Split:
    """Which stream a prompt belongs to: one prompt in sixteen is test, by hash, whoever generates it."""
    return "test" if derive(0, "split", prompt) % 16 == 0 else "train"
