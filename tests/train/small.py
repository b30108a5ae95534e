"""Training runs that take a second, and what is compared between them."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unmask.config import DenoiseRecipe, GrpoRecipe, HeadConfig, InitRecipe, NetConfig, OptimConfig, Recipe
from unmask.train.loop import Metrics, OnStep, Stage, run
from unmask.train.stages import make_stage
from unmask.workers import ALONE

NET = NetConfig(dim=32, num_layers=2, num_heads=2, mlp_dim=64, max_length=128)
OPTIM = OptimConfig(lr=1e-3, warmup=2)


def denoise_recipe(**changes: Any) -> DenoiseRecipe:
    settings = {"kind": "denoise", "tasks": ("chain",), "net": NET, "optim": OPTIM}
    return DenoiseRecipe(**(settings | {"steps": 6, "batch_size": 8} | changes))


def init_recipe(denoiser: Path, kind: str = "dultra", **changes: Any) -> InitRecipe:
    settings: dict[str, Any] = {"kind": "init", "tasks": ("chain",), "denoiser": str(denoiser)}
    settings |= {"head": HeadConfig(kind=kind, mlp_dim=32), "optim": OPTIM, "steps": 6, "batch_size": 8}
    return InitRecipe(**(settings | changes))


def grpo_recipe(denoiser: Path, **changes: Any) -> GrpoRecipe:
    """dUltra mode with a reward that a wrong answer can earn too, as this base is always wrong."""
    settings: dict[str, Any] = {"kind": "grpo", "tasks": ("chain",), "denoiser": str(denoiser)}
    settings |= {"head": HeadConfig(mlp_dim=32), "optim": OPTIM, "denoiser_lr": 1e-3, "temperature": 0.7}
    settings |= {"updates": 4, "prompts": 2, "group_size": 4, "length": 32, "block_lengths": (16, 32)}
    return GrpoRecipe(**(settings | changes))


def policy_recipe(denoiser: Path, **changes: Any) -> GrpoRecipe:
    """A confidence policy alone, on a denoiser that stays as it is."""
    head = HeadConfig(kind="confidence", mlp_dim=32, bias=0.0)
    return grpo_recipe(denoiser, **({"head": head, "train_denoiser": False} | changes))


def train(recipe: Recipe, folder: Path, report: OnStep | None = None) -> tuple[Stage, bool]:
    """The stage after the run, and whether it came to its end."""
    stage = make_stage(recipe, ALONE)
    return stage, run(stage, recipe, folder, ALONE, report)


def terminate_at(step: int, number: int = signal.SIGTERM) -> OnStep:
    """Sends this process a signal once `step` steps are done."""

    def report(done: int, total: int, metrics: Metrics) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return report


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor in a folder, by file and name."""
    files = sorted(folder.glob("*.safetensors"))
    return {f"{path.name}:{name}": value for path in files for name, value in load_file(path).items()}


def metrics_of(folder: Path, but: Sequence[str] = ()) -> list[dict[str, float]]:
    """What was logged, without times and without `but`."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if "seconds" not in key and key not in but}
        for line in lines
    ]


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimiser state, progress and metrics, bit for bit."""
    for part in ("last", "final"):
        assert tensors_of(one / part)
        assert_same_tensors(tensors_of(one / part), tensors_of(other / part))
    assert (one / "last/progress.json").read_text() == (other / "last/progress.json").read_text()
    assert metrics_of(one) == metrics_of(other)


def assert_resuming_changes_nothing(recipe: Recipe, folder: Path, stop: int) -> None:
    """A run that a signal stopped after `stop` steps, then done again, equals an unbroken one."""
    _, finished = train(recipe, folder / "unbroken")
    assert finished
    stage, finished = train(recipe, folder / "broken", terminate_at(stop))
    assert not finished
    assert stage.state.step == stop
    assert not (folder / "broken/final").exists()
    stage, finished = train(recipe, folder / "broken")
    assert finished
    assert stage.state.step == stage.total
    assert_same_run(folder / "unbroken", folder / "broken")
