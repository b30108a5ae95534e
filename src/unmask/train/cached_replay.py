"""What steps on a cached window saw, in one differentiable pass.

Such a step takes the keys and values of all other tokens from the last step that saw the whole row. Here both
lie end to end, the whole row as it was then and the window as it is now: tokens of the row see the row, those
of the window see the window and what is outside it. So gradients reach what was cached, too.
N pairs (row, step), T = prompt + L tokens, Q columns of a window, K positions of a block, D hidden width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decode.readout import HeadReadout
from unmask.layers import attention
from unmask.models.transformer import Transformer
from unmask.planners import features
from unmask.planners.base import Canvas, View, without_mask


@dataclass(frozen=True, slots=True)
class RowsAndWindows:
    """A `Layout` (see `unmask.layers`): T columns of each row, then Q of its window."""

    positions_XT: Tensor
    """(N, T + Q)."""
    row_mask: Tensor
    """(N, 1, 1, T) bool: what tokens of a row see."""
    window_mask: Tensor
    """(N, 1, 1, T + Q) bool: what those of its window see."""

    @staticmethod
    def of(
        positions_NX: Tensor, is_token_NT: Tensor, column_NQ: Tensor, is_inside_NQ: Tensor
    ) -> "RowsAndWindows":
        """Tokens of a window that are inside stand for those in the same columns of the row."""
        replaced_NT = torch.zeros_like(is_token_NT, dtype=torch.int64)
        replaced_NT = replaced_NT.scatter_add(1, column_NQ, is_inside_NQ.long())
        window_NX = torch.cat([is_token_NT & (replaced_NT == 0), is_inside_NQ], dim=1)
        return RowsAndWindows(positions_NX, is_token_NT[:, None, None], window_NX[:, None, None])

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        """Queries are all tokens, or 2N times as many: of the rows, then of the windows."""
        width = self.row_mask.shape[-1]
        device = q_XHTK.device
        if len(q_XHTK) == len(k_XHTK):
            axis, sizes = 2, [width, q_XHTK.shape[2] - width]
        else:
            axis, sizes = 0, [len(k_XHTK), len(k_XHTK)]
        of_rows, of_windows = q_XHTK.split(sizes, dim=axis)
        keys, values = k_XHTK[:, :, :width], v_XHTK[:, :, :width]
        rows = attention(of_rows, keys, values, self.row_mask.to(device))
        windows = attention(of_windows, k_XHTK, v_XHTK, self.window_mask.to(device))
        return torch.cat([rows, windows], dim=axis)


@dataclass(frozen=True, slots=True)
class CachedPairs:
    """Pairs of rows that lie in T columns, completions at the right.

    Their windows are the engine's: they begin with the block (a token earlier where the net shifts) and end
    with it (dual) or with the row (prefix).
    """

    tokens_NT: Tensor
    """Prompts and final completions."""
    is_token_NT: Tensor
    """bool: False for padding."""
    then_NL: Tensor
    """bool: masked when the row was last seen whole."""
    now_NL: Tensor
    """bool: masked when the step begins."""
    seen_N: Tensor
    step_N: Tensor
    block_length: int
    is_dual: bool
    mask_id: int

    def view(self, denoiser: Transformer) -> View:
        """Of 2N rows: those that were seen whole, then the windows. Both show the block of the step."""
        length, device = self.now_NL.shape[1], self.tokens_NT.device
        (num_pairs, width), lookback = self.tokens_NT.shape, int(denoiser.config.shift)
        start_N1 = (self.now_NL.byte().argmax(-1) // self.block_length * self.block_length)[:, None]
        block_end_N1 = (start_N1 + self.block_length).clamp_max(length)
        end_N1 = block_end_N1 if self.is_dual else torch.full_like(block_end_N1, length)
        columns = lookback + int((end_N1 - start_N1).max())
        raw_NQ = width - length + start_N1 - lookback + torch.arange(columns, device=device)
        column_NQ = raw_NQ.clamp(0, width - 1)
        is_inside_NQ = (raw_NQ >= 0) & (raw_NQ < width - length + end_N1)
        is_inside_NQ &= self.is_token_NT.gather(1, column_NQ)
        then_NT, now_NT = self._state(self.then_NL), self._state(self.now_NL)
        place_NT = (self.is_token_NT.long().cumsum(-1) - 1).clamp_min(0)
        positions_NX = torch.cat([place_NT, place_NT.gather(1, column_NQ)], dim=1)
        layout = RowsAndWindows.of(positions_NX, self.is_token_NT, column_NQ, is_inside_NQ)
        tokens_NX = torch.cat([then_NT, now_NT.gather(1, column_NQ)], dim=1)
        hidden_NXD = denoiser.encode(tokens_NX, layout)
        if lookback:  # see the engine: a head keeps what it knew of the token before the window
            is_inside_NQ = is_inside_NQ & (torch.arange(columns, device=device) >= lookback)
            layout = RowsAndWindows.of(positions_NX, self.is_token_NT, column_NQ, is_inside_NQ)
        raw_NK = start_N1 + torch.arange(min(self.block_length, length), device=device)
        position_NK = raw_NK.clamp_max(length - 1)
        row_N1 = torch.arange(num_pairs, device=device)[:, None]
        first_N1 = row_N1 * (width + columns)
        shown_NK = first_N1 + width - length + position_NK
        window_NK = first_N1 + width + lookback + position_NK - start_N1
        canvas = Canvas(
            hidden_XTD=hidden_NXD,
            layout=layout,
            row_XT=torch.cat([row_N1.expand(-1, width), num_pairs + row_N1.expand(-1, columns)], dim=1),
            shown_BL=torch.cat([shown_NK, window_NK]),
            size_B=self.is_token_NT.sum(-1).repeat(2),
        )
        is_block_NK = raw_NK < block_end_N1
        masked_BC = torch.cat([self.then_NL, self.now_NL])
        position_BL = position_NK.repeat(2, 1)

        def confidence() -> Tensor:
            """(2N, L): outside a window, what the whole row said."""
            logits_NXV = without_mask(denoiser.head(hidden_NXD), self.mask_id)
            whole_NX = features.confidence(logits_NXV)
            then_NL, now_NQ = whole_NX[:, width - length : width], whole_NX[:, width + lookback :]
            index_L = torch.arange(length, device=device)
            offset_NL = (index_L - start_N1).clamp(0, now_NQ.shape[1] - 1)
            is_window_NL = (index_L >= start_N1) & (index_L < end_N1)
            return torch.cat([then_NL, torch.where(is_window_NL, now_NQ.gather(1, offset_NL), then_NL)])

        return View(
            readout=HeadReadout(denoiser.head, canvas.hidden_at_shown(), self.mask_id, position_BL.numel()),
            open_BL=masked_BC.gather(1, position_BL) & is_block_NK.repeat(2, 1),
            position_BL=position_BL,
            step_B=torch.cat([self.seen_N, self.step_N]),
            masked_BC=masked_BC,
            length_B=torch.full_like(self.step_N, length).repeat(2),
            confidence_BC=confidence,
            canvas=canvas,
        )

    def _state(self, masked_NL: Tensor) -> Tensor:
        length = masked_NL.shape[1]
        completion_NL = torch.where(masked_NL, self.mask_id, self.tokens_NT[:, -length:])
        return torch.cat([self.tokens_NT[:, :-length], completion_NL], dim=1)
