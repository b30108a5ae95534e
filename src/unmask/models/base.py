"""What a denoiser is. B rows, T positions, V symbols, D hidden width."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Denoised(NamedTuple):
    """One model call. Row b, position t describes the token *at* t, whatever the architecture."""

    logits: Tensor
    """(B, T, V) raw scores."""
    hidden: Tensor
    """(B, T, D) what feeds the output layer, after the final norm."""


@runtime_checkable
class Denoiser(Protocol):
    """A masked language model. Padding (mask 0) on either side of a row never changes the row."""

    mask_id: int
    eos_id: int
    pad_id: int
    vocab_size: int
    max_length: int
    """Most positions (prompt + completion) in a row."""
    hidden_size: int
    tokenizer: Any
    """A tokenizer with `encode` and `decode`, or None."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        """All positions at once; `tokens_BT` int64, `attention_mask_BT` 1 for tokens and 0 for padding."""
        ...
