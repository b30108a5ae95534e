"""Accuracy against NFE as a picture."""

import re
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.eval.metrics import Summary
from unmask.eval.pareto import frontier, point_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart, and markers for grey prints.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CHARACTERS_A_PANEL = 75
"""What the legend has room for in a line."""
MARKERS = ("o", "s", "^", "D", "v", "X")
GREY = "#8a8a8a"


def family(planner: str) -> str:
    """The label without its settings: what stands before the first bracket, blank, =, : or @."""
    return re.split(r"[(\s=:@]", planner, maxsplit=1)[0] or planner


def pareto_png(summaries: Iterable[Summary], path: Path | str) -> None:
    """One panel per task: accuracy with 95 % bars against NFE, coloured by model and planner family.

    The grey steps are the frontier of the panel.

    Raises:
        ValueError: without summaries.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = list(summaries)
    if not chosen:
        raise ValueError("nothing to plot; give at least one summary")
    tasks = list(dict.fromkeys(one.task for one in chosen))
    names = _series_names(chosen)
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)  # 7 colours, 6 markers: 42 looks
    styles = dict(zip(dict.fromkeys(names), looks, strict=False))
    figure = Figure(figsize=(5.4 * len(tasks), 4.4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, axes in zip(tasks, panels, strict=True):
        group = [(name, one) for name, one in zip(names, chosen, strict=True) if one.task == task]
        _draw_frontier(axes, [one for _, one in group])
        for name in dict.fromkeys(name for name, _ in group):
            _draw_series(axes, [one for other, one in group if other == name], name, *styles[name])
        _dress(axes, task)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(6, CHARACTERS_A_PANEL * len(tasks) // (max(map(len, handles)) + 8))),
        frameon=False,
    )
    figure.savefig(str(path), format="png")


def _series_names(summaries: list[Summary]) -> list[str]:
    """Planner family, and the model and block length where they differ within the picture."""
    several_models = len({one.model for one in summaries}) > 1
    several_blocks = len({one.block_length for one in summaries}) > 1
    return [
        family(one.planner)
        + (f", {one.model}" if several_models else "")
        + (f", block {one.block_length}" if several_blocks else "")
        for one in summaries
    ]


def _draw_frontier(axes: "Axes", group: list[Summary]) -> None:
    best = frontier(point_of(one) for one in group)
    nfe = [point.nfe for point in best]
    share = [100 * point.accuracy for point in best]
    axes.plot(
        [*nfe, max(one.nfe.value for one in group)],
        [*share, share[-1]],
        drawstyle="steps-post",
        color=GREY,
        linewidth=4,
        alpha=0.35,
        solid_capstyle="butt",
        label="frontier",
        zorder=1,
    )


def _draw_series(axes: "Axes", series: list[Summary], name: str, colour: str, marker: str) -> None:
    series = sorted(series, key=lambda one: one.nfe.value)
    low = [100 * (one.accuracy.value - one.accuracy.low) for one in series]
    high = [100 * (one.accuracy.high - one.accuracy.value) for one in series]
    axes.errorbar(
        [one.nfe.value for one in series],
        [100 * one.accuracy.value for one in series],
        yerr=[low, high],
        color=colour,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        linewidth=1.4,
        elinewidth=1,
        capsize=2.5,
        label=name,
        zorder=2,
    )


def _dress(axes: "Axes", task: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_xscale("log")
    fewest, most = axes.get_xlim()
    is_narrow = most < 4 * fewest  # powers of two would leave it with hardly a tick
    axes.xaxis.set_major_locator(MaxNLocator(5) if is_narrow else LogLocator(base=2, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda nfe, _: f"{nfe:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_title(task, loc="left", fontweight="bold")
    axes.set_xlabel("NFE per sample (log scale; left is faster)")
    axes.set_ylabel("accuracy, % (bars: 95 %)")
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
