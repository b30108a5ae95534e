"""GSM8K: 7,473 training and 1,319 test word problems whose answers are whole numbers (arXiv 2110.14168, MIT).

Prompts: `unmask.tasks.styles`. A completion is right when the number that it gives as its answer
(`unmask.tasks.answers`) equals the published one; docs/grading.md has the rules.
"""

import random
import re
from collections.abc import Sequence
from functools import cached_property

from pydantic import BaseModel

from unmask.rng import python_random
from unmask.tasks.answers import Answer, find_answer
from unmask.tasks.arithmetic import evaluate
from unmask.tasks.base import Grade, Problem, Split, name_of
from unmask.tasks.data import Row, Source, load_rows, row_of
from unmask.tasks.numbers import numbers_in, readings, tidy
from unmask.tasks.styles import GSM8K_STYLES, MathStyle


class Gsm8kRow(BaseModel):
    question: str
    answer: str


SOURCES: dict[Split, Source] = {
    "train": Source(
        "gsm8k/train.jsonl",
        Gsm8kRow,
        "fced0849c018610984e1493088b43d38ac54c27c1cf387658e947cc40c54248b",
        "openai/gsm8k:main/train-00000-of-00001.parquet",
    ),
    "test": Source(
        "gsm8k/test.jsonl",
        Gsm8kRow,
        "524c11ab4ee19ae27e71a10fff523a583dbba0a714e6be0ff2518668c0071daa",
        "openai/gsm8k:main/test-00000-of-00001.parquet",
    ),
}


MAX_SHOTS = 100
_POWER = re.compile(r"[\d\s+*/().,-]*\d\s*[\^!][\d\s+*/().,^!{}-]*")
"""An expression with a power or a factorial, which `evaluate` does not read: none of its numbers is meant."""


class Gsm8k:
    """`shots`: solved problems before the question, of style `llada` alone, which has 5 unless told."""

    version = 1

    def __init__(
        self,
        style: MathStyle = "plain",
        shots: int | None = None,
        path: str | None = None,
        check: bool = True,
    ) -> None:
        if shots is not None and style != "llada":
            raise ValueError(f"shots={shots} needs style=llada; the other styles have none")
        if shots is not None and not 0 <= shots <= MAX_SHOTS:
            raise ValueError(f"shots={shots}: use 0 to {MAX_SHOTS}")
        self.style = GSM8K_STYLES[style]
        self.shots = (5 if shots is None else shots) if style == "llada" else 0
        self.name = name_of("gsm8k", style=style, shots=None if shots == 5 else shots, check=check)
        self._path, self._check = path, check

    def rows(self, split: Split) -> tuple[Row, ...]:
        return load_rows(SOURCES[split], self._path, check=self._check)

    def num_problems(self, split: Split) -> int:
        return len(self.rows(split))

    def problem(self, split: Split, index: int) -> Problem:
        row = row_of(self.rows(split), "gsm8k", split, index)
        solution, answer = _split_answer(row["answer"])
        prompt = self.style.prompt(row["question"])
        if self.shots:
            prompt = "\n\n".join([*self._examples(split, index), prompt])
        return Problem(
            f"{split}-{index}",
            prompt,
            {"answer": answer, "solution": solution},
            chat=self.style.chat,
            prefill=self.style.prefill,
            question=row["question"],
        )

    def reference(self, problem: Problem, variant: int) -> str:
        """The one published solution, without its calculator marks, in the form of the style."""
        solution, answer = problem.data["solution"], problem.data["answer"]
        return self.style.reference.replace("SOLUTION", solution).replace("ANSWER", answer)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        return [
            grade_number(problem.data["answer"], find_answer(text, self.style.stop))
            for problem, text in zip(problems, completions, strict=True)
        ]

    def _examples(self, split: Split, index: int) -> list[str]:
        """The shots of a problem: on the test split those that lm-evaluation-harness draws in one process."""
        rows = self.rows("train")
        chosen = self._drawn[index] if split == "test" else _others(index, len(rows), self.shots)
        return [self.style.prompt(rows[one]["question"]) + " " + rows[one]["answer"] for one in chosen]

    @cached_property
    def _drawn(self) -> list[list[int]]:
        rng = random.Random(1234)
        pool = range(self.num_problems("train"))
        return [rng.sample(pool, self.shots) for _ in range(self.num_problems("test"))]


def _others(index: int, size: int, count: int) -> list[int]:
    drawn = python_random(index, "gsm8k shots").sample(range(size), count + 1)
    return [one for one in drawn if one != index][:count]


def _split_answer(text: str) -> tuple[str, str]:
    """The written solution without calculator marks, and the final number."""
    solution, _, answer = text.rpartition("####")
    return re.sub(r"<<[^<>]*>>", "", solution).strip(), answer.strip()


def grade_number(gold: str, answer: Answer) -> Grade:
    """Whether an answer gives the number `gold`.

    An answer that is more than a number counts by the value after its last "=". Then a sum or product left to
    be worked out counts by what it makes, and words around a number by the first number where the completion
    said that this is the answer, and by the last where it did not.
    """
    expected = readings(tidy(gold))
    text = tidy(answer.text.rsplit("=", 1)[-1].strip(" .;$*")) if answer.marker != "none" else ""
    found = readings(text)
    if not found and text:
        try:
            found = (evaluate(text)[0],)
        except ValueError:
            if _POWER.fullmatch(text):
                return Grade(False, f"the completion leaves {text[:60]!r} to be worked out")
    if not found:
        numbers = numbers_in(text or answer.text)
        if not numbers:
            return Grade(False, f"no number in the answer {answer.text[-60:]!r}")
        text = numbers[-1 if answer.marker in ("none", "tag") else 0]
        found = readings(text)
    if set(expected) & set(found):
        return Grade(True, "")
    return Grade(False, f"the answer is {gold}, the completion says {text[:60]!r}")
