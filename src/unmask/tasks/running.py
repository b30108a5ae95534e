"""Runs the programs of a task in one sandbox."""

import os
from collections.abc import Sequence

from unmask.sandbox import AnyJob, Limits, Outcome, Sandbox
from unmask.tasks.base import Grade


def benchmark_runner(cpu_seconds: int, workers: int | None) -> "ProgramRunner":
    """For published problems: CPU time decides, which a busy machine does not change.

    The wall clock, three times as long, is there for programs that sleep. NumPy can be imported.
    """
    wall_seconds = 3.0 * cpu_seconds
    limits = Limits(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds, memory_mb=1024, num_files=64)
    return ProgramRunner(limits, workers, packages=("numpy",))


class ProgramRunner:
    """Holds one sandbox, started when the first program is run."""

    def __init__(self, limits: Limits, workers: int | None = None, packages: tuple[str, ...] = ()) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: programs need 1 or more to run them")
        self._limits, self._packages = limits, packages
        self._workers = workers or max(2, min(16, (os.cpu_count() or 2) // 2))
        self._sandbox: Sandbox | None = None

    def run(self, jobs: Sequence[AnyJob]) -> list[Outcome]:
        """One outcome per job; equal jobs are run once."""
        if self._sandbox is None:
            self._sandbox = Sandbox(self._workers, self._limits, self._packages)
        keys = [tuple(job.messages("")) for job in jobs]
        unique = dict(zip(keys, jobs, strict=True))
        outcomes = dict(zip(unique, self._sandbox.run_all(unique.values()), strict=True))
        return [outcomes[key] for key in keys]

    def close(self) -> None:
        """End the sandbox; it starts again with the next program."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


def grade_of(outcome: Outcome, why: str = "") -> Grade:
    """Right if the job went well and there is no reason `why` not."""
    if outcome.status != "ok":
        why = f"{outcome.status}: {outcome.error}"
    return Grade(not why, why, usage=usage_of([outcome]))


def usage_of(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """What grading cost: times are sums, memory is the most."""
    return {
        "wall_seconds": round(sum(one.seconds for one in outcomes), 4),
        "cpu_seconds": round(sum(one.cpu_seconds for one in outcomes), 4),
        "memory_mb": round(max((one.memory_mb for one in outcomes), default=0.0), 1),
    }
