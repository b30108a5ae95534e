"""Small Python functions from a description, with many right programs, graded by hidden tests.

    Write f: add 3 to each, keep the even numbers, return the sum.
    def f(xs):

The completion is the body. Names, loop or comprehensions, the way round of an operation and the way of
returning are free; the program is run in the sandbox on lists that it has not seen.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from unmask.rng import python_random
from unmask.sandbox import Job, Limits
from unmask.tasks.base import Grade, Problem, Split, split_of
from unmask.tasks.running import ProgramRunner, grade_of

SIGNATURE = "def f(xs):\n"
NUM_TESTS = 6

Numbers = list[int]
Step = tuple[str, int]
"""(operation, its number; 0 where it takes none)"""

FILTERS: dict[str, tuple[str, tuple[str, ...], Callable[[int, int], bool]]] = {
    # name: (description, ways to write the condition, meaning)
    "even": ("keep the even numbers", ("{x} % 2 == 0", "not {x} % 2"), lambda x, k: x % 2 == 0),
    "odd": ("keep the odd numbers", ("{x} % 2 == 1", "{x} % 2"), lambda x, k: x % 2 == 1),
    "above": ("keep the numbers above {k}", ("{x} > {k}", "{k} < {x}"), lambda x, k: x > k),
    "below": ("keep the numbers below {k}", ("{x} < {k}", "{k} > {x}"), lambda x, k: x < k),
    "multiples": ("keep the multiples of {k}", ("{x} % {k} == 0", "not {x} % {k}"), lambda x, k: x % k == 0),
    "others": ("drop the multiples of {k}", ("{x} % {k} != 0", "{x} % {k}"), lambda x, k: x % k != 0),
}
MAPS: dict[str, tuple[str, tuple[str, ...], Callable[[int, int], int]]] = {
    "add": ("add {k} to each", ("{x} + {k}", "{k} + {x}"), lambda x, k: x + k),
    "subtract": ("subtract {k} from each", ("{x} - {k}",), lambda x, k: x - k),
    "multiply": ("multiply each by {k}", ("{x} * {k}", "{k} * {x}"), lambda x, k: x * k),
    "square": ("square each", ("{x} * {x}", "{x} ** 2"), lambda x, k: x * x),
    "negate": ("negate each", ("-{x}", "0 - {x}"), lambda x, k: -x),
    "modulo": ("take each modulo {k}", ("{x} % {k}",), lambda x, k: x % k),
}
RETURNS: dict[str, tuple[str, tuple[str, ...], Callable[[Numbers], object]]] = {
    "sum": ("return the sum", ("sum({r})",), sum),
    "count": ("return the count", ("len({r})",), len),
    "largest": ("return the largest or 0", ("max({r}, default=0)",), lambda r: max(r, default=0)),
    "smallest": ("return the smallest or 0", ("min({r}, default=0)",), lambda r: min(r, default=0)),
    "list": ("return the list", ("{r}", "list({r})"), lambda r: r),
    "sorted": ("return them sorted", ("sorted({r})",), sorted),
}
NO_NUMBER = ("even", "odd", "square", "negate")
ITEM_NAMES = ("x", "n", "v", "item")
LIST_NAMES = ("out", "res", "ys", "kept")


class Code:
    """Holds one sandbox, started when the first program is graded."""

    name = "code"
    version = 1

    def __init__(self, workers: int | None = None) -> None:
        self.runner = ProgramRunner(Limits(wall_seconds=2.0), workers)

    def num_problems(self, split: Split) -> None:
        """Endless."""

    def problem(self, split: Split, index: int) -> Problem:
        for attempt in range(10_000):
            rng = python_random(self.version, "code", split, index, attempt)
            steps = [_random_step(rng) for _ in range(rng.choice((2, 3, 3, 3, 3)))]
            ending = rng.choice(list(RETURNS))
            prompt = _prompt(steps, ending)
            if split_of(prompt) == split:
                data = {
                    "steps": [list(step) for step in steps],
                    "ending": ending,
                    "seed": rng.getrandbits(32),
                }
                return Problem(f"{split}-{index}", prompt, data)
        raise AssertionError(f"no {split} problem at index {index}")

    def reference(self, problem: Problem, variant: int) -> str:
        rng = python_random(variant, "code", problem.id)
        steps = [(op, k) for op, k in problem.data["steps"]]
        write = rng.choice((_write_loop, _write_comprehensions))
        return write(rng, steps, problem.data["ending"])

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        tests = [_tests(problem) for problem in problems]
        jobs = [
            Job(SIGNATURE + text, "f", tuple((xs,) for xs, _ in pairs))
            for text, pairs in zip(completions, tests, strict=True)
        ]
        outcomes = self.runner.run(jobs)
        return [
            grade_of(outcome, _mismatch(outcome.values, pairs))
            for outcome, pairs in zip(outcomes, tests, strict=True)
        ]


def _mismatch(values: Sequence[object], tests: Sequence[tuple[Numbers, object]]) -> str:
    for value, (xs, expected) in zip(values, tests, strict=False):
        if type(value) is not type(expected) or value != expected:
            return f"f({xs}) is {expected!r}, the program gives {value!r}"
    return ""


def _random_step(rng: random.Random) -> Step:
    op = rng.choice([*FILTERS, *MAPS])
    if op in NO_NUMBER:
        return op, 0
    return op, rng.randint(2, 9)


def _describe(step: Step) -> str:
    op, k = step
    return (FILTERS.get(op) or MAPS[op])[0].format(k=k)


def _prompt(steps: Sequence[Step], ending: str) -> str:
    parts = ", ".join([*map(_describe, steps), RETURNS[ending][0]])
    return f"Write f: {parts}.\n{SIGNATURE}"


def _tests(problem: Problem) -> list[tuple[Numbers, object]]:
    """(argument, expected result) pairs, the same whenever they are asked for."""
    rng = python_random(problem.data["seed"], "tests")
    tests: list[tuple[Numbers, object]] = []
    for number in range(NUM_TESTS):
        xs = [rng.randint(-20, 30) for _ in range(0 if number == 0 else rng.randint(6, 14))]
        tests.append((xs, run_steps(xs, problem.data["steps"], problem.data["ending"])))
    return tests


def run_steps(xs: Numbers, steps: Sequence[Sequence[Any]], ending: str) -> object:
    """What the described function returns."""
    for op, k in steps:
        if op in FILTERS:
            xs = [x for x in xs if FILTERS[op][2](x, k)]
        else:
            xs = [MAPS[op][2](x, k) for x in xs]
    return RETURNS[ending][2](xs)


def _expression(rng: random.Random, step: Step, name: str) -> str:
    op, k = step
    return rng.choice((FILTERS.get(op) or MAPS[op])[1]).format(x=name, k=k)


def _write_loop(rng: random.Random, steps: Sequence[Step], ending: str) -> str:
    """One pass with an accumulator; a filter indents what follows."""
    item, result = rng.choice(ITEM_NAMES), rng.choice(LIST_NAMES)
    adds = ending in ("sum", "count") and rng.random() < 0.5
    lines = [f"    {result} = 0" if adds else f"    {result} = []", f"    for {item} in xs:"]
    indent = "        "
    for step in steps:
        expression = _expression(rng, step, item)
        if step[0] in FILTERS:
            lines.append(f"{indent}if {expression}:")
            indent += "    "
        else:
            lines.append(f"{indent}{item} = {expression}")
    if adds:
        lines.append(f"{indent}{result} += {item if ending == 'sum' else 1}")
        value = result
    else:
        lines.append(f"{indent}{result}.append({item})")
        value = rng.choice(RETURNS[ending][1]).format(r=result)
    return "\n".join([*lines, f"    return {value}"])


def _write_comprehensions(rng: random.Random, steps: Sequence[Step], ending: str) -> str:
    """One comprehension a step."""
    item, result = rng.choice(ITEM_NAMES), rng.choice(LIST_NAMES)
    lines, source = [], "xs"
    for step in steps:
        expression = _expression(rng, step, item)
        if step[0] in FILTERS:
            lines.append(f"    {result} = [{item} for {item} in {source} if {expression}]")
        else:
            lines.append(f"    {result} = [{expression} for {item} in {source}]")
        source = result
    value = rng.choice(RETURNS[ending][1]).format(r=result)
    return "\n".join([*lines, f"    return {value}"])
