"""Two processes compute what one does. They run `run_stages.py` side by side, over gloo."""

import json
from pathlib import Path

import pytest

from tests.launch import side_by_side
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
    program = Path(__file__).with_name("run_stages.py")
    side_by_side(2, program, folder / "recipes.json", folder)
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
