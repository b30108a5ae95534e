"""The parts that the denoiser and the planner heads are built from.

B rows, T positions, D model width, H heads, K width of a head; (X, T) is a canvas, see `Layout`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """One bidirectional transformer block. `num_kv_heads < num_heads` is grouped-query attention."""

    dim: int
    num_heads: int
    mlp_dim: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def width(self) -> int:
        return self.head_dim or self.dim // self.num_heads


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019); PyTorch's kernel computes it in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Slower turning for longer rows, as in Llama 3.1.

    A frequency that makes less than `low` turns in `length` positions is divided by `factor`; one that makes
    more than `high` is kept; those between are mixed.
    """

    factor: float
    low: float
    high: float
    length: int


def rotation(
    positions_XT: Tensor, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> Rotation:
    """Cosines and signed sines of rotary embeddings (Su et al. 2021), each (X, T, 1, K), float32."""
    exponents = torch.arange(0, head_dim, 2, device=positions_XT.device, dtype=torch.float32)
    speeds = theta ** (-exponents / head_dim)
    if scaling is not None:
        turns = scaling.length * speeds / (2 * torch.pi)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        speeds = speeds * (kept + (1 - kept) / scaling.factor)
    angles = positions_XT.float()[:, :, None, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x_XTHK: Tensor, by: Rotation) -> Tensor:
    """Apply rotary embeddings in float32 (half-split convention, as Llama and LLaDA)."""
    cos, sin = by
    swapped = x_XTHK.roll(x_XTHK.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_XTHK * cos, swapped, sin).to(x_XTHK.dtype)


class Layout(Protocol):
    """Where the tokens of a canvas (X, T) stand in their rows, and whom each of them sees.

    A canvas is a padded batch (a row a row), or rows laid end to end in one (X = 1).
    """

    @property
    def positions_XT(self) -> Tensor:
        """int64: counts the tokens of each row from 0."""
        ...

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        """(X, H, T, K) mixed values; `layer` tells caches apart.

        Queries may also be (B, H, L, K), the same number of each row, where they all see the same keys: so
        are the values then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch of rows; padding on either side shifts nothing and is seen by nobody."""

    positions_XT: Tensor
    mask: Tensor | None
    """(X, 1, 1 or T, T) bool: which keys the queries see; None where they see all."""

    @property
    def has_mask_of_queries(self) -> bool:
        return self.mask is not None and self.mask.shape[-2] > 1

    @staticmethod
    def of(attention_mask_BT: Tensor | None, shape: tuple[int, int], device: torch.device) -> "Padded":
        """`attention_mask_BT` is 1 for tokens and 0 for padding."""
        if attention_mask_BT is None:
            return Padded(torch.arange(shape[1], device=device).expand(shape), None)
        positions_XT = (attention_mask_BT.long().cumsum(-1) - 1).clamp_min(0)
        return Padded(positions_XT, attention_mask_BT.bool()[:, None, None, :])

    @staticmethod
    def packed(segments_XT: Tensor) -> "Padded":
        """Several examples to a row: those of one number stand together and see only each other."""
        index_T = torch.arange(segments_XT.shape[1], device=segments_XT.device)
        starts_XT = torch.ones_like(segments_XT, dtype=torch.bool)
        starts_XT[:, 1:] = segments_XT[:, 1:] != segments_XT[:, :-1]
        positions_XT = index_T - (index_T * starts_XT).cummax(-1).values
        return Padded(positions_XT, (segments_XT[:, :, None] == segments_XT[:, None, :])[:, None])

    def up_to(self, ahead: int | None) -> "Padded":
        """The same where a token sees no more than `ahead` tokens to its right: 0 is causal, None is all."""
        if ahead is None:
            return self
        index_T = torch.arange(self.positions_XT.shape[1], device=self.positions_XT.device)
        near = (index_T <= index_T[:, None] + ahead)[None, None]
        # Padding on the left would see nobody, which is no distribution: it sees itself.
        itself = index_T == index_T[:, None]
        return Padded(self.positions_XT, near if self.mask is None else (near & self.mask) | itself)

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask.to(q_XHTK.device)  # blocks may be on several devices
        return attention(q_XHTK, k_XHTK, v_XHTK, mask)


def attention(q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor, mask: Tensor | None) -> Tensor:
    """(X, H, T, K) mixed values; fewer key heads than query heads are shared by groups.

    `mask` is bool and broadcasts to (X, H, queries, keys): True where a query sees a key; None where all do.
    """
    grouped = q_XHTK.shape[1] != k_XHTK.shape[1]
    if grouped and mask is not None:  # PyTorch's fused kernels take groups or a mask, not both
        size = q_XHTK.shape[1] // k_XHTK.shape[1]
        k_XHTK, v_XHTK = k_XHTK.repeat_interleave(size, dim=1), v_XHTK.repeat_interleave(size, dim=1)
        grouped = False
    return F.scaled_dot_product_attention(q_XHTK, k_XHTK, v_XHTK, attn_mask=mask, enable_gqa=grouped)


class Attention(nn.Module):
    """Bidirectional attention with rotary positions, in the two halves around the mixing of tokens."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.width = config.num_heads, config.kv_heads, config.width
        out = (self.num_heads + 2 * self.kv_heads) * self.width
        self.qkv = nn.Linear(config.dim, out, bias=config.qkv_bias)
        self.out = nn.Linear(self.num_heads * self.width, config.dim, bias=False)
        self.q_norm = RMSNorm(self.width, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.width, config.norm_eps) if config.qk_norm else nn.Identity()

    def heads(self, x_XTD: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (X, heads, T, K)."""
        heads = self.qkv(x_XTD).unflatten(-1, (-1, self.width))  # (X, T, H + 2 KV, K)
        sizes = [self.num_heads, self.kv_heads]
        if isinstance(self.q_norm, nn.Identity):  # one kernel for both
            q, k = rotate(heads[:, :, : -self.kv_heads], by).split(sizes, dim=2)
        else:
            q, k = heads[:, :, : -self.kv_heads].split(sizes, dim=2)
            q, k = rotate(self.q_norm(q), by), rotate(self.k_norm(k), by)
        v = heads[:, :, -self.kv_heads :]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """One compilation of a function for whatever modules and sizes it is called with."""
    limits = torch._dynamo.config  # on states of the world, not sizes; this is the name that 2.6 knows too
    limits.cache_size_limit = max(64, limits.cache_size_limit)
    return torch.compile(function, dynamic=True)


class Block(nn.Module):
    """Pre-norm transformer block."""

    is_compiled = False
    """Whether torch.compile makes the halves around the attention."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.mlp_dim)

    def forward(
        self, x_XTD: Tensor, by: Rotation, layout: Layout, layer: int, shown_BL: Tensor | None = None
    ) -> Tensor:
        """The whole canvas, or (B, L, D) of those of its X * T tokens that `shown_BL` names."""
        before, after = Block.before, Block.after
        if self.is_compiled:
            before, after = compiled(before), compiled(after)
        q_XHTK, k_XHTK, v_XHTK = before(self, x_XTD, by)
        if shown_BL is not None:  # all are seen, these see
            x_XTD = x_XTD.flatten(0, 1)[shown_BL]
            q_XHTK = q_XHTK.transpose(1, 2).flatten(0, 1)[shown_BL].transpose(1, 2)
        return after(self, x_XTD, layout.attend(layer, q_XHTK, k_XHTK, v_XHTK))

    def before(self, x_XTD: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """What goes into attention."""
        return self.attention.heads(self.attention_norm(x_XTD), by)

    def after(self, x_XTD: Tensor, mixed_XHTK: Tensor) -> Tensor:
        """What becomes of what comes out of it."""
        x_XTD = x_XTD + self.attention.out(mixed_XHTK.transpose(1, 2).flatten(2))
        return x_XTD + self.mlp(self.mlp_norm(x_XTD))  # type: ignore[no-any-return]


def sincos(t_B: Tensor, dim: int, max_period: float) -> Tensor:
    """(B, dim) cosines, then sines, of t at `dim / 2` frequencies from 1 down to 1 / max_period."""
    half = dim // 2
    exponents = torch.arange(half, device=t_B.device, dtype=torch.float32) / half
    angles = t_B.float()[:, None] * max_period**-exponents
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
