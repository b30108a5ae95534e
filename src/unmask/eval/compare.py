"""Several planners on the same held-out problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unmask.eval.records import Record
from unmask.eval.replay import ReplayRow, row_of
from unmask.eval.run import evaluate
from unmask.models.base import Denoiser
from unmask.planners.base import Planner
from unmask.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Setting:
    """A denoiser with a planner and a block length, and what to call them."""

    model: str
    denoiser: Denoiser
    label: str
    planner: Planner
    block_length: int


@dataclass(frozen=True, slots=True)
class Comparison:
    records: list[Record]
    replays: list[ReplayRow]
    """The first problems of each task, decoded by every setting, settings next to each other."""


def compare(
    settings: Sequence[Setting],
    tasks: Sequence[Task],
    *,
    num_problems: int,
    seeds: Sequence[int],
    length: int,
    temperature: float = 0.0,
    batch_size: int = 64,
    num_replays: int = 2,
    watch: Callable[[str, int, int], None] | None = None,
    save: Callable[[list[Record]], None] | None = None,
) -> Comparison:
    """Evaluate every setting on every task.

    `watch` is called with (what, rows done, rows in all); `save` with the records of each finished setting.
    """
    records: list[Record] = []
    replays: dict[tuple[int, int], list[ReplayRow]] = {}
    for task_number, task in enumerate(tasks):
        for setting in settings:
            name = f"{task.name}: {setting.label} on {setting.model}, block {setting.block_length}"

            def progress(done: int, total: int, name: str = name) -> None:
                if watch is not None:
                    watch(name, done, total)

            result = evaluate(
                setting.denoiser,
                setting.planner,
                task,
                label=setting.label,
                model=setting.model,
                num_problems=num_problems,
                seeds=tuple(seeds),
                length=length,
                block_length=setting.block_length,
                temperature=temperature,
                batch_size=batch_size,
                keep_trajectories=num_replays,
                progress=progress,
            )
            records += result.records
            if save is not None:
                save(result.records)
            for number, trajectory in enumerate(result.trajectories):
                row = row_of(
                    trajectory,
                    setting.denoiser.tokenizer,
                    title=f"{setting.label} on {setting.model}, block {setting.block_length}",
                    correct=result.records[number].correct,
                    eos_id=setting.denoiser.eos_id,
                )
                replays.setdefault((task_number, number), []).append(row)
    return Comparison(records, [row for key in sorted(replays) for row in replays[key]])
