"""Two processes compute what one does. They run `run_stages.py` side by side, over gloo."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.small import denoise_recipe, grpo_recipe, init_recipe, metrics_of, policy_recipe, tensors_of
from tests.train.small import train as train_alone
from unmask.config import OptimConfig, Recipe
from unmask.train.stages import make_stage
from unmask.workers import Workers

SLOW = OptimConfig(lr=1e-5, warmup=0)
"""Adam turns the rounding of a gradient near zero into a part of a step; small steps keep that below 1e-6."""


def recipes(base: Path) -> dict[str, Recipe]:
    return {
        "denoise": denoise_recipe(steps=3, batch_size=7, optim=SLOW),
        "init": init_recipe(base, steps=3, batch_size=7, optim=SLOW),
        "dultra": grpo_recipe(base, updates=3, prompts=3, optim=SLOW, denoiser_lr=1e-5),
        "dultra, greedy": grpo_recipe(
            base, updates=3, prompts=3, optim=SLOW, denoiser_lr=1e-5, temperature=0.0
        ),
        "policy": policy_recipe(base, updates=3, prompts=3, optim=SLOW),
    }


@pytest.fixture(scope="module")
def two(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each recipe, done by two processes."""
    folder = tmp_path_factory.mktemp("two")
    contents = {name: recipe.model_dump(mode="json") for name, recipe in recipes(base).items()}
    (folder / "recipes.json").write_text(json.dumps(contents))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(Path(__file__).with_name("run_stages.py"))]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*program, str(folder / "recipes.json"), str(folder)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=90)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return folder


@pytest.mark.parametrize("name", ["denoise", "init", "dultra", "dultra, greedy", "policy"])
def test_two_processes_equal_one(name: str, base: Path, two: Path, tmp_path: Path) -> None:
    stage, _ = train_alone(recipes(base)[name], tmp_path)
    assert stage.state.step == 3
    one, other = tensors_of(tmp_path / "last"), tensors_of(two / name / "last")
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (value - other[key]).abs().max() <= 1e-6, key
    for ours, theirs in zip(metrics_of(tmp_path), metrics_of(two / name), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("denoise", "batch_size"), ("dultra", "prompts")])
def test_more_processes_than_there_is_to_share_are_refused(base: Path, kind: str, name: str) -> None:
    recipe = recipes(base)[kind]
    many = getattr(recipe, name) + 1
    with pytest.raises(ValueError, match=f"{many} processes cannot share {name} {many - 1}"):
        make_stage(recipe, Workers(0, many))
