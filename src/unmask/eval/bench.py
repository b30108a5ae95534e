"""How fast ways of decoding are beside each other, beside the bare forward and beside the machine's limits.

Every way decodes the same prompts; one round times each once, so that ratios are of neighbours in time.
"""

import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from torch import nn

from unmask.decode.loop import DecodeError, check
from unmask.eval.bare import BareCalls
from unmask.eval.table import make_table, print_whole
from unmask.eval.timing import Roofline, Run, forward_flops, interleaved, median_seconds, weight_bytes
from unmask.eval.ways import Execution, Way, Work, Workload
from unmask.models.transformer import Transformer

COLUMNS = (
    "way",
    "tokens/s",
    "ms/step",
    "median",
    "ms/NFE",
    "NFE",
    "full/block/planner",
    "speed-up",
    "per NFE",
    "overhead",
    "of limit",
    "GiB",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One way: medians over rounds."""

    name: str
    seconds: float
    tokens_per_second: float
    """Completion positions."""
    ms_per_step: float
    """A step is a call of the denoiser, on however many rows."""
    median_step_ms: float | None
    """Of single calls, where the way knows: with a cache, of those on windows alone."""
    ms_per_nfe: float
    """An NFE is a call on one row."""
    nfe: float
    """Mean of the rows."""
    nfe_of_rows: list[int]
    """In the first round."""
    full_nfe: float
    """Sum over the rows, as the next two: whole rows, cached steps, evaluations of a learned planner."""
    block_nfe: float
    planner_nfe: float
    speedup: float
    """Over the first way, paired by round."""
    speedup_per_nfe: float
    """The same for `ms_per_nfe`: for where draws made different numbers of steps."""
    overhead: float | None
    """Time beyond that of the bare forwards and planner nets, as a share of the forwards, which are compiled
    and captured where the way is, paired by round; where as many calls were made as in the reference loop,
    none cached."""
    forward_ms: float
    """A bare forward, as this way runs it: the mean of all calls that the reference loop makes."""
    planner_ms: float
    """A learned planner's net alone, likewise."""
    share_of_limit: float | None
    """Least time that the machine needs for these NFE, over the time taken."""
    peak_gib: float | None
    """Most memory of the GPU, weights included."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All ways, and what they are compared with."""

    timings: list[Timing]
    failed: dict[str, str]
    """Ways that could not be taken, and why."""
    forward_ms: float
    """A bare forward, neither compiled nor captured."""
    planner_ms: float
    """A learned planner's net alone, likewise."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    job: Workload, ways: dict[str, Way], *, rounds: int = 5, limits: Roofline | None = None
) -> BenchReport:
    """Time ways of doing a job.

    Args:
        job: what is decoded.
        ways: by name; the first is what the others are compared with.
        rounds: timings of each.
        limits: of the machine; shares of it are left out without.

    Raises:
        ValueError: for what cannot be decoded.
        DecodeError: where all ways fail.
    """
    check(job.denoiser, job.prompts, job.length, job.block_length, job.temperature)
    device = job.denoiser.device
    peaks: dict[str, float | None] = {}
    failed: dict[str, str] = {}
    for name, way in ways.items():
        try:
            peaks[name] = _peak_gib(job, way)  # warms up, too
        except Exception as error:  # code of others, and too little memory, can fail in any way
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"
    if not peaks:
        raise DecodeError(f"no way of decoding worked; the first failed with {failed[next(iter(ways))]}")
    bare = BareCalls.of(job)
    executions = list(dict.fromkeys([Execution(), *(ways[name].execution for name in peaks)]))
    calls: dict[Any, Callable[[], Any]] = {name: ways[name] for name in peaks}
    for execution in executions:
        forward, planner = bare.forwards(execution), bare.planners(execution)
        calls["forward", execution], calls["planner", execution] = forward, planner
        forward()  # warms up
        planner()
    runs = interleaved(calls, rounds, device, warm_up=0)
    alone = {
        execution: _Bare(
            forwards=[run.seconds / len(bare.states) for run in runs["forward", execution]],
            planners=[run.seconds / len(bare.states) for run in runs["planner", execution]],
            calls=len(bare.states),
            nfe=bare.nfe,
        )
        for execution in executions
    }
    first = runs[next(iter(peaks))]
    return BenchReport(
        timings=[
            _timing(job, name, runs[name], first, alone[ways[name].execution], peaks[name], limits)
            for name in peaks
        ],
        failed=failed,
        forward_ms=1e3 * alone[Execution()].forward,
        planner_ms=1e3 * alone[Execution()].planner,
    )


@dataclass(frozen=True, slots=True)
class _Bare:
    """What the reference loop calls, alone."""

    forwards: list[float]
    """Seconds of a call, the mean of each round; as `planners`."""
    planners: list[float]
    calls: int
    nfe: int

    @property
    def forward(self) -> float:
        return statistics.median(self.forwards)

    @property
    def planner(self) -> float:
        return statistics.median(self.planners)

    def overhead(self, runs: Sequence[Run]) -> float:
        """Of runs that made as many calls, the median of the rounds."""
        rounds = zip(runs, self.forwards, self.planners, strict=True)
        return statistics.median(
            (run.seconds / self.calls - forward - planner) / forward for run, forward, planner in rounds
        )


def _timing(
    job: Workload,
    name: str,
    runs: Sequence[Run],
    first: Sequence[Run],
    bare: _Bare,
    peak_gib: float | None,
    limits: Roofline | None,
) -> Timing:
    seconds = median_seconds(runs)
    works: list[Work] = [run.result for run in runs]
    nfe = statistics.fmean(sum(work.nfe) for work in works)
    block_nfe = statistics.fmean(work.block_nfe for work in works)
    calls = statistics.fmean(work.calls for work in works)
    steps = [seconds for work in works for seconds in work.call_seconds]
    is_like_reference = not block_nfe and (calls, nfe) == (bare.calls, bare.nfe)
    least = None if limits is None else least_seconds(job, works[0], limits)
    pairs = list(zip(first, runs, strict=True))
    return Timing(
        name=name,
        seconds=seconds,
        tokens_per_second=len(job.prompts) * job.length / seconds,
        ms_per_step=1e3 * seconds / calls,
        median_step_ms=1e3 * statistics.median(steps) if steps else None,
        ms_per_nfe=1e3 * statistics.median(_seconds_per_nfe(run) for run in runs),
        nfe=nfe / len(job.prompts),
        nfe_of_rows=works[0].nfe,
        full_nfe=nfe - block_nfe,
        block_nfe=block_nfe,
        planner_nfe=nfe * job.is_learned,
        speedup=statistics.median(base.seconds / run.seconds for base, run in pairs),
        speedup_per_nfe=statistics.median(_seconds_per_nfe(b) / _seconds_per_nfe(r) for b, r in pairs),
        overhead=bare.overhead(runs) if is_like_reference else None,
        forward_ms=1e3 * bare.forward,
        planner_ms=1e3 * bare.planner,
        share_of_limit=None if least is None else least / median_seconds(runs[:1]),
        peak_gib=peak_gib,
    )


def _seconds_per_nfe(run: Run) -> float:
    work: Work = run.result
    return run.seconds / sum(work.nfe)


def least_seconds(job: Workload, work: Work, limits: Roofline) -> float | None:
    """What the machine needs for the NFE of a decode: whole rows in full ones, their block in cached ones.

    Logits count for one block a row; None where the denoiser is no transformer.
    """
    net = job.denoiser
    if not isinstance(net, Transformer):
        return None
    sizes = [len(prompt) + job.length for prompt in job.prompts]
    nfe = sum(work.nfe)
    mean_size = sum(size * steps for size, steps in zip(sizes, work.nfe, strict=True)) / nfe
    computed = mean_size * (nfe - work.block_nfe) + job.block_length * work.block_nfe
    flops = forward_flops(net, computed, mean_size, nfe * job.block_length)
    return limits.seconds(flops, work.calls * weight_bytes(net))


def _peak_gib(job: Workload, way: Way) -> float | None:
    """Most memory of a first decode: the nets' weights and what was allocated on top of what was there."""
    device = job.denoiser.device
    if device.type != "cuda":
        way()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way()
    nets = [net for net in (job.denoiser, job.planner) if isinstance(net, nn.Module)]
    most = torch.cuda.max_memory_allocated(device) - before + sum(map(weight_bytes, nets))
    return most / 2**30


def print_report(report: BenchReport) -> None:
    """A row for each way."""
    table = make_table(COLUMNS[:1], COLUMNS[1:])
    for each in report.timings:
        shares = ("" if share is None else f"{share:.1%}" for share in (each.overhead, each.share_of_limit))
        table.add_row(
            each.name,
            f"{each.tokens_per_second:,.0f}",
            f"{each.ms_per_step:.2f}",
            "" if each.median_step_ms is None else f"{each.median_step_ms:.2f}",
            f"{each.ms_per_nfe:.2f}",
            f"{each.nfe:.1f}",
            f"{each.full_nfe:.0f}/{each.block_nfe:.0f}/{each.planner_nfe:.0f}",
            f"{each.speedup:.2f}",
            f"{each.speedup_per_nfe:.2f}",
            *shares,
            "" if each.peak_gib is None else f"{each.peak_gib:.1f}",
        )
    for name, why in report.failed.items():
        table.add_row(name, f"failed: {why.splitlines()[0]}")
    print_whole(table)
    costs_told: set[float] = set()
    for each in report.timings:
        if each.forward_ms in costs_told:
            continue
        costs_told.add(each.forward_ms)
        costs = f"bare forward {each.forward_ms:.2f} ms a call, planner's net {each.planner_ms:.2f} ms"
        Console().print(f"{costs}, run as in: {each.name}", highlight=False, soft_wrap=True)
