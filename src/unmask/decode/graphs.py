"""Steps captured as CUDA graphs: what is launched once is replayed without the host."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from unmask.decode.runner import Batch, Runner, Shape
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, is_capturable

MAX_GRAPHS = 64
"""Held at a time; the one that has not been used for longest makes room."""
_Key = tuple[Shape, tuple[int, int] | None]


def uses_graphs(wanted: bool | None, denoiser: Transformer, planner: Planner) -> bool:
    """Whether steps are captured; where None is wanted, if all is on one GPU and both say that they can be.

    Raises:
        ValueError: where they are wanted, and the model is not on one GPU.
    """
    devices = {weight.device for weight in denoiser.parameters()}
    if wanted is None:
        is_one_gpu = len(devices) == 1 and denoiser.device.type == "cuda"
        return is_one_gpu and is_capturable(denoiser) and is_capturable(planner)
    if wanted and denoiser.device.type != "cuda":
        raise ValueError(f"graphs are CUDA graphs, and the model is on {denoiser.device}; leave them out")
    if wanted and len(devices) > 1:
        raise ValueError("graphs stay on one GPU, and the model is on several; leave graphs out")
    return wanted


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


class GraphedRunner:
    """A `Runner` that captures a step of a shape when it comes for the second time, and replays it after.

    The contents of the batch are copied into the tensors that were captured. Planners must be what
    `is_capturable` says, as all of ours are. After a capture that fails steps are launched as by a `Runner`.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._seen: set[_Key] = set()
        self._graphs: dict[_Key, tuple[torch.cuda.CUDAGraph, Batch]] = {}
        """The one used last is the last."""
        self._filled: dict[_Key, Batch] = {}
        """What the captured tensors hold a copy of."""
        self._capture: Capture | None = Capture(runner.denoiser.device)
        self._fixed = self._what_is_fixed()

    def step(self, batch: Batch) -> None:
        where = (batch.slots.start, batch.slots.stop) if isinstance(batch.slots, slice) else None
        key = (batch.shape, where)
        if key not in self._graphs and (key not in self._seen or not self._add(key, batch)):
            self._seen.add(key)
            with _fresh_casts():  # as in a capture, where nothing may be compiled any more
                self.runner.step(batch)
            return
        graph, held = self._graphs[key] = self._graphs.pop(key)
        if self._filled.get(key) is not batch:
            for name, tensor in batch.tensors().items():
                held.tensors()[name].copy_(tensor, non_blocking=True)
            self._filled[key] = batch
        graph.replay()

    def _add(self, key: _Key, batch: Batch) -> bool:
        """Capture a step; False where that cannot be done."""
        if self._capture is None:
            return False
        held = batch.clone()
        try:
            with _fresh_casts():
                graph = self._capture(lambda: self.runner.step(held))
        except RuntimeError as error:
            warnings.warn(f"steps run without graphs, as one could not be captured: {error}", stacklevel=2)
            self.forget()
            self._capture = None
            return False
        if len(self._graphs) == MAX_GRAPHS:
            oldest = next(iter(self._graphs))
            del self._graphs[oldest]
            self._filled.pop(oldest, None)
            self._seen.discard(oldest)
        self._graphs[key] = (graph, held)
        self._filled[key] = batch
        return True

    def forget(self) -> None:
        """Drop all graphs: tensors that they write to have been replaced."""
        self._graphs.clear()
        self._filled.clear()
        self._seen.clear()
        if self._capture is not None:
            self._capture = Capture(self.runner.denoiser.device)

    def forget_what_changed(self) -> None:
        """Drop all graphs if a weight lies elsewhere than it did, or a setting is another one."""
        fixed = self._what_is_fixed()
        if fixed != self._fixed:
            self.forget()
            self._fixed = fixed

    def _what_is_fixed(self) -> list[object]:
        """What a captured step has in it: where the tensors lie, and the settings."""
        found: list[object] = []
        for part in (self.runner.denoiser, self.runner.planner):
            modules = list(part.modules()) if isinstance(part, nn.Module) else [part]
            for module in modules:
                values = getattr(module, "__dict__", {}).values()
                found += [value for value in values if isinstance(value, bool | int | float | str)]
            if isinstance(part, nn.Module):
                found += [tensor.data_ptr() for tensor in (*part.parameters(), *part.buffers())]
        return found


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
