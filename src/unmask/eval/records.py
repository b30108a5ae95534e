"""One JSON line per evaluated sample: what every metric, plot and table is computed from."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unmask.eval.jsonl import append_line

LineT = TypeVar("LineT")
Sample = tuple[str, str, int]
"""Task, problem id and seed: what two runs are paired by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The settings that the samples of one run share: only these may be averaged."""

    task: str
    version: int
    model: str
    weights: str
    dtype: str
    planner: str
    length: int
    block_length: int
    temperature: float
    stop_at_eos: bool
    cache: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem decoded once and graded. What has a default may be missing in older files."""

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
    """Denoiser calls that the row took part in, of any kind."""
    tokens: int
    """Completion tokens that are neither EOS nor padding."""
    length: int
    """Completion positions."""
    block_length: int
    seconds: float
    """Wall time of decoding what was decoded together, divided by its rows: a throughput, and not the time
    that one row waits. The first batch pays for warming up. Prompt tokenisation and grading are not in it."""
    seed: int
    """As given to `evaluate`; the row's own stream also depends on the task and the problem."""
    planner: str
    temperature: float
    """Of token sampling."""
    model: str
    cache: str = "none"
    cache_exact: bool = True
    """False where the cache changes what the denoiser says."""
    nfe_block: int = 0
    """Of the NFE, the calls that recomputed only a block; the others were full."""
    nfe_planner: int = 0
    """Calls of a planner that has a net of its own; 0 for a rule."""
    stop_at_eos: bool = False
    dtype: str = "float32"
    weights: str = ""
    """A fingerprint of the denoiser's and the planner's weights; empty where there are none, or in old
    files."""
    usage: dict[str, float] = field(default_factory=dict, compare=False)
    """What grading ran: wall_seconds, cpu_seconds, memory_mb of the program; empty where there is none."""

    @property
    def nfe_full(self) -> int:
        return self.nfe - self.nfe_block

    @property
    def sample(self) -> Sample:
        return self.task, self.id, self.seed

    @property
    def split(self) -> str | None:
        """Of its problem, where the id says it."""
        known = self.id.partition("-")[0]
        return known if known in ("train", "test") else None

    @property
    def run(self) -> Run:
        return Run(**{name: getattr(self, name) for name in _RUN_FIELDS})


_RUN_FIELDS = tuple(one.name for one in fields(Run))
_RECORD = TypeAdapter(Record)


def append_records(path: Path | str, records: Iterable[Record]) -> None:
    """Add a line per record, each on disk before the next record is asked for; see `append_line`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    for record in records:
        append_line(path, asdict(record))


def read_records(path: Path | str) -> list[Record]:
    """All records of a file, in order. Blank lines do not count.

    Raises:
        ValueError: naming the file and the line that is no record, and what is wrong with it.
    """
    return read_lines(path, _RECORD)


def run_in(entry: dict[str, Any]) -> Run | None:
    """The run of a line that has been read, whatever else stands in it; None where it is no record."""
    told = {one.name: entry[one.name] for one in fields(Record) if one.name in entry}
    try:
        return _RECORD.validate_json(json.dumps(told)).run
    except ValidationError:
        return None


def read_lines(path: Path | str, kind: TypeAdapter[LineT]) -> list[LineT]:
    """A file of JSON lines of one kind.

    Raises:
        ValueError: naming the file and the line that is of another kind, and what is wrong with it.
    """
    found = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found.append(kind.validate_json(line))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in first["loc"])
                what = f"{place}: {first['msg']}" if place else first["msg"]
                raise ValueError(f"{path}, line {number}: {what}") from error
    return found


def name_runs(runs: Iterable[Run], *, brief: bool = False) -> list[str]:
    """What to call each: the planner, its model and block length, and whatever else differs within a task.

    Brief names leave out model and block length too where they do not differ.
    """
    listed = list(runs)
    differing = {name for name in _TOLD if not brief and name in ("model", "block_length")}
    for name in _TOLD:
        # Weights tell apart only what has one name: another model has other weights anyway.
        groups: dict[object, set[object]] = defaultdict(set)
        for run in listed:
            alike = (run.model, run.planner, run.dtype) if name == "weights" else ()
            groups[run.task, *alike].add(getattr(run, name))
        if any(len(values) > 1 for values in groups.values()):
            differing.add(name)
    return [
        run.planner + "".join(_TOLD[name].format(getattr(run, name)) for name in _TOLD if name in differing)
        for run in listed
    ]


_TOLD = {
    "model": " on {}",
    "block_length": ", block {}",
    "length": ", length {}",
    "temperature": ", temperature {:g}",
    "cache": ", cache {}",
    "stop_at_eos": ", stops at EOS: {}",
    "dtype": ", {}",
    "weights": ", weights {}",
    "version": ", task version {}",
}
