"""Steps captured as CUDA graphs: what is launched once is replayed without the host."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from unmask.decode.runner import Batch, Runner, Shape

MAX_GRAPHS = 64
_Key = tuple[Shape, tuple[int, int] | None]


class Capture:
    """Captures calls as CUDA graphs, on its GPU whichever is current; nothing may compile in them any more.

    The graphs share memory, which they do if captured on one stream: replay one at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._pool: Any = None

    def __call__(self, call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        captured = torch.cuda.graph(graph, pool=self._pool, stream=self._stream)
        with torch.cuda.device(self._device), captured:
            call()
        self._pool = graph.pool()
        return graph


class GraphedRunner:
    """A `Runner` that captures a step of a shape when it comes for the second time, and replays it after.

    The contents of the batch are copied into the tensors that were captured. Planners must be free of host
    synchronisation, as all of ours are.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._seen: set[_Key] = set()
        self._graphs: dict[_Key, tuple[torch.cuda.CUDAGraph, Batch]] = {}
        self._filled: dict[_Key, Batch] = {}
        """What the captured tensors hold a copy of."""
        self._capture = Capture(runner.denoiser.device)

    def step(self, batch: Batch) -> None:
        where = (batch.slots.start, batch.slots.stop) if isinstance(batch.slots, slice) else None
        key = (batch.shape, where)
        if key in self._graphs:
            graph, held = self._graphs[key]
            if self._filled.get(key) is not batch:
                for name, tensor in batch.tensors().items():
                    held.tensors()[name].copy_(tensor, non_blocking=True)
                self._filled[key] = batch
            graph.replay()
        elif key in self._seen and len(self._graphs) < MAX_GRAPHS:
            held = batch.clone()
            with _fresh_casts():
                graph = self._capture(lambda: self.runner.step(held))
            self._graphs[key] = (graph, held)
            graph.replay()
        else:
            self._seen.add(key)
            with _fresh_casts():  # as in a capture, where nothing may be compiled any more
                self.runner.step(batch)

    def forget(self) -> None:
        """Drop all graphs: tensors that they write to have been replaced."""
        self._graphs.clear()
        self._filled.clear()
        self._seen.clear()
        self._capture = Capture(self.runner.denoiser.device)


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
