"""What the output layer says of some positions, without holding logits that do not fit.

B rows, L positions, V symbols, D hidden width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.decode.sampling import position_log_prob, sample_tokens
from unmask.planners import features
from unmask.planners.base import without_mask
from unmask.rng import HAS_TRITON, RowStreams


class Reading(NamedTuple):
    """Of (B, L) positions, [MASK] left out."""

    tokens: Tensor
    """int64: Gumbel-max at the row's temperature; the most likely one at 0."""
    confidence: Tensor
    """float32: probability of the most likely token, at temperature 1."""
    log_prob: Tensor
    """float32: of `tokens` under the law that drew it; 0 at temperature 0."""


class HeadReadout:
    """A `Readout` (see `unmask.planners.base`) of hidden states, made in slices of positions.

    On a GPU tokens, confidences and log-likelihoods come from one kernel that reads the logits once.

    Args:
        head: the output layer.
        hidden_BLD: hidden states of the positions.
        mask_id: the symbol that is never read out.
        width: positions of each row whose logits are made at a time; where all fit they are made once.
        streams: draw the tokens, and say which positions these are; None where none is drawn.
        temperature_B: of the rows' tokens; None takes the most likely ones.
    """

    def __init__(
        self,
        head: Callable[[Tensor], Tensor],
        hidden_BLD: Tensor,
        mask_id: int,
        width: int,
        streams: RowStreams | None = None,
        temperature_B: Tensor | None = None,
    ) -> None:
        self.head, self.hidden_BLD = head, hidden_BLD
        self.mask_id, self.width = mask_id, width
        self.streams, self.temperature_B = streams, temperature_B
        self._raw: Tensor | None = None
        self._reading: Reading | None = None

    def logits(self) -> Tensor:
        """(B, L, V) float32, whatever its size."""
        return without_mask(self._raw_logits(), self.mask_id)

    def confidence(self) -> Tensor:
        return self._read().confidence

    def margin(self) -> Tensor:
        return self._each(features.margin)

    def entropy(self) -> Tensor:
        return self._each(features.entropy)

    def tokens(self) -> Tensor:
        """(B, L) int64: one for every position."""
        return self._read().tokens

    def log_prob(self) -> Tensor:
        """(B, L) float32 of `tokens`, under the law that drew them."""
        return self._read().log_prob

    def _raw_logits(self) -> Tensor:
        if self._raw is None:
            self._raw = self.head(self.hidden_BLD)
        return self._raw

    def _slices(self) -> list[slice]:
        length = self.hidden_BLD.shape[1]
        return [slice(start, start + self.width) for start in range(0, length, self.width)]

    def _part(self, where: slice) -> Tensor:
        """Raw logits of a slice of the positions."""
        if self._raw is not None or self.hidden_BLD.shape[1] <= self.width:
            return self._raw_logits()[:, where]
        return self.head(self.hidden_BLD[:, where])

    def _each(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [function(without_mask(self._part(where), self.mask_id)) for where in self._slices()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _read(self) -> Reading:
        if self._reading is None:
            parts = [self._read_part(self._part(where), where) for where in self._slices()]
            joined = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
            self._reading = parts[0] if len(parts) == 1 else Reading(*joined)
        return self._reading

    def _read_part(self, raw_BLV: Tensor, where: slice) -> Reading:
        shape, streams, temperature_B = raw_BLV.shape[:2], self.streams, self.temperature_B
        if streams is not None and streams.position_BL is not None:
            streams = RowStreams(streams.seed_B, streams.step_B, streams.position_BL[:, where])
        if raw_BLV.is_cuda and HAS_TRITON:
            from unmask.decode.kernels import read_rows

            words_M, temperature_M = torch.zeros(shape, dtype=torch.int64, device=raw_BLV.device), None
            if streams is not None and temperature_B is not None:
                words_M = streams.words("tokens", shape[1])
                temperature_M = temperature_B[:, None].expand(shape).flatten()
            found = read_rows(raw_BLV.flatten(0, 1), self.mask_id, words_M.flatten(), temperature_M)
            return Reading(*(each.view(shape) for each in found))
        logits_BLV = without_mask(raw_BLV, self.mask_id)
        confidence_BL = features.confidence(logits_BLV)
        if streams is None or temperature_B is None:
            return Reading(logits_BLV.argmax(-1), confidence_BL, torch.zeros_like(confidence_BL))
        tokens_BL = sample_tokens(logits_BLV, temperature_B, streams)
        log_prob_BL = position_log_prob(logits_BLV, tokens_BL, temperature_B)
        return Reading(tokens_BL, confidence_BL, log_prob_BL)
