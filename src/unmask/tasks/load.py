"""Tasks by name."""

from collections.abc import Callable

from unmask.tasks.base import Task
from unmask.tasks.chain import Chain
from unmask.tasks.code import Code

TASKS: dict[str, Callable[[], Task]] = {"chain": Chain, "code": Code}


def load_task(name: str) -> Task:
    """A task by name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; use one of {', '.join(sorted(TASKS))}")
    return TASKS[name]()
