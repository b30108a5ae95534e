"""Several planners on the same held-out problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.eval.records import Record
from unmask.eval.replay import ReplayRow, row_of
from unmask.eval.run import Conditions, Setting, decode_assignments, evaluate, make_assignments, run_of
from unmask.tasks.base import Task
from unmask.workers import ALONE, Workers


@dataclass(frozen=True, slots=True)
class Status:
    """What is being done, for people."""

    what: str
    done: int
    total: int


def compare(
    settings: Sequence[Setting],
    tasks: Sequence[Task],
    conditions: Conditions,
    *,
    out: Path | None = None,
    traces: bool = False,
    watch: Callable[[Status], None] | None = None,
    workers: Workers = ALONE,
) -> list[Record]:
    """Evaluate every setting on every task; see `evaluate`."""
    records: list[Record] = []
    for task in tasks:
        for setting in settings:
            what = f"{task.name}: {title(setting)}"

            def progress(done: int, total: int, what: str = what) -> None:
                if watch is not None:
                    watch(Status(what, done, total))

            records += evaluate(
                setting, task, conditions, out=out, traces=traces, progress=progress, workers=workers
            )
    return records


def replays(
    settings: Sequence[Setting], tasks: Sequence[Task], conditions: Conditions, num_problems: int
) -> list[ReplayRow]:
    """The first problems of each task, decoded by every setting, settings next to each other."""
    few = replace(conditions, num_problems=num_problems, seeds=conditions.seeds[:1])
    found: dict[tuple[int, int], list[ReplayRow]] = {}
    for task_number, task in enumerate(tasks):
        for setting in settings:
            run = run_of(setting, task, few)
            rows, records = decode_assignments(setting, task, few, run, make_assignments(setting, task, few))
            for number, (row, record) in enumerate(zip(rows, records, strict=True)):
                shown = row_of(
                    row,
                    setting.denoiser.tokenizer,
                    title=title(setting),
                    correct=record.correct,
                    eos_id=setting.denoiser.eos_id,
                )
                found.setdefault((task_number, number), []).append(shown)
    return [row for key in sorted(found) for row in found[key]]


def title(setting: Setting) -> str:
    return f"{setting.label} on {setting.model}, block {setting.block_length}"
