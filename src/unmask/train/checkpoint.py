"""Everything a run needs to go on: weights, optimiser and step, in a folder that is whole or absent."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unmask.checkpoint import load_tensors, read_json, read_tensors, write_folder
from unmask.models.adapters import Adapter, restore_adapter, save_adapter
from unmask.models.load import save_denoiser
from unmask.models.transformer import Transformer
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import save_planner
from unmask.runlog import advice


@dataclass(slots=True)
class TrainState:
    """What training changes."""

    optimizer: torch.optim.Optimizer
    denoiser: Transformer | None
    """None where it is frozen: then it is not part of the checkpoint."""
    planner: LearnedPlanner | None
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Wall time of the steps of a run that has a limit of time."""
    adapter: Adapter | None = None
    """Where the denoiser has one, it alone is trained and saved."""
    best: float = float("-inf")


def save(folder: Path, state: TrainState) -> None:
    """Replace the checkpoint in `folder`; whatever fails, one whole checkpoint stays.

    Raises:
        ValueError: where it cannot be written.
    """
    progress = json.dumps({"step": state.step, "best": state.best, "seconds": state.seconds})
    with _replacing(folder) as partial:
        _write_models(partial, state)
        write_folder(
            partial, {"progress.json": progress}, {"optimizer.safetensors": _flatten(state.optimizer)}
        )


def save_models(folder: Path, state: TrainState) -> None:
    """The trained models alone, in the formats that `load_denoiser` and `load_planner` read; as `save`."""
    with _replacing(folder) as partial:
        _write_models(partial, state)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write, which then takes the place of `folder`."""
    partial, old = _beside(folder, "partial"), _beside(folder, "old")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        if folder.exists():  # else the checkpoint is in `old`: a kill came between these renames
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, ValueError) as error:
        reason = f"cannot save to {folder}: {error.__cause__ or error}"
        raise ValueError(f"{reason}; the checkpoint before is unchanged{advice(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_models(folder: Path, state: TrainState) -> None:
    if state.adapter is not None:
        save_adapter(folder, state.adapter)
    elif state.denoiser is not None:
        save_denoiser(folder, state.denoiser)
    if state.planner is not None:
        save_planner(folder, state.planner)


def restore(folder: Path, state: TrainState) -> bool:
    """Load the checkpoint in `folder` into `state`; False where there is none.

    Raises:
        ValueError: naming the file that is missing, truncated or of another model.
    """
    if not folder.exists():
        folder = _beside(folder, "old")
        if not folder.exists():
            return False
    if state.adapter is not None:
        restore_adapter(folder, state.adapter)
    elif state.denoiser is not None:
        load_tensors(state.denoiser, folder / "model.safetensors")
    if state.planner is not None:
        load_tensors(state.planner.head, folder / "planner.safetensors")
    _unflatten(state.optimizer, read_tensors(folder / "optimizer.safetensors"))
    progress = read_json(folder / "progress.json")
    try:
        state.step, state.best = int(progress["step"]), float(progress["best"])
        state.seconds = float(progress["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'progress.json'} does not say how far the run was: {error}") from error
    return True


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimiser state as named tensors: `parameter.key`."""
    entries = optimizer.state_dict()["state"]
    flat = {f"{index}.{key}": value for index, entry in entries.items() for key, value in entry.items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in flat.items()}


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
