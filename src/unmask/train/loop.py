"""The loop around every training stage: resume, step, log, save, stop cleanly."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Protocol

from unmask.config import RunConfig
from unmask.runlog import RunLog, only_run
from unmask.train import checkpoint
from unmask.train.checkpoint import TrainState
from unmask.workers import Workers

Metrics = dict[str, float]
OnStep = Callable[[int, int, Metrics], None]
"""Called with (steps done, steps in all, metrics) after each step."""


class Stage(Protocol):
    """One kind of training. A step is a function of its number and of the state."""

    state: TrainState
    total: int
    """Steps in all, for the schedule; with a limit of time, as many as will fit at the present pace."""

    def prepare(self, first: int) -> None:
        """Called once, when the first step to do is known."""
        ...

    def step(self, index: int) -> Metrics:
        """Do it and return what to log; `score`, where present, decides which checkpoint is best."""
        ...


def run(
    stage: Stage,
    recipe: RunConfig,
    folder: Path,
    workers: Workers,
    report: OnStep | None = None,
    score_window: int = 20,
) -> bool:
    """Train to the end, from the last checkpoint in `folder` if there is one.

    The folder gets `recipe.json`, `metrics.jsonl`, `last/` (all that resuming needs), `best/` (highest mean
    score over `score_window` steps) and, at the end, `final/`.

    Returns:
        True at the end; False where Ctrl-C or SIGTERM stopped it, after saving.

    Raises:
        ValueError: where another run is under way in `folder`, or it holds one of another recipe.
    """
    with only_run(folder) if workers.is_main else nullcontext():
        workers.wait()
        return _run(stage, recipe, folder, workers, report, score_window)


def _run(
    stage: Stage,
    recipe: RunConfig,
    folder: Path,
    workers: Workers,
    report: OnStep | None,
    score_window: int,
) -> bool:
    log = RunLog(folder, recipe.model_dump(mode="json"))
    checkpoint.restore(folder / "last", stage.state)
    state = stage.state
    first = state.step
    if workers.is_main:
        log.forget_after(state.step)
    stage.prepare(state.step)
    workers.wait()
    scores = log.last("score", score_window)
    clock = _Clock(recipe.minutes, stage.total)
    with _stop_request() as stopping:
        while state.step < clock.total(state):
            stage.total = clock.total(state)
            started = time.perf_counter()
            metrics = stage.step(state.step)
            metrics["seconds"] = time.perf_counter() - started
            state.step += 1
            if recipe.minutes is not None:
                clock.count(state, workers.max(metrics["seconds"]))
            if workers.is_main:
                log.write(state.step - 1, **metrics)
                if report is not None:
                    report(state.step, clock.total(state), metrics)
            if "score" in metrics:
                scores = [*scores, metrics["score"]][-score_window:]
                mean = sum(scores) / len(scores)
                if len(scores) == score_window and mean > state.best and state.step % 5 == 0:
                    state.best = mean
                    _save_models(folder / "best", state, workers)
            stop = workers.any(stopping())
            if stop or state.step % recipe.save_every == 0 or state.step == clock.total(state):
                if workers.is_main:
                    checkpoint.save(folder / "last", state)
                workers.wait()
            if stop:
                return False
    _save_models(folder / "final", state, workers, is_new=state.step > first)
    return True


class _Clock:
    """How many steps a run has: the recipe's, or fewer where they would not fit into its minutes."""

    def __init__(self, minutes: float | None, steps: int) -> None:
        self.limit, self.steps = None if minutes is None else 60 * minutes, steps
        self.recent: deque[float] = deque(maxlen=50)

    def count(self, state: TrainState, seconds: float) -> None:
        state.seconds += seconds
        self.recent.append(seconds)

    def total(self, state: TrainState) -> int:
        """The steps done and those that the time left allows at the present pace."""
        if self.limit is None or not state.step:
            return self.steps
        pace = median(self.recent) if self.recent else state.seconds / state.step
        return min(self.steps, state.step + max(0, int((self.limit - state.seconds) / max(pace, 1e-9))))


def _save_models(folder: Path, state: TrainState, workers: Workers, is_new: bool = True) -> None:
    if workers.is_main and (is_new or not folder.exists()):
        checkpoint.save_models(folder, state)
    workers.wait()


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a flag that the loop looks at between steps; a second one interrupts."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: nobody can send it signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
