"""MATH-500: 500 competition problems, answers in LaTeX (arXiv 2103.03874 and 2305.20050, MIT); test only.

Prompts: `unmask.tasks.styles`. A completion is right when its answer (`unmask.tasks.answers`) is the one
published, as written (`unmask.tasks.equal`) or by algebra (`unmask.tasks.algebra`); see docs/grading.md.
"""

from collections.abc import Sequence

from pydantic import BaseModel

from unmask.tasks.algebra import Verdict, algebra
from unmask.tasks.answers import Answer, find_answer
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Source, load_rows, row_of
from unmask.tasks.equal import same
from unmask.tasks.numbers import tidy
from unmask.tasks.styles import MATH500_STYLES, MathStyle


class ShotRow(BaseModel):
    problem: str
    solution: str


class Math500Row(ShotRow):
    answer: str
    unique_id: str


TEST = Source(
    "math500/test.jsonl",
    Math500Row,
    "7c8b08d0eb47803ec052265ceb2f1746adc9f18462be067e3129fecef77fd2e2",
    "HuggingFaceH4/MATH-500:test.jsonl",
)
SHOTS = Source(
    "math500/shots.jsonl", ShotRow, "b70d5180b6bc699bd6a3f9188c3aa2a6ae99087ca7fd77b9461f394c5c10a7b7"
)
_TAIL = 400
"""Characters of a completion that are read where it does not say which part is its answer."""


class Math500:
    """Style `llada` has the four shots of Minerva's prompt; there is no style `cot`."""

    version = 1

    def __init__(self, style: MathStyle = "plain", path: str | None = None, check: bool = True) -> None:
        if style not in MATH500_STYLES:
            raise ValueError(f"math500 has no style {style!r}; use one of {', '.join(MATH500_STYLES)}")
        self.style = MATH500_STYLES[style]
        self.name = name_of("math500", style=style, check=check)
        self._before = _minerva_shots(self.style.prompt("PROBLEM")) if style == "llada" else ""
        self._path, self._check = path, check

    def num_problems(self, split: Split) -> int:
        return len(load_rows(TEST, self._path, check=self._check)) if split == "test" else 0

    def problem(self, split: Split, index: int) -> Problem:
        rows = load_rows(TEST, self._path, check=self._check) if split == "test" else ()
        row = row_of(rows, "math500", split, index)
        return Problem(
            f"{split}-{index}",
            self._before + self.style.prompt(row["problem"]),
            {"answer": row["answer"], "solution": row["solution"]},
            chat=self.style.chat,
            prefill=self.style.prefill,
            question=row["problem"],
            published_id=row["unique_id"],
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """The one published solution, in the form of the style."""
        solution, answer = problem.data["solution"], problem.data["answer"]
        return self.style.reference.replace("SOLUTION", solution).replace("ANSWER", answer)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        answers = [find_answer(text, self.style.stop) for text in completions]
        return grade_math([problem.data["answer"] for problem in problems], answers)


def _minerva_shots(template: str) -> str:
    rows = load_rows(SHOTS)
    solved = [template.replace("PROBLEM", row["problem"]) + " " + row["solution"] + "\n\n" for row in rows]
    return "".join(solved)


def grade_math(golds: Sequence[str], answers: Sequence[Answer]) -> list[Grade]:
    """One grade per pair; what the writing does not decide is decided by algebra."""
    verdicts = [
        None if answer.marker == "none" else same(gold, answer.text)
        for gold, answer in zip(golds, answers, strict=True)
    ]
    asked = {
        index: _pair(golds[index], answers[index]) for index, known in enumerate(verdicts) if known is None
    }
    pairs = list(asked.values())
    decided = dict(zip(pairs, algebra().verdicts(pairs), strict=True)) if pairs else {}
    return [
        _grade(golds[index], answers[index], known, decided.get(asked.get(index, ("", ""))))
        for index, known in enumerate(verdicts)
    ]


def _pair(gold: str, answer: Answer) -> tuple[str, str]:
    r"""Both sides for the algebra, which looks for LaTeX between dollars, in `\(...\)` or in a box."""
    if answer.marker == "none":
        return f"${tidy(gold)}$", answer.text[-_TAIL:]
    is_prose = answer.marker != "box" and ("$" in answer.text or "\\(" in answer.text)
    return f"${tidy(gold)}$", answer.text if is_prose else f"${tidy(answer.text)}$"


def _grade(gold: str, answer: Answer, known: bool | None, decided: Verdict | None) -> Grade:
    if known or decided == "same":
        return Grade(True, "")
    if decided == "too long":
        return Grade(False, f"not decided in time whether {answer.text[-60:]!r} is {gold}")
    return Grade(False, f"the answer is {gold}, the completion says {answer.text[-60:]!r}")
