"""The device half of the engine: one step of a batch of slots. It decides nothing about rows.

B rows of the batch, L shown positions, C completion positions, (X, T) the canvas, Q columns of a window,
R slots, W columns, V symbols, D hidden width.
"""

import functools
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from unmask.decode.layouts import KeyValueCache, Packed, Recording, Windows
from unmask.decode.loop import settle
from unmask.decode.readout import HeadReadout
from unmask.decode.state import DONE, NAN, NOTHING, State
from unmask.layers import Layout, Padded
from unmask.models.transformer import Transformer
from unmask.planners.base import Canvas, Planner, Subset, View, canvas_of, sight_of
from unmask.rng import RowStreams


@dataclass(frozen=True, slots=True)
class Shape:
    """All that a compiled step depends on, beside the contents of tensors."""

    num_rows: int
    num_tokens: int
    """Of the canvas (whole rows), or columns of a window."""
    is_window: bool
    is_packed: bool
    shown: int
    """Positions that may be unmasked in a step: the longest block."""
    length: int
    """Longest completion."""
    width: int
    """Columns that are seen: those of the longest row, or up to twice as many."""
    draws: bool
    """Whether any row samples its tokens."""
    stops: bool
    records: bool
    ends_with_block: bool = False
    """Of windows: none goes beyond its row's block."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Which slots take a step, and how their tokens lie. All tensors on the device."""

    shape: Shape
    slot_B: Tensor
    slots: slice | Tensor
    """The same, as a slice where they are the first ones."""
    slot_XT: Tensor | None = None
    """Of whole rows: slot, column and row of each token."""
    column_XT: Tensor | None = None
    row_XT: Tensor | None = None
    start_B: Tensor | None = None
    """Where each row begins among the tokens."""
    bounds_B: Tensor | None = None
    """Of packed rows, see `Packed`."""
    pad_BT: Tensor | None = None
    is_token_BT: Tensor | None = None
    place_N: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        names = (field.name for field in fields(self) if field.name not in ("shape", "slots"))
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def clone(self) -> "Batch":
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in self.tensors().items()}
        slots = self.slots if isinstance(self.slots, slice) else copies["slot_B"]
        return replace(self, slots=slots, **copies)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the state says of the rows of a batch."""

    prompt_B: Tensor
    length_B: Tensor
    block_B: Tensor
    step_B: Tensor
    seed_B: Tensor
    column_BC: Tensor
    """Of every completion position; the spare column past the end of a row."""
    inside_BC: Tensor


class Runner:
    """Runs steps on the state that it is given.

    Args:
        denoiser: a `Transformer`; its weights may change between steps.
        planner: decides which open positions to unmask.
        state: the rows.
        cache: keys and values of earlier steps, or None where every step sees whole rows.
        max_logits: float32 logits held at a time, in elements.
    """

    def __init__(
        self,
        denoiser: Transformer,
        planner: Planner,
        state: State,
        cache: KeyValueCache | None,
        max_logits: int,
    ) -> None:
        self.denoiser, self.planner, self.state, self.cache = denoiser, planner, state, cache
        self.max_logits = max_logits
        self.sight = sight_of(planner)
        self.lookback = int(getattr(denoiser.config, "shift", False))

    @torch.no_grad()
    def step(self, batch: Batch) -> None:
        """One denoiser call on each row of the batch, and what follows from it."""
        state, shape, slot_B = self.state, batch.shape, batch.slot_B
        rows = self._rows(batch)
        completion_BC = state.ledger.tokens_RW[slot_B[:, None], rows.column_BC]
        masked_BC = (completion_BC == self.denoiser.mask_id) & rows.inside_BC
        first_B = masked_BC.byte().argmax(-1)
        start_B = first_B // rows.block_B * rows.block_B
        raw_BL = start_B[:, None] + torch.arange(shape.shown, device=slot_B.device)
        within_BL = raw_BL < torch.minimum(start_B + rows.block_B, rows.length_B)[:, None]
        position_BL = torch.minimum(raw_BL, rows.length_B[:, None] - 1).clamp_min(0)
        canvas = self._canvas(batch, rows, start_B, position_BL)
        streams = RowStreams(rows.seed_B, rows.step_B, position_BL)
        temperature_B = state.temperature_R[slot_B] if shape.draws else None
        if self.sight == "confidence":  # of all positions at hand; tokens are read off the same logits
            whole = self._readout(canvas.hidden_XTD)
            readout = whole.at(canvas.shown_BL, streams, temperature_B)
        else:
            whole, readout = None, self._readout(canvas.hidden_at_shown(), streams, temperature_B)
        view = View(
            readout=readout,
            open_BL=masked_BC.gather(1, position_BL) & within_BL,
            position_BL=position_BL,
            step_B=rows.step_B,
            masked_BC=masked_BC,
            length_B=rows.length_B.clamp_min(1),
            confidence_BC=functools.cache(lambda: self._confidence(batch, rows, canvas, start_B, whole)),
            canvas=canvas,
        )
        self._unmask(batch, rows, view, streams)

    def _unmask(self, batch: Batch, rows: _Rows, view: View, streams: RowStreams) -> None:
        """Draw positions and tokens, write them down, and say how the rows stand."""
        state, shape, slot_B1 = self.state, batch.shape, batch.slot_B[:, None]
        readout = view.readout
        assert isinstance(readout, HeadReadout)
        subset = self.planner(view)
        chosen_BL = subset.sample(streams) & view.open_BL
        tokens_BL = readout.tokens()
        alive_B = view.masked_BC.any(-1)
        if shape.records:
            fixed_B = readout.log_prob().masked_fill(~chosen_BL, 0.0).sum(-1)
            step_B = torch.where(alive_B, rows.step_B, state.length)
            self._record(batch, step_B, view, subset.log_prob(chosen_BL), fixed_B)
        column_BL = rows.prompt_B[:, None] + view.position_BL
        state.ledger.tokens_RW[slot_B1, column_BL.masked_fill(~chosen_BL, state.width)] = tokens_BL
        step_BL = rows.step_B[:, None].expand_as(tokens_BL).to(torch.int16)
        where_BL = view.position_BL.masked_fill(~chosen_BL, state.length)
        state.ledger.unmask_step_RC[slot_B1, where_BL] = step_BL
        state.numbers_R5[batch.slot_B, 3] = rows.step_B + alive_B
        completion_BC = state.ledger.tokens_RW[slot_B1, rows.column_BC]
        if shape.stops:
            settled_BC = settle(completion_BC, self.denoiser.mask_id, self.denoiser.eos_id)
            stops_B1 = state.stops_R[batch.slot_B][:, None]
            completion_BC = torch.where(stops_B1, settled_BC, completion_BC)
            state.ledger.tokens_RW[slot_B1, rows.column_BC] = completion_BC
        left_BC = (completion_BC == self.denoiser.mask_id) & rows.inside_BC
        has_nan_B = _is_nan(subset, view)
        self._report(batch, rows, alive_B, left_BC, ~chosen_BL.any(-1), has_nan_B)

    def _record(
        self, batch: Batch, step_B: Tensor, view: View, planner_log_prob_B: Tensor, token_log_prob_B: Tensor
    ) -> None:
        """What training needs of a step."""
        state, slot_B = self.state, batch.slot_B
        step_B = step_B.clamp_max(state.length)  # a row that has failed goes on until the host looks
        state.ledger.planner_log_prob_RC[slot_B, step_B] = planner_log_prob_B.float()
        state.ledger.token_log_prob_RC[slot_B, step_B] = token_log_prob_B
        if self.sight == "confidence":
            state.ledger.confidence_RC[slot_B, : batch.shape.length] = view.confidence_BC()

    def _report(
        self,
        batch: Batch,
        rows: _Rows,
        alive_B: Tensor,
        left_BC: Tensor,
        has_chosen_none_B: Tensor,
        has_nan_B: Tensor,
    ) -> None:
        """How the rows stand, where the host looks; a row that has failed stays so."""
        is_left_B = left_BC.any(-1)
        status_B = torch.where(is_left_B, left_BC.byte().argmax(-1), DONE)
        is_stuck_B = has_chosen_none_B | (is_left_B & (rows.step_B + 1 >= rows.length_B))
        status_B = status_B.masked_fill(alive_B & is_stuck_B, NOTHING)
        status_B = status_B.masked_fill(alive_B & has_nan_B, NAN)
        before_B = self.state.ledger.status_R[batch.slot_B]
        self.state.ledger.status_R[batch.slot_B] = torch.where(before_B < DONE, before_B, status_B)

    def _rows(self, batch: Batch) -> _Rows:
        state = self.state
        prompt_B, length_B, block_B, step_B, seed_B = state.numbers_R5[batch.slot_B].unbind(-1)
        index_C = torch.arange(batch.shape.length, device=prompt_B.device)
        inside_BC = index_C < length_B[:, None]
        column_BC = (prompt_B[:, None] + index_C).masked_fill(~inside_BC, state.width)
        return _Rows(prompt_B, length_B, block_B, step_B, seed_B, column_BC, inside_BC)

    def _canvas(self, batch: Batch, rows: _Rows, start_B: Tensor, position_BL: Tensor) -> Canvas:
        """Call the denoiser on whole rows or on windows."""
        if batch.shape.is_window:
            return self._windows(batch, rows, start_B, position_BL)
        assert batch.slot_XT is not None
        assert batch.column_XT is not None
        assert batch.row_XT is not None
        assert batch.start_B is not None
        layout: Layout = _whole_rows(batch)
        if self.cache is not None:
            layout = Recording(layout, self.cache, batch.slot_XT, batch.column_XT)
        tokens_XT = self.state.ledger.tokens_RW[batch.slot_XT, batch.column_XT]
        shown_BL = (batch.start_B + rows.prompt_B)[:, None] + position_BL
        shown_BL = shown_BL.clamp_max(batch.row_XT.numel() - 1)  # an empty row at the end has none
        size_B = rows.prompt_B + rows.length_B
        if self.sight == "block":
            return canvas_of(self.denoiser.encode(tokens_XT, layout, shown_BL), size_B)
        if self.sight == "confidence":
            place_BC = self._completions(batch, rows).clamp_max(batch.row_XT.numel() - 1)
            whole = canvas_of(self.denoiser.encode(tokens_XT, layout, place_BC), size_B)
            return replace(whole, shown_BL=whole.shown_BL.gather(1, position_BL))
        hidden_XTD = self.denoiser.encode(tokens_XT, layout)
        return Canvas(hidden_XTD, layout, batch.row_XT, shown_BL, size_B)

    def _windows(self, batch: Batch, rows: _Rows, start_B: Tensor, position_BL: Tensor) -> Canvas:
        assert self.cache is not None
        num_rows, width = batch.shape.num_rows, batch.shape.num_tokens
        device, size_B = start_B.device, rows.prompt_B + rows.length_B
        begin_B1 = (rows.prompt_B + start_B - self.lookback)[:, None]
        end_B1 = (rows.prompt_B + self._window_end(batch, rows, start_B))[:, None]
        raw_BQ = begin_B1 + torch.arange(width, device=device)
        position_BQ = torch.minimum(raw_BQ, end_B1 - 1)
        column_BQ = raw_BQ.masked_fill(raw_BQ >= end_B1, self.cache.width)
        is_beyond = torch.arange(batch.shape.width, device=device) >= size_B[:, None, None, None]
        bias = torch.zeros_like(is_beyond, dtype=self.denoiser.head.weight.dtype)
        bias = bias.masked_fill(is_beyond, -torch.inf)
        layout = Windows(position_BQ, column_BQ, batch.slot_B, batch.slots, self.cache, bias)
        tokens_BQ = self.state.ledger.tokens_RW[batch.slot_B[:, None], position_BQ]
        hidden_BQD = self.denoiser.encode(tokens_BQ, layout)
        row_B1 = torch.arange(num_rows, device=device)[:, None]
        offset_BL = (rows.prompt_B[:, None] + position_BL - begin_B1).clamp_max(width - 1)
        if self.lookback:  # the first column has no state before it here: a head keeps what it knew of it
            is_known_Q = torch.arange(width, device=device) >= self.lookback
            layout = replace(layout, column_BQ=column_BQ.masked_fill(~is_known_Q, self.cache.width))
        return Canvas(
            hidden_XTD=hidden_BQD,
            layout=layout,
            row_XT=row_B1.expand(-1, width),
            shown_BL=row_B1 * width + offset_BL,
            size_B=size_B,
        )

    def _completions(self, batch: Batch, rows: _Rows) -> Tensor:
        """(B, C) where completion positions are among the tokens of whole rows; beyond a row, anything."""
        assert batch.start_B is not None
        return (batch.start_B + rows.prompt_B)[:, None] + torch.arange(
            batch.shape.length, device=batch.slot_B.device
        )

    def _window_end(self, batch: Batch, rows: _Rows, start_B: Tensor) -> Tensor:
        """(B,) the first completion position behind a row's window."""
        if not batch.shape.ends_with_block:
            return rows.length_B
        return torch.minimum(start_B + rows.block_B, rows.length_B)

    def _readout(
        self, hidden_BLD: Tensor, streams: RowStreams | None = None, temperature_B: Tensor | None = None
    ) -> HeadReadout:
        most = max(1, self.max_logits // self.denoiser.vocab_size)
        head, mask_id = self.denoiser.head, self.denoiser.mask_id
        return HeadReadout(head, hidden_BLD, mask_id, most, streams, temperature_B)

    def _confidence(
        self, batch: Batch, rows: _Rows, canvas: Canvas, start_B: Tensor, whole: HeadReadout | None
    ) -> Tensor:
        """(B, C); under a cache, positions outside the window keep what the last whole step said.

        `whole` is of all positions of the canvas, where there is one.
        """
        if self.sight == "block":
            raise ValueError(
                "the planner's `looks_at` says block, and it asks for the whole completion; let it say row"
            )
        if batch.shape.is_window:
            readout = self._readout(canvas.hidden_XTD) if whole is None else whole
            fresh_BC, covered_BC = self._confidence_of_windows(batch, rows, readout, start_B)
        else:
            if whole is None:
                hidden_ND = canvas.hidden_XTD.flatten(0, 1)
                whole = self._readout(hidden_ND[self._completions(batch, rows).clamp_max(len(hidden_ND) - 1)])
            fresh_BC, covered_BC = whole.confidence(), rows.inside_BC
            if self.cache is None:
                return fresh_BC.masked_fill(~covered_BC, 0.0)  # what stands there is another row's
        kept_BC = self.state.ledger.confidence_RC[batch.slot_B, : batch.shape.length]
        confidence_BC = torch.where(covered_BC, fresh_BC, kept_BC)
        self.state.ledger.confidence_RC[batch.slot_B, : batch.shape.length] = confidence_BC
        return confidence_BC

    def _confidence_of_windows(
        self, batch: Batch, rows: _Rows, readout: HeadReadout, start_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, C), and where it says something."""
        width, index_C = batch.shape.num_tokens, torch.arange(batch.shape.length, device=start_B.device)
        offset_BC = index_C - start_B[:, None] + self.lookback
        end_B1 = self._window_end(batch, rows, start_B)[:, None]
        covered_BC = (offset_BC >= self.lookback) & (offset_BC < width) & (index_C < end_B1)
        return readout.confidence().gather(1, offset_BC.clamp(0, width - 1)), covered_BC


def _whole_rows(batch: Batch) -> Layout:
    assert batch.column_XT is not None
    if not batch.shape.is_packed:
        return Padded(batch.column_XT, None)
    assert batch.bounds_B is not None
    assert batch.pad_BT is not None
    assert batch.is_token_BT is not None
    assert batch.place_N is not None
    return Packed(batch.column_XT, batch.bounds_B, batch.pad_BT, batch.is_token_BT, batch.place_N)


def _is_nan(subset: Subset, view: View) -> Tensor:
    """(B,) bool: rows of which the model's logits or the planner's scores are no numbers."""
    is_nan_BL = view.readout.confidence().isnan()
    scores_BL: Tensor | None = getattr(subset, "logits_BL", None)
    if scores_BL is not None:
        is_nan_BL = is_nan_BL | scores_BL.isnan()
    return (is_nan_BL & view.open_BL).any(-1)
