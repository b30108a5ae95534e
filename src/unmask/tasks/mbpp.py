"""MBPP: short Python functions from a sentence and three tests (arXiv 2108.07732, CC BY 4.0).

500 test problems (task ids 11 to 510), 374 for training (601 to 974). Styles:

    plain    the sentence, the tests, and a request for a code block
    dultra   dUltra's evaluation (its eval_coding folder): one user turn, no shots
    llada    lm-evaluation-harness `mbpp`: text with [BEGIN] and [DONE], 3 shots (task ids 2, 3 and 4)

A program is right when the three published tests of its problem hold; see docs/sandbox.md.
"""

import ast
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, model_validator

from unmask.sandbox import Check
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.extract import find_program, parse
from unmask.tasks.running import benchmark_runner, grade_of
from unmask.tasks.styles import Style

MbppStyle = Literal["plain", "dultra", "llada"]


class MbppRow(BaseModel):
    task_id: int
    text: str
    code: str
    test_setup_code: str
    test_list: list[str]

    @model_validator(mode="after")
    def _tests_call_the_program(self) -> Self:
        function_of(self.model_dump())
        return self


_HUB = "google-research-datasets/mbpp:full/{}-00000-of-00001.parquet"
SOURCES: dict[Split, Source] = {
    "train": Source(
        "mbpp/train.jsonl",
        MbppRow,
        "97f660b820f3d75a99a424ec249b9bce04e33517789584c05d6e2a0e84995d97",
        _HUB.format("train"),
    ),
    "test": Source(
        "mbpp/test.jsonl",
        MbppRow,
        "e30ca4c358cf81646523d31e10149e35f5aea8fd0210a00cd24f7a0f5a066850",
        _HUB.format("test"),
    ),
}
SHOTS_SOURCE = Source(
    "mbpp/prompt.jsonl",
    MbppRow,
    "81abbb02f5d069d09479e842df9ebdfe40299d8312358ca574a67b3afae6c044",
    _HUB.format("prompt"),
)
_SHOT_IDS = (2, 3, 4)

_ASK = (
    "You are an expert Python programmer, and here is your task: QUESTION Your code should pass these tests:"
)

STYLES: dict[MbppStyle, Style] = {
    "plain": Style("QUESTION Give the function in one code block. It must pass these tests:\n\nTESTS"),
    "dultra": Style(
        f"{_ASK}\n\nTESTS. Respond with the completed solution inside a ```python``` code block."
    ),
    "llada": Style(f"{_ASK}\n\nTESTS\n[BEGIN]\n", chat=False, stop=("[DONE]",), reference="SOLUTION\n[DONE]"),
}


class Mbpp:
    """`shots`: solved problems before the question, of style `llada` alone, which has 3 unless told."""

    version = 1

    def __init__(
        self,
        style: MbppStyle = "plain",
        shots: int | None = None,
        path: str | None = None,
        check: bool = True,
        cpu_seconds: int = 4,
        workers: int | None = None,
    ) -> None:
        if shots is not None and style != "llada":
            raise ValueError(f"shots={shots} needs style=llada; the other styles have none")
        if shots is not None and not 0 <= shots <= len(_SHOT_IDS):
            raise ValueError(f"shots={shots}: there are {len(_SHOT_IDS)} published ones; use 0 to 3")
        self.style = STYLES[style]
        self.shots = (3 if shots is None else shots) if style == "llada" else 0
        self.name = name_of("mbpp", style=style, shots=None if shots == 3 else shots, check=check)
        self._path, self._check = path, check
        self.runner = benchmark_runner(cpu_seconds, workers)

    def rows(self, split: Split) -> tuple[Row, ...]:
        return load_rows(SOURCES[split], self._path, check=self._check)

    def num_problems(self, split: Split) -> int:
        return len(self.rows(split))

    def problem(self, split: Split, index: int) -> Problem:
        row = row_of(self.rows(split), "mbpp", split, index)
        data = {
            "function": function_of(row),
            "names": bound_names(row),
            "tests": row["test_list"],
            "setup": row["test_setup_code"],
        }
        prompt = "\n\n".join([*self._examples(), self._prompt(row)])
        return Problem(
            f"{split}-{index}",
            prompt,
            {**data, "solution": row["code"]},
            chat=self.style.chat,
            question=row["text"],
            published_id=str(row["task_id"]),
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """The one published solution, in the form of the style."""
        solution = problem.data["solution"]
        if self.style.chat:
            return f"```python\n{solution}\n```"
        return self.style.reference.replace("SOLUTION", solution)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        jobs = [self.check_of(*pair) for pair in zip(problems, completions, strict=True)]
        return [grade_of(outcome) for outcome in self.runner.run(jobs)]

    def check_of(self, problem: Problem, completion: str) -> Check:
        """The setup builds arguments from the program's own classes, so it runs beside the program."""
        data: dict[str, Any] = problem.data
        source = find_program(completion, (data["function"],), stop=self.style.stop)
        tests = "\n".join(data["tests"])
        return Check(f"{source}\n{data['setup']}", tests, tuple(data["names"]))

    def _prompt(self, row: Row) -> str:
        return self.style.prompt(row["text"]).replace("TESTS", "\n".join(row["test_list"]))

    def _examples(self) -> list[str]:
        if not self.shots:
            return []
        path = None if self._path is None or self._path.endswith(".jsonl") else self._path
        rows = [row for row in load_rows(SHOTS_SOURCE, path) if row["task_id"] in _SHOT_IDS]
        return [f"{self._prompt(row)}{row['code']}\n[DONE]" for row in rows[: self.shots]]


def function_of(row: Row) -> str:
    """The function that a row asks for.

    Raises:
        ValueError: where no test calls one that the published program defines, or something is no Python.
    """
    try:
        names = bound_names(row)
    except SyntaxError as error:
        raise ValueError(f"its code or tests are no Python ({error.msg})") from error
    for name in names:
        if f"def {name}(" in row["code"].replace(" (", "("):
            return name
    raise ValueError("its tests call no function of its code")


def bound_names(row: Row) -> list[str]:
    """The names in the tests that the published program or the setup binds: the function, and arguments."""
    bound: set[str] = set()
    for node in parse(f"{row['code']}\n{row['test_setup_code']}").body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            bound |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    used = [one.id for one in ast.walk(parse("\n".join(row["test_list"]))) if isinstance(one, ast.Name)]
    return [name for name in dict.fromkeys(used) if name in bound]
