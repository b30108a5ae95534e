"""Time beside what the machine could do: interleaved timing, and the limits of products and of memory.

B rows, T positions.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from unmask.models.transformer import Transformer

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Run:
    """One timed call."""

    seconds: float
    result: Any


def interleaved(
    calls: Mapping[Name, Callable[[], Any]], rounds: int, device: torch.device, warm_up: int = 1
) -> dict[Name, list[Run]]:
    """Runs of each call, one of each in turn, so that a drift of the machine meets all alike."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    runs: dict[Name, list[Run]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wait(device)
            begin = time.perf_counter()
            result = call()
            wait(device)
            runs[name].append(Run(time.perf_counter() - begin, result))
    return runs


def median_seconds(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


@dataclass(frozen=True, slots=True)
class Roofline:
    """What a device was measured to do: floating-point operations, and bytes read or written, a second."""

    flops: float
    bandwidth: float

    def seconds(self, flops: float, read_bytes: float) -> float:
        """The least time for so much work, where reading and computing overlap fully."""
        return max(flops / self.flops, read_bytes / self.bandwidth)


def measure_limits(device: torch.device, dtype: torch.dtype) -> Roofline:
    """By the fastest of some large matrix products (8192 cubed on a GPU) and of some large copies."""
    cuda = device.type == "cuda"
    size = 8192 if cuda else 768
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(2**31 if cuda else 2**26, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    result = torch.empty_like(left)
    calls = {"product": lambda: torch.mm(left, right, out=result), "copy": lambda: target.copy_(source)}
    runs = interleaved(calls, 20 if cuda else 10, device, warm_up=3)
    fastest = {name: min(run.seconds for run in each) for name, each in runs.items()}
    return Roofline(flops=2 * size**3 / fastest["product"], bandwidth=2 * source.numel() / fastest["copy"])


def forward_flops(net: Transformer, num_computed: float, num_seen: float, num_read: float) -> float:
    """Floating-point operations of matrix products and attention.

    Args:
        net: the net.
        num_computed: positions that go through the blocks, of all rows and calls.
        num_seen: positions that each of them attends to.
        num_read: positions whose logits are made.
    """
    heads = net.config.num_heads * net.config.block().width
    blocks = sum(each.weight.numel() for each in net.blocks.modules() if isinstance(each, nn.Linear))
    attention = 4 * num_seen * heads * net.config.num_layers
    return num_computed * (2 * blocks + attention) + num_read * 2 * net.head.weight.numel()


def weight_bytes(net: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
