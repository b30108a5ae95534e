"""Sudoku of 4 by 4: a puzzle of 16 digits, row by row, 0 for an empty cell.

Test: the 500 puzzles of the d1 project, which evaluates a random 256 of them. Train: an endless stream of
puzzles with as many empty cells (8), without those of the test. A completion is correct when its 16 digits
keep the given cells and the rules; 124 of the test puzzles have more than one such grid. `Grade.score` is the
fraction of the empty cells that equal the published solution, which is what d1 reports.
"""

import re
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints

from unmask.rng import python_random
from unmask.tasks.answers import find_answer
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.styles import Style


class Sudoku4Row(BaseModel):
    puzzle: Annotated[str, StringConstraints(pattern="^[0-4]{16}$")]
    solution: Annotated[str, StringConstraints(pattern="^[1-4]{16}$")]


TEST = Source(
    "sudoku4/test.jsonl", Sudoku4Row, "33508539ffaf6de131bb22ab5dcbea47828772c33c825b3f846bf0c1cedd3f53"
)
NUM_EMPTY = 8
_LINES = [
    *([4 * row + column for column in range(4)] for row in range(4)),
    *([4 * row + column for row in range(4)] for column in range(4)),
    *([8 * up + 2 * left + cell for cell in (0, 1, 4, 5)] for up in range(2) for left in range(2)),
]
"""The 12 groups of cells that hold each digit once: rows, columns, boxes."""

# d1's evaluation; the line breaks at both ends are as published.
_D1 = """
Please solve the following 4x4 Sudoku puzzle. The puzzle is provided as a 16-character string reading \
left-to-right, top-to-bottom, where '0' represents empty cells.

Rules:
- Fill empty cells with digits 1-4
- Each row must contain digits 1-4 exactly once
- Each column must contain digits 1-4 exactly once
- Each 2x2 box must contain digits 1-4 exactly once

Important: Your solution must be a COMPLETE 16-character string with only the digits 1-4, representing your \
final solved grid.

Respond in this exact format:
<reasoning>
Your step-by-step solving process
</reasoning>
<answer>
[16-character solution string with no spaces or separators]
</answer>


Solve the following Sudoku puzzle: QUESTION
"""

SudokuStyle = Literal["plain", "d1"]
STYLES: dict[SudokuStyle, Style] = {
    "plain": Style(
        "Sudoku of 4 by 4, row by row, 0 is empty: QUESTION\nGive its 16 digits, solved, in \\boxed{}.",
        reference="\\boxed{ANSWER}",
    ),
    "d1": Style(
        _D1,
        prefill="<reasoning>",
        reference="\nANSWER\n</reasoning>\n<answer>\nANSWER\n</answer>",
    ),
}


class Sudoku4:
    version = 1

    def __init__(self, style: SudokuStyle = "plain", path: str | None = None, check: bool = True) -> None:
        self.style = STYLES[style]
        self.name = name_of("sudoku4", style=style, check=check)
        self._path, self._check = path, check

    def num_problems(self, split: Split) -> int | None:
        return len(self._rows) if split == "test" else None

    def problem(self, split: Split, index: int) -> Problem:
        if split == "test":
            row = row_of(self._rows, "sudoku4", split, index)
            puzzle, solution = row["puzzle"], row["solution"]
        else:
            puzzle, solution = self._draw(index)
        return Problem(
            f"{split}-{index}",
            self.style.prompt(puzzle),
            {"puzzle": puzzle, "solution": solution},
            chat=self.style.chat,
            prefill=self.style.prefill,
            question=puzzle,
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """The grid; of several, `variant` picks one."""
        answer = python_random(variant, "sudoku4", problem.id).choice(complete(problem.data["puzzle"]))
        return self.style.reference.replace("ANSWER", answer)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        return [
            grade_grid(problem.data["puzzle"], problem.data["solution"], _digits(text))
            for problem, text in zip(problems, completions, strict=True)
        ]

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return load_rows(TEST, self._path, check=self._check)

    @cached_property
    def _in_test(self) -> set[str]:
        return {row["puzzle"] for row in self._rows}

    def _draw(self, index: int) -> tuple[str, str]:
        rng = python_random(self.version, "sudoku4", "train", index)
        while True:
            solution = rng.choice(_grids())
            empty = rng.sample(range(16), NUM_EMPTY)
            puzzle = "".join("0" if cell in empty else solution[cell] for cell in range(16))
            if puzzle not in self._in_test:
                return puzzle, solution


@cache
def _grids() -> list[str]:
    return complete("0" * 16)


def complete(puzzle: str) -> list[str]:
    """Every grid that keeps the given cells and the rules, in order."""
    cell = puzzle.find("0")
    if cell < 0:
        return [puzzle]
    taken = {puzzle[other] for line in _LINES if cell in line for other in line}
    return [
        grid
        for digit in "1234"
        if digit not in taken
        for grid in complete(puzzle[:cell] + digit + puzzle[cell + 1 :])
    ]


def _digits(completion: str) -> str:
    """The digits of the answer: 16 in a row, else all that it has; "" for none."""
    answer = find_answer(completion)
    whole = re.findall(r"(?<!\d)\d{16}(?!\d)", answer.text)
    if answer.marker == "none":
        return whole[-1] if whole else ""
    return whole[0] if whole else "".join(re.findall(r"\d", answer.text))


def grade_grid(puzzle: str, solution: str, digits: str) -> Grade:
    """Correct by the rules; the score is by cell, against the published solution."""
    empty = [cell for cell in range(16) if puzzle[cell] == "0"]
    hits = sum(digits[cell : cell + 1] == solution[cell] for cell in empty)
    score = hits / len(empty) if empty else 1.0
    told = f"{hits} of {len(empty)} empty cells are as published"
    if len(digits) != 16:
        return Grade(False, f"the answer has {len(digits)} digits, not 16; {told}", score)
    if any(given not in ("0", digit) for given, digit in zip(puzzle, digits, strict=True)):
        return Grade(False, f"{digits} changes a given cell; {told}", score)
    if any({digits[cell] for cell in line} != set("1234") for line in _LINES):
        return Grade(False, f"{digits} breaks the rules; {told}", score)
    return Grade(True, "", 1.0)
