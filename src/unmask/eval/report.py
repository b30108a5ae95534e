"""All that files of records say about each other: what `unmask pareto` prints, plots and writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from unmask.eval.calibration import Calibration, answer_pairs, calibration, token_pairs
from unmask.eval.metrics import Summary, group_runs, summarise
from unmask.eval.order import Order, order_of
from unmask.eval.paired import Versus, versus
from unmask.eval.pareto import Curve, curves, frontier, points_of
from unmask.eval.records import Record, Run, Sample, name_runs, read_records
from unmask.eval.stats import INTERVALS
from unmask.eval.traces import Trace, read_traces

Traces = Mapping[Run, Mapping[Sample, Trace]]


@dataclass(frozen=True, slots=True)
class Traced:
    """What the traces of a run say."""

    order: Order
    tokens: Calibration | None
    """Against the reference run; None where that has none of the problems, and for itself."""
    answers: Calibration | None


@dataclass(frozen=True, slots=True)
class Report:
    """Runs are known by their place in `summaries`."""

    summaries: list[Summary]
    names: list[str]
    files: list[list[Path]]
    """Where the records of each run are."""
    curves: list[Curve]
    frontier: list[bool]
    """Is the run on the frontier of its task?"""
    pairs: dict[tuple[int, int], Versus]
    """Of every two runs (a, b), a < b, that share a task and samples."""
    dominated_by: list[list[int]]
    traced: list[Traced | None]

    def of_task(self, task: str) -> list[int]:
        """The runs of a task."""
        return [place for place, one in enumerate(self.summaries) if one.run.task == task]

    def versus(self, a: int, b: int) -> Versus | None:
        """Run a against run b, where they share samples."""
        if (a, b) in self.pairs:
            return self.pairs[a, b]
        return self.pairs[b, a].turned() if (b, a) in self.pairs else None

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(one.run.task for one in self.summaries))


def make_report(
    files: Sequence[Path], *, interval: str = "wilson", margin: float = 0.0, reference: str = "top_k(1)"
) -> Report:
    """Read records, and traces where there are some.

    Args:
        files: of records.
        interval: "wilson" or "bootstrap", of accuracies.
        margin: how much accuracy a run may lose and still dominate a slower one; see `Versus.dominates`.
        reference: the planner whose tokens those of the others are held against.

    Raises:
        ValueError: without records, for a sample that is there twice, an unknown interval or a margin that is
            no fraction.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"margin {margin} is no fraction of accuracy; use 0.01 for a point")
    if interval not in INTERVALS:
        raise ValueError(f"unknown interval {interval!r}; use one of {', '.join(INTERVALS)}")
    read = {path: read_records(path) for path in files}
    records = [record for found in read.values() for record in found]
    if not records:
        raise ValueError("no records in the files given; write some with `unmask eval --out FILE.jsonl`")
    traces: dict[Run, dict[Sample, Trace]] = {}
    for path in files:
        for run, found in read_traces(path).items():
            traces.setdefault(run, {}).update(found)
    groups = group_runs(records)
    runs = list(groups)
    summaries = summarise(records, INTERVALS[interval])
    holders = {path: {record.run for record in found} for path, found in read.items()}
    pairs = _pairs(list(groups.values()), runs)
    return Report(
        summaries=summaries,
        names=name_runs(runs),
        files=[[path for path, held in holders.items() if run in held] for run in runs],
        curves=curves(summaries, reference),
        frontier=_on_frontier(summaries),
        pairs=pairs,
        dominated_by=[_dominators(place, pairs, margin) for place in range(len(runs))],
        traced=[_traced(run, groups[run], traces, reference) for run in runs],
    )


def _pairs(groups: Sequence[Sequence[Record]], runs: Sequence[Run]) -> dict[tuple[int, int], Versus]:
    samples = [{record.sample for record in group} for group in groups]
    return {
        (a, b): versus(groups[a], groups[b])
        for a, b in combinations(range(len(runs)), 2)
        if (runs[a].task, runs[a].version) == (runs[b].task, runs[b].version) and samples[a] & samples[b]
    }


def _dominators(place: int, pairs: Mapping[tuple[int, int], Versus], margin: float) -> list[int]:
    found = [a for (a, b), one in pairs.items() if b == place and one.dominates(margin)]
    return found + [b for (a, b), one in pairs.items() if a == place and one.turned().dominates(margin)]


def _on_frontier(summaries: Sequence[Summary]) -> list[bool]:
    tasks = {one.run.task: [each for each in summaries if each.run.task == one.run.task] for one in summaries}
    best = {task: frontier(points_of(group)) for task, group in tasks.items()}
    points = {task: iter(points_of(group)) for task, group in tasks.items()}
    return [next(points[one.run.task]) in best[one.run.task] for one in summaries]


def _traced(run: Run, group: Sequence[Record], traces: Traces, reference: str) -> Traced | None:
    held = traces.get(run, {})
    pairs = [(held[record.sample], record.correct) for record in group if record.sample in held]
    if not pairs:
        return None
    kept = [trace for trace, _ in pairs]
    references = {} if run.planner == reference else _references(run, traces, reference)
    return Traced(
        order=order_of([trace.unmask_step for trace in kept], run.block_length),
        tokens=calibration(token_pairs(kept, references)),
        answers=calibration(answer_pairs(kept, [right for _, right in pairs])),
    )


def _references(run: Run, traces: Traces, reference: str) -> dict[tuple[str, str], Trace]:
    """By (task, id): the reference with the model, task and lengths of a run; of several seeds the first."""
    wanted = ("task", "version", "model", "length", "block_length")
    found: dict[tuple[str, str], Trace] = {}
    for other, held in traces.items():
        if other.planner == reference and all(getattr(other, name) == getattr(run, name) for name in wanted):
            for sample in sorted(held):
                found.setdefault(sample[:2], held[sample])
    return found
