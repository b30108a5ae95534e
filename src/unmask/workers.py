"""This process among those that `accelerate launch` or `torchrun` started, or alone.

In training each process computes the gradient of its share of a global mean; the sum over processes is the
gradient of the whole. So they may do different numbers of backward passes, and the result does not depend on
the split.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unmask.device import present_device

Item = TypeVar("Item")
CPU = torch.device("cpu")
PATIENCE = timedelta(days=7)
"""For evaluations: how long a process that is finished waits for the others."""


def share_of(items: Sequence[Item], rank: int, size: int) -> Sequence[Item]:
    """The contiguous part of one of `size` processes."""
    return items[len(items) * rank // size : len(items) * (rank + 1) // size]


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among its peers."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    """Of its own, where it is a GPU."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's contiguous part of what all do together."""
        return share_of(items, self.rank, self.size)

    def deal(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every size-th item, so that long and short ones are spread evenly."""
        return items[self.rank :: self.size]

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, on every one."""
        if self.size == 1:
            return items
        parts: list[list[Item]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

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
        """Until all are here."""
        if self.size > 1:  # told no device, NCCL guesses one and warns
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def leave(self) -> None:
        """The last that a process has to do with the others."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Workers()


def workers(device: str | None = None, patience: timedelta | None = None) -> Workers:
    """The processes of this launch.

    Args:
        device: "cpu" or "cuda"; by default a GPU where there is one.
        patience: how long one waits for the others; by default as long as PyTorch has it.

    Raises:
        ValueError: for a device that is not here, or a launch that is not understood.
    """
    found = present_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size == 1:
        return Workers(device=found)
    from accelerate import PartialState

    options = {} if patience is None else {"timeout": patience}
    state = PartialState(cpu=found.type == "cpu", **options)
    if state.num_processes != size:
        raise ValueError(
            f"WORLD_SIZE is {size}, but there are {state.num_processes} processes; "
            "start them with accelerate launch or torchrun, or unset WORLD_SIZE"
        )
    return Workers(state.process_index, size, state.device)
