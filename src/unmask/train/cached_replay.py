"""What steps on cached windows saw, in one differentiable pass.

Such a step takes the keys and values of all other tokens from the last step that saw the whole row. Here the
whole rows, as they were then, and the windows, as they are now, lie end to end; tokens of a row see the row,
those of a window see the window and what is outside it. So gradients reach what was cached, too, and a whole
row is computed once for all steps that take from it.
G whole rows, N windows, B = G + N, T = prompt + L tokens of a row, Q columns of a window, K of a block.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unmask.decode.readout import HeadReadout
from unmask.layers import Padded, attention
from unmask.models.transformer import Transformer
from unmask.planners import features
from unmask.planners.base import Canvas, View, without_mask


def state_of(tokens_BT: Tensor, masked_BL: Tensor, mask_id: int) -> Tensor:
    """(B, T) prompts and completions as they were where `masked_BL` positions were still masked."""
    length = masked_BL.shape[1]
    completion_BL = torch.where(masked_BL, mask_id, tokens_BT[:, -length:])
    return torch.cat([tokens_BT[:, :-length], completion_BL], dim=1)


@dataclass(frozen=True, slots=True)
class RowsAndWindows:
    """A `Layout` (see `unmask.layers`): G rows of T tokens, then N windows of Q, end to end."""

    positions_XT: Tensor
    """(1, G * T + N * Q)."""
    row_mask: Tensor
    """(G, 1, 1, T) bool: what tokens of a row see."""
    window_mask: Tensor
    """(N, 1, 1, T + Q) bool: what tokens of a window see of its row, and of itself."""
    row_of_N: Tensor
    """Which of the G rows each window is of."""

    @staticmethod
    def of(
        positions_1X: Tensor, is_token_GT: Tensor, row_of_N: Tensor, column_NQ: Tensor, is_inside_NQ: Tensor
    ) -> "RowsAndWindows":
        """Tokens of a window that are inside stand for those in the same columns of its row."""
        is_token_NT = is_token_GT[row_of_N]
        replaced_NT = torch.zeros_like(is_token_NT, dtype=torch.int64)
        replaced_NT = replaced_NT.scatter_add(1, column_NQ, is_inside_NQ.long())
        window_NX = torch.cat([is_token_NT & (replaced_NT == 0), is_inside_NQ], dim=1)
        return RowsAndWindows(positions_1X, is_token_GT[:, None, None], window_NX[:, None, None], row_of_N)

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        """Queries are all tokens, or (B, H, K, width of a head): of the rows, then of the windows."""
        device = q_XHTK.device
        (k_rows, k_windows), (v_rows, v_windows) = self._apart(k_XHTK), self._apart(v_XHTK)
        row_of_N = self.row_of_N.to(device)
        k_seen = torch.cat([k_rows[row_of_N], k_windows], dim=2)
        v_seen = torch.cat([v_rows[row_of_N], v_windows], dim=2)
        are_shown = len(q_XHTK) > 1  # else the one canvas
        sizes = [len(self.row_mask), len(self.window_mask)]
        q_rows, q_windows = q_XHTK.split(sizes) if are_shown else self._apart(q_XHTK)
        rows = attention(q_rows, k_rows, v_rows, self.row_mask.to(device))
        windows = attention(q_windows, k_seen, v_seen, self.window_mask.to(device))
        if are_shown:
            return torch.cat([rows, windows])
        return torch.cat([each.transpose(0, 1).flatten(1, 2) for each in (rows, windows)], dim=1)[None]

    def _apart(self, x_1HXK: Tensor) -> tuple[Tensor, Tensor]:
        """(G, H, T, K) and (N, H, Q, K)."""
        num_rows, num_windows, width = len(self.row_mask), len(self.window_mask), self.row_mask.shape[-1]
        rows, windows = x_1HXK[0, :, : num_rows * width], x_1HXK[0, :, num_rows * width :]
        return (
            rows.unflatten(1, (num_rows, width)).transpose(0, 1),
            windows.unflatten(1, (num_windows, -1)).transpose(0, 1),
        )


@dataclass(frozen=True, slots=True)
class CachedSteps:
    """Steps on windows, and the whole rows that they take from: T columns each, completions at the right.

    Windows are the engine's: they begin with the block (a token earlier where the net shifts) and end with it
    (dual) or with the row (prefix).
    """

    tokens_GT: Tensor
    """Prompts and final completions."""
    is_token_GT: Tensor
    """bool: False for padding."""
    then_GL: Tensor
    """bool: masked when the row was seen whole."""
    seen_G: Tensor
    """The row's step by then."""
    row_of_N: Tensor
    """Which of the G rows each step takes from."""
    now_NL: Tensor
    """bool: masked when the step begins."""
    step_N: Tensor
    block_length: int
    is_dual: bool
    mask_id: int

    def view(self, denoiser: Transformer) -> View:
        """Of B rows: those that were seen whole, then the windows. All show their block."""
        device, length = self.now_NL.device, self.now_NL.shape[1]
        (num_rows, width), lookback = self.tokens_GT.shape, int(denoiser.config.shift)
        masked_BL = torch.cat([self.then_GL, self.now_NL])
        start_B1 = (masked_BL.byte().argmax(-1) // self.block_length * self.block_length)[:, None]
        start_N1 = start_B1[num_rows:]
        end_N1 = start_N1 + self.block_length if self.is_dual else torch.full_like(start_N1, length)
        columns = lookback + int((end_N1 - start_N1).max())
        raw_NQ = width - length + start_N1 - lookback + torch.arange(columns, device=device)
        column_NQ, is_inside_NQ = raw_NQ.clamp_max(width - 1), raw_NQ < width - length + end_N1
        now_NT = state_of(self.tokens_GT[self.row_of_N], self.now_NL, self.mask_id)
        place_GT = Padded.of(self.is_token_GT, (num_rows, width), device).positions_XT
        places = place_GT, place_GT[self.row_of_N].gather(1, column_NQ)
        tokens = state_of(self.tokens_GT, self.then_GL, self.mask_id), now_NT.gather(1, column_NQ)
        positions_1X, tokens_1X = (
            torch.cat([each.flatten() for each in pair])[None] for pair in (places, tokens)
        )
        lie = positions_1X, self.is_token_GT, self.row_of_N, column_NQ
        layout = RowsAndWindows.of(*lie, is_inside_NQ)
        hidden_1XD = denoiser.encode(tokens_1X, layout)
        if lookback:  # see the engine: a head keeps what it knew of the token before the window
            layout = RowsAndWindows.of(
                *lie, is_inside_NQ & (torch.arange(columns, device=device) >= lookback)
            )
        index_B = torch.arange(len(masked_BL), device=device)
        of_window_N = index_B[num_rows:] - num_rows
        position_BK = start_B1 + torch.arange(self.block_length, device=device)
        shown_GK = index_B[:num_rows, None] * width + width - length + position_BK[:num_rows]
        shown_NK = num_rows * width + of_window_N[:, None] * columns + lookback
        shown_NK = shown_NK + torch.arange(self.block_length, device=device)
        size_G = self.is_token_GT.sum(-1)
        repeats_B = torch.where(index_B < num_rows, width, columns)
        canvas = Canvas(
            hidden_XTD=hidden_1XD,
            layout=layout,
            row_XT=index_B.repeat_interleave(repeats_B)[None],
            shown_BL=torch.cat([shown_GK, shown_NK]),
            size_B=torch.cat([size_G, size_G[self.row_of_N]]),
        )

        return View(
            readout=HeadReadout(denoiser.head, canvas.hidden_at_shown(), self.mask_id, position_BK.numel()),
            open_BL=masked_BL.gather(1, position_BK),
            position_BL=position_BK,
            step_B=torch.cat([self.seen_G, self.step_N]),
            masked_BC=masked_BL,
            length_B=torch.full_like(index_B, length),
            confidence_BC=partial(self._confidence, denoiser, hidden_1XD, start_N1, end_N1),
            canvas=canvas,
        )

    def _confidence(
        self, denoiser: Transformer, hidden_1XD: Tensor, start_N1: Tensor, end_N1: Tensor
    ) -> Tensor:
        """(B, L): outside a window, what its whole row said."""
        (num_rows, width), length = self.tokens_GT.shape, self.now_NL.shape[1]
        confidence_X = features.confidence(without_mask(denoiser.head(hidden_1XD[0]), self.mask_id))
        then_GT = confidence_X[: num_rows * width].view(num_rows, width)
        now_NQ = confidence_X[num_rows * width :].view(len(start_N1), -1)[:, int(denoiser.config.shift) :]
        then_GL = then_GT[:, width - length :]
        offset_NL = torch.arange(length, device=start_N1.device) - start_N1
        now_NL = now_NQ.gather(1, offset_NL.clamp(0, now_NQ.shape[1] - 1))
        is_window_NL = (offset_NL >= 0) & (offset_NL < end_N1 - start_N1)
        return torch.cat([then_GL, torch.where(is_window_NL, now_NL, then_GL[self.row_of_N])])
