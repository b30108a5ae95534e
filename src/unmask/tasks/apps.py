"""APPS: programming problems of contests and interview sites (arXiv 2105.09938, MIT).

Problems ask for a function (`kind=function`: the introductory ones of dUltra's training) or for a script
that reads stdin (`kind=script`). Rows come as the hub has them: `input_output` is JSON in a string, with
`fn_name` where a function is asked for. Styles:

    plain    the question, the starter code, and a request for a code block
    dultra   dUltra's training prompt without thinking; its system text stands at the top of the user's turn

The rows have no checksum here, so results depend on the file that is read. Rows without tests are left out.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from unmask.sandbox import Check, Outcome, Script
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.extract import find_program
from unmask.tasks.running import benchmark_runner, grade_of, usage_of
from unmask.tasks.styles import Style

Difficulty = Literal["introductory", "interview", "competition"]
Kind = Literal["function", "script"]
AppsStyle = Literal["plain", "dultra"]


class AppsRow(BaseModel):
    question: str
    difficulty: str
    input_output: str | None
    solutions: str | None
    starter_code: str | None = None

    @field_validator("solutions")
    @classmethod
    def _is_a_list(cls, text: str | None) -> str | None:
        if text and not isinstance(json.loads(text), list):
            raise ValueError("it is no JSON list")
        return text


SOURCES: dict[Split, Source] = {
    "train": Source("apps/train.jsonl", AppsRow, "", "codeparrot/apps:train.jsonl"),
    "test": Source("apps/test.jsonl", AppsRow, "", "codeparrot/apps:test.jsonl"),
}

_DULTRA = """You are an expert Python programmer. Carefully read and think about the task provided and write \
correct, efficient Python code that solves the problem and passes the hidden tests. Wrap the final code \
inside a ```python``` code block.

Write a solution to the following problem:
QUESTION."""

STYLES: dict[AppsStyle, Style] = {
    "plain": Style("QUESTION\n\nGive the whole program in one code block."),
    "dultra": Style(_DULTRA),
}

# Programs of the interview sites assume these, and the published grader provides them.
_PRELUDE = """import collections, functools, heapq, itertools, math, random, re, string, sys
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Dict, List, Optional, Set, Tuple
"""

# A result is right as the published output, or as the only item of it; tuples count as lists.
_TESTS = """import json
def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value
for arguments, expected in json.loads(CASES):
    result = plain(FUNCTION(*arguments))
    assert result == expected or isinstance(expected, list) and [result] == expected[:1], (
        f"FUNCTION({', '.join(map(repr, arguments))}) is {expected!r}, the program gives {result!r}"[:300])
"""


class Apps:
    """A problem's index counts those of its difficulty and kind alone."""

    version = 1

    def __init__(
        self,
        style: AppsStyle = "plain",
        difficulty: Difficulty = "introductory",
        kind: Kind = "function",
        path: str | None = None,
        cpu_seconds: int = 4,
        workers: int | None = None,
    ) -> None:
        rows = None if difficulty == "introductory" else difficulty
        self.name = name_of("apps", style=style, difficulty=rows, kind=None if kind == "function" else kind)
        self.style = STYLES[style]
        self._difficulty, self._kind, self._path = difficulty, kind, path
        self.runner = benchmark_runner(cpu_seconds, workers)

    def rows(self, split: Split) -> tuple[Row, ...]:
        return _select(split, self._path, self._difficulty, self._kind)

    def num_problems(self, split: Split) -> int:
        return len(self.rows(split))

    def problem(self, split: Split, index: int) -> Problem:
        row = row_of(self.rows(split), self.name, split, index)
        starter = (row.get("starter_code") or "").strip()
        question = row["question"].strip() + (f"\n\nStarter code:\n{starter}" if starter else "")
        data = {**row["cases"], "solutions": row["programs"]}
        return Problem(
            f"{split}-{index}",
            self.style.prompt(question),
            data,
            chat=True,
            question=row["question"],
            published_id=str(row.get("problem_id", "")),
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """One of the published solutions; ValueError if the problem has none."""
        solutions = problem.data["solutions"]
        if not solutions:
            raise ValueError(f"{problem.id} of {self.name} has no published solution")
        return f"```python\n{solutions[variant % len(solutions)]}\n```"

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        pairs = list(zip(problems, completions, strict=True))
        if self._kind == "function":
            return [grade_of(outcome) for outcome in self.runner.run([_check(*pair) for pair in pairs])]
        jobs = [_scripts(*pair) for pair in pairs]
        outcomes = iter(self.runner.run([job for group in jobs for job in group]))
        graded = [[next(outcomes) for _ in group] for group in jobs]
        return [_judge(one, problem) for one, problem in zip(graded, problems, strict=True)]


def _check(problem: Problem, completion: str) -> Check:
    name, cases = problem.data["function"], problem.data["cases"]
    program = find_program(completion, (name, "Solution"))
    if "class Solution" in program and not re.search(rf"^def {name}\b", program, re.MULTILINE):
        program += f"\ndef {name}(*arguments):\n    return Solution().{name}(*arguments)\n"
    tests = _TESTS.replace("FUNCTION", name).replace("CASES", repr(json.dumps(cases)))
    return Check(_with_prelude(program), tests, (name,))


def _scripts(problem: Problem, completion: str) -> list[Script]:
    program = _with_prelude(find_program(completion))
    return [Script(program, stdin) for stdin, _ in problem.data["cases"]]


def _with_prelude(program: str) -> str:
    """The prelude cannot stand before an import from the future."""
    return program if "from __future__" in program else _PRELUDE + program


def _judge(outcomes: Sequence[Outcome], problem: Problem) -> Grade:
    """Right if every run of the script ended well and printed what it should."""
    usage = usage_of(outcomes)
    for outcome, (_, expected) in zip(outcomes, problem.data["cases"], strict=True):
        if outcome.status != "ok":
            return Grade(False, f"{outcome.status}: {outcome.error}", usage=usage)
        if not same_text(outcome.stdout, expected):
            return Grade(False, f"it prints {outcome.stdout[:100]!r} for {expected[:100]!r}", usage=usage)
    return Grade(True, "", usage=usage)


def same_text(printed: str, expected: str) -> bool:
    """Equal words line by line, empty lines apart; numbers with a point may differ by a millionth."""
    left, right = (
        [line.split() for line in text.split("\n") if line.strip()] for text in (printed, expected)
    )
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(left, right, strict=True)
    )


def _same_word(word: str, expected: str) -> bool:
    if word == expected:
        return True
    try:
        return "." in expected and abs(float(word) - float(expected)) <= 1e-6 * max(1, abs(float(expected)))
    except ValueError:
        return False


@cache
def _select(split: Split, path: str | None, difficulty: Difficulty, kind: Kind) -> tuple[Row, ...]:
    selected = []
    for row in load_rows(SOURCES[split], path, check=False):
        cases = _cases(row["input_output"], kind) if row["difficulty"] == difficulty else None
        if cases is not None:
            programs = json.loads(row["solutions"]) if row["solutions"] else []
            selected.append({**row, "cases": cases, "programs": programs})
    return tuple(selected)


def _cases(text: str, kind: Kind) -> dict[str, Any] | None:
    """The tests as (arguments, result) or (stdin, stdout) pairs; None without any or of the other kind."""
    try:
        tests = json.loads(text) if text else {}
    except ValueError:  # among them integers with more digits than Python reads
        return None
    if not isinstance(tests, dict) or not tests.get("inputs") or "outputs" not in tests:
        return None
    if (kind == "function") != ("fn_name" in tests):
        return None
    cases = zip(tests["inputs"], tests["outputs"], strict=False)
    if kind == "function":
        return {"function": tests["fn_name"], "cases": [[*case] for case in cases]}
    return {"cases": [[_joined(stdin), _joined(stdout)] for stdin, stdout in cases]}


def _joined(text: str | list[str]) -> str:
    return "\n".join(text) if isinstance(text, list) else str(text)
