"""Blocks on several devices: which goes where, and how hidden states follow.

Embedding, final norm and output layer stay on one device, the home: tokens come in there and logits go out
there, so that nobody else needs to know.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unmask.device import Device, present_device

DeviceMap = Literal["auto", "balanced"] | Mapping[int, Device] | Mapping[str, Device]


def place(device_map: DeviceMap, num_blocks: int, block_bytes: int, home_bytes: int) -> list[torch.device]:
    """A device for each block; the home is the first one's.

    Args:
        device_map: "auto" takes the fewest GPUs that hold the net, "balanced" all GPUs, and both take the CPU
            where there is no GPU; or a device for each block index; or one for all, as in {"": "cuda:0"}.
        num_blocks: of the net.
        block_bytes: of the weights of one block.
        home_bytes: of the embedding, final norm and output layer.

    Raises:
        ValueError: for another word, a block without a device, a device that is not there, or a net that
            does not fit.
    """
    if isinstance(device_map, str):
        if device_map not in ("auto", "balanced"):
            raise ValueError(
                f"unknown device_map {device_map!r}; use auto, balanced or a device for each block"
            )
        gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        free = {gpu: torch.cuda.mem_get_info(gpu)[0] for gpu in gpus}
        if not free:
            return [torch.device("cpu")] * num_blocks
        return spread(num_blocks, block_bytes, home_bytes, free, fewest=device_map == "auto")
    if not isinstance(device_map, Mapping):
        raise ValueError(f"device_map is {device_map!r}; use auto, balanced or a device for each block")
    by_key: dict[Any, Device] = dict(device_map)
    if set(by_key) == {""}:  # how transformers says "all of it"
        by_key = dict.fromkeys(range(num_blocks), by_key[""])
    odd = [key for key in by_key if key not in range(num_blocks)]
    odd += [index for index in range(num_blocks) if index not in by_key]
    if odd:
        raise ValueError(
            f"device_map wants the numbers of the blocks, 0 to {num_blocks - 1}, each once; "
            f"look at block {odd[0]!r}"
        )
    return [present_device(by_key[index]) for index in range(num_blocks)]


def spread(
    num_blocks: int, block_bytes: int, home_bytes: int, free: Mapping[torch.device, int], *, fewest: bool
) -> list[torch.device]:
    """Neighbouring blocks together, each device filled to the same part of its free bytes.

    A tenth of the free memory is left for activations.

    Raises:
        ValueError: where the net does not fit.
    """
    devices, needed = list(free), num_blocks * block_bytes + home_bytes
    if fewest:
        enough = (n for n in range(1, len(devices) + 1) if sum(free[d] for d in devices[:n]) * 0.9 >= needed)
        devices = devices[: next(enough, len(devices))]
    room = sum(free[device] for device in devices)
    if room * 0.9 < needed:
        raise ValueError(
            f"the net needs {needed / 2**30:.1f} GiB and a tenth more; {room / 2**30:.1f} are free"
        )
    placed: list[torch.device] = []
    filled = 0.0
    for device in devices:
        filled += free[device] / room * needed
        whole = round((filled - home_bytes) / block_bytes)
        placed += [device] * (min(whole, num_blocks) - len(placed))
    return placed


def move_between(blocks: nn.ModuleList, norm: nn.Module, devices: list[torch.device]) -> None:
    """Make hidden states follow the blocks, and come home before the final norm."""
    if len(set(devices)) == 1:
        return
    for module, device in zip([*blocks, norm], [*devices, devices[0]], strict=True):
        module.register_forward_pre_hook(_mover(device))


def _mover(device: torch.device) -> Any:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        return tuple(map(move, value)) if isinstance(value, tuple) else value

    return lambda _module, inputs: move(inputs)
