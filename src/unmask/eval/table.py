"""Summaries for people and for programs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.eval.metrics import Summary
from unmask.eval.records import name_runs
from unmask.eval.stats import Estimate


def print_table(summaries: Iterable[Summary], console: Console | None = None) -> None:
    """One line per summary, on stdout unless a console says otherwise; ± is half a 95 % interval.

    A narrow terminal wraps the labels and never cuts a number; a pipe gets lines as long as needed.
    """
    listed = list(summaries)
    several_kinds = any(one.nfe_block for one in listed)
    kinds = ["full", "block"] if several_kinds else []
    table = make_table(["task", "run"], ["n", "accuracy %", "NFE", *kinds, "TPF", "tokens/s"])
    for one, name in zip(listed, name_runs(one.run for one in listed), strict=True):
        of_kinds = [f"{one.nfe_full:.1f}", f"{one.nfe_block:.1f}"] if several_kinds else []
        table.add_row(
            Text(one.run.task),
            Text(name),
            str(one.num_records),
            _with_error(one.accuracy, 100),
            _with_error(one.nfe, 1),
            *of_kinds,
            f"{one.tpf:.2f}",
            f"{one.tokens_per_second:.3g}",
        )
    print_whole(table, console)
    _print_diversity(listed, console)


def _print_diversity(summaries: list[Summary], console: Console | None) -> None:
    """A second table, of the runs that have several samples of each problem."""
    ks = sorted({k for one in summaries for k in one.pass_at})
    if not ks:
        return
    shares = [f"pass@{k} %" for k in ks]
    numbers = [*shares, "samples", "different", "different and right", "distinct-2"]
    table = make_table(["task", "run"], numbers)
    for one, name in zip(summaries, name_runs(one.run for one in summaries), strict=True):
        if one.diversity is not None:
            told = one.diversity
            table.add_row(
                Text(one.run.task),
                Text(name),
                *(_with_error(one.pass_at[k], 100) if k in one.pass_at else "-" for k in ks),
                f"{told.samples:g}",
                f"{told.distinct_completions:.2f}",
                f"{told.distinct_correct:.2f}",
                f"{told.distinct_2:.3f}",
            )
    (console or Console()).print()
    print_whole(table, console)


def make_table(labels: Sequence[str], numbers: Sequence[str]) -> Table:
    """Without rows: columns of labels, which may wrap, and then of numbers, which may not."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in labels:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_whole(table: Table, console: Console | None = None) -> None:
    """Print a table, whose lines are as long as needed in a pipe."""
    console = console or Console()
    if not console.is_terminal:
        wanted = console.measure(table, options=console.options.update(width=10_000)).maximum
        console.width = max(console.width, wanted)
    console.print(table)


def _with_error(estimate: Estimate, scale: float) -> str:
    error = "?" if math.isnan(estimate.half_width) else f"{scale * estimate.half_width:.1f}"
    return f"{scale * estimate.value:.1f} ±{error:>4}"


def as_json(summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    """Summaries as JSON values: an estimate is {"value", "low", "high"}, what is unknown is null."""
    listed = list(summaries)
    return [
        {
            "name": name,
            **asdict(one.run),
            **known({key: value for key, value in asdict(one).items() if key != "run"}),
        }
        for one, name in zip(listed, name_runs(one.run for one in listed), strict=True)
    ]


def known(value: Any) -> Any:
    """A JSON value with null for every NaN."""
    if isinstance(value, dict):
        return {str(name): known(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
