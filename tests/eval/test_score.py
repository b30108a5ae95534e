"""Generations made by anyone: formats, matching to problems, bad entries."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.eval.toys import record
from tests.tasks.published import needs_data
from tests.tasks.test_programs import SAMPLES
from unmask.eval.records import Record
from unmask.eval.score import score_files
from unmask.tasks.load import load_task

QUESTIONS = ["How many is 1 + 1?", "How many is 2 + 2, if 1 + 1 is 2?"]
RIGHT, WRONG = "so \\boxed{2}", "so \\boxed{3}"


@pytest.fixture
def task(tmp_path: Path) -> str:
    rows = [{"question": text, "answer": f"So.\n#### {2 * (at + 1)}"} for at, text in enumerate(QUESTIONS)]
    lines(tmp_path / "own.jsonl", rows)
    return f"gsm8k(path={tmp_path / 'own.jsonl'}, check=no)"


def lines(path: Path, entries: list[Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def d1(path: Path) -> Path:
    entries = [
        {"question": QUESTIONS[0], "prompt_input": "<user>", "generations": RIGHT, "ground_truth": 7.0},
        {"question": QUESTIONS[1], "prompt_input": "<user>", "generations": RIGHT, "ground_truth": 4.0},
    ]
    path.write_text(json.dumps({"generations": entries, "metrics": {}, "gen_length": 256}, indent=2))
    return path


def lm_eval(path: Path) -> Path:
    def sample(number: int, answer: str, name: str) -> dict[str, Any]:
        doc = {"question": QUESTIONS[number], "answer": "as published"}
        told = {"doc_id": number, "doc": doc, "target": "#### 9", "resps": [[answer]]}
        return {**told, "filtered_resps": ["[invalid]"], "filter": name, "exact_match": 0.0}

    names = ("strict-match", "flexible-extract")
    return lines(path, [sample(at, text, name) for name in names for at, text in enumerate((RIGHT, WRONG))])


def records(path: Path) -> Path:
    made = [("gsm8k", "test-0", RIGHT), ("chain", "test-0", "answer 3"), ("gsm8k(style=d1)", "test-1", WRONG)]
    names = Record.__dataclass_fields__
    entries = [record(task=task, id=one, completion=text) for task, one, text in made]
    return lines(path, [{name: getattr(entry, name) for name in names} for entry in entries])


def by_prompt(path: Path) -> Path:
    prompts = [f"<|user|>{question} Answer with a number.<|assistant|>" for question in QUESTIONS]
    return lines(path, [{"prompt": prompt, "completion": RIGHT} for prompt in prompts])


def by_answer(path: Path) -> Path:
    return lines(path, [{"completion": RIGHT, "answer": answer} for answer in ("#### 2", 3.0)])


def array(path: Path) -> Path:
    path.write_text(json.dumps([{"id": f"test-{at}", "completion": RIGHT} for at in range(2)]))
    return path


def zipped(path: Path) -> Path:
    path.write_bytes(gzip.compress(by_answer(path).read_bytes()))
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (d1, "d1"),
        (lm_eval, "lm-eval"),
        (records, "unmask"),
        (by_prompt, "completions"),
        (by_answer, "completions"),
        (array, "completions"),
        (zipped, "completions"),
    ],
)
def test_every_format_is_recognised_and_graded(
    tmp_path: Path, task: str, make: Callable[[Path], Path], name: str
) -> None:
    result = score_files([make(tmp_path / "made")], load_task(task))
    assert [one.grade.correct for one in result.graded] == [True, False]
    assert (result.accuracy.value, result.formats, result.skipped) == (0.5, {name: 2}, [])
    assert result.num_other == {lm_eval: 2, records: 1}.get(make, 0)


def test_records_of_several_runs_are_not_averaged(tmp_path: Path, task: str) -> None:
    made = [("top_k(1)", RIGHT), ("top_k(2)", WRONG), ("top_k(1)", RIGHT), ("top_k(2)", RIGHT)]
    entries = [
        record(task="gsm8k", planner=planner, completion=text, id="test-0", seed=at, model="net")
        for at, (planner, text) in enumerate(made)
    ]
    path = lines(tmp_path / "records.jsonl", [{**asdict(one), "note": "mine"} for one in entries])
    found = score_files([path, by_answer(tmp_path / "others.jsonl")], load_task(task)).by_run()
    assert [(name.partition(" on ")[0], len(one.graded), one.accuracy.value) for name, one in found] == [
        ("gsm8k, top_k(1)", 2, 1),
        ("gsm8k, top_k(2)", 2, 0.5),
        ("", 2, 0.5),
    ]


@pytest.mark.parametrize("number", [11, "11", "Mbpp/11", "mbpp/11"])
def test_a_number_of_mbpp_may_stand_behind_its_name(tmp_path: Path, number: int | str) -> None:
    task = load_task(f"mbpp(path={SAMPLES}, check=no, workers=1)")
    known = task.problem("test", 0)
    entry = {"task_id": str(number).replace("11", known.published_id), "completion": "nothing"}
    (graded,) = score_files([lines(tmp_path / "made.jsonl", [entry])], task).graded
    assert graded.problem.id == "test-0"


def test_several_files_count_as_one_and_samples_of_a_problem_as_related(tmp_path: Path, task: str) -> None:
    files = [array(tmp_path / "one"), array(tmp_path / "two")]
    result = score_files(files, load_task(task))
    alone = score_files(files[:1], load_task(task))
    assert len(result.graded) == 4
    assert result.accuracy.value == alone.accuracy.value == 0.5
    assert result.accuracy.low == alone.accuracy.low


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"completion": "x", "id": "test-9"}, "line 2: gsm8k has 2 test problems"),
        (
            {"completion": "x", "prompt": "another"},
            "line 2: id None is no problem of gsm8k(check=no); give an id",
        ),
        ({"completion": 3, "id": "test-1"}, "line 2 has no text"),
        ({"generations": "x", "question": "another"}, "no problem of gsm8k"),
        ({"completion": "x", "answer": "many"}, "line 2: 'many' is no answer of gsm8k"),
        ({"completion": "x", "answer": float("nan")}, "line 2: nan is no answer of gsm8k"),
        ({"completion": "x", "answer": True}, "line 2: True is no answer of gsm8k"),
        ({"resps": [[3]], "doc": {}}, "line 2 has no text"),
        ({"resps": [], "doc": {}}, "line 2 has no text"),
        ("text", "line 2 has no text"),
    ],
)
def test_a_bad_entry_is_told_by_line_and_may_be_skipped(
    tmp_path: Path, task: str, entry: Any, says: str
) -> None:
    path = lines(tmp_path / "made.jsonl", [{"completion": RIGHT, "id": "test-0"}, entry])
    with pytest.raises(ValueError, match=re.escape(says)):
        score_files([path], load_task(task))
    result = score_files([path], load_task(task), skip_bad=True)
    assert (len(result.graded), result.accuracy.value, len(result.skipped)) == (1, 1, 1)
    assert says.partition(";")[0] in result.skipped[0]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"answer": ' + "9" * 6000 + ', "completion": "x"}'])
def test_what_the_json_parser_gives_up_on_is_a_bad_entry(tmp_path: Path, task: str, line: str) -> None:
    path = tmp_path / "made.jsonl"
    good = json.dumps({"completion": RIGHT, "id": "test-0"})
    path.write_text(f"\ufeff{good}\n{line}\n", encoding="utf-8")
    result = score_files([path], load_task(task), skip_bad=True)
    assert (len(result.graded), len(result.skipped)) == (1, 1)
    assert "line 2 is no JSON" in result.skipped[0]


def test_answers_of_a_kind_that_the_task_does_not_know_are_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "made.jsonl", [{"completion": "\\boxed{1+2}", "answer": "3"}])
    with pytest.raises(ValueError, match="'3' is no answer of countdown"):
        score_files([path], load_task("countdown"))
    path = lines(tmp_path / "made.jsonl", [{"completion": "\\boxed{1+2}", "answer": [[1, 2], 3]}])
    assert score_files([path], load_task("countdown")).accuracy.value == 1


def test_a_puzzle_is_found_in_its_question_and_partial_credit_is_told(tmp_path: Path) -> None:
    question = "Solve the following Sudoku puzzle: 3102200002100320\n"
    entry = {"question": question, "generations": "<answer>3142243142131323</answer>", "ground_truth": "?"}
    result = score_files([lines(tmp_path / "made.jsonl", [entry])], load_task("sudoku4"))
    assert result.graded[0].problem.id == "test-0"
    assert (result.accuracy.value, result.partial) == (0, 7 / 8)


def test_an_answer_in_the_file_needs_no_published_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.delenv("UNMASK_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    entries: list[dict[str, Any]] = [
        {"completion": "\\boxed{\\frac{2}{4}}", "answer": "\\frac{1}{2}", "id": 7, "prompt": "a half?"},
        {"question": "a half?", "generations": "\\boxed{0.5}", "ground_truth": "\\frac{1}{2}"},
    ]
    task = load_task("math500")
    result = score_files([lines(tmp_path / "made.jsonl", entries)], task)
    assert [one.grade.correct for one in result.graded] == [True, True]
    path = lines(tmp_path / "made.jsonl", [{"completion": "x", "prompt": "a half?"}])
    with pytest.raises(ValueError, match=r"line 1: cannot get test.jsonl .*set UNMASK_DATA"):
        score_files([path], task)


@needs_data
def test_samples_of_programs_are_placed_by_the_ids_of_their_publishers(tmp_path: Path) -> None:
    for name, expected in (("humaneval", "HumanEval/1"), ("mbpp", "12")):
        task = load_task(name)
        problem = task.problem("test", 1)
        assert problem.published_id == expected
        entries = [
            {"task_id": expected, "completion": task.reference(problem, 0)},
            {"doc": {"text": problem.question, "prompt": problem.question}, "resps": [["def f(): pass"]]},
        ]
        result = score_files([lines(tmp_path / name, entries)], task)
        assert [(one.problem.id, one.grade.correct) for one in result.graded] == [
            ("test-1", True),
            ("test-1", False),
        ]


@needs_data
def test_the_question_decides_where_the_answer_beside_it_was_lost(tmp_path: Path) -> None:
    """d1's files have no answer for the problems of GSM8K whose answer is negative."""
    task = load_task("gsm8k")
    problems = [task.problem("test", index) for index in range(1319)]
    chosen = next(problem for problem in problems if problem.data["answer"].startswith("-"))
    text = f"\\boxed{{{chosen.data['answer']}}}"
    entry = {"question": chosen.question, "generations": text, "ground_truth": None}
    assert score_files([lines(tmp_path / "made.jsonl", [entry])], task).accuracy.value == 1
