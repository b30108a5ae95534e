"""Planners without parameters. B rows, L shown positions."""

import functools
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unmask.planners.base import Logits, Sight, Subset, View
from unmask.planners.subsets import Fixed, UniformOfSize, top

MOST = 2**31
"""Above any number of positions, steps or tokens."""


def _count(k: int, name: str = "k", things: str = "positions") -> None:
    if not isinstance(k, Integral) or not 1 <= k <= MOST:
        raise ValueError(f"{name}={k} is no number of {things}; give a whole number above 0, at most {MOST}")


def _positive(name: str, value: float) -> None:
    if not isinstance(value, Real):
        raise ValueError(f"{name}={value!r} is no number")
    if not value > 0:
        raise ValueError(f"{name}={value} unmasks nothing; give a value above 0")


@dataclass(frozen=True, slots=True)
class Random:
    """k open positions, all sets alike."""

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        _count(self.k)

    def __call__(self, view: View) -> Subset:
        return UniformOfSize(view.open_BL, self.k)


@dataclass(frozen=True, slots=True)
class LeftToRight:
    """The k leftmost open positions."""

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        _count(self.k)

    def __call__(self, view: View) -> Subset:
        return Fixed(view.open_BL & (view.open_BL.cumsum(-1) <= self.k))


@dataclass(frozen=True, slots=True)
class TopK:
    """The k open positions of highest confidence (MaskGIT; LLaDA's low-confidence remasking)."""

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        _count(self.k)

    def __call__(self, view: View) -> Subset:
        return Fixed(top(view.readout.confidence(), view.open_BL, self.k))


@dataclass(frozen=True, slots=True)
class Margin:
    """The k open positions where the best token leads the second by most (Kim et al. 2025; Dream)."""

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        _count(self.k)

    def __call__(self, view: View) -> Subset:
        return Fixed(top(view.readout.margin(), view.open_BL, self.k))


@dataclass(frozen=True, slots=True)
class Entropy:
    """The k open positions of lowest entropy (Dream)."""

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        _count(self.k)

    def __call__(self, view: View) -> Subset:
        return Fixed(top(-view.readout.entropy(), view.open_BL, self.k))


@dataclass(frozen=True, slots=True)
class Threshold:
    """All open positions with confidence of at least tau, and always the most confident one.

    Fast-dLLM (arXiv 2505.22618), confidence-aware parallel decoding, threshold strategy.
    """

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    tau: float = 0.9

    def __post_init__(self) -> None:
        _positive("tau", self.tau)

    def __call__(self, view: View) -> Subset:
        confidence_BL = view.readout.confidence()
        sure_BL = view.open_BL & (confidence_BL >= self.tau)
        return Fixed(sure_BL | top(confidence_BL, view.open_BL, 1))


@dataclass(frozen=True, slots=True)
class Factor:
    """The longest run of most confident open positions with (i + 1)(1 - c_(i)) <= factor, i from 1.

    Fast-dLLM (arXiv 2505.22618), factor strategy. The most confident position always passes. In the
    published code, when only the least confident candidate fails it is unmasked all the same, so the last
    two masks of a block go together; `last_pair=False` is the rule without that.
    """

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    factor: float = 1.0
    last_pair: bool = True

    def __post_init__(self) -> None:
        _positive("factor", self.factor)
        if self.last_pair not in (False, True):
            raise ValueError(f"last_pair={self.last_pair!r} is neither True nor False")

    def __call__(self, view: View) -> Subset:
        return Fixed(factor_rule(view.readout.confidence(), view.open_BL, self.factor, self.last_pair))


def factor_rule(confidence_BL: Tensor, open_BL: Tensor, factor: float, last_pair: bool = True) -> Tensor:
    """(B, L) bool: the set that `Factor` unmasks. Also the target of `unmask train init`."""
    ordered_BL = confidence_BL.masked_fill(~open_BL, -torch.inf).sort(dim=-1, descending=True).values
    rank_L = torch.arange(1, ordered_BL.shape[-1] + 1, device=ordered_BL.device)
    passes_BL = ordered_BL >= 1 - factor / (rank_L + 1)
    passes_BL[:, 0] = True
    count_B = passes_BL.long().cumprod(-1).sum(-1)
    if last_pair:
        num_open_B = open_BL.sum(-1)
        count_B = torch.where(count_B == num_open_B - 1, num_open_B, count_B)
    return top(confidence_BL, open_BL, count_B)


@dataclass(frozen=True, slots=True)
class EntropyBound:
    """The longest run of lowest-entropy open positions with sum(H) - max(H) <= gamma (nats).

    EB-sampler (arXiv 2505.24857), with entropy as the error proxy.
    """

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, Real) or not self.gamma >= 0:
            raise ValueError(f"gamma={self.gamma!r} is no bound; give a value of at least 0")

    def __call__(self, view: View) -> Subset:
        entropy_BL = view.readout.entropy()
        ordered_BL = entropy_BL.masked_fill(~view.open_BL, torch.inf).sort(dim=-1).values
        before_BL = ordered_BL.cumsum(-1) - ordered_BL  # ascending, so the newest is the largest
        count_B = ((before_BL <= self.gamma) & ordered_BL.isfinite()).sum(-1)
        return Fixed(top(-entropy_BL, view.open_BL, count_B))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The best open positions, in a fixed number of steps: Dream's decoding (arXiv 2508.15487).

    `by` says what is best: "confidence" (Dream calls it maskgit_plus), "margin" (topk_margin) or "entropy".
    How many go in each step is `linear_schedule`'s over the whole completion, so decode with one block.
    `among` lets only so many tokens of a position count, its likeliest: the published code measures behind
    its token filter, which keeps 50 unless it is told otherwise (top_k, a default of transformers). [MASK]
    never counts here; there it is a token like others.
    """

    looks_at: ClassVar[Sight] = "block"
    capturable: ClassVar[bool] = True
    steps: int = 64
    by: Literal["confidence", "margin", "entropy"] = "entropy"
    among: int | None = None

    def __post_init__(self) -> None:
        _count(self.steps, "steps", "steps")
        if self.among is not None:
            _count(self.among, "among", "tokens")
        if self.by not in ("confidence", "margin", "entropy"):
            raise ValueError(f"by={self.by!r} is unknown; use confidence, margin or entropy")
        if self.by == "margin" and self.among == 1:
            raise ValueError("by=margin needs a second token; give among=2 or more, or leave it out")

    def __call__(self, view: View) -> Subset:
        readout = view.readout
        if self.among is not None:
            count = min(self.among, view.logits_BLV.shape[-1])
            readout = Logits(view.logits_BLV.topk(count, dim=-1).values)
        score = {"confidence": readout.confidence, "margin": readout.margin, "entropy": readout.entropy}
        score_BL = score[self.by]()
        longest = 1 << (view.masked_BC.shape[-1] - 1).bit_length()  # few tables, also where rows come and go
        count_CS = linear_schedule(longest, self.steps, view.step_B.device)
        count_B = count_CS[view.length_B, view.step_B.clamp_max(count_CS.shape[-1] - 1)]
        return Fixed(top(-score_BL if self.by == "entropy" else score_BL, view.open_BL, count_B))


@functools.cache  # captured steps go on reading it
def linear_schedule(longest: int, steps: int, device: torch.device | str = "cpu") -> Tensor:
    """(longest + 1, S) int64: how many positions each denoiser call unmasks, for each completion length.

    Time falls evenly from 1 to 1e-3; of n masks at time t, int(n (1 - s / t)) are unmasked on the way to the
    next time s, and all that are left in the last step. A step that would unmask nothing needs no call and is
    left out; past its end a row takes all. Float32, as published: rounding decides.
    """
    time = torch.linspace(1, 1e-3, steps + 1)
    left_C = torch.arange(longest + 1)
    counts = []
    for share in 1 - time[1:-1] / time[:-2]:
        counts.append((left_C * share).long())
        left_C = left_C - counts[-1]
    count_CS = torch.stack([*counts, left_C], dim=-1)
    calls_first_CS = (count_CS == 0).long().argsort(dim=-1, stable=True)
    count_CS = count_CS.gather(-1, calls_first_CS)
    return count_CS.masked_fill(count_CS == 0, longest).to(device)


HEURISTICS: dict[str, Any] = {
    "random": Random,
    "left_to_right": LeftToRight,
    "top_k": TopK,
    "margin": Margin,
    "entropy": Entropy,
    "threshold": Threshold,
    "factor": Factor,
    "entropy_bound": EntropyBound,
    "schedule": Schedule,
}
