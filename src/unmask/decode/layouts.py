"""How rows lie on the canvas that the denoiser sees: beside each other, end to end, or as windows on a cache.

Where the blocks of a net are on several devices, indices follow the queries.

B rows, (X, T) canvas, N tokens end to end, H heads, G key heads, K width of a head, R slots, W columns,
Q columns of a window.
"""

from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from unmask.layers import Layout, attention
from unmask.rng import HAS_TRITON

try:
    from torch.nn.attention import varlen
except ImportError:  # torch before 2.10
    varlen = None  # type: ignore[assignment]
_GROUPS: dict[str, Any] = {}  # how to say that groups of queries share keys, where it can be said
if varlen is not None and "enable_gqa" in signature(varlen.varlen_attn).parameters:
    _GROUPS["enable_gqa"] = True
MANY = 512
"""Tokens from which on our kernel writes the cache in eager steps, too: launching it costs the host time."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of any lengths end to end: no position is padding."""

    positions_XT: Tensor
    """(1, N)."""
    bounds_B: Tensor
    """(B + 1,) int32: where rows begin and end."""
    pad_BT: Tensor
    """int64: the place in N of each column of the padded batch; one of the row's own where there is none."""
    is_token_BT: Tensor
    place_N: Tensor
    """int64: the place of each token in the padded batch, row by row."""

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        of_rows = len(q_XHTK) > 1  # there are several rows, and they are one canvas
        if varlen is not None and q_XHTK.is_cuda and q_XHTK.dtype in (torch.bfloat16, torch.float16):
            q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in (q_XHTK, k_XHTK, v_XHTK))
            bounds_B = self.bounds_B.to(q.device)
            grouped = {} if k.shape[1] == q.shape[1] else _GROUPS
            if k.shape[1] != q.shape[1] and not grouped:
                k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for each in (k, v))
            widest = most = self.pad_BT.shape[1]
            starts_B = bounds_B
            if of_rows:
                most = q_XHTK.shape[2]
                starts_B = most * torch.arange(len(bounds_B), dtype=torch.int32, device=q.device)
            mixed = varlen.varlen_attn(q, k, v, starts_B, bounds_B, most, widest, **grouped)
            assert isinstance(mixed, Tensor)
            return mixed.view(len(q_XHTK), -1, *mixed.shape[1:]).transpose(1, 2)
        indices = (self.pad_BT, self.is_token_BT, self.place_N)
        pad_BT, is_token_BT, place_N = (each.to(q_XHTK.device) for each in indices)
        k, v = (each[0][:, pad_BT].transpose(0, 1) for each in (k_XHTK, v_XHTK))
        q = q_XHTK if of_rows else q_XHTK[0][:, pad_BT].transpose(0, 1)
        mixed = attention(q, k, v, is_token_BT[:, None, None, :])  # (B, H, T, K)
        return mixed if of_rows else mixed.transpose(1, 2).flatten(0, 1)[place_N].transpose(0, 1)[None]


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of every layer, for R slots of W columns; made when a layer first writes.

    One more column takes what is to be forgotten.
    """

    is_captured: bool = False
    """Whether steps are replayed: then launching a kernel costs the host nothing."""
    width: int = 0
    num_slots: int = 0
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def reserve(self, num_slots: int, most: int, width: int) -> bool:
        """Have room for this many slots, doubling up to `most`; True where tensors had to be replaced."""
        if num_slots <= self.num_slots and width <= self.width:
            return False
        if num_slots > self.num_slots:
            num_slots = max(num_slots, min(most, 2 * self.num_slots))
        slots, columns = max(num_slots, self.num_slots), max(width, self.width)
        for layer, kept in self.layers.items():
            keys, values = (each.new_zeros(slots, columns + 1, *each.shape[2:]) for each in kept)
            for new, old in zip((keys, values), kept, strict=True):
                new[: self.num_slots, : self.width] = old[:, : self.width]
            self.layers[layer] = (keys, values)
        self.num_slots, self.width = slots, columns
        return bool(self.layers)

    def clear(self, slot: int) -> None:
        """Forget a slot: what is masked must be a number all the same."""
        for kept in self.layers.values():
            for each in kept:
                each[slot] = 0.0

    def write(self, layer: int, slot: Tensor, column: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> None:
        """`slot` and `column` (X, T) say whose they are."""
        if layer not in self.layers:
            shape = (self.num_slots, self.width + 1, k_XHTK.shape[1], k_XHTK.shape[3])
            self.layers[layer] = (k_XHTK.new_zeros(shape), v_XHTK.new_zeros(shape))
        keys, values = self.layers[layer]
        if keys.dtype != k_XHTK.dtype and not self.is_captured:  # autocast has come or gone
            self.layers[layer] = (keys.to(k_XHTK.dtype), values.to(k_XHTK.dtype))
        slot, column = slot.to(k_XHTK.device), column.to(k_XHTK.device)
        new = k_XHTK.transpose(1, 2), v_XHTK.transpose(1, 2)
        if HAS_TRITON and k_XHTK.is_cuda and (self.is_captured or column.numel() >= MANY):
            from unmask.decode.cache_kernel import put

            put(*self.layers[layer], slot.expand_as(column), column, *new)
            return
        for kept, each in zip(self.layers[layer], new, strict=True):
            kept.index_put_((slot, column), each.to(kept.dtype))

    def read(self, layer: int, slots: slice | Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(B, G, width, K) keys and values; a slice of the slots is read without a copy."""
        if isinstance(slots, Tensor):
            slots = slots.to(self.layers[layer][0].device)
        keys, values = (each[slots, :width].transpose(1, 2) for each in self.layers[layer])
        return keys, values


@dataclass(frozen=True, slots=True)
class Recording:
    """Any layout, its keys and values written down: how a cache is filled."""

    inner: Layout
    cache: KeyValueCache
    slot_XT: Tensor
    column_XT: Tensor

    @property
    def positions_XT(self) -> Tensor:
        return self.inner.positions_XT

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        self.cache.write(layer, self.slot_XT, self.column_XT, k_XHTK, v_XHTK)
        return self.inner.attend(layer, q_XHTK, k_XHTK, v_XHTK)


@dataclass(frozen=True, slots=True)
class Windows:
    """Q columns of each row; all others are what the cache remembers of them."""

    positions_XT: Tensor
    """(B, Q) int64."""
    column_BQ: Tensor
    """The same, but the cache's spare column past the end of a window."""
    slot_B: Tensor
    slots: slice | Tensor
    cache: KeyValueCache
    bias: Tensor
    """(B, 1, 1, width): 0 for the columns of a row, minus infinity for those behind it."""

    def attend(self, layer: int, q_XHTK: Tensor, k_XHTK: Tensor, v_XHTK: Tensor) -> Tensor:
        self.cache.write(layer, self.slot_B[:, None], self.column_BQ, k_XHTK, v_XHTK)
        keys, values = self.cache.read(layer, self.slots, self.bias.shape[-1])
        bias = self.bias.to(q_XHTK.device, q_XHTK.dtype)
        return attention(q_XHTK, keys.to(q_XHTK.dtype), values.to(q_XHTK.dtype), bias)
