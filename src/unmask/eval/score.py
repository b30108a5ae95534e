"""Grading generations that somebody else made."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unmask.eval.generations import Generation, Unreadable, read_generations
from unmask.eval.records import Run, name_runs
from unmask.eval.stats import Estimate, mean, wilson_interval
from unmask.tasks.base import Grade, Problem, Split, Task
from unmask.tasks.numbers import readings, tidy


@dataclass(frozen=True, slots=True)
class Graded:
    generation: Generation
    problem: Problem
    grade: Grade


@dataclass(frozen=True, slots=True)
class Score:
    graded: list[Graded]
    formats: dict[str, int]
    """How many generations were read in each."""
    skipped: list[str]
    """Why an entry was not graded, one each; empty unless bad ones may be skipped."""
    num_other: int
    """Entries that name another task, or repeat a generation for another filter of lm-eval."""

    def by_run(self) -> list[tuple[str, "Score"]]:
        """One for each run of our own records, with its name; generations of others are one, named ""."""
        groups: dict[Run | None, list[Graded]] = defaultdict(list)
        for one in self.graded:
            groups[one.generation.run].append(one)
        runs = [run for run in groups if run is not None]
        names = dict(zip(runs, name_runs(runs), strict=True))
        return [
            ("" if run is None else f"{run.task}, {names[run]}", replace(self, graded=graded))
            for run, graded in groups.items()
        ]

    @property
    def accuracy(self) -> Estimate:
        """A fraction, with a Wilson interval in which the samples of one problem count as related."""
        by_problem = defaultdict(list)
        for one in self.graded:
            by_problem[one.problem.id].append(float(one.grade.correct))
        return wilson_interval([mean(each) for each in by_problem.values()], len(self.graded))

    @property
    def partial(self) -> float | None:
        """The mean partial credit, where the task gives it."""
        scores = [one.grade.score for one in self.graded if one.grade.score is not None]
        return mean(scores) if scores else None


def score_files(paths: Sequence[Path], task: Task, *, skip_bad: bool = False) -> Score:
    """Grade the generations in files of any known format (`unmask.eval.generations`).

    Args:
        paths: the files.
        task: grades them; its style decides where a completion ends.
        skip_bad: leave out what cannot be read or belongs to no problem, instead of refusing the file.

    Raises:
        ValueError: naming the file and line that cannot be graded; for files without generations.
    """
    index = _Index(task)
    pairs: list[tuple[Generation, Problem]] = []
    skipped: list[str] = []
    entries = [entry for path in paths for entry in read_generations(path)]
    wanted = [entry for entry in entries if isinstance(entry, Unreadable) or index.is_wanted(entry)]
    for entry in wanted:
        try:
            if isinstance(entry, Unreadable):
                raise ValueError(entry.why)
            pairs.append((entry, index.problem_of(entry)))
        except ValueError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    if not pairs:
        names = ", ".join(map(str, paths))
        others = f"; {len(entries) - len(wanted)} of another task" if len(wanted) < len(entries) else ""
        raise ValueError(f"{names}: no generations of {task.name} ({len(skipped)} bad entries{others})")
    grades = task.grade([problem for _, problem in pairs], [entry.text for entry, _ in pairs])
    graded = [Graded(*pair, grade) for pair, grade in zip(pairs, grades, strict=True)]
    formats = Counter(entry.format for entry, _ in pairs)
    return Score(graded, dict(formats), skipped, len(entries) - len(wanted))


def _text(answer: Any) -> dict[str, Any]:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise TypeError("neither text nor number")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return {"answer": str(answer).rpartition("####")[2].strip()}


def _number(answer: Any) -> dict[str, Any]:
    told = _text(answer)
    if not readings(tidy(told["answer"])):
        raise ValueError("no number")
    return told


def _numbers_and_target(answer: Any) -> dict[str, Any]:
    numbers, target = answer
    return {"numbers": [int(one) for one in numbers], "target": int(target)}


FROM_ANSWER: dict[str, Callable[[Any], dict[str, Any]]] = {
    "gsm8k": _number,
    "math500": _text,
    "countdown": _numbers_and_target,
}
"""Tasks whose grader needs no more than the right answer: `Problem.data` from it."""


class _Index:
    """Finds the problem of a generation: by id, else by its question, else by the answer beside it.

    An answer on a line that somebody wrote for us comes first; it needs no published data.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.kind = task.name.partition("(")[0]
        self._filter: str | None = None
        self._missing: ValueError | None = None
        """Why there are no published problems to look at."""

    def is_wanted(self, entry: Generation) -> bool:
        self._filter = self._filter or entry.filter
        of_task = entry.task is None or entry.task.partition("(")[0] == self.kind
        return of_task and entry.filter == self._filter

    def problem_of(self, entry: Generation) -> Problem:
        found = self._by_answer(entry) if entry.format == "completions" else None
        found = found or self._by_id(entry) or self._by_question(entry) or self._by_answer(entry)
        if found is None and self._missing is not None:
            raise ValueError(f"{entry.where}: {self._missing}")
        if found is None:
            needs = "an id such as 'test-12'"
            needs += ", a published question" if self._questions else ""
            needs += " or an answer" if self.kind in FROM_ANSWER else ""
            raise ValueError(
                f"{entry.where}: id {entry.id!r} is no problem of {self.task.name}; give {needs}"
            )
        return found

    def _by_id(self, entry: Generation) -> Problem | None:
        split, _, index = str(entry.id).partition("-")
        if split in ("train", "test") and index.isascii() and index.isdecimal():
            known: Split = "train" if split == "train" else "test"
            try:
                return self.task.problem(known, int(index))
            except ValueError as error:
                raise ValueError(f"{entry.where}: {error}") from error
        return None if entry.id is None else self._published_ids.get(str(entry.id).casefold())

    def _by_question(self, entry: Generation) -> Problem | None:
        for text in entry.questions:
            if text in self._questions:
                return self._questions[text]
        inside = [one for text in entry.questions for one in self._questions if one in text]
        return self._questions[max(inside, key=len)] if inside else None

    def _by_answer(self, entry: Generation) -> Problem | None:
        if entry.answer is None or self.kind not in FROM_ANSWER:
            return None
        try:
            name = entry.where if entry.id is None else str(entry.id)
            return Problem(name, "", FROM_ANSWER[self.kind](entry.answer))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{entry.where}: {entry.answer!r} is no answer of {self.kind}") from error

    @cached_property
    def _published(self) -> list[Problem]:
        try:
            size = self.task.num_problems("test") or 0
            return [self.task.problem("test", index) for index in range(size)]
        except ValueError as error:  # no folder, no hub: an answer in the file will do
            self._missing = error
            return []

    @cached_property
    def _questions(self) -> dict[str, Problem]:
        return {problem.question: problem for problem in self._published if problem.question}

    @cached_property
    def _published_ids(self) -> dict[str, Problem]:
        """In small letters; a bare one, as MBPP has, also behind the task's name, as EvalPlus writes it."""
        found = {one.published_id.casefold(): one for one in self._published if one.published_id}
        return {f"{self.kind}/{name}": one for name, one in found.items() if "/" not in name} | found
