"""Progress of a training run for people: a live bar on a terminal, a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Called with (steps done, steps in all, metrics) after each step."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.bar: Bar | None = None
        self.shown_at = float("-inf")
        self.started = time.perf_counter()
        self.first_done: int | None = None
        self.tokens = 0.0

    def __call__(self, done: int, total: int, metrics: dict[str, float]) -> None:
        now = time.perf_counter()
        if self.first_done is None:
            self.first_done, self.started = done - 1, now - metrics["seconds"]
        self.tokens += metrics.get("tokens", 0.0)
        elapsed = max(1e-9, now - self.started)
        shown = [key for key in metrics if key != "tokens" and "seconds" not in key and "/" not in key]
        text = " ".join(f"{key} {metrics[key]:.4g}" for key in shown)
        if self.tokens:
            text += f" | {self.tokens / elapsed:,.0f} tokens/s"
        if self.console.is_terminal:
            self._draw(done, total, text)
        elif now - self.shown_at >= LINE_EVERY or done == total:
            self.shown_at = now
            left = elapsed / (done - self.first_done) * (total - done)
            self.console.print(
                f"{self.title} {done}/{total} {text} | {left:.0f} s left", highlight=False, soft_wrap=True
            )

    def _draw(self, done: int, total: int, text: str) -> None:
        if self.bar is None:
            self.bar = Bar(
                TextColumn(self.title),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self.bar.add_task(self.title, total=total, text="")
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, text=text)

    def close(self) -> None:
        """Give the terminal back, at the end of a run or wherever it stopped."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
