"""Steps captured as CUDA graphs: what is launched once is replayed without the host."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from unmask.decode.runner import Batch, Runner, Shape
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, is_capturable, modules_of

MAX_GRAPHS = 64
"""Held at a time; the one that has not been used for longest makes room."""
_Key = tuple[Shape, tuple[int, int] | None, tuple[bool, torch.dtype]]
_OF_TORCH = vars(nn.Module()).keys() - {"training"}
"""What modules have in them beside settings."""


def uses_graphs(wanted: bool | None, denoiser: Transformer, planner: Planner) -> bool:
    """Whether steps are captured; where None is wanted, if all is on one GPU and both say that they can be.

    Raises:
        ValueError: where they are wanted, and the model is not on one GPU.
    """
    if wanted is False or (wanted is None and not (is_capturable(denoiser) and is_capturable(planner))):
        return False
    if denoiser.device.type != "cuda":
        if wanted:
            raise ValueError(f"graphs are CUDA graphs, and the model is on {denoiser.device}; leave them out")
        return False
    is_on_one = len({weight.device for weight in denoiser.parameters()}) == 1
    if wanted and not is_on_one:
        raise ValueError("graphs stay on one GPU, and the model is on several; leave graphs out")
    return is_on_one


class Capture:
    """Captures calls as CUDA graphs, on its GPU whichever is current; nothing may compile in them any more.

    The graphs share memory, which they do if captured on one stream: replay one at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._pool: Any = None

    def __call__(self, call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        captured = torch.cuda.graph(  # other threads of the process go on with what they do
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream()), captured:
            call()  # the stream is the current one again also where this fails
        self._pool = graph.pool()
        return graph


@dataclass(slots=True)
class _Captured:
    """A step."""

    graph: torch.cuda.CUDAGraph
    held: Batch
    """Its tensors are those that were captured."""
    filled: Batch
    """What they hold a copy of."""

    def replay(self, batch: Batch) -> None:
        if self.filled is not batch:
            held = self.held.tensors()
            for name, tensor in batch.tensors().items():
                held[name].copy_(tensor, non_blocking=True)
            self.filled = batch
        self.graph.replay()


class GraphedRunner:
    """A `Runner` that captures a step of a shape when it comes for the second time, and replays it after.

    The contents of the batch are copied into the tensors that were captured. Planners must be what
    `is_capturable` says, as all of ours are. Where modules have hooks, or a capture has failed, steps are
    launched as by a `Runner`.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._seen: set[_Key] = set()
        self._graphs: dict[_Key, _Captured] = {}
        """The one used last is the last."""
        self._capture: Capture | None = Capture(runner.denoiser.device)
        self.fixed, self._has_hooks = self._what_is_fixed()
        """What a captured step has in it: where tensors lie, and settings."""

    def step(self, batch: Batch) -> None:
        where = (batch.slots.start, batch.slots.stop) if isinstance(batch.slots, slice) else None
        key = (batch.shape, where, _autocast(self.runner.denoiser.device))
        if key not in self._graphs and (key not in self._seen or not self._add(key, batch)):
            self._seen.add(key)
            with _fresh_casts():  # as in a capture, where nothing may be compiled any more
                self.runner.step(batch)
            return
        captured = self._graphs[key] = self._graphs.pop(key)
        captured.replay(batch)

    def _add(self, key: _Key, batch: Batch) -> bool:
        """Capture a step; False where that cannot be done."""
        if self._capture is None or self._has_hooks or self.forget_what_changed():
            return False
        held = batch.clone()
        try:
            with _fresh_casts():
                graph = self._capture(lambda: self.runner.step(held))
        except RuntimeError as error:
            self.forget()
            self._capture = None
            warnings.warn(f"steps run without graphs, as one was not captured: {error}", stacklevel=2)
            return False
        if len(self._graphs) == MAX_GRAPHS:
            oldest = next(iter(self._graphs))
            del self._graphs[oldest]
            self._seen.discard(oldest)
        self._graphs[key] = _Captured(graph, held, batch)
        return True

    def forget(self) -> None:
        """Drop all graphs: tensors that they write to have been replaced."""
        self._graphs.clear()
        self._seen.clear()
        if self._capture is not None:
            self._capture = Capture(self.runner.denoiser.device)

    def forget_what_changed(self) -> bool:
        """Drop all graphs if a weight lies elsewhere than it did, or a setting is another one; True if so."""
        fixed, self._has_hooks = self._what_is_fixed()
        if fixed == self.fixed:
            return False
        self.forget()
        self.fixed = fixed
        return True

    def _what_is_fixed(self) -> tuple[list[object], bool]:
        """See `fixed`; and whether modules have hooks."""
        planner = self.runner.planner
        found: list[object] = [_autocast(self.runner.denoiser.device)]
        found.append(repr(planner) if is_dataclass(planner) else None)
        found += [_mark(value) for value in getattr(planner, "__dict__", {}).values()]
        has_hooks = False
        for module in (*modules_of(self.runner.denoiser), *modules_of(planner)):
            values = vars(module)
            found += [type(module), *(_mark(values[name]) for name in values if name not in _OF_TORCH)]
            found += map(_mark, (*module._parameters.values(), *module._buffers.values()))
            has_hooks |= bool(module._forward_hooks or module._forward_pre_hooks or "forward" in values)
        return [*found, has_hooks], has_hooks


def _mark(value: object) -> object:
    """Changes with a tensor's place, and with a setting."""
    if isinstance(value, Tensor):
        is_strided = value.layout == torch.strided
        return (value.data_ptr(), value.dtype, value.stride()) if is_strided else id(value)
    is_setting = isinstance(value, Number | str | list | tuple | dict | set) or is_dataclass(value)
    return repr(value) if is_setting else None


def _autocast(device: torch.device) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)


@contextmanager
def _fresh_casts() -> Iterator[None]:
    """Autocast without its memory: a replay must cast the weights as they are by then.

    torch.compile takes this for another state of the world, and compiles anew in it.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
