"""HumanEval: 164 Python functions to complete from a signature and a docstring (arXiv 2107.03374, MIT).

Styles:

    plain     asks for the whole function in a code block
    dultra    dUltra's evaluation (its eval_coding folder): one user turn with the stub in it
    instruct  lm-evaluation-harness `humaneval_instruct`: the answer begins with the stub in a code block
    llada     lm-evaluation-harness `humaneval`: the stub alone, continued; stops as published

The published tests run on the program across a process boundary; see docs/sandbox.md.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from unmask.sandbox import Check
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.extract import find_program
from unmask.tasks.running import benchmark_runner, grade_of
from unmask.tasks.styles import Style

HumanEvalStyle = Literal["plain", "dultra", "instruct", "llada"]


class HumanEvalRow(BaseModel):
    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str


SOURCE = Source(
    "humaneval/test.jsonl",
    HumanEvalRow,
    "53e6de8cb31dc96b8f53510f0ad0d6bbb34c02bf136f16bdcb6065a0964ec973",
    "openai/openai_humaneval:openai_humaneval/test-00000-of-00001.parquet",
)

_ASK = "Write a solution to the following problem and make sure that it passes the tests:\n"

STYLES: dict[HumanEvalStyle, Style] = {
    "plain": Style("Complete this function. Give all of it in one code block.\n\n```python\nQUESTION```"),
    "dultra": Style(f"{_ASK}QUESTION"),
    "instruct": Style(
        f"{_ASK}```python\nQUESTION\n```\n",
        prefill="Here is the completed function:\n```python\nQUESTION\n",
        stop=("```",),
        reference="SOLUTION```",
    ),
    "llada": Style(
        "QUESTION", chat=False, stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"), reference="SOLUTION"
    ),
}


class HumanEval:
    """There is no training split."""

    version = 1

    def __init__(
        self,
        style: HumanEvalStyle = "plain",
        path: str | None = None,
        check: bool = True,
        cpu_seconds: int = 4,
        workers: int | None = None,
    ) -> None:
        self.name = name_of("humaneval", style=style, check=check)
        self.style = STYLES[style]
        self._path, self._check = path, check
        self.runner = benchmark_runner(cpu_seconds, workers)

    def rows(self, split: Split) -> tuple[Row, ...]:
        return load_rows(SOURCE, self._path, check=self._check) if split == "test" else ()

    def num_problems(self, split: Split) -> int:
        return len(self.rows(split))

    def problem(self, split: Split, index: int) -> Problem:
        row = row_of(self.rows(split), "humaneval", split, index)
        return Problem(
            f"{split}-{index}",
            self.style.prompt(row["prompt"]),
            {
                "stub": row["prompt"],
                "function": row["entry_point"],
                "tests": row["test"],
                "solution": row["canonical_solution"],
            },
            chat=self.style.chat,
            prefill=self.style.prefill.replace("QUESTION", row["prompt"]),
            question=row["prompt"],
            published_id=row["task_id"],
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """The one published solution, in the form of the style."""
        data = problem.data
        if "SOLUTION" in self.style.reference and not (self.style.chat and not self.style.prefill):
            return self.style.reference.replace("SOLUTION", data["solution"])
        return f"```python\n{data['stub']}{data['solution']}```"

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        jobs = [self.check_of(*pair) for pair in zip(problems, completions, strict=True)]
        return [grade_of(outcome) for outcome in self.runner.run(jobs)]

    def check_of(self, problem: Problem, completion: str) -> Check:
        """The stub is the setup: some tests use a helper that it defines."""
        data, names = problem.data, (problem.data["function"],)
        source = find_program(completion, names, stub=data["stub"], stop=self.style.stop)
        return Check(source, f"{data['tests']}\ncheck({names[0]})\n", names, setup=data["stub"])
