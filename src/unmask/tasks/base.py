"""What a task is: problems, reference completions for training, and an exact grader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from unmask.rng import derive

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `data` is what the grader needs, as JSON values."""

    id: str
    prompt: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Grade:
    correct: bool
    reason: str
    """Why it is wrong, for people; empty when correct."""


class Task(Protocol):
    """Problems with a grader. A change of prompts, problems or grading raises `version`."""

    name: str
    version: int

    def problem(self, split: Split, index: int) -> Problem:
        """Problem `index` of an endless stream; the streams of train and test share no prompt."""
        ...

    def reference(self, problem: Problem, variant: int) -> str:
        """A right completion; `variant` picks among the many right ones."""
        ...

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        """One grade per pair, whatever the completions contain."""
        ...


def split_of(prompt: str) -> Split:
    """Which stream a prompt belongs to: one prompt in sixteen is test, by hash, whoever generates it."""
    return "test" if derive(0, "split", prompt) % 16 == 0 else "train"
