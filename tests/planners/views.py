"""Views made by hand."""

import itertools

import torch
from torch import Tensor

from unmask.planners.base import View, make_view
from unmask.rng import RowStreams, derive


def streams(num_rows: int, seed: int = 0) -> RowStreams:
    seed_B = torch.tensor([derive(seed, row) for row in range(num_rows)])
    return RowStreams(seed_B, torch.zeros_like(seed_B))


def view_of(
    logits_BLV: Tensor,
    masked_BL: Tensor,
    *,
    block_length: int | None = None,
    hidden_size: int = 4,
    num_prompt: int = 2,
    step: int = 0,
) -> View:
    """Token 0 is in the prompt and at fixed positions; the mask is an extra symbol at the end."""
    num_rows, length, mask_id = logits_BLV.shape
    prompt_BPV = logits_BLV.new_zeros(num_rows, num_prompt, mask_id)
    logits_BTV = torch.cat([prompt_BPV, logits_BLV], dim=1)
    logits_BTV = torch.nn.functional.pad(logits_BTV, (0, 1), value=50.0)  # [MASK] must not count
    rng = torch.Generator().manual_seed(0)
    prompt_BP = torch.zeros(num_rows, num_prompt, dtype=torch.int64)
    tokens_BT = torch.cat([prompt_BP, masked_BL.long() * mask_id], dim=1)
    return make_view(
        logits_BTV,
        torch.randn(num_rows, num_prompt + length, hidden_size, generator=rng),
        tokens_BT,
        None,
        length=length,
        block_length=block_length or length,
        step_B=torch.full((num_rows,), step),
        mask_id=mask_id,
    )


def view_with_confidences(confidence_BL: Tensor, masked_BL: Tensor | None = None) -> View:
    """Two symbols, the first with the given probability (at least 1/2)."""
    confidence_BL = confidence_BL.double()
    logits_BLV = torch.stack([confidence_BL, 1 - confidence_BL], dim=-1).log().float()
    masked_BL = torch.ones_like(confidence_BL, dtype=torch.bool) if masked_BL is None else masked_BL
    return view_of(logits_BLV, masked_BL)


def all_sets(length: int) -> Tensor:
    """(2 ** length, length) bool, the empty set first."""
    return torch.tensor(list(itertools.product([False, True], repeat=length)))
