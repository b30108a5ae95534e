"""Decode the problems of a task and grade the completions: one record per problem and seed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from torch import nn

from unmask.decode.loop import decode
from unmask.decode.text import completion_text, encode_prompts
from unmask.eval.jsonl import mend
from unmask.eval.provenance import dtype_of, fingerprint
from unmask.eval.records import Record, Run, Sample, append_records, read_records
from unmask.eval.traces import append_traces, read_traces, trace_of, traces_path
from unmask.models.base import Denoiser
from unmask.planners.base import Planner
from unmask.rng import derive
from unmask.tasks.base import Grade, Problem, Split, Task
from unmask.trajectory import Trajectory
from unmask.workers import ALONE, Workers


class Decode(Protocol):
    """A way to decode: yields each row with its place among the prompts, in any order, as it finishes."""

    def __call__(
        self,
        denoiser: Denoiser,
        prompts: Sequence[Sequence[int]],
        planner: Planner,
        *,
        length: int,
        block_length: int,
        temperature: float,
        seed: Sequence[int],
        stop_at_eos: bool,
        batch_size: int,
    ) -> Iterator[tuple[int, Trajectory]]: ...


def loop_decode(
    denoiser: Denoiser,
    prompts: Sequence[Sequence[int]],
    planner: Planner,
    *,
    length: int,
    block_length: int,
    temperature: float,
    seed: Sequence[int],
    stop_at_eos: bool,
    batch_size: int,
) -> Iterator[tuple[int, Trajectory]]:
    """The reference loop, a batch at a time."""
    for start in range(0, len(prompts), batch_size):
        rows = decode(
            denoiser,
            prompts[start : start + batch_size],
            planner,
            length=length,
            block_length=block_length,
            temperature=temperature,
            seed=seed[start : start + batch_size],
            stop_at_eos=stop_at_eos,
        )
        yield from enumerate(rows, start)


@dataclass(frozen=True, slots=True)
class Setting:
    """A denoiser with a planner, a block length and a way to decode, and what to call them."""

    model: str
    """What the records call the denoiser."""
    denoiser: Denoiser
    label: str
    """What the records call the planner, settings included: "factor(1.0)"."""
    planner: Planner
    block_length: int
    """Semi-autoregressive window; the length for full diffusion."""
    cache: str = "none"
    """What `decode` remembers of earlier steps."""
    decode: Decode = loop_decode


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all settings of a comparison share."""

    length: int
    """Completion positions."""
    num_problems: int | None = None
    """The first ones of the split; None for all of a finite one."""
    seeds: Sequence[int] = (0,)
    """Every problem is decoded once with each."""
    temperature: float = 0.0
    """Of token sampling; 0 takes the most likely token."""
    stop_at_eos: bool = False
    """Finish a row once an EOS has only fixed tokens before it."""
    split: Split = "test"
    batch_size: int = 64
    """Rows per denoiser call."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One row to decode."""

    problem: Problem
    seed: int
    tokens: list[int]
    """The prompt's."""


def evaluate(
    setting: Setting,
    task: Task,
    conditions: Conditions,
    *,
    out: Path | None = None,
    traces: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = ALONE,
) -> list[Record]:
    """Decode and grade the problems of a split once per seed; records come seed by seed, problem by problem.

    A row's random stream depends on the seed, the task and the problem's id alone, so neither the batch size,
    the number of problems, the number of processes nor an interruption changes a result; only `seconds` does.
    (In float32. In bfloat16 a denoiser may answer differently in another batch: see `eval.alone`.)

    Args:
        setting: what to evaluate.
        task: gives the problems and grades the completions.
        conditions: how much of the task, and how to decode.
        out: file to append records to as they come. Samples that it holds are not decoded again.
        traces: keep tokens, steps and confidences in a file beside `out`; doubles the denoiser calls.
        progress: called with (samples done, samples in all) of this process.
        workers: the processes that share the work, all of which call this.

    Raises:
        ValueError: for a denoiser without tokenizer, for what the decode refuses, and for an `out` that holds
            samples of other settings under the same name.
    """
    assignments = make_assignments(setting, task, conditions)
    run = run_of(setting, task, conditions)
    done = {} if out is None else finished_samples(out, run, traces)
    _refuse_other_problems(done, assignments, conditions, out)
    workers.wait()  # nobody may write before all have read
    todo = [each for each in assignments if (task.name, each.problem.id, each.seed) not in done]
    mine = workers.deal(
        sorted(todo, key=lambda each: -len(each.tokens))
    )  # like lengths together, most memory first
    made: list[Record] = []
    if progress is not None and not mine:
        progress(0, 0)
    for ended, rows, seconds in _finished(setting, task, conditions, mine):
        records = grade_rows(setting, task, run, ended, rows, seconds)
        if out is not None:
            if traces:  # first, so that a sample with a record has a trace
                pairs = zip(rows, records, strict=True)
                append_traces(
                    out, [trace_of(setting.denoiser, row, one, conditions.batch_size) for row, one in pairs]
                )
            append_records(out, records)
        made += records
        if progress is not None:
            progress(len(made), len(mine))
    done.update({one.sample: one for one in workers.gather(made)})
    return [done[task.name, each.problem.id, each.seed] for each in assignments]


def make_assignments(setting: Setting, task: Task, conditions: Conditions) -> list[Assignment]:
    """Every (seed, problem), seed by seed.

    Raises:
        ValueError: for a denoiser without tokenizer, nothing to evaluate, or all of an endless task.
    """
    tokenizer = setting.denoiser.tokenizer
    if tokenizer is None:
        raise ValueError(
            f"{setting.model} has no tokenizer, so it cannot read prompts; add tokenizer.json to its folder"
        )
    size, wanted = task.num_problems(conditions.split), conditions.num_problems
    if wanted is None and size is None:
        raise ValueError(f"{task.name} never ends, so there is no all of it; say how many problems (-n 1000)")
    number = min(one for one in (size, wanted) if one is not None)
    if number < 1 or conditions.batch_size < 1 or not conditions.seeds:
        raise ValueError(
            f"{number} problems of {task.name} ({conditions.split}), batch size {conditions.batch_size} and "
            f"{len(conditions.seeds)} seeds: nothing to evaluate; use 1 or more of each"
        )
    problems = [task.problem(conditions.split, index) for index in range(number)]
    prompts = encode_prompts(tokenizer, problems)
    return [
        Assignment(problem, seed, tokens)
        for seed in conditions.seeds
        for problem, tokens in zip(problems, prompts, strict=True)
    ]


def run_of(setting: Setting, task: Task, conditions: Conditions) -> Run:
    """What all records of an evaluation share."""
    return Run(
        task=task.name,
        version=task.version,
        model=setting.model,
        weights=fingerprint(setting.denoiser, setting.planner),
        dtype=dtype_of(setting.denoiser),
        planner=setting.label,
        length=conditions.length,
        block_length=setting.block_length,
        temperature=float(conditions.temperature),
        stop_at_eos=conditions.stop_at_eos,
        cache=setting.cache,
    )


def finished_samples(out: Path, run: Run, traces: bool) -> dict[Sample, Record]:
    """The records of a run that a file holds already.

    Raises:
        ValueError: where the file has this planner and model with other settings: going on would mix them.
    """
    for path in (out, traces_path(out)):
        mend(path)
    if not out.is_file():
        return {}
    found: dict[Sample, Record] = {}
    wanted = asdict(run)
    for record in read_records(out):
        other = asdict(record.run)
        if all(other[name] == wanted[name] for name in ("task", "model", "planner", "block_length")):
            changed = [
                f"{name} {other[name]!r}, not {wanted[name]!r}"
                for name in wanted
                if other[name] != wanted[name]
            ]
            if changed:
                raise ValueError(
                    f"{out} holds {run.planner} on {run.model} ({run.task}, block {run.block_length}) with "
                    f"{' and '.join(changed)}; give another --out"
                )
            found[record.sample] = record
    if traces and found.keys() - read_traces(out).get(run, {}).keys():
        raise ValueError(f"{out} holds samples of {run.planner} without traces; give another --out")
    return found


def _refuse_other_problems(
    done: dict[Sample, Record], assignments: Sequence[Assignment], conditions: Conditions, out: Path | None
) -> None:
    """A file that has the other split, or other problems under the same ids (of data of one's own)."""
    for one in done.values():
        if one.split not in (None, conditions.split):
            raise ValueError(
                f"{out} holds {one.id}, of another split than {conditions.split}; give another --out"
            )
    prompts = {(each.problem.id, each.seed): each.problem.prompt for each in assignments}
    for one in done.values():
        if prompts.get((one.id, one.seed), one.prompt) != one.prompt:
            raise ValueError(
                f"{out} holds another problem under the id {one.id} of {one.task}; give another --out"
            )


def decode_assignments(
    setting: Setting, task: Task, conditions: Conditions, run: Run, assignments: Sequence[Assignment]
) -> tuple[list[Trajectory], list[Record]]:
    """Decode some assignments and grade them, in their order; `run` is what `run_of` says."""
    found: dict[Sample, tuple[Trajectory, Record]] = {}
    for some, rows, seconds in _finished(setting, task, conditions, assignments):
        for row, record in zip(rows, grade_rows(setting, task, run, some, rows, seconds), strict=True):
            found[record.sample] = row, record
    ordered = [found[task.name, each.problem.id, each.seed] for each in assignments]
    return [row for row, _ in ordered], [record for _, record in ordered]


def _finished(
    setting: Setting, task: Task, conditions: Conditions, assignments: Sequence[Assignment]
) -> Iterator[tuple[list[Assignment], list[Trajectory], float]]:
    """Rows as they finish, a batch of them at a time, with the decoding time of one."""
    stream = setting.decode(
        setting.denoiser,
        [each.tokens for each in assignments],
        setting.planner,
        length=conditions.length,
        block_length=setting.block_length,
        temperature=conditions.temperature,
        seed=[derive(each.seed, "eval", task.name, each.problem.id) for each in assignments],
        stop_at_eos=conditions.stop_at_eos,
        batch_size=conditions.batch_size,
    )
    while True:
        started = time.perf_counter()
        batch = list(islice(stream, conditions.batch_size))
        if not batch:
            return
        seconds = (time.perf_counter() - started) / len(batch)
        yield [assignments[place] for place, _ in batch], [row for _, row in batch], seconds


def grade_rows(
    setting: Setting,
    task: Task,
    run: Run,
    assignments: Sequence[Assignment],
    rows: Sequence[Trajectory],
    seconds: float,
) -> list[Record]:
    """The records of decoded assignments."""
    denoiser = setting.denoiser
    completions = [completion_text(denoiser.tokenizer, row, denoiser.eos_id) for row in rows]
    grades = task.grade([each.problem for each in assignments], completions)
    told = zip(assignments, rows, completions, grades, strict=True)
    return [_record(setting, run, each, row, text, grade, seconds) for each, row, text, grade in told]


def _record(
    setting: Setting,
    run: Run,
    assignment: Assignment,
    row: Trajectory,
    completion: str,
    grade: Grade,
    seconds: float,
) -> Record:
    return Record(
        **asdict(run),
        id=assignment.problem.id,
        prompt=assignment.problem.prompt,
        completion=completion,
        correct=grade.correct,
        reason=grade.reason,
        usage=grade.usage,
        nfe=row.nfe,
        nfe_planner=row.nfe if isinstance(setting.planner, nn.Module) else 0,
        nfe_block=row.num_cached_steps,
        cache_exact=row.is_exact,
        tokens=row.num_content_tokens(setting.denoiser.eos_id, setting.denoiser.pad_id),
        seconds=seconds,
        seed=assignment.seed,
    )
