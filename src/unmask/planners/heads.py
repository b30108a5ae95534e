"""Nets that score positions: the dUltra head on hidden states, the confidence policy, a linear head.

Each maps a view to (B, L) logits; `LearnedPlanner` turns them into a subset law.
B rows, L shown positions, C completion positions, D width of the denoiser, E width of the policy or number
of conditions; (X, T) is a canvas, see `unmask.layers.Layout`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.layers import Block, BlockConfig, Layout, attention, rotate, rotation, sincos
from unmask.planners.base import View

HEAD_LAYER = -1
"""What caches call the block of a head, beside the denoiser's 0, 1, 2 ..."""


class AdaNorm(nn.Module):
    """LayerNorm whose scale and shift come from a conditioning vector."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.eps = eps
        nn.init.xavier_uniform_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_XTD: Tensor, condition_ED: Tensor, which_XT: Tensor) -> Tensor:
        """`which_XT` says which of the E conditions holds for a token."""
        scale_ED, shift_ED = self.modulation(condition_ED).chunk(2, dim=-1)
        normed = F.layer_norm(x_XTD, x_XTD.shape[-1:], eps=self.eps)
        return normed * (1 + scale_ED[which_XT]) + shift_ED[which_XT]  # type: ignore[no-any-return]


def _without_autocast(like: Tensor) -> torch.autocast:
    """For what decides: logits that are rounded to half precision would change its laws."""
    return torch.autocast(like.device.type, enabled=False)


def _time_mlp(inputs: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, dim), nn.SiLU(), nn.Linear(dim, dim))


@dataclass(frozen=True, slots=True)
class DultraHeadConfig:
    """`hidden_size` is the denoiser's; the head's one block has its own heads and MLP width."""

    hidden_size: int
    num_heads: int
    mlp_dim: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


class DultraHead(nn.Module):
    """Planner head of dUltra (arXiv 2512.21446, section 3; released code): AdaLN, one block, AdaLN, linear.

    It reads only the hidden states after the final norm, over prompt and completion, conditioned on the
    fraction of the row that is not masked and on whether each position is an eligible mask. Unlike the
    published head it does not attend to padding.
    """

    capturable: ClassVar[bool] = True

    def __init__(self, config: DultraHeadConfig) -> None:
        super().__init__()
        self.config = config
        block = BlockConfig(
            dim=config.hidden_size,
            num_heads=config.num_heads,
            mlp_dim=config.mlp_dim,
            rope_theta=config.rope_theta,
            norm_eps=config.norm_eps,
        )
        self.time = _time_mlp(256, config.hidden_size)
        self.mask_embed = nn.Embedding(2, config.hidden_size)
        self.norm_in = AdaNorm(config.hidden_size, eps=1e-4)
        self.block = Block(block)
        self.norm_out = AdaNorm(config.hidden_size, eps=1e-4)
        self.score = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.zeros_(self.score.bias)

    def forward(self, view: View) -> Tensor:
        """(B, L) logits of unmasking the shown positions.

        Raises:
            ValueError: for hidden states of another width than the head was made for.
        """
        canvas = view.canvas
        if canvas.hidden_XTD.shape[-1] != self.config.hidden_size:
            raise ValueError(
                f"this planner reads hidden states of width {self.config.hidden_size}, the denoiser's have "
                f"{canvas.hidden_XTD.shape[-1]}; use the planner that was trained with it"
            )
        none_N = torch.zeros_like(canvas.row_XT).flatten()  # counts: a token may be shown twice, once closed
        eligible_XT = none_N.scatter_add(0, canvas.shown_BL.flatten(), view.open_BL.flatten().long()) > 0
        eligible_XT = eligible_XT.view_as(canvas.row_XT)
        time_B = 1 - view.masked_BC.sum(-1) / canvas.size_B
        return self.scores(
            canvas.hidden_XTD, eligible_XT, time_B, canvas.layout, canvas.row_XT, canvas.shown_BL
        )

    def scores(
        self,
        hidden_XTD: Tensor,
        eligible_XT: Tensor,
        time_B: Tensor,
        layout: Layout,
        row_XT: Tensor,
        shown_BL: Tensor,
    ) -> Tensor:
        """(B, L) logits of unmasking the shown tokens. Only eligible ones have a condition of their own."""
        dtype = self.score.weight.dtype
        by = rotation(
            layout.positions_XT, self.config.hidden_size // self.config.num_heads, self.config.rope_theta
        )
        with _without_autocast(hidden_XTD):
            time_B1D = self.time(sincos(time_B, 256, 10_000.0).to(dtype))[:, None]
            condition_ED = (time_B1D + self.mask_embed.weight).flatten(0, 1)
            which_XT = 2 * row_XT + eligible_XT.long()
            x_XTD = self.norm_in(hidden_XTD.to(dtype), condition_ED, which_XT)
        x_BLD = self.block(x_XTD, by, layout, HEAD_LAYER, shown_BL)  # nearly all of the work
        with _without_autocast(hidden_XTD):
            out_BLD = self.norm_out(x_BLD.to(dtype), condition_ED, which_XT.flatten()[shown_BL])
            return self.score(out_BLD).squeeze(-1)  # type: ignore[no-any-return]

    def compile_blocks(self) -> None:
        """As that of a denoiser."""
        self.block.is_compiled = True


@dataclass(frozen=True, slots=True)
class ConfidencePolicyConfig:
    """Defaults are the published sizes: 331,265 parameters."""

    dim: int = 128
    num_heads: int = 2
    mlp_dim: int = 512
    time_period: float = 1.0
    """Longest period of the time embedding; the published 1.0 makes all its frequencies equal."""
    bias: float = -2.0
    """Initial logit, roughly: about 0.12 of the open positions per step."""


class ConfidencePolicy(nn.Module):
    """Policy on confidences, mask and time (arXiv 2512.09106, section 3 and released code).

    It sees the completion only; time is steps taken / length. One DiT block whose modulation starts at zero;
    before training all logits are near `bias`.
    """

    capturable: ClassVar[bool] = True

    def __init__(self, config: ConfidencePolicyConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.confidence = nn.Linear(1, dim)
        self.mask_embed = nn.Embedding(2, dim)
        self.time = _time_mlp(dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, config.mlp_dim), nn.GELU(), nn.Linear(config.mlp_dim, dim))
        self.norm_out = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.constant_(self.score.bias, config.bias)

    def forward(self, view: View) -> Tensor:
        """(B, L) logits of unmasking the shown positions."""
        confidence_BC = view.confidence_BC().to(self.score.weight.dtype)  # of the denoiser: under autocast
        time_B = view.step_B / view.length_B
        with _without_autocast(confidence_BC):
            scores_BC = self.scores(confidence_BC, view.masked_BC, time_B, view.length_B)
        return scores_BC.gather(1, view.position_BL)

    def scores(
        self, confidence_BC: Tensor, masked_BC: Tensor, time_B: Tensor, length_B: Tensor | None = None
    ) -> Tensor:
        """(B, C) logits of unmasking; positions from `length_B` on are no part of a row."""
        dim, heads = self.config.dim, self.config.num_heads
        x_BCE = self.confidence(confidence_BC[..., None])
        time = sincos(time_B, dim, self.config.time_period).to(x_BCE.dtype)
        condition_BCE = self.time(time)[:, None] + self.mask_embed(masked_BC.long())
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(condition_BCE).chunk(6, dim=-1)
        normed_BCE = self.attention_norm(x_BCE) * (1 + scale1) + shift1
        positions_1C = torch.arange(x_BCE.shape[1], device=x_BCE.device)[None]
        by = rotation(positions_1C, dim // heads, 10_000.0)
        inside = None if length_B is None else (positions_1C < length_B[:, None])[:, None, None]
        qk, v = self.qkv(normed_BCE).unflatten(-1, (3 * heads, -1)).split([2 * heads, heads], dim=2)
        q, k = rotate(qk, by).chunk(2, dim=2)
        mixed = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), inside)
        x_BCE = x_BCE + (1 + gate1) * self.out(mixed.transpose(1, 2).flatten(2))
        x_BCE = x_BCE + (1 + gate2) * self.mlp(self.mlp_norm(x_BCE) * (1 + scale2) + shift2)
        return self.score(self.norm_out(x_BCE)).squeeze(-1)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class LinearHeadConfig:
    hidden_size: int


class LinearHead(nn.Module):
    """One weight per hidden feature and a bias: enough where features say what matters."""

    capturable: ClassVar[bool] = True

    def __init__(self, config: LinearHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.score = nn.Linear(config.hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, view: View) -> Tensor:
        """(B, L) logits of unmasking the shown positions."""
        hidden_BLD = view.canvas.hidden_at_shown().to(self.score.weight.dtype)
        with _without_autocast(hidden_BLD):
            return self.score(hidden_BLD).squeeze(-1)  # type: ignore[no-any-return]
