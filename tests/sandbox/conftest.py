import os
import sys
from collections.abc import Callable, Iterator

import pytest

from unmask.sandbox import Job, Limits, Outcome, Sandbox, enforcement

Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    limits = Limits(wall_seconds=1.0, cpu_seconds=1, memory_mb=256, num_files=16, output_kb=8)
    with Sandbox(workers=1, limits=limits) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def run(sandbox: Sandbox) -> Run:
    """Call `f` of a program with each argument tuple; without any, once and with no argument."""

    def run(source: str, *calls: tuple[object, ...]) -> Outcome:
        return sandbox.run(Job(source, "f", calls or ((),)))

    return run


@pytest.fixture
def needs() -> Callable[[str], None]:
    """Skip where a promise is not held on this machine."""

    def needs(promise: str) -> None:
        held_by = enforcement()[promise]
        if held_by.startswith("none"):
            pytest.skip(f"{promise}: {held_by}")

    return needs


@pytest.fixture
def needs_proc() -> None:
    if not os.path.isdir("/proc/self"):
        pytest.skip(f"{sys.platform} has no /proc")
