"""The trade of accuracy against NFE: which points count, and how much a set of them is worth."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from unmask.eval.metrics import Summary
from unmask.eval.records import Run, name_runs


@dataclass(frozen=True, slots=True)
class Point:
    nfe: float
    accuracy: float
    """A fraction."""
    label: str = ""


def points_of(summaries: Iterable[Summary]) -> list[Point]:
    """One per summary, in order."""
    listed = list(summaries)
    names = name_runs(one.run for one in listed)
    return [Point(one.nfe.value, one.accuracy.value, name) for one, name in zip(listed, names, strict=True)]


@dataclass(frozen=True, slots=True)
class Curve:
    """The runs of one task that differ only in the settings of one planner: a dial and what it buys."""

    task: str
    name: str
    summaries: list[Summary]
    """By rising NFE."""
    area: float
    """`area_under` its points, up to the NFE of the slowest run of the task."""
    aup: float | None
    """`accuracy_under_parallelism` of the runs and of the one that goes one token a step, where there is one
    with the same model and lengths: d3LLM's curves begin there. None where no run of the task has anything
    right."""


def family(planner: str) -> str:
    """The label without its settings: what stands before the first bracket, blank, =, : or @."""
    return re.split(r"[(\s=:@]", planner, maxsplit=1)[0] or planner


def curves(summaries: Sequence[Summary], one_a_step: str = "top_k(1)") -> list[Curve]:
    """The summaries by task and by planner family with equal settings, in the order of first appearance.

    `one_a_step` is the planner that begins every curve of `Curve.aup`.
    """
    groups: dict[Run, list[Summary]] = defaultdict(list)
    for one in summaries:
        groups[replace(one.run, planner=family(one.run.planner))].append(one)
    names = name_runs(groups, brief=True)
    return [
        _curve(name, group, summaries, one_a_step) for name, group in zip(names, groups.values(), strict=True)
    ]


def _curve(name: str, group: list[Summary], everything: Sequence[Summary], one_a_step: str) -> Curve:
    task = group[0].run.task
    rivals = [one for one in everything if one.run.task == task]
    best = max(one.accuracy.value for one in rivals)
    slowest = [
        one
        for one in rivals
        if one.run.planner == one_a_step and one not in group and _start(one.run) == _start(group[0].run)
    ]
    begun = slowest + group
    speeds, shares = [one.tpf for one in begun], [one.accuracy.value for one in begun]
    can_tell = best > 0 and min(speeds) > 0
    return Curve(
        task=task,
        name=name,
        summaries=sorted(group, key=lambda one: one.nfe.value),
        area=area_under(points_of(group), max(one.nfe.value for one in rivals)),
        aup=accuracy_under_parallelism(speeds, shares, best_accuracy=best) if can_tell else None,
    )


def _start(run: Run) -> tuple[object, ...]:
    """What a curve shares with its slowest point."""
    return run.version, run.model, run.length, run.block_length, run.temperature, run.stop_at_eos, run.dtype


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other matches in accuracy with as few NFE, by rising NFE and accuracy.

    Of points that differ in their label alone, the first label in the alphabet stays.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.nfe, -one.accuracy, one.label)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def accuracy_at(points: Iterable[Point], nfe: float) -> float:
    """The accuracy that a budget of `nfe` buys with one planner for all problems; 0 below the cheapest."""
    return max((point.accuracy for point in points if point.nfe <= nfe), default=0.0)


def area_under(points: Iterable[Point], nfe_max: float) -> float:
    """The mean of `accuracy_at` over budgets from 0 to `nfe_max`: a number in [0, 1].

    Raises:
        ValueError: unless `nfe_max` is above 0.
    """
    if not nfe_max > 0:
        raise ValueError(f"nfe_max {nfe_max} leaves no budget; use the NFE of the slowest planner")
    best = frontier(points)
    knots = [point.nfe for point in best if point.nfe < nfe_max] + [nfe_max]
    return sum((end - start) * accuracy_at(best, start) for start, end in pairwise(knots)) / nfe_max


def accuracy_under_parallelism(
    tpf: Sequence[float], accuracies: Sequence[float], *, best_accuracy: float
) -> float:
    """AUP as d3LLM defines it (arXiv 2601.07568), in its unit of percent times tokens per forward.

    Points are sorted by TPF; those more than 5 percentage points below the slowest one are dropped.
    The slowest counts with rho_1 * y_1; further ones add trapezoids of y * W(y), W(y) = min(exp(-3
    (1 - y / y_max)), 1). d3LLM's code stops with an error where the *fastest* point is among the
    dropped ones; here it is dropped too.

    Args:
        tpf: content tokens per denoiser call, one per point.
        accuracies: fractions, one per point.
        best_accuracy: y_max, the best accuracy of all methods that are compared, a fraction.

    Raises:
        ValueError: for no points, a TPF or best accuracy that is not positive, or accuracies
        outside [0, 1].
    """
    pairs = sorted(zip(tpf, accuracies, strict=True))
    if not pairs or pairs[0][0] <= 0 or not 0 < best_accuracy <= 1:
        raise ValueError("AUP needs points of positive TPF and a best accuracy in (0, 1]")
    if not all(0 <= accuracy <= 1 for _, accuracy in pairs):
        raise ValueError("accuracies are fractions; divide percentages by 100")
    percent = [(speed, 100 * accuracy) for speed, accuracy in pairs]
    floor = percent[0][1] - 5 - 1e-9
    kept = [(speed, accuracy) for speed, accuracy in percent if accuracy >= floor]

    def weighted(accuracy: float) -> float:
        return accuracy * min(math.exp(-3 * (1 - accuracy / (100 * best_accuracy))), 1.0)

    area = kept[0][0] * kept[0][1]
    for (slow, before), (fast, after) in pairwise(kept):
        area += (fast - slow) * (weighted(after) + weighted(before)) / 2
    return area
