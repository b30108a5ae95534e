"""The denoiser and a learned planner's net alone, on what the reference loop gave them.

B rows, C completion positions, T = prompt + C.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unmask.decode.graphs import Capture
from unmask.decode.loop import decode, left_pad
from unmask.eval.ways import Execution, Workload, on_same_weights
from unmask.planners.base import Confidences, Planner, Subset, View, compile_head
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import HEADS
from unmask.trajectory import Trajectory

Call = Callable[[], Any]
State = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class BareCalls:
    """All calls that the reference loop makes in a decode, to be made again without the rest of it."""

    job: Workload
    states: list[State]
    """Tokens and attention mask of each call of the denoiser."""
    views: list[tuple[View, int]]
    """A view for each number of rows that a learned planner was called with, and how often it was."""

    @staticmethod
    def of(job: Workload) -> "BareCalls":
        """Decodes once."""
        watched = _Watched(job.planner) if job.is_learned else job.planner
        rows = decode(job.denoiser, job.prompts, watched, **job.arguments())
        views: list[tuple[View, int]] = []
        if isinstance(watched, _Watched):
            views = [(view, watched.calls[num_rows]) for num_rows, view in watched.views.items()]
        return BareCalls(job, list(_states(job, rows)), views)

    @property
    def nfe(self) -> int:
        return sum(len(tokens_BT) for tokens_BT, _ in self.states)

    def forwards(self, execution: Execution) -> Call:
        """The denoiser alone; captured, on the first state of each shape as often as the shape came."""
        net: Any = self.job.denoiser
        if execution.compile:
            net = on_same_weights(net)
            net.compile_blocks()
        if not execution.graphs:
            return _all_of([partial(net, *state) for state in self.states])
        firsts = {state[0].shape: state for state in reversed(self.states)}
        capture = Capture(self.job.denoiser.device)
        captured = {shape: _replayed(partial(net, *state), capture) for shape, state in firsts.items()}
        return _all_of([captured[tokens_BT.shape] for tokens_BT, _ in self.states])

    def planners(self, execution: Execution) -> Call:
        """The planner's net as often as it was called."""
        planner: Any = self.job.planner
        if execution.compile:
            planner = on_same_weights(planner)
            compile_head(planner)
        capture = Capture(self.job.denoiser.device) if execution.graphs else None
        calls: list[Call] = []
        for view, times in self.views:
            call = partial(planner, view)
            calls += [call if capture is None else _replayed(call, capture)] * times
        return _all_of(calls)


class _Watched:
    """A planner that keeps what it was called with."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.views: dict[int, View] = {}
        self.calls: Counter[int] = Counter()

    def __call__(self, view: View) -> Subset:
        num_rows = len(view.open_BL)
        self.calls[num_rows] += 1
        if num_rows not in self.views:
            confidence_BL = view.readout.confidence()
            # What is read off logits is no part of a head of ours; another one may want them.
            head = self.planner.head if isinstance(self.planner, LearnedPlanner) else None
            is_ours = type(head) in [known for known, _ in HEADS.values()]
            readout = Confidences(confidence_BL) if is_ours else view.readout
            self.views[num_rows] = replace(view, readout=readout, confidence_BC=lambda: confidence_BL)
        return self.planner(view)


def _states(job: Workload, trajectories: Sequence[Trajectory]) -> Iterator[State]:
    """What the reference loop gave the denoiser, call by call."""
    tokens_BT, mask_BT = left_pad(job.prompts, job.length, job.denoiser.mask_id, job.denoiser.pad_id)
    tokens_BT = tokens_BT.to(job.denoiser.device)
    mask_BT = None if mask_BT is None else mask_BT.to(job.denoiser.device)
    for step in range(max(row.nfe for row in trajectories)):
        rows = [index for index, row in enumerate(trajectories) if row.nfe > step]
        state_BT = tokens_BT[rows]
        completion_BC = torch.stack([trajectories[index].state_at(step) for index in rows])
        state_BT[:, -job.length :] = completion_BC.to(state_BT.device)
        yield state_BT, None if mask_BT is None else mask_BT[rows]


def _all_of(calls: Sequence[Call]) -> Call:
    @torch.no_grad()
    def make_all() -> None:
        for call in calls:
            call()

    return make_all


@torch.no_grad()
def _replayed(call: Call, capture: Capture) -> Call:
    """A call as a CUDA graph, made once before: what it compiles is compiled then."""
    call()
    return capture(call).replay
