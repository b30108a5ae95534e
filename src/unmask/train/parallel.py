"""One process or many: Accelerate sets up the group, gradients are summed by hand.

Each process computes the gradient of its share of a global mean; the sum over processes is the gradient of
the whole. So ranks may do different numbers of backward passes, and the result does not depend on the split.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's contiguous part of what all do together."""
        bounds = [len(items) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return items[bounds[0] : bounds[1]]

    def autocast(self, precision: str) -> torch.autocast:
        """Products in bfloat16 where `precision` is bf16; weights and their gradients stay as they are."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; one that nobody has stays None."""
        if self.size == 1:
            return
        held = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in held]
        found = gradients[0].new_tensor([p.grad is not None for p in held])
        flat = torch.cat([found, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        found, *pieces = flat.split([len(held), *(p.numel() for p in held)])
        for parameter, piece, count in zip(held, pieces, found.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter).clone() if count else None

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over processes."""
        if self.size == 1:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """True if it is so for any process."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def max(self, value: float) -> float:
        if self.size == 1:
            return value
        largest: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return float(largest)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def workers(device: str | None = None) -> Workers:
    """The group that `accelerate launch` or `torchrun` made, or this process alone.

    Args:
        device: "cpu" or "cuda"; by default a GPU where there is one.
    """
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    chosen = torch.device(device) if device and state.num_processes == 1 else state.device
    return Workers(rank=state.process_index, size=state.num_processes, device=chosen)
