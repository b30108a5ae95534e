"""Chain problems: right derivations in many orders, and a grader that reads every line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.tasks.base import Problem
from unmask.tasks.chain import Chain

TASK = Chain()
FACTS = {
    "Ann": {"op": "is", "of": [], "by": 14},
    "Bob": {"op": "more", "of": ["Ann"], "by": 3},
    "Cid": {"op": "twice", "of": ["Ann"], "by": None},
    "Dan": {"op": "sum", "of": ["Bob", "Cid"], "by": None},
}
PROMPT = (
    "Ann has 14. Bob has 3 more than Ann. Cid has twice as many as Ann. "
    "Dan has as many as Bob and Cid together. How many has Dan?\n"
)
PROBLEM = Problem("made-0", PROMPT, {"facts": FACTS, "asked": "Dan"})
RIGHT = "Ann=14\nBob=14+3=17\nCid=2*14=28\nDan=17+28=45\nanswer 45"


def is_right(completion: str, problem: Problem = PROBLEM) -> bool:
    (grade,) = TASK.grade([problem], [completion])
    assert grade.correct == (grade.reason == "")
    return grade.correct


def test_references_are_right_in_every_variant() -> None:
    problems = [TASK.problem("test" if number % 2 else "train", number) for number in range(300)]
    for variant in range(4):
        completions = [TASK.reference(problem, variant) for problem in problems]
        assert all(grade.correct for grade in TASK.grade(problems, completions))


def test_problems_have_many_right_derivations() -> None:
    for number in range(50):
        problem = TASK.problem("train", number)
        assert len({TASK.reference(problem, variant) for variant in range(40)}) >= 4


@pytest.mark.parametrize(
    "completion",
    [
        RIGHT,
        RIGHT + "\n",
        "Ann=14\nCid=14+14=28\nBob=3+14=17\nDan=28+17=45\nanswer 45",
        "Ann=14\nCid=14*2=28\nBob=14+3=17\nDan=17+28=45\nanswer 45",
    ],
)
def test_lines_may_go_in_any_order_that_derives_and_sums_either_way(completion: str) -> None:
    assert is_right(completion)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "answer 45",
        RIGHT.replace("Bob=14+3=17", "Bob=14+3=18"),
        RIGHT.replace("Bob=14+3=17", "Bob=17"),
        RIGHT.replace("Bob=14+3=17", "Bob=13+4=17"),
        RIGHT.replace("Bob=14+3=17", "Bob=14+3=17 "),
        RIGHT.replace("answer 45", "answer 44"),
        RIGHT.replace("answer 45", "Answer 45"),
        RIGHT.replace("\nanswer 45", ""),
        RIGHT.replace("Cid=2*14=28\n", ""),
        RIGHT.replace("Cid=2*14=28", "Cid=2*14=28\nCid=2*14=28"),
        RIGHT.replace("Cid=2*14=28", "Cid=2*14=28\nEve=10"),
        RIGHT.replace("Cid=2*14=28", "Cid=2*14=28\n"),
        RIGHT.replace("Ann=14\nBob=14+3=17", "Bob=14+3=17\nAnn=14"),
        RIGHT + " and so on",
        RIGHT + "\nanswer 45",
        " " + RIGHT,
        RIGHT.replace("14", "١٤"),
    ],
)
def test_anything_else_is_wrong(completion: str) -> None:
    assert not is_right(completion)


@given(st.integers(0, 500), st.integers(0, 5), st.data())
def test_a_changed_digit_is_noticed(index: int, variant: int, data: st.DataObject) -> None:
    problem = TASK.problem("train", index)
    text = TASK.reference(problem, variant)
    place = data.draw(st.sampled_from([match.start() for match in re.finditer(r"\d", text)]))
    digit = data.draw(st.sampled_from("0123456789".replace(text[place], "")))
    assert not is_right(text[:place] + digit + text[place + 1 :], problem)


@given(st.integers(0, 500), st.integers(0, 5), st.data())
def test_a_missing_or_doubled_line_is_noticed(index: int, variant: int, data: st.DataObject) -> None:
    problem = TASK.problem("train", index)
    lines = TASK.reference(problem, variant).split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    assert not is_right("\n".join(lines[:at] + lines[at + 1 :]), problem)
    assert not is_right("\n".join(lines[: at + 1] + lines[at:]), problem)
    assert not is_right("\n".join([lines[-1], *lines[:-1]]), problem)


@given(st.text(max_size=60))
def test_any_text_gets_a_grade(text: str) -> None:
    assert not is_right(text)


def test_the_prompt_says_all_that_the_answer_needs() -> None:
    for number in range(100):
        problem = TASK.problem("test", number)
        assert problem.prompt.endswith(f"How many has {problem.data['asked']}?\n")
        for who, fact in problem.data["facts"].items():
            assert f"{who} has " in problem.prompt
            assert fact["by"] is None or str(fact["by"]) in problem.prompt
