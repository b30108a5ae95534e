"""Ways of decoding the same prompts: the reference loop, the engine, published code."""

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from unmask.decode.engine import Engine, EngineSettings, Finished
from unmask.decode.graphs import uses_graphs
from unmask.decode.loop import decode
from unmask.eval.published import Published
from unmask.models.base import Denoiser
from unmask.planners.base import Planner
from unmask.rng import generator

Net = TypeVar("Net")


@dataclass(frozen=True, slots=True)
class Work:
    """What one decode of all prompts did."""

    nfe: list[int]
    """For each row."""
    calls: int
    """Of the denoiser, on however many rows."""
    block_nfe: int = 0
    """Of all rows: those in `nfe` that computed only a part of the row, from a cache."""
    call_seconds: tuple[float, ...] = ()
    """Of single calls, where the way knows: under a cache, of those on windows alone."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Whether the denoiser and the head of the planner run compiled, and captured as CUDA graphs."""

    compile: bool = False
    graphs: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """Decodes all prompts."""

    decode: Callable[[], Work]
    execution: Execution = Execution()

    def __call__(self) -> Work:
        return self.decode()


@dataclass(frozen=True, slots=True)
class Workload:
    """What is decoded."""

    denoiser: Denoiser
    planner: Planner
    prompts: Sequence[Sequence[int]]
    length: int
    block_length: int
    temperature: float = 0.0
    seed: int = 0
    record_log_probs: bool = False

    def arguments(self) -> dict[str, Any]:
        """Keywords of `decode`."""
        names = ("length", "block_length", "temperature", "seed", "record_log_probs")
        return {name: getattr(self, name) for name in names}

    @property
    def is_learned(self) -> bool:
        return isinstance(self.planner, nn.Module)


def random_prompts(
    denoiser: Denoiser, number: int, shortest: int, longest: int, seed: int = 0
) -> list[list[int]]:
    """Prompts of evenly spaced lengths, of any tokens but the mask."""
    rng = generator(seed, "prompts")
    lengths = torch.linspace(shortest, longest, number).round().long().tolist()
    prompts = [torch.randint(denoiser.vocab_size - 1, (length,), generator=rng) for length in lengths]
    return [(prompt + (prompt >= denoiser.mask_id)).tolist() for prompt in prompts]


def reference(job: Workload) -> Way:
    """The reference loop, all prompts in one batch."""

    def way() -> Work:
        nfe = [row.nfe for row in decode(job.denoiser, job.prompts, job.planner, **job.arguments())]
        return Work(nfe, calls=max(nfe))

    return Way(way)


def engine(job: Workload, settings: EngineSettings) -> Way:
    """The decode engine, made in the first decode; later ones find its graphs and compiled parts."""
    made: list[_TimedEngine] = []
    graphs = uses_graphs(settings.graphs, job.denoiser, job.planner)  # type: ignore[arg-type]

    def way() -> Work:
        if not made:
            net, planner = job.denoiser, job.planner
            if settings.compile:  # the other ways go on with the nets as they are
                net, planner = on_same_weights(net), on_same_weights(planner)
            made.append(_TimedEngine(net, planner, settings))  # type: ignore[arg-type]
            if graphs:
                made[0].work(job)  # a shape is captured when it comes for the second time
        return made[0].work(job)

    return Way(way, Execution(settings.compile, graphs))


class _TimedEngine(Engine):
    """Knows how long each step took, and how many calls were in it."""

    def work(self, job: Workload) -> Work:
        self._steps: list[tuple[float, Counter[str]]] = []
        rows = self.decode(job.prompts, **job.arguments())
        kind = "whole" if self.settings.cache == "none" else "window"
        seconds = [each / calls[kind] for each, calls in self._steps if set(calls) == {kind}]
        num_calls = sum(calls.total() for _, calls in self._steps)
        num_cached = sum(row.num_cached_steps for row in rows)
        return Work([row.nfe for row in rows], num_calls, num_cached, tuple(seconds))

    def step(self) -> list[Finished]:
        before, begin = self.calls.copy(), time.perf_counter()
        reported = super().step()
        self._steps.append((time.perf_counter() - begin, self.calls - before))
        return reported


def on_same_weights(net: Net) -> Net:
    """A net that can be compiled and leaves the one given as it is."""
    other = copy.copy(net)
    if isinstance(other, nn.Module):
        parts = other._modules.items()
        other._modules = {name: None if part is None else on_same_weights(part) for name, part in parts}
    return other


def published(job: Workload, decode_published: Published) -> Way:
    """Code of somebody else, from `unmask.eval.published`."""

    def way() -> Work:
        done = decode_published(job.prompts)
        return Work(done.nfe, done.calls, done.block_nfe)

    return Way(way)
