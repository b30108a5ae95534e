"""`unmask train grpo` on a small net and the real tasks."""

from pathlib import Path
from typing import Any

import pytest
import torch

import unmask
from tests.train.small import (
    assert_resuming_changes_nothing,
    grpo_recipe,
    metrics_of,
    policy_recipe,
    tensors_of,
    train,
)
from unmask.config import HeadConfig
from unmask.planners.load import save_planner
from unmask.train.stages import make_stage
from unmask.workers import ALONE

both_modes = pytest.mark.parametrize("recipe_of", [grpo_recipe, policy_recipe], ids=["dultra", "policy"])


@both_modes
def test_a_killed_run_goes_on_as_if_nothing_had_happened(base: Path, tmp_path: Path, recipe_of: Any) -> None:
    assert_resuming_changes_nothing(recipe_of(base), tmp_path, stop=2)


@both_modes
def test_drift_is_logged_and_is_rounding(base: Path, tmp_path: Path, recipe_of: Any) -> None:
    train(recipe_of(base, micro_batch_tokens=300, rollout_batch=3), tmp_path)
    log = metrics_of(tmp_path)
    assert len(log) == 4
    assert max(entry["drift"] for entry in log) <= 1e-5
    assert max(entry["with_advantage"] for entry in log) > 0
    assert all(set(entry) >= {"score", "accuracy", "nfe", "grad_norm", "ratio_clipped"} for entry in log)


def test_dultra_mode_trains_denoiser_and_planner_into_one_folder(base: Path, tmp_path: Path) -> None:
    train(grpo_recipe(base), tmp_path)
    before, after = tensors_of(base), tensors_of(tmp_path / "final")
    assert all(not torch.equal(after[name], value) for name, value in before.items() if value.ndim > 1)
    net, planner = unmask.load_denoiser(tmp_path / "final"), unmask.load_planner(tmp_path / "final")
    (row,) = unmask.decode(net, [[2, 3]], planner, length=16, block_length=16)
    assert 1 <= row.nfe <= 16


def test_policy_mode_leaves_the_denoiser_alone_and_does_not_copy_it(base: Path, tmp_path: Path) -> None:
    before = tensors_of(base)
    stage, _ = train(policy_recipe(base), tmp_path)
    after: Any = stage
    for name, value in after.denoiser.state_dict().items():
        assert torch.equal(value, before[f"model.safetensors:{name}"])
    assert {path.name for path in (tmp_path / "final").iterdir()} == {"planner.json", "planner.safetensors"}
    unmask.load_planner(tmp_path / "final")


def test_a_planner_can_go_on_from_a_folder(base: Path, tmp_path: Path) -> None:
    train(policy_recipe(base, updates=1), tmp_path / "first")
    start = tmp_path / "first/final"
    head = HeadConfig(kind="confidence", start=str(start), law="fallback")
    stage, _ = train(policy_recipe(base, updates=1, head=head, optim={"lr": 1e-12}), tmp_path / "second")
    assert stage.state.planner is not None
    assert stage.state.planner.law == "fallback"
    before, after = tensors_of(start), tensors_of(tmp_path / "second/final")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_a_recipe_can_ask_for_plackett_luce(base: Path, tmp_path: Path) -> None:
    train(grpo_recipe(base, updates=2, head=HeadConfig(mlp_dim=32, law="plackett_luce")), tmp_path)
    assert unmask.load_planner(tmp_path / "final").law == "plackett_luce"
    assert sum(entry["with_advantage"] for entry in metrics_of(tmp_path)) > 0
    assert max(entry["drift"] for entry in metrics_of(tmp_path)) <= 1e-5


def test_both_tasks_are_graded(base: Path, tmp_path: Path) -> None:
    train(policy_recipe(base, tasks=("chain", "code"), updates=1), tmp_path)
    assert metrics_of(tmp_path)[0]["accuracy"] == 0


def test_the_best_checkpoint_is_kept_once_there_are_enough_scores(base: Path, tmp_path: Path) -> None:
    recipe = policy_recipe(base, updates=20, prompts=1, group_size=2, length=8, block_lengths=(8,))
    stage, _ = train(recipe, tmp_path)
    mean = sum(entry["score"] for entry in metrics_of(tmp_path)) / 20
    assert stage.state.best == pytest.approx(mean)
    assert tensors_of(tmp_path / "best").keys() == tensors_of(tmp_path / "final").keys()


def test_a_planner_that_decides_by_threshold_is_trained_by_sampling(base: Path, tmp_path: Path) -> None:
    stage, _ = train(grpo_recipe(base, updates=1), tmp_path / "first")
    save_planner(tmp_path / "start", stage.state.planner.tuned(mode="threshold", factor=2.0))
    recipe = grpo_recipe(base, updates=1, head=HeadConfig(start=str(tmp_path / "start")))
    planner = make_stage(recipe, ALONE).state.planner
    assert (planner.mode, planner.factor) == ("sample", 1.0)


def test_a_start_of_another_kind_is_refused(base: Path) -> None:
    recipe = policy_recipe(base, head=HeadConfig(kind="dultra", start="bundled/policy"))
    with pytest.raises(ValueError, match="is a ConfidencePolicy, not 'dultra'"):
        make_stage(recipe, ALONE)
