"""Closed-form denoisers: exact conditional marginals of distributions whose best planner is known.

They need no weights and no training, so whatever a decode gets wrong is the planner's doing: each
position alone is drawn from the right law, and a completion is invalid only where positions that
depend on each other were unmasked together.

B rows, T positions, L completion positions (the last L columns), S symbols, V vocabulary, N pairs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.models.base import Denoised

FEATURES = (
    "masked",
    "confidence",  # probability of the most likely token; 1 where the token is fixed
    "entropy",  # in units of log S; 0 where the token is fixed
    "odd",  # position within the completion, counted from 0
    "left_fixed",  # the neighbour within the completion; 0 where there is none
    "right_fixed",
    "masked_fraction",  # of the completion
    "leftmost",  # the first masked position
)
"""What the axis of `hidden` holds. A linear head on them can plan each denoiser below perfectly."""


class ExactDenoiser(ABC):
    """What the exact denoisers share: ids, features, and that a fixed token is certain.

    The vocabulary is the symbols 0 .. S - 1, then BOS, EOS, PAD and MASK. Prompts say nothing: use
    `prompt`. The completion is the last `length` columns, so rows are padded on the left. Draw
    tokens at temperature 1.0. Masked positions are uniform where the fixed tokens contradict each
    other.
    """

    tokenizer: None = None
    hidden_size = len(FEATURES)

    def __init__(self, length: int, num_symbols: int, optimal_nfe: int) -> None:
        if length < 1 or num_symbols < 2:
            raise ValueError(f"length {length} is below 1 or {num_symbols} symbols are below 2")
        self.length, self.num_symbols = length, num_symbols
        self.optimal_nfe = optimal_nfe
        self.bos_id, self.eos_id, self.pad_id, self.mask_id = range(num_symbols, num_symbols + 4)
        self.vocab_size = num_symbols + 4
        self.max_length = length + 1024
        self.prompt = [self.bos_id]
        self.device = torch.device("cpu")

    @abstractmethod
    def is_valid(self, tokens_L: Tensor) -> bool:
        """Whether a completion has a probability above 0."""

    @abstractmethod
    def _weights(self, allowed_BLS: Tensor) -> Tensor:
        """(B, L, S) float64, proportional to the marginals; all 0 at a contradiction.

        `allowed_BLS` is 1 for all symbols at a masked position and for its own at a fixed one.
        """

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        """Logits (B, T, V) that are exact log-probabilities, and the `FEATURES` as hidden states (B, T, D).

        Raises:
            ValueError: where no column is left for a prompt.
        """
        num_prompt = tokens_BT.shape[1] - self.length
        if num_prompt < 1:
            width = tokens_BT.shape[1]
            raise ValueError(f"{width} columns; want a prompt and then {self.length} to complete")
        if (tokens_BT[:, :num_prompt] == self.mask_id).any():
            raise ValueError(f"masks before the last {self.length} columns; decode with length={self.length}")
        vocabulary_V = torch.arange(self.vocab_size, device=tokens_BT.device)
        certain_BTV = (tokens_BT[..., None] == vocabulary_V).double()
        masked_BL1 = tokens_BT[:, num_prompt:, None] == self.mask_id
        allowed_BLS = certain_BTV[:, num_prompt:, : self.num_symbols].masked_fill(masked_BL1, 1.0)
        weights_BLS = self._weights(allowed_BLS)
        total_BL1 = weights_BLS.sum(-1, keepdim=True)
        safe_BL1 = torch.where(total_BL1 > 0, total_BL1, 1.0)
        marginal_BLS = torch.where(total_BL1 > 0, weights_BLS / safe_BL1, 1 / self.num_symbols)
        marginal_BLV = F.pad(marginal_BLS, (0, self.vocab_size - self.num_symbols))
        marginal_BLV = torch.where(masked_BL1, marginal_BLV, certain_BTV[:, num_prompt:])
        marginal_BTV = torch.cat([certain_BTV[:, :num_prompt], marginal_BLV], dim=1)
        hidden_BLD = self._features(marginal_BLV, masked_BL1.squeeze(-1))
        return Denoised(marginal_BTV.log().float(), F.pad(hidden_BLD, (0, 0, num_prompt, 0)))

    def _features(self, marginal_BLV: Tensor, masked_BL: Tensor) -> Tensor:
        """(B, L, D) float32, see `FEATURES`; the columns of the prompt are 0."""
        masked = masked_BL.double()
        fixed = 1 - masked
        features = {
            "masked": masked,
            "confidence": marginal_BLV.amax(-1),
            "entropy": torch.special.entr(marginal_BLV).sum(-1) / math.log(self.num_symbols),
            "odd": (torch.arange(self.length, device=masked.device) % 2).expand_as(masked),
            "left_fixed": F.pad(fixed, (1, -1)),
            "right_fixed": F.pad(fixed, (-1, 1)),
            "masked_fraction": masked.mean(-1, keepdim=True).expand_as(masked),
            "leftmost": masked_BL & (masked_BL.cumsum(-1) == 1),
        }
        return torch.stack([features[name].float() for name in FEATURES], dim=-1)


@final
class Pairs(ExactDenoiser):
    """Positions 2i and 2i + 1 are equal; pairs are independent and uniform.

    Best planner, at any length: one position of each pair, then all others.
    """

    def __init__(self, num_pairs: int = 8, num_symbols: int = 4) -> None:
        super().__init__(2 * num_pairs, num_symbols, optimal_nfe=2)

    def is_valid(self, tokens_L: Tensor) -> bool:
        first_N, second_N = tokens_L[0::2], tokens_L[1::2]
        return bool(((first_N == second_N) & (first_N < self.num_symbols)).all())

    def _weights(self, allowed_BLS: Tensor) -> Tensor:
        both_BNS = allowed_BLS[:, 0::2] * allowed_BLS[:, 1::2]
        return both_BNS.repeat_interleave(2, dim=1)


@final
class Slots(ExactDenoiser):
    """Independent slots; slot i is uniform over the 2 + i % 3 symbols from i on, cyclically.

    Best planner: all at once.
    """

    def __init__(self, num_slots: int = 12, num_symbols: int = 6) -> None:
        if num_symbols < 5:
            raise ValueError(f"a slot allows up to 4 symbols of {num_symbols}; use 5 or more")
        super().__init__(num_slots, num_symbols, optimal_nfe=1)
        slots_L1 = torch.arange(num_slots)[:, None]
        self.allowed_LS = (torch.arange(num_symbols) - slots_L1) % num_symbols < 2 + slots_L1 % 3

    def is_valid(self, tokens_L: Tensor) -> bool:
        symbols_L = tokens_L.cpu()
        allowed_LV = F.pad(self.allowed_LS, (0, self.vocab_size - self.num_symbols))
        return bool(allowed_LV.gather(-1, symbols_L[:, None]).all())

    def _weights(self, allowed_BLS: Tensor) -> Tensor:
        return allowed_BLS * self.allowed_LS.to(allowed_BLS.device)


@final
class MarkovChain(ExactDenoiser):
    """Three symbols; each is the one before it plus 0 or 1, mod 3; all such chains are alike.

    Best planner: all even positions, then all odd ones. Positions two apart can take any pair of
    values, so the even ones never clash, and given them the odd ones are independent.
    """

    def __init__(self, length: int = 16) -> None:
        super().__init__(length, num_symbols=3, optimal_nfe=min(2, length))

    def is_valid(self, tokens_L: Tensor) -> bool:
        steps = tokens_L.diff() % 3
        return bool((steps <= 1).all() and (tokens_L < self.num_symbols).all())

    def _weights(self, allowed_BLS: Tensor) -> Tensor:
        """Forward–backward; messages are rescaled at each position, which keeps a 0 a 0."""
        step_SS = torch.eye(3, dtype=torch.float64, device=allowed_BLS.device)
        step_SS = step_SS + step_SS.roll(1, dims=1)
        ahead = torch.ones_like(allowed_BLS)
        behind = torch.ones_like(allowed_BLS)
        for t in range(1, self.length):
            ahead[:, t] = _rescaled((ahead[:, t - 1] * allowed_BLS[:, t - 1]) @ step_SS)
            behind[:, -1 - t] = _rescaled((behind[:, -t] * allowed_BLS[:, -t]) @ step_SS.T)
        return ahead * allowed_BLS * behind


def _rescaled(message_BS: Tensor) -> Tensor:
    return message_BS / message_BS.sum(-1, keepdim=True).clamp_min(1e-300)


@final
class Permutation(ExactDenoiser):
    """A uniformly random order of `size` symbols.

    Best planner: one position at a time, as any two unmasked together may take the same symbol.
    """

    def __init__(self, size: int = 6) -> None:
        super().__init__(size, num_symbols=size, optimal_nfe=size)

    def is_valid(self, tokens_L: Tensor) -> bool:
        return tokens_L.sort().values.tolist() == list(range(self.length))

    def _weights(self, allowed_BLS: Tensor) -> Tensor:
        masked_BL1 = allowed_BLS.bool().all(-1, keepdim=True)
        uses_B1S = allowed_BLS.masked_fill(masked_BL1, 0.0).sum(1, keepdim=True)
        is_possible_B11 = uses_B1S.amax(-1, keepdim=True) <= 1
        return ((uses_B1S == 0) & is_possible_B11).double().expand_as(allowed_BLS)


EXACT: dict[str, Callable[[], ExactDenoiser]] = {
    "pairs": Pairs,
    "slots": Slots,
    "markov": MarkovChain,
    "permutation": Permutation,
}
"""Each at its default size; optimal NFE 2, 1, 2 and 6."""
