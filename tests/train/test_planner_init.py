"""Imitating Fast-dLLM's factor rule: the states, the loss, the stage."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import unmask
from tests.train.small import assert_resuming_changes_nothing, init_recipe, metrics_of, tensors_of, train
from unmask.config import HeadConfig, OptimConfig
from unmask.rng import RowStreams
from unmask.train.planner_init import imitation_loss, noised_windows, positive_weight


def windows(num_rows: int, length: int, min_block: int) -> tuple[torch.Tensor, torch.Tensor]:
    index_B = torch.arange(num_rows)
    return noised_windows(RowStreams(index_B, torch.zeros_like(index_B)), length, min_block)


@pytest.mark.parametrize(("length", "min_block"), [(64, 16), (12, 1), (8, 8), (1, 1)])
def test_what_is_masked_is_open_up_to_the_end_of_the_window_and_closed_after_it(
    length: int, min_block: int
) -> None:
    masked_BL, open_BL = windows(500, length, min_block)
    assert not (open_BL & ~masked_BL).any()
    assert open_BL.any(-1).all()
    closed_BL = masked_BL & ~open_BL
    assert torch.equal(closed_BL.long().cummax(-1).values.bool(), closed_BL)  # a suffix
    end_B = length - closed_BL.sum(-1)
    last_open_B = (torch.arange(length) * open_BL).amax(-1)
    assert (last_open_B < end_B).all()
    assert (end_B >= min_block).all()


def test_windows_of_every_size_and_place_and_share_occur() -> None:
    masked_BL, open_BL = windows(5000, 8, 2)
    end_B = 8 - (masked_BL & ~open_BL).sum(-1)
    assert end_B.unique().tolist() == list(range(2, 9))
    assert open_BL.sum(-1).unique().tolist() == list(range(1, 9))
    assert open_BL.any(0).all()
    assert (~masked_BL).any(0).all()


def test_a_window_as_long_as_the_completion_leaves_nothing_closed() -> None:
    masked_BL, open_BL = windows(4000, 16, 16)
    assert torch.equal(masked_BL, open_BL)
    share_B = open_BL.float().mean(-1)
    assert abs(float(share_B.mean()) - 0.53) < 0.03  # ceil(16 t) / 16 for t ~ U(0, 1)


def test_a_row_is_noised_as_if_it_were_alone() -> None:
    masked_BL, open_BL = windows(8, 16, 4)
    alone = noised_windows(RowStreams(torch.tensor([5]), torch.tensor([0])), 16, 4)
    assert torch.equal(alone[0], masked_BL[5:6])
    assert torch.equal(alone[1], open_BL[5:6])


@pytest.mark.parametrize("class_weight", [True, False])
def test_the_loss_is_cross_entropy_over_the_open_positions(rng: torch.Generator, class_weight: bool) -> None:
    logits_BL = torch.randn(4, 8, generator=rng)
    target_BL = torch.rand(4, 8, generator=rng) < 0.3
    open_BL = torch.rand(4, 8, generator=rng) < 0.7
    logits_N, target_N = logits_BL[open_BL], target_BL[open_BL]
    weight = (~target_N).sum() / target_N.sum() if class_weight else torch.tensor(1.0)
    given = positive_weight(int(target_N.sum()), int(open_BL.sum())) if class_weight else 1.0
    total = imitation_loss(logits_BL, target_BL, open_BL, given)
    expected = F.binary_cross_entropy_with_logits(
        logits_N, target_N.float(), pos_weight=weight, reduction="sum"
    )
    torch.testing.assert_close(total, expected)


def test_a_batch_of_one_class_is_not_weighted() -> None:
    assert positive_weight(0, 8) == positive_weight(8, 8) == 1
    assert positive_weight(2, 8) == 3


@pytest.mark.parametrize("head", ["dultra", "confidence"])
def test_the_head_comes_to_agree_with_the_rule(base: Path, tmp_path: Path, head: str) -> None:
    config = HeadConfig(kind=head, mlp_dim=32, bias=2.0)
    recipe = init_recipe(
        base, head=config, steps=40, batch_size=16, optim=OptimConfig(lr=3e-3, warmup=2), class_weight=False
    )
    train(recipe, tmp_path)
    log = metrics_of(tmp_path)
    first, last = log[0], log[-5:]
    assert sum(entry["loss"] for entry in last) / 5 < first["loss"]
    agreement = sum(entry["agreement"] for entry in last) / 5
    assert agreement > max(0.9, first["agreement"] - 0.02)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(base: Path, tmp_path: Path) -> None:
    assert_resuming_changes_nothing(init_recipe(base), tmp_path, stop=3)


def test_the_denoiser_is_not_trained_and_the_planner_loads(base: Path, tmp_path: Path) -> None:
    before = tensors_of(base)
    train(init_recipe(base, "confidence", steps=2), tmp_path)
    assert {path.name for path in (tmp_path / "final").iterdir()} == {"planner.json", "planner.safetensors"}
    planner = unmask.load_planner(tmp_path / "final")
    net = unmask.load_denoiser(base)
    assert all(torch.equal(v, before[f"model.safetensors:{name}"]) for name, v in net.state_dict().items())
    (row,) = unmask.decode(net, [[2, 3]], planner, length=16, block_length=8)
    assert 2 <= row.nfe <= 16


def test_rows_longer_than_the_denoiser_holds_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompt_length \+ length is 148, but .* holds 128"):
        train(init_recipe(base, length=100), tmp_path)


def test_new_heads_depend_on_the_seed_alone(base: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train(init_recipe(base, steps=1, seed=seed), tmp_path / name)
    one, same, other = (tensors_of(tmp_path / name / "final") for name in ("one", "same", "other"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
