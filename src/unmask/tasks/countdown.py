"""Countdown: an expression of the given numbers, each once, with + - * / and brackets, that makes the target.

Test: the 256 problems of the d1 project. Train: an endless stream of the same kind, as in TinyZero (three
numbers of 1 to 100, a whole target of 1 to 100 that they make), without the problems of the test.
"""

import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints

from unmask.rng import python_random
from unmask.tasks.answers import find_answer
from unmask.tasks.arithmetic import evaluate
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.styles import Style


class CountdownRow(BaseModel):
    input: Annotated[str, StringConstraints(pattern=r"^\s*\d+\s*(,\s*\d+\s*)*$")]
    output: Annotated[str, StringConstraints(pattern=r"^\s*-?\d+\s*$")]


TEST = Source(
    "countdown/test.jsonl", CountdownRow, "9916f614621e26fb2b035ed4ea641e35e4fff0d533bb9b9c7bcaaa61017d88c6"
)
NUM_NUMBERS = 3
LARGEST = 100

# d1's evaluation; "Respond" follows without a space, as published.
_D1 = """Using only the provided numbers, create an arithmetic expression that evaluates to exactly the \
provided target number. You may use the operations +, -, *, and / as needed, but each number must be used \
exactly once. Think step-by-step. After reasoning, provide only your final expression inside \\boxed{} tags \
without including an equals sign or the target number. For example: \\boxed{a + b * c}Respond in the \
following format:
<reasoning>
Your reasoning here
</reasoning>
<answer>
\\boxed{...}
</answer>

QUESTION"""

CountdownStyle = Literal["plain", "d1"]
STYLES: dict[CountdownStyle, Style] = {
    "plain": Style(
        "QUESTION\nMake the target of the numbers, each used once, with + - * / and brackets. "
        "Give the expression in \\boxed{}.",
        reference="\\boxed{ANSWER}",
    ),
    "d1": Style(
        _D1,
        prefill="<reasoning>",
        reference="\nSOLUTION\n</reasoning>\n<answer>\n\\boxed{ANSWER}\n</answer>",
    ),
}


class Countdown:
    version = 1

    def __init__(self, style: CountdownStyle = "plain", path: str | None = None, check: bool = True) -> None:
        self.style = STYLES[style]
        self.name = name_of("countdown", style=style, check=check)
        self._path, self._check = path, check

    def num_problems(self, split: Split) -> int | None:
        return len(self._rows) if split == "test" else None

    def problem(self, split: Split, index: int) -> Problem:
        if split == "test":
            row = row_of(self._rows, "countdown", split, index)
            numbers, target = [int(one) for one in row["input"].split(",")], int(row["output"])
        else:
            numbers, target = self._draw(index)
        question = f"Numbers: {numbers}\nTarget: {target}"
        return Problem(
            f"{split}-{index}",
            self.style.prompt(question),
            {"numbers": numbers, "target": target},
            chat=self.style.chat,
            prefill=self.style.prefill,
            question=question,
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """One of the expressions that make the target."""
        found = solutions(tuple(problem.data["numbers"]), problem.data["target"])
        if not found:
            raise ValueError(f"no expression of {problem.data['numbers']} makes {problem.data['target']}")
        answer = python_random(variant, "countdown", problem.id).choice(found)
        solution = f"{answer} = {problem.data['target']}"
        return self.style.reference.replace("SOLUTION", solution).replace("ANSWER", answer)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        return [
            grade_expression(problem.data["numbers"], problem.data["target"], find_answer(text).text)
            for problem, text in zip(problems, completions, strict=True)
        ]

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return load_rows(TEST, self._path, check=self._check)

    @cached_property
    def _in_test(self) -> set[tuple[tuple[int, ...], int]]:
        return {
            (tuple(sorted(int(one) for one in row["input"].split(","))), int(row["output"]))
            for row in self._rows
        }

    def _draw(self, index: int) -> tuple[list[int], int]:
        rng = python_random(self.version, "countdown", "train", index)
        while True:
            numbers = [rng.randint(1, LARGEST) for _ in range(NUM_NUMBERS)]
            value = _random_value(rng, numbers)
            if value is None or value.denominator != 1 or not 1 <= value <= LARGEST:
                continue
            if (tuple(sorted(numbers)), int(value)) not in self._in_test:
                return numbers, int(value)


def _random_value(rng: random.Random, numbers: Sequence[int]) -> Fraction | None:
    """What a random expression of the numbers makes; None for a division by 0."""
    values = [Fraction(number) for number in numbers]
    while len(values) > 1:
        one, other = (values.pop(rng.randrange(len(values))) for _ in range(2))
        made = _results(one, other)
        operation = rng.choice(list(made))
        if made[operation] is None:
            return None
        values.append(made[operation] or Fraction(0))
    return values[0]


def _results(one: Fraction, other: Fraction) -> dict[str, Fraction | None]:
    return {
        "+": one + other,
        "-": one - other,
        "*": one * other,
        "/": one / other if other else None,
    }


@lru_cache(maxsize=4096)
def solutions(numbers: tuple[int, ...], target: int) -> list[str]:
    """The expressions of all numbers that make the target, sorted; every sub-expression is in brackets."""
    leaves = [(Fraction(number), str(number)) for number in numbers]
    found = {text for value, text in _combine(leaves) if value == target}
    return sorted(text[1:-1] if text.startswith("(") else text for text in found)


def _combine(parts: list[tuple[Fraction, str]]) -> Iterator[tuple[Fraction, str]]:
    if len(parts) == 1:
        yield parts[0]
    for i, (one, left) in enumerate(parts):
        for j, (other, right) in enumerate(parts):
            if i != j:
                rest = [part for k, part in enumerate(parts) if k not in (i, j)]
                for operation, value in _results(one, other).items():
                    if value is not None:
                        yield from _combine([*rest, (value, f"({left} {operation} {right})")])


def grade_expression(numbers: Sequence[int], target: int, text: str) -> Grade:
    """Whether an expression uses exactly the numbers and makes the target; "= result" may follow it."""
    expression = text.strip().strip("$").strip()
    left, equals, right = expression.partition("=")
    if equals:
        expression = right if re.fullmatch(r"\s*-?\d+\s*", left) else left
    try:
        value, used = evaluate(expression)
    except ValueError as error:
        return Grade(False, str(error))
    if sorted(used) != sorted(numbers):
        return Grade(False, f"{expression.strip()[:80]!r} does not use exactly the numbers {list(numbers)}")
    if value != target:
        return Grade(False, f"{expression.strip()[:80]!r} makes {value}, not {target}")
    return Grade(True, "")
