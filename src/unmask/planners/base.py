"""What a planner may see, and what it gives back.

B rows, L completion positions, T = prompt + L, V symbols, D hidden width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unmask.rng import RowStreams


@dataclass(frozen=True, slots=True)
class View:
    """All that a planner may look at in one step: a function of the state and the step alone."""

    logits_BLV: Tensor
    """Scores of the completion, [MASK] at -inf."""
    hidden_BTD: Tensor
    tokens_BT: Tensor
    attention_mask_BT: Tensor | None
    """None when no row is padded."""
    masked_BL: Tensor
    open_BL: Tensor
    """Masked and inside the row's current block. Never empty."""
    step_B: Tensor
    """int64, the row's own step."""


class Subset(Protocol):
    """A distribution over non-empty sets of open positions, one per row."""

    def sample(self, streams: RowStreams) -> Tensor:
        """(B, L) bool, at least one open position per row and no other."""
        ...

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        """(B,) float32: exact, -inf for a set that cannot be drawn."""
        ...


class Planner(Protocol):
    """Decides which open positions to unmask. Heuristic or learned: nobody asks which."""

    def __call__(self, view: View) -> Subset: ...


def make_view(
    logits_BTV: Tensor,
    hidden_BTD: Tensor,
    tokens_BT: Tensor,
    attention_mask_BT: Tensor | None,
    *,
    length: int,
    block_length: int,
    step_B: Tensor,
    mask_id: int,
) -> View:
    """The view of a state; rollout and replay both come here.

    A row's current block is the one that holds its first masked position (semi-autoregressive decoding).
    """
    logits_BLV = logits_BTV[:, -length:].float()
    is_mask_V = torch.arange(logits_BLV.shape[-1], device=logits_BLV.device) == mask_id
    logits_BLV = logits_BLV.masked_fill(is_mask_V, -torch.inf)
    masked_BL = tokens_BT[:, -length:] == mask_id
    return View(
        logits_BLV=logits_BLV,
        hidden_BTD=hidden_BTD,
        tokens_BT=tokens_BT,
        attention_mask_BT=attention_mask_BT,
        masked_BL=masked_BL,
        open_BL=open_positions(masked_BL, block_length),
        step_B=step_B,
    )


def open_positions(masked_BL: Tensor, block_length: int) -> Tensor:
    """(B, L) bool: masked positions before the end of the row's current block."""
    first_B = masked_BL.byte().argmax(-1)
    end_B = (first_B // block_length + 1) * block_length
    return masked_BL & (torch.arange(masked_BL.shape[-1], device=masked_BL.device) < end_B[:, None])
