"""Devices and dtypes by name, found out to be there before any work is done."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Device = str | torch.device
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def present_device(device: Any) -> torch.device:
    """A device that is there.

    Raises:
        ValueError: for another word, or a GPU that is not here.
    """
    try:
        found = torch.device(device) if isinstance(device, str | torch.device) else None
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; use cpu, cuda, or one GPU as in cuda:1")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(found)!r} is not available here; use cpu")
    return found


def send(numbers: Tensor | Sequence[Any], device: torch.device) -> Tensor:
    """What the host has, as a tensor on a device; the host does not wait for it."""
    here = torch.as_tensor(numbers, device="cpu")  # whatever the default device
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Also of a CPU, pinned memory, cuBLAS or Triton, for which PyTorch has no class of its own."""
    words = ("can't allocate memory", " error: out of memory", "]: out of memory", "_STATUS_ALLOC_FAILED")
    is_one = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_one or (isinstance(error, RuntimeError) and any(each in str(error) for each in words))


def known_dtype(name: Any) -> torch.dtype:
    """The dtype of a name.

    Raises:
        ValueError: for another name.
    """
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; use one of {', '.join(DTYPES)}")
    return DTYPES[name]
