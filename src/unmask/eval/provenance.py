"""Where numbers come from: which weights, which software, which machine, which command."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

SAMPLES = 16
"""Values of a tensor that go into a fingerprint: training moves all of them."""
PACKAGES = ("unmask", "torch", "transformers", "tokenizers", "numpy", "math-verify")


def fingerprint(*parts: object) -> str:
    """Eight hex digits that change with the weights of any part; empty where none has weights.

    Of every tensor, its name, shape, type and evenly spaced values count: telling apart two checkpoints takes
    no more than that, and it takes no time.
    """
    digest, found = hashlib.blake2b(digest_size=4), False
    for place, part in enumerate(parts):
        tensors = part.state_dict() if isinstance(part, nn.Module) else {}
        for name, tensor in sorted(tensors.items()):
            found = True
            digest.update(f"{place}.{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().flatten()
            if len(flat):
                chosen = flat[torch.linspace(0, len(flat) - 1, SAMPLES, dtype=torch.float64).long()]
                digest.update(chosen.double().cpu().numpy().tobytes())
    return digest.hexdigest() if found else ""


def dtype_of(denoiser: object) -> str:
    """Of the weights: "bfloat16"; float32 for a denoiser without any."""
    first = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def meta_path(records: Path) -> Path:
    """The file beside a file of records that says how they were made."""
    return records.with_name(records.name + ".meta.json")


def note_launch(records: Path, **settings: Any) -> None:
    """Add this launch to the file beside the records.

    Raises:
        ValueError: where that file is no list of launches.
    """
    path = meta_path(records)
    launches = read_launches(records)
    launches.append({**surroundings(), **settings})
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"launches": launches}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def read_launches(records: Path) -> list[dict[str, Any]]:
    """What `note_launch` wrote beside a file of records; empty where it did not.

    Raises:
        ValueError: where that file is no list of launches.
    """
    path = meta_path(records)
    if not path.is_file():
        return []
    try:
        launches: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["launches"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no list of launches: {error}; move it away") from error
    return launches


def surroundings() -> dict[str, Any]:
    """Time, command, versions and hardware of this process."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["unmask", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit(),
        "hardware": {
            "gpu": device,
            "gpus": torch.cuda.device_count(),
            "cuda": torch.version.cuda or "",
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def commit() -> str:
    """Of the checkout that this package runs from, with a + where it is changed; else empty."""
    here = Path(__file__).parents[3]
    if not (here / ".git").exists():
        return ""
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.returncode else "")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
