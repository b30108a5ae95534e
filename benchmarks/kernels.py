"""Where the time of a call goes, for people and for the JSON line."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from unmask.eval.timing import wait


@dataclass(frozen=True, slots=True)
class Kernel:
    """All runs of one kernel (on a CPU: of one operation)."""

    name: str
    calls: int
    ms: float


def kernels_of(call: Callable[[], Any], device: torch.device) -> list[Kernel]:
    """What the device did during a call, the longest first. A call before it should have warmed up."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
        call()
        wait(device)
    time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
    kernels = [
        Kernel(event.key, event.count, getattr(event, time_of) / 1e3) for event in recorded.key_averages()
    ]
    return sorted(kernels, key=lambda kernel: -kernel.ms)


def profiled(name: str, call: Callable[[], Any], device: torch.device, top: int = 15) -> dict[str, Any]:
    """The kernels of a warm call that take the most time, and how long the device was busy."""
    for _ in range(2):
        call()
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    wall_ms = 1e3 * (time.perf_counter() - begin)
    kernels = kernels_of(call, device)
    busy_ms = sum(kernel.ms for kernel in kernels)
    calls = sum(kernel.calls for kernel in kernels)
    print(f"{name}: {wall_ms:.2f} ms, in which {calls} kernels take {busy_ms:.2f} ms")
    for kernel in kernels[:top]:
        print(f"  {kernel.ms:9.3f} ms  {kernel.calls:6} x  {kernel.name[:90]}")
    longest = [asdict(kernel) | {"name": kernel.name[:90]} for kernel in kernels[:top]]
    return {"wall_ms": wall_ms, "busy_ms": busy_ms, "calls": calls, "longest": longest}
