"""Files of generations, made by anyone: each entry becomes the text and what tells its problem.

Read are JSON lines, a JSON array or one JSON object with a list, plain or gzipped, in these formats:

    unmask       a record of `unmask eval`
    completions  `completion` with `id` ("test-12"), `task_id`, `prompt`, `question` or `answer`
    d1           `generations` with `question` and `ground_truth`, as d1 and dUltra write them
    lm-eval      `resps` with `doc` and `target`: the samples that `--log_samples` writes
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask.eval.records import Run, run_in

_NO_JSON = (ValueError, RecursionError)
"""What the parser raises: also for numbers of thousands of digits and for thousands of brackets."""


@dataclass(frozen=True, slots=True)
class Generation:
    where: str
    """File and line, or file and entry."""
    format: str
    text: str
    id: Any = None
    """Of its problem, in our numbering or its publisher's."""
    questions: tuple[str, ...] = field(default=())
    """Texts that are or contain the question."""
    answer: Any = None
    """The right answer, as the file has it."""
    task: str | None = None
    run: Run | None = None
    """Of a record of ours: its settings."""
    filter: str | None = None
    """The samples of lm-eval repeat each generation for every filter of its answer."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    where: str
    why: str


def read_generations(path: Path) -> list[Generation | Unreadable]:
    """Every entry of a file, in order.

    Raises:
        ValueError: for a file that is no text.
    """
    return [one for where, entry in _entries(path) for one in _read(where, entry)]


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        text = content.decode("utf-8-sig")
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no text of JSON: {error}") from error
    try:
        whole = json.loads(text)
    except _NO_JSON:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}, line {number}", _parse(line)
        return
    if isinstance(whole, dict) and isinstance(whole.get("generations"), list):
        whole = whole["generations"]
    if not isinstance(whole, list):
        yield f"{path}, line 1", whole
        return
    for number, entry in enumerate(whole, 1):
        yield f"{path}, entry {number}", entry


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except _NO_JSON as error:
        return error


def _read(where: str, entry: Any) -> Iterator[Generation | Unreadable]:
    if isinstance(entry, Exception):
        yield Unreadable(where, f"{where} is no JSON: {entry}")
        return
    texts, kind = _texts(entry)
    if not texts:
        why = f"{where} has no text under 'completion' (unmask), 'generations' (d1) or 'resps' (lm-eval)"
        yield Unreadable(where, why)
    for text in texts:
        yield Generation(where=where, format=kind, text=text, **_told(entry, kind))


def _texts(entry: Any) -> tuple[list[str], str]:
    if not isinstance(entry, dict):
        return [], ""
    if isinstance(entry.get("completion"), str):
        return [entry["completion"]], "unmask" if "planner" in entry else "completions"
    if isinstance(entry.get("generations"), str):
        return [entry["generations"]], "d1"
    flat: list[Any] = [entry.get("resps", entry.get("filtered_resps"))]
    while any(isinstance(one, list) for one in flat):
        flat = [inner for one in flat for inner in (one if isinstance(one, list) else [one])]
    texts = [one for one in flat if isinstance(one, str)]
    return (texts, "lm-eval") if len(texts) == len(flat) else ([], "")


def _told(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    """What an entry says of its problem."""
    if kind == "lm-eval":
        doc = entry.get("doc") if isinstance(entry.get("doc"), dict) else {}
        assert isinstance(doc, dict)
        return {
            "id": doc.get("task_id", doc.get("unique_id")),
            "questions": tuple(value for value in doc.values() if isinstance(value, str)),
            "answer": doc.get("answer", entry.get("target")),
            "filter": entry.get("filter"),
        }
    texts = (entry.get(name) for name in ("question", "prompt", "prompt_input"))
    return {
        "id": entry.get("id", entry.get("task_id")),
        "questions": tuple(text for text in texts if isinstance(text, str)),
        "answer": entry.get("ground_truth", entry.get("answer")),
        "task": entry.get("task") if isinstance(entry.get("task"), str) else None,
        "run": run_in(entry) if kind == "unmask" else None,
    }
