"""What a planner may see, and what it gives back.

B rows, L shown positions, C completion positions, T = prompt + C, V symbols, D hidden width; (X, T) is a
canvas, see `unmask.layers.Layout`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from unmask.layers import Layout, Padded
from unmask.planners import features
from unmask.rng import RowStreams


class Readout(Protocol):
    """What the denoiser says of the shown positions, [MASK] left out; each (B, L) but `logits`."""

    def logits(self) -> Tensor:
        """(B, L, V) float32, [MASK] at -inf."""
        ...

    def confidence(self) -> Tensor:
        """Probability of the most likely token."""
        ...

    def margin(self) -> Tensor:
        """That probability minus the one of the second."""
        ...

    def entropy(self) -> Tensor:
        """In nats."""
        ...


@dataclass(frozen=True, slots=True)
class Logits:
    """A `Readout` of logits that are there."""

    logits_BLV: Tensor

    def logits(self) -> Tensor:
        return self.logits_BLV

    def confidence(self) -> Tensor:
        return features.confidence(self.logits_BLV)

    def margin(self) -> Tensor:
        return features.margin(self.logits_BLV)

    def entropy(self) -> Tensor:
        return features.entropy(self.logits_BLV)


@dataclass(frozen=True, slots=True)
class Confidences:
    """A `Readout` of confidences that were recorded; the rest is gone."""

    confidence_BL: Tensor

    def logits(self) -> Tensor:
        raise ValueError("only confidences were recorded; a planner that reads logits needs the denoiser")

    def confidence(self) -> Tensor:
        return self.confidence_BL

    def margin(self) -> Tensor:
        return self.logits()

    def entropy(self) -> Tensor:
        return self.logits()


@dataclass(frozen=True, slots=True)
class Canvas:
    """The hidden states behind a view, for heads that read them."""

    hidden_XTD: Tensor
    layout: Layout
    row_XT: Tensor
    """int64: the row of each token."""
    shown_BL: Tensor
    """int64: where the shown positions are among the X * T tokens. A row with fewer than others shows one of
    its tokens more than once, then not open."""
    size_B: Tensor
    """int64: tokens of the row, prompt and completion."""

    def hidden_at_shown(self) -> Tensor:
        """(B, L, D)."""
        return self.hidden_XTD.flatten(0, 1)[self.shown_BL]


def canvas_of(hidden_BLD: Tensor, size_B: Tensor) -> Canvas:
    """Of shown positions alone, for who looks at nothing else."""
    shape, device = (hidden_BLD.shape[0], hidden_BLD.shape[1]), size_B.device
    row_BL = torch.arange(shape[0], device=device)[:, None].expand(shape)
    shown_BL = torch.arange(shape[0] * shape[1], device=device).view(shape)
    return Canvas(hidden_BLD, Padded.of(None, shape, device), row_BL, shown_BL, size_B)


@dataclass(frozen=True, slots=True)
class View:
    """All that a planner may look at in one step: a function of the state and the step alone.

    It shows the whole completion or the row's current block only: open positions are always shown.
    """

    readout: Readout
    open_BL: Tensor
    """Masked and inside the row's current block. Never empty in an unfinished row."""
    position_BL: Tensor
    """int64: which completion position each shown one is."""
    step_B: Tensor
    """int64, the row's own step."""
    masked_BC: Tensor
    length_B: Tensor
    """int64: completion positions of the row, the first of the C."""
    confidence_BC: Callable[[], Tensor]
    """Of every completion position; made when a planner asks. In a step on a cached window, positions outside
    it have what was said when it was last asked for, or 0."""
    canvas: Canvas

    @property
    def logits_BLV(self) -> Tensor:
        """Of the shown positions, float32, [MASK] at -inf; raises a `ValueError` where none were kept."""
        return self.readout.logits()


class Subset(Protocol):
    """A distribution over non-empty sets of open positions, one per row."""

    def sample(self, streams: RowStreams) -> Tensor:
        """(B, L) bool, at least one open position per row and no other."""
        ...

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        """(B,) float32: exact, -inf for a set that cannot be drawn."""
        ...


Sight = Literal["block", "confidence", "row"]
"""What a planner looks at: the readout and hidden states of shown positions, which may be no more than the
block; confidences, mask and step of the whole completion, and no more; or anything, states of the row too."""


def sight_of(planner: "Planner") -> Sight:
    """What `looks_at` in its class says, and "row" where that says nothing, as in one that is derived.

    What a planner does not look at need not be computed or kept.

    Raises:
        ValueError: where it says something else.
    """
    if "looks_at" not in vars(type(planner)):
        return "row"
    sight: Sight = planner.looks_at  # type: ignore[attr-defined]
    if sight not in get_args(Sight):
        raise ValueError(f"looks_at {sight!r} of {type(planner).__name__} is none of {get_args(Sight)}")
    return sight


def is_capturable(part: object) -> bool:
    """What `capturable` in its class says, and False where that says nothing, as in one that is derived.

    True promises that a call launches the same work whatever its tensors hold, and does not wait for the
    device: captured as a CUDA graph, it can be replayed. Modules of others inside it must say so, too.
    """
    return _says_capturable(part) and all(
        type(each).__module__.partition(".")[0] in ("torch", "peft", "unmask") or _says_capturable(each)
        for each in modules_of(part)
    )


def modules_of(part: object) -> list[nn.Module]:
    """Of a module all, itself the first; of anything else those of its attributes."""
    held = [part] if isinstance(part, nn.Module) else getattr(part, "__dict__", {}).values()
    return [module for each in held if isinstance(each, nn.Module) for module in each.modules()]


def _says_capturable(part: object) -> bool:
    return "capturable" in vars(type(part)) and bool(part.capturable)  # type: ignore[attr-defined]


class Planner(Protocol):
    """Decides which open positions to unmask. Heuristic or learned: nobody asks which.

    Its class may say more of it: see `sight_of` and `is_capturable`.
    """

    def __call__(self, view: View) -> Subset: ...


def compile_head(planner: Planner) -> None:
    """Compile the blocks of its head with torch.compile, where it has a head with blocks."""
    getattr(getattr(planner, "head", None), "compile_blocks", lambda: None)()


def make_view(
    logits_BTV: Tensor,
    hidden_BTD: Tensor,
    tokens_BT: Tensor,
    attention_mask_BT: Tensor | None,
    *,
    length: int,
    block_length: int,
    step_B: Tensor,
    mask_id: int,
) -> View:
    """The view of a whole state; the reference loop and replay both come here.

    A row's current block is the one that holds its first masked position (semi-autoregressive decoding).
    """
    readout = Logits(without_mask(logits_BTV[:, -length:], mask_id))
    masked_BL = tokens_BT[:, -length:] == mask_id
    (num_rows, width), device = tokens_BT.shape, tokens_BT.device
    position_BL = torch.arange(length, device=device).expand(num_rows, -1)
    row_B1 = torch.arange(num_rows, device=device)[:, None]
    size_B = torch.full_like(step_B, width) if attention_mask_BT is None else attention_mask_BT.long().sum(-1)
    canvas = Canvas(
        hidden_XTD=hidden_BTD,
        layout=Padded.of(attention_mask_BT, (num_rows, width), device),
        row_XT=row_B1.expand(-1, width),
        shown_BL=row_B1 * width + (width - length) + position_BL,
        size_B=size_B,
    )
    return _whole_view(readout, canvas, masked_BL, block_length, step_B)


def view_of_confidence(
    confidence_BL: Tensor, masked_BL: Tensor, *, block_length: int, step_B: Tensor
) -> View:
    """The view of a whole completion of which only confidences are known; hidden states have no width."""
    hidden_BLD = confidence_BL[..., None][..., :0]
    canvas = canvas_of(hidden_BLD, torch.full_like(step_B, masked_BL.shape[-1]))
    return _whole_view(Confidences(confidence_BL), canvas, masked_BL, block_length, step_B)


def _whole_view(
    readout: Readout, canvas: Canvas, masked_BL: Tensor, block_length: int, step_B: Tensor
) -> View:
    """All completion positions, in order."""
    length = masked_BL.shape[-1]
    return View(
        readout=readout,
        open_BL=open_positions(masked_BL, block_length),
        position_BL=torch.arange(length, device=masked_BL.device).expand_as(masked_BL),
        step_B=step_B,
        masked_BC=masked_BL,
        length_B=torch.full_like(step_B, length),
        confidence_BC=readout.confidence,
        canvas=canvas,
    )


def without_mask(logits: Tensor, mask_id: int) -> Tensor:
    """Float32 logits (..., V) with [MASK] at -inf."""
    is_mask_V = torch.arange(logits.shape[-1], device=logits.device) == mask_id
    return logits.float().masked_fill(is_mask_V, -torch.inf)


def open_positions(masked_BL: Tensor, block_length: int) -> Tensor:
    """(B, L) bool: masked positions before the end of the row's current block."""
    first_B = masked_BL.byte().argmax(-1)
    end_B = (first_B // block_length + 1) * block_length
    return masked_BL & (torch.arange(masked_BL.shape[-1], device=masked_BL.device) < end_B[:, None])
