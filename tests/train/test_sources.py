"""Examples from finite tasks and files: each once an epoch, in an order that the recipe decides."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.train.small import assert_resuming_changes_nothing, denoise_recipe, init_recipe, metrics_of, train
from unmask.config import DenoiseRecipe
from unmask.tasks.base import Grade, Problem
from unmask.tasks.load import TASKS
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.data import ReferenceBatches
from unmask.train.sources import read_pairs, sources

TOKENIZER = build_tokenizer()
TEXTS = [(f"How many has {name}?\n", f"answer {number}") for number, name in enumerate("ABCDEFG")]


def text_of(pair: tuple[list[int], list[int]]) -> tuple[str, str]:
    prompt, completion = (TOKENIZER.decode(part) for part in pair)
    return prompt, completion


def write(path: Path, texts: list[tuple[str, str]] = TEXTS) -> Path:
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


def of_file(path: Path, **changes: Any) -> DenoiseRecipe:
    return denoise_recipe(**({"tasks": ("chain", "code"), "data": str(path)} | changes))


@dataclass
class Seven:
    """A finite task."""

    name: str = "seven"
    version: int = 1

    def num_problems(self, split: str) -> int:
        return len(TEXTS)

    def problem(self, split: str, index: int) -> Problem:
        return Problem(id=f"{split}-{index}", prompt=TEXTS[index][0], data={"answer": TEXTS[index][1]})

    def reference(self, problem: Problem, variant: int) -> str:
        return str(problem.data["answer"])

    def grade(self, problems: Any, completions: Any) -> list[Grade]:
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["file", "task"])
def test_every_epoch_shows_every_example_once_in_another_order(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "seven", Seven)
    by_file = kind == "file"
    recipe = of_file(write(tmp_path / "mine.jsonl")) if by_file else denoise_recipe(tasks=("seven",))
    (source,) = sources(recipe, TOKENIZER)
    epochs = [[text_of(pair) for pair in source.pairs(range(7 * each, 7 * each + 7))] for each in range(4)]
    assert all(sorted(epoch) == sorted(TEXTS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    (again,) = sources(recipe, TOKENIZER)
    across = again.pairs(range(10, 18))  # starting anywhere, over the end of an epoch
    assert [text_of(pair) for pair in across] == (epochs[1] + epochs[2])[3:11]


def test_the_first_examples_can_be_held_out(tmp_path: Path) -> None:
    (source,) = sources(of_file(write(tmp_path / "mine.jsonl"), holdout=2), TOKENIZER)
    assert {text_of(pair) for pair in source.pairs(range(15))} == set(TEXTS[2:])


def test_examples_that_do_not_fit_are_refused_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [*TEXTS, ("How many has A?\n", "answer " * 80)])
    with pytest.raises(ValueError, match="80 completion tokens; raise prompt_length 48 or length 64"):
        sources(of_file(path), TOKENIZER)
    (source,) = sources(of_file(path, too_long="skip"), TOKENIZER)
    assert {text_of(pair) for pair in source.pairs(range(14))} == set(TEXTS)
    with pytest.raises(ValueError, match="leaves no example of its 8"):
        sources(of_file(path, too_long="skip", length=1), TOKENIZER)


@pytest.mark.parametrize("changes", [{"holdout": 1}, {"too_long": "skip"}])
def test_an_endless_task_leaves_out_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="chain is endless"):
        sources(denoise_recipe(**changes), TOKENIZER)


def test_finite_and_endless_tasks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "seven", Seven)
    data = ReferenceBatches(denoise_recipe(tasks=("seven", "chain"), batch_size=4), TOKENIZER)
    for step in range(2):
        prompts = [TOKENIZER.decode(row[:48][mask[:48]]) for row, mask, _ in zip(*data[step], strict=True)]
        assert [prompt in dict(TEXTS) for prompt in prompts] == [True, False, True, False]


def test_a_file_trains_a_denoiser_and_a_planner(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path / "mine.jsonl")
    train(of_file(path, steps=40), tmp_path / "run")
    losses = [entry["loss"] for entry in metrics_of(tmp_path / "run")]
    assert sum(losses[-5:]) < sum(losses[:5])
    train(init_recipe(base, tasks=("chain", "code"), data=str(path), steps=1), tmp_path / "init")
    assert len(metrics_of(tmp_path / "init")) == 1


def test_a_run_on_a_file_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl")
    assert_resuming_changes_nothing(of_file(path, steps=5, packed_length=200), tmp_path / "runs", stop=2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: no JSON object"),
        ("[1]", "line 2: no JSON object"),
        ('{"prompt": "a"}', "line 2: no JSON object"),
        ('{"prompt": "a", "completion": 3}', "line 2: prompt and completion are texts"),
        ('{"prompt": "", "completion": "b"}', "line 2: prompt and completion are texts"),
        ('{"prompt": "Zoë", "completion": "b"}', "cannot encode .*mine.jsonl, line 2"),
        ('{"prompt": "a", "completion": "ë"}', "cannot encode .*mine.jsonl, line 2"),
    ],
)
def test_a_line_that_is_no_example_is_told(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' + line + "\n")
    with pytest.raises(ValueError, match=says):
        read_pairs(path, TOKENIZER)


@pytest.mark.parametrize("is_endless", [False, True])
def test_a_reference_that_the_tokenizer_lacks_characters_for_is_told(
    monkeypatch: pytest.MonkeyPatch, is_endless: bool
) -> None:
    class French(Seven):
        def num_problems(self, split: str) -> Any:
            return None if is_endless else super().num_problems(split)

        def reference(self, problem: Problem, variant: int) -> str:
            return "ë"

    monkeypatch.setitem(TASKS, "seven", French)
    with pytest.raises(ValueError, match="cannot encode the reference of train-0 of seven"):
        sources(denoise_recipe(tasks=("seven",)), TOKENIZER)[0].pairs([0])


def test_a_file_that_is_missing_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing"):
        read_pairs(tmp_path / "mine.jsonl", TOKENIZER)
    (tmp_path / "mine.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        read_pairs(tmp_path / "mine.jsonl", TOKENIZER)
