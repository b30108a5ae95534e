"""One JSON line per evaluated sample: what every metric, plot and table is computed from."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem decoded once and graded."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    task: str
    version: int
    id: str
    """Of the problem."""
    prompt: str
    completion: str
    """The text before the first EOS."""
    correct: bool
    reason: str
    """Why it is wrong; empty when correct."""
    nfe: int
    """Denoiser calls that the row took part in."""
    tokens: int
    """Completion tokens that are neither EOS nor padding."""
    length: int
    """Completion positions."""
    block_length: int
    seconds: float
    """Wall time of decoding the row's batch, divided by the rows in the batch: a throughput, and
    not the time that one row waits. The first batch pays for warming up. Prompt tokenisation and
    grading are not in it."""
    seed: int
    """As given to `evaluate`; the row's own stream also depends on the task and the problem."""
    planner: str
    temperature: float
    """Of token sampling."""
    model: str
    cache: str = "none"


_RECORD = TypeAdapter(Record)


def append_records(path: Path | str, records: Iterable[Record]) -> None:
    """Add a line per record, each flushed before the next record is asked for.

    A last line without its line break, as a killed run leaves it, is completed when it is a whole
    record and cut off when it is not.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend_last_line(path)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(asdict(record), allow_nan=False) + "\n")
            file.flush()


def _mend_last_line(path: Path) -> None:
    if not path.exists():
        return
    text = path.read_bytes()
    last = text[text.rfind(b"\n") + 1 :]
    if not last:
        return
    try:
        _RECORD.validate_json(last)
    except ValidationError:
        with path.open("r+b") as file:
            file.truncate(len(text) - len(last))
    else:
        with path.open("ab") as file:
            file.write(b"\n")


def read_records(path: Path | str) -> list[Record]:
    """All records of a file, in order. Blank lines do not count.

    Raises:
        ValueError: naming the file and the line that is no record, and what is wrong with it.
    """
    records = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                records.append(_RECORD.validate_json(line))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in first["loc"])
                what = f"{place}: {first['msg']}" if place else first["msg"]
                raise ValueError(f"{path}, line {number}: {what}") from error
    return records
