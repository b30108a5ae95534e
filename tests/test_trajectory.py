"""A trajectory rebuilds every state that its row went through."""

from pathlib import Path

import torch

import unmask
from tests.models.tiny import EOS, MASK, PAD, ragged_prompts, tiny_net
from unmask.trajectory import Trajectory, load, save


def example() -> Trajectory:
    """Stopped at a settled EOS: nothing unmasked the last two positions."""
    return Trajectory(
        prompt=torch.tensor([1, 2]),
        tokens=torch.tensor([3, 4, EOS, 5, EOS, EOS]),
        unmask_step=torch.tensor([2, 0, 3, 1, -1, -1], dtype=torch.int16),
        block_length=6,
        mask_id=MASK,
        confidence=torch.linspace(0, 1, 24).reshape(4, 6),
    )


def decoded(**settings: float) -> list[Trajectory]:
    prompts = ragged_prompts(torch.Generator().manual_seed(0), 3)
    planner = unmask.planner("random", k=3)
    options = {"length": 12, "block_length": 6, "temperature": 0.7, "record_log_probs": True}
    return unmask.decode(tiny_net(), prompts, planner, **(options | settings))  # type: ignore[arg-type]


def test_the_first_state_is_all_masks_and_the_last_is_the_tokens() -> None:
    for row in decoded():
        assert (row.state_at(0) == MASK).all()
        assert torch.equal(row.state_at(row.nfe), row.tokens)


def test_states_only_ever_gain_tokens() -> None:
    for row in [*decoded(), example()]:
        for step in range(row.nfe):
            before, after = row.state_at(step), row.state_at(step + 1)
            fixed = before != MASK
            assert torch.equal(before[fixed], after[fixed])
            assert (after != MASK).sum() > fixed.sum()
            assert torch.equal(row.masked_at(step), before == MASK)


def test_positions_behind_a_settled_eos_were_masked_to_the_end() -> None:
    row = example()
    assert row.nfe == 4
    assert row.state_at(3).tolist()[-2:] == [MASK, MASK]
    assert row.state_at(4).tolist() == row.tokens.tolist()
    assert row.state_at(2).tolist() == [MASK, 4, MASK, 5, MASK, MASK]


def test_content_tokens_leave_out_eos_and_padding() -> None:
    row = example()
    assert row.num_content_tokens(EOS, PAD) == 3
    assert row.num_content_tokens(EOS, 5) == 2


def test_saved_trajectories_come_back_bit_for_bit(tmp_path: Path) -> None:
    rows = [*decoded(), example(), *decoded(record_log_probs=False, temperature=0.1)]
    save(tmp_path / "rows.safetensors", rows)
    loaded = load(tmp_path / "rows.safetensors")
    assert len(loaded) == len(rows)
    for row, other in zip(rows, loaded, strict=True):
        for name in ("prompt", "tokens", "unmask_step", "planner_log_prob", "token_log_prob", "confidence"):
            value, read = getattr(row, name), getattr(other, name)
            if value is None:
                assert read is None
            else:
                assert value.dtype == read.dtype
                assert torch.equal(value, read)
        for name in ("block_length", "mask_id", "temperature", "nfe"):
            assert getattr(row, name) == getattr(other, name)
            assert type(getattr(row, name)) is type(getattr(other, name))


def test_no_trajectories_can_be_saved_too(tmp_path: Path) -> None:
    save(tmp_path / "none.safetensors", [])
    assert load(tmp_path / "none.safetensors") == []
