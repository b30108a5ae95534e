"""In place of CUDA graphs on a CPU: the operations of a call are recorded, and replayed without it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


class Recorder(TorchDispatchMode):
    """Knows each operation, what it took and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result


class Recording:
    """A graph. What was recorded has been carried out, so the first replay does nothing."""

    def __init__(self, call: Callable[[], None]) -> None:
        with Recorder() as recorder:
            call()
        self._operations, self._is_first = recorder.operations, True

    @torch.no_grad()
    def replay(self) -> None:
        if self._is_first:
            self._is_first = False
            return
        made: dict[int, Tensor] = {}

        def of_now(value: Any) -> Any:
            return made.get(id(value), value) if isinstance(value, Tensor) else value

        for func, args, kwargs, result in self._operations:
            given = tree_map(of_now, (args, kwargs))
            with torch.autocast("cpu", enabled=False):  # the casts were recorded, too
                again = func(*given[0], **given[1])
            taken = [id(value) for value in tree_flatten((args, kwargs))[0]]
            for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and id(old) not in taken:
                    made[id(old)] = new


class RecordedCapture:
    """`unmask.decode.graphs.Capture`."""

    captured = 0

    def __init__(self, device: torch.device) -> None:
        del device

    def __call__(self, call: Callable[[], None]) -> Recording:
        type(self).captured += 1
        return Recording(call)
