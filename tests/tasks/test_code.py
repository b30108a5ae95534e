"""Code problems: many right programs, graded by running them on lists that they have not seen."""

import pytest

from unmask.tasks.base import Problem
from unmask.tasks.code import Code, run_steps


@pytest.fixture(scope="module")
def task() -> Code:
    return Code(workers=2)


def made(steps: list[list[object]], ending: str) -> Problem:
    return Problem("made-0", f"Write f: {steps}.\n", {"steps": steps, "ending": ending, "seed": 7})


SUM = made([["add", 3], ["even", 0]], "sum")
FLAG = made([["modulo", 2]], "largest")  # 0 or 1, whatever the list
LIST = made([["above", 4]], "list")


def test_references_are_right_in_every_variant(task: Code) -> None:
    problems = [task.problem("test" if number % 2 else "train", number) for number in range(60)] * 3
    completions = [task.reference(problem, number // 60) for number, problem in enumerate(problems)]
    wrong = [grade.reason for grade in task.grade(problems, completions) if not grade.correct]
    assert wrong == []


def test_problems_have_many_right_programs(task: Code) -> None:
    for number in range(50):
        problem = task.problem("train", number)
        assert len({task.reference(problem, variant) for variant in range(40)}) >= 8


def test_a_program_may_be_written_in_any_way(task: Code) -> None:
    programs = [
        "    return sum(x + 3 for x in xs if x % 2)",
        "    a = 0\n    for x in xs:\n        if (x + 3) % 2 == 0:\n            a += x + 3\n    return a",
        "    return sum(filter(lambda x: x % 2 == 0, map(lambda x: x + 3, xs)))",
        "    def g(x):\n        return x + 3\n    return sum(g(x) for x in xs if g(x) % 2 == 0)\n",
    ]
    assert all(grade.correct for grade in task.grade([SUM] * len(programs), programs))


WRONG = {
    "a constant off by one": (SUM, "    return sum(x + 4 for x in xs if x % 2)"),
    "a condition the wrong way": (SUM, "    return sum(x + 3 for x in xs if not x % 2)"),
    "right on the empty list only": (SUM, "    return 0"),
    "a float": (SUM, "    return sum(x + 3.0 for x in xs if x % 2)"),
    "True for 1": (FLAG, "    return any(x % 2 for x in xs)"),
    "a tuple of other numbers": (LIST, "    return tuple(x for x in xs if x > 5)"),
    "a count for a list": (LIST, "    return len([x for x in xs if x > 4])"),
    "nothing returned": (SUM, "    sum(x + 3 for x in xs if x % 2)"),
    "an endless loop": (SUM, "    while True:\n        pass"),
    "a syntax error": (SUM, "    return sum(x + 3 for x in xs if x % 2"),
    "no body": (SUM, ""),
    "an exception": (SUM, "    return xs[0] // 0"),
    "an early exit": (SUM, "    import os\n    os._exit(0)"),
    "another early exit": (SUM, "    raise SystemExit(0)"),
    "printing instead": (SUM, "    print(sum(x + 3 for x in xs if x % 2))"),
    "a null byte": (SUM, "    return sum(x + 3 for x in xs if x % 2)\0"),
    "half a character": (SUM, "    return '\ud800'"),
    "a body without indent": (SUM, "return sum(x + 3 for x in xs if x % 2)"),
    "too deep for the parser": (SUM, "    return " + "(" * 1000),
}


def test_wrong_programs_are_wrong_whatever_they_do(task: Code) -> None:
    problems = [problem for problem, _ in WRONG.values()]
    grades = task.grade(problems, [program for _, program in WRONG.values()])
    assert [name for name, grade in zip(WRONG, grades, strict=True) if grade.correct] == []
    assert all(grade.reason for grade in grades)
    assert "timeout" in grades[list(WRONG).index("an endless loop")].reason
    (right,) = task.grade([FLAG], ["    return max((x % 2 for x in xs), default=0)"])
    assert right.correct


def test_equal_programs_get_equal_grades_wherever_they_stand(task: Code) -> None:
    right, wrong = "    return [x for x in xs if x > 4]", "    return xs"
    grades = task.grade([LIST, SUM, LIST, LIST, SUM], [right, right, wrong, right, wrong])
    assert [grade.correct for grade in grades] == [True, False, False, True, False]
    assert task.grade([], []) == []


def test_the_meaning_of_a_description_is_its_steps_in_order() -> None:
    assert run_steps([1, 2, 3, 4], [["even", 0], ["add", 3]], "list") == [5, 7]
    assert run_steps([1, 2, 3, 4], [["add", 3], ["even", 0]], "list") == [4, 6]
    assert run_steps([-3, 5], [["modulo", 4]], "sorted") == [1, 1]
    assert run_steps([], [["square", 0]], "largest") == 0
    assert run_steps([3, 1], [["negate", 0]], "smallest") == -3
    assert run_steps([3, 9, 12], [["multiples", 3], ["below", 10]], "count") == 2
