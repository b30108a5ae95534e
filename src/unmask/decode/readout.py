"""What the output layer says of some positions, without holding logits that do not fit.

B rows, L positions, N = B * L, V symbols, D hidden width.
"""

from collections.abc import Callable, Sequence
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
    margin: Tensor | None = None
    """float32: that probability minus the one of the second; by the kernel only, where asked for."""
    entropy: Tensor | None = None
    """float32, in nats; likewise."""

    def of(self, index_BK: Tensor) -> "Reading":
        """Of some positions, counted through all rows."""
        return Reading._make(None if each is None else each.flatten()[index_BK] for each in self)


class HeadReadout:
    """A `Readout` (see `unmask.planners.base`) of hidden states, made some positions at a time.

    On a GPU all but the logits comes from one kernel that reads them once.

    Args:
        head: the output layer.
        hidden_BLD: hidden states of the positions.
        mask_id: the symbol that is never read out.
        most: positions whose logits are made at a time; where all fit they are made once.
        streams: draw the tokens, and say which positions these are; None where none is drawn.
        temperature_B: of the rows' tokens; None takes the most likely ones.
    """

    def __init__(
        self,
        head: Callable[[Tensor], Tensor],
        hidden_BLD: Tensor,
        mask_id: int,
        most: int,
        streams: RowStreams | None = None,
        temperature_B: Tensor | None = None,
    ) -> None:
        self.head, self.mask_id, self.most = head, mask_id, most
        self.shape = hidden_BLD.shape[:2]
        self.hidden_ND = hidden_BLD.flatten(0, 1)  # of one piece: slices of every row would be many products
        self.streams, self.temperature_B = streams, temperature_B
        self._raw_NV: Tensor | None = None
        self._reading: Reading | None = None
        self._parent: tuple[HeadReadout, Tensor] | None = None
        """What this is a part of, and which positions of it."""

    def at(self, index_BK: Tensor, streams: RowStreams, temperature_B: Tensor | None) -> "HeadReadout":
        """Of some of the N positions; the output layer is not asked again where all logits are held."""
        hidden_BKD = self.hidden_ND[index_BK]
        part = HeadReadout(self.head, hidden_BKD, self.mask_id, self.most, streams, temperature_B)
        part._parent = (self, index_BK)
        return part

    def logits(self) -> Tensor:
        """(B, L, V) float32, whatever its size."""
        return without_mask(self._raw(), self.mask_id).view(*self.shape, -1)

    def confidence(self) -> Tensor:
        return self._read().confidence

    def margin(self) -> Tensor:
        margin_BL = self._read(spread=True).margin if self._has_kernel else None
        return self._each(features.margin) if margin_BL is None else margin_BL

    def entropy(self) -> Tensor:
        entropy_BL = self._read(spread=True).entropy if self._has_kernel else None
        return self._each(features.entropy) if entropy_BL is None else entropy_BL

    def tokens(self) -> Tensor:
        """(B, L) int64: one for every position."""
        return self._read().tokens

    def log_prob(self) -> Tensor:
        """(B, L) float32 of `tokens`, under the law that drew them."""
        return self._read().log_prob

    def _raw(self) -> Tensor:
        if self._raw_NV is None:
            if self._parent is not None and self._parent[0]._holds_all:
                whole, index_BK = self._parent
                self._raw_NV = whole._raw()[index_BK.flatten()]
            else:
                self._raw_NV = self.head(self.hidden_ND)
        return self._raw_NV

    def _slices(self) -> list[slice]:
        return [slice(start, start + self.most) for start in range(0, len(self.hidden_ND), self.most)]

    def _part(self, where: slice) -> Tensor:
        """(n, V) raw logits of a slice of the positions."""
        if self._raw_NV is not None or self._holds_all:
            return self._raw()[where]
        return self.head(self.hidden_ND[where])

    def _each(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [function(without_mask(self._part(where), self.mask_id)) for where in self._slices()]
        return self._join(parts)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).view(self.shape)

    @property
    def _holds_all(self) -> bool:
        return len(self.hidden_ND) <= self.most

    @property
    def _has_kernel(self) -> bool:
        return self.hidden_ND.is_cuda and HAS_TRITON

    def _read(self, spread: bool = False) -> Reading:
        """All at once; with `spread` margin and entropy too."""
        if self._reading is None or (spread and self._reading.entropy is None):
            if self._parent is not None and self.temperature_B is None:
                whole, index_BK = self._parent
                self._reading = whole._read(spread).of(index_BK)
            else:
                read = self._kernel(spread) if self._has_kernel else self._plain()
                parts = zip(*(read(self._part(where), where) for where in self._slices()), strict=True)
                self._reading = Reading._make(None if each[0] is None else self._join(each) for each in parts)
        return self._reading

    def _kernel(self, spread: bool) -> Callable[[Tensor, slice], Reading]:
        """Reads (n, V) raw logits of a slice of the positions in one pass."""
        from unmask.decode.kernels import read_rows

        temperature_N: Tensor | None = None
        words_N = torch.zeros(len(self.hidden_ND), dtype=torch.int64, device=self.hidden_ND.device)
        if self.streams is not None and self.temperature_B is not None:
            words_N = self.streams.words("tokens", self.shape[1]).flatten()
            temperature_N = self.temperature_B[:, None].expand(self.shape).flatten()

        def read(raw_NV: Tensor, where: slice) -> Reading:
            temperature = None if temperature_N is None else temperature_N[where]
            return Reading(*read_rows(raw_NV, self.mask_id, words_N[where], temperature, spread))

        return read

    def _plain(self) -> Callable[[Tensor, slice], Reading]:
        """The same in PyTorch: each position is a row of one."""
        streams, temperature_N = None, torch.zeros(0)
        if self.streams is not None and self.temperature_B is not None:
            streams = self.streams.each(self.shape[1])
            temperature_N = self.temperature_B[:, None].expand(self.shape).flatten()

        def read(raw_NV: Tensor, where: slice) -> Reading:
            logits_NV = without_mask(raw_NV, self.mask_id)
            confidence_N = features.confidence(logits_NV)
            if streams is None:
                return Reading(logits_NV.argmax(-1), confidence_N, torch.zeros_like(confidence_N))
            logits_N1V, temperature = logits_NV[:, None], temperature_N[where]
            tokens_N1 = sample_tokens(logits_N1V, temperature, streams.part(where))
            log_prob_N1 = position_log_prob(logits_N1V, tokens_N1, temperature)
            return Reading(tokens_N1.flatten(), confidence_N, log_prob_N1.flatten())

        return read
