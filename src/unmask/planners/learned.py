"""From scores to a planner: the subset law, the inference modes and the speed dial.

B rows, L shown positions.
"""

import copy
import math
from numbers import Real
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.planners.base import Sight, Subset, View, is_capturable
from unmask.planners.heads import ConfidencePolicy, LinearHead
from unmask.planners.plackett_luce import PlackettLuce
from unmask.planners.subsets import BernoulliWithFallback, Fixed, NonEmptyBernoulli, top

Law = Literal["nonempty", "fallback", "plackett_luce"]
Mode = Literal["sample", "threshold", "top_k"]

LAWS: dict[str, type[NonEmptyBernoulli] | type[BernoulliWithFallback] | type[PlackettLuce]] = {
    "nonempty": NonEmptyBernoulli,
    "fallback": BernoulliWithFallback,
    "plackett_luce": PlackettLuce,
}


class LearnedPlanner(nn.Module):
    """A head with a law.

    Modes: `sample` draws from the law; `threshold` takes every open position with probability >= 1/2;
    `top_k` takes the int(sum of probabilities) most probable ones. The last two always take the most
    probable one. `factor` multiplies the probabilities (the speed dial: above 1 is faster); `temperature`
    divides the logits.

    Laws: `nonempty` (Bernoulli, given that one position is taken), `fallback` (dUltra's: Bernoulli, and the
    most probable one where it takes none), `plackett_luce` (arXiv 2512.09106).

    Raises:
        ValueError: for an unknown law or mode, or a factor or temperature that is no number above 0.

    Our heads give float32 logits under autocast; so should others, as rounded ones make another law.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        law: Law = "nonempty",
        mode: Mode = "sample",
        factor: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.head = head
        self.law: Law = law
        self.mode: Mode = mode
        self.factor = factor
        self.temperature = temperature
        self._check()

    def _check(self) -> None:
        if self.law not in LAWS:
            raise ValueError(f"unknown law {self.law!r}; use one of {', '.join(LAWS)}")
        if self.mode not in ("sample", "threshold", "top_k"):
            raise ValueError(f"unknown mode {self.mode!r}; use sample, threshold or top_k")
        for name, value in (("factor", self.factor), ("temperature", self.temperature)):
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
                raise ValueError(f"{name} {value} must be a number above 0")

    @property
    def looks_at(self) -> Sight:
        """See `unmask.planners.base.Sight`; of confidences alone, a replay needs no denoiser."""
        known: dict[type, Sight] = {ConfidencePolicy: "confidence", LinearHead: "block"}
        return known.get(type(self.head), "row")  # who derives from them may look at more

    @property
    def capturable(self) -> bool:
        """See `unmask.planners.base.is_capturable`."""
        return is_capturable(self.head)

    def tuned(self, **settings: Any) -> "LearnedPlanner":
        """The same head (shared parameters) with other `law`, `mode`, `factor` or `temperature`.

        Raises:
            ValueError: for another setting, or a value out of range.
        """
        other = copy.copy(self)
        for name, value in settings.items():
            if name not in ("law", "mode", "factor", "temperature"):
                raise ValueError(f"a learned planner has no {name!r}; use law, mode, factor or temperature")
            setattr(other, name, value)
        other._check()
        return other

    def forward(self, view: View) -> Subset:
        logits_BL = self.head(view).float() / self.temperature
        if self.mode == "sample":
            return LAWS[self.law](_scaled(logits_BL, self.factor), view.open_BL)
        probability_BL = (logits_BL.sigmoid() * self.factor).clamp_max(1) * view.open_BL
        if self.mode == "threshold":
            taken_BL = (probability_BL >= 0.5) | top(logits_BL, view.open_BL, 1)
        else:
            count_B = probability_BL.sum(-1).long().clamp_min(1)
            taken_BL = top(logits_BL, view.open_BL, count_B)
        is_number_B1 = ~(logits_BL.isnan() & view.open_BL).any(-1, keepdim=True)
        return Fixed(taken_BL & view.open_BL & is_number_B1)  # NaN takes nothing, so that it is noticed


def _scaled(logits_BL: Tensor, factor: float) -> Tensor:
    """Logits of min(1, factor * p), in logs so that tiny probabilities keep their ratios."""
    if factor == 1:
        return logits_BL
    log_p_BL = (F.logsigmoid(logits_BL) + math.log(factor)).clamp_max(-1e-6)
    return log_p_BL - torch.log(-torch.expm1(log_p_BL))
