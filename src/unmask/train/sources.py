"""Where a run's examples come from: tasks, or a file of the user's own. Tokens, by number in the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from unmask.config import ReferenceConfig
from unmask.decode.text import encode_prompts
from unmask.rng import python_random
from unmask.tasks.base import Task
from unmask.tasks.load import load_task

Pair = tuple[list[int], list[int]]
"""Tokens of a prompt and of a right completion, without EOS."""


class Source(Protocol):
    def pairs(self, numbers: Sequence[int]) -> list[Pair]:
        """Examples by their number in the run, which may lie in any epoch.

        Raises:
            ValueError: for one that does not fit.
        """
        ...


class Stream:
    """A procedural task: problems are made when they are asked for."""

    def __init__(self, task: Task, tokenizer: Any, recipe: ReferenceConfig) -> None:
        if recipe.too_long == "skip" or recipe.holdout:
            raise ValueError(f"{task.name} is endless: too_long and holdout are for a file or finite tasks")
        self.task, self.tokenizer, self.recipe = task, tokenizer, recipe

    def pairs(self, numbers: Sequence[int]) -> list[Pair]:
        if not numbers:
            return []
        problems = [self.task.problem("train", number) for number in numbers]
        texts = [self.task.reference(each, number) for each, number in zip(problems, numbers, strict=True)]
        completions = [
            _encode(self.tokenizer, text, f"the reference of {problem.id} of {self.task.name}")
            for text, problem in zip(texts, problems, strict=True)
        ]
        pairs = list(zip(encode_prompts(self.tokenizer, problems), completions, strict=True))
        for pair in pairs:
            check_fit(pair, self.recipe)
        return pairs


class Epochs:
    """A finite set, encoded once, in a new order every epoch."""

    def __init__(self, pairs: Sequence[Pair], name: str, recipe: ReferenceConfig) -> None:
        kept = pairs[recipe.holdout :]
        if recipe.too_long == "skip":
            kept = [pair for pair in kept if fits(pair, recipe)]
        for pair in kept:
            check_fit(pair, recipe)
        if not kept:
            raise ValueError(
                f"{name} leaves no example of its {len(pairs)} to train on; see holdout, too_long"
            )
        self.kept, self.size, self.seed, self.name = kept, len(kept), recipe.seed, name
        self.epoch, self.order = -1, list[int]()

    def pairs(self, numbers: Sequence[int]) -> list[Pair]:
        return [self._pair(number) for number in numbers]

    def _pair(self, number: int) -> Pair:
        epoch, place = divmod(number, self.size)
        if epoch != self.epoch:
            order = python_random(self.seed, "order", self.name, epoch).sample(range(self.size), self.size)
            self.epoch, self.order = epoch, order
        return self.kept[self.order[place]]


def sources(recipe: ReferenceConfig, tokenizer: Any) -> list[Source]:
    """What a recipe learns from; a run takes examples of each in turn."""
    if recipe.data is not None:
        return [Epochs(read_pairs(Path(recipe.data), tokenizer), Path(recipe.data).name, recipe)]
    return [_of_task(load_task(name), tokenizer, recipe) for name in recipe.tasks]


def _of_task(task: Task, tokenizer: Any, recipe: ReferenceConfig) -> Source:
    size = task.num_problems("train")
    if size is None:
        return Stream(task, tokenizer, recipe)
    if size == 0:
        raise ValueError(f"{task.name} has no training problems; it can only be evaluated")
    problems = [task.problem("train", index) for index in range(size)]
    completions = [
        _encode(tokenizer, task.reference(each, 0), f"the reference of {each.id} of {task.name}")
        for each in problems
    ]
    pairs = list(zip(encode_prompts(tokenizer, problems), completions, strict=True))
    return Epochs(pairs, task.name, recipe)


def read_pairs(path: Path, tokenizer: Any) -> list[Pair]:
    """The examples of a JSONL file.

    Raises:
        ValueError: naming the file and the line that is no example, or has characters that the tokenizer
            does not have.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; data is a file of JSON lines with prompt and completion")
    pairs: list[Pair] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompt, completion = entry["prompt"], entry["completion"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no JSON object with prompt and completion") from error
        if not (isinstance(prompt, str) and isinstance(completion, str) and prompt):
            raise ValueError(f"{path}, line {number}: prompt and completion are texts, the prompt not empty")
        tokens = [_encode(tokenizer, text, f"{path}, line {number}") for text in (prompt, completion)]
        pairs.append((tokens[0], tokens[1]))
    if not pairs:
        raise ValueError(f"{path} is empty")
    return pairs


def _encode(tokenizer: Any, text: str, place: str) -> list[int]:
    """What `encode_prompts` does, for a text that is no prompt of a task."""
    try:
        return list(tokenizer.encode(text, add_special_tokens=False))
    except Exception as error:  # `tokenizers` raises no kind of its own
        raise ValueError(
            f"the tokenizer cannot encode {place} ({error}); use a model whose vocabulary has its characters"
        ) from error


def fits(pair: Pair, recipe: ReferenceConfig) -> bool:
    """A completion leaves room for its EOS."""
    prompt, completion = pair
    return len(prompt) <= recipe.prompt_length and len(completion) < recipe.length


def check_fit(pair: Pair, recipe: ReferenceConfig) -> None:
    """Refuse an example that is too long, naming the settings to change."""
    if not fits(pair, recipe):
        raise ValueError(
            f"a problem has {len(pair[0])} prompt and {len(pair[1])} completion tokens; "
            f"raise prompt_length {recipe.prompt_length} or length {recipe.length}"
        )
