"""Tasks from one word of a command line."""

import json
from pathlib import Path

import pytest

from unmask.tasks.base import training_problem
from unmask.tasks.gsm8k import Gsm8k
from unmask.tasks.load import load_task


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    rows = [{"question": f"{number} + 1?", "answer": f"So.\n#### {number + 1}"} for number in range(5)]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_settings_reach_the_task_and_its_name(lines: Path) -> None:
    task = load_task(f"gsm8k(style=llada, shots=4, path={lines}, check=no)")
    assert isinstance(task, Gsm8k)
    assert task.name == "gsm8k(style=llada, shots=4, check=no)"
    assert task.num_problems("test") == 5
    for name in ("gsm8k", "mbpp", "humaneval", "math500", "countdown", "sudoku4"):
        assert load_task(name).name == load_task(f"{name}(style=plain, check=yes)").name == name
        assert load_task(f"{name}(check=no)").name == f"{name}(check=no)"
    assert load_task("gsm8k(style=llada, shots=5)").name == "gsm8k(style=llada)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chains", "unknown task 'chains'; use one of apps, chain, code"),
        ("gsm8k(style=d2)", "style = 'd2': Input should be 'plain'"),
        ("gsm8k(shots=many)", "shots = 'many'"),
        ("code(workers=0)", "workers=0: programs need 1 or more"),
        ("gsm8k(shot=4)", "'shot' is no setting of gsm8k.*it takes style, shots"),
        ("gsm8k(d1)", "'d1' is no setting"),
        ("gsm8k(style=d1, style=d1)", "or set twice"),
        ("gsm8k(style=d1, shots=4)", "shots=4 needs style=llada"),
        ("gsm8k(style=llada, shots=-1)", "shots=-1: use 0 to 100"),
        ("gsm8k(style=d1", "lacks its closing bracket"),
        ("chain(style=d1)", "no setting of chain.*it has no settings"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_task(text)


def test_a_finite_split_comes_whole_and_in_a_new_order_every_epoch(lines: Path) -> None:
    task = load_task(f"gsm8k(path={lines}, check=no)")
    epochs = [[training_problem(task, 5 * epoch + place).id for place in range(5)] for epoch in range(4)]
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(f"train-{index}" for index in range(5))}
    assert len({tuple(epoch) for epoch in epochs}) > 1
    with pytest.raises(ValueError, match="has 5 train problems; there is no train-5"):
        task.problem("train", 5)
