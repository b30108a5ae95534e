"""Laws over non-empty sets of open positions.

Each draws and scores whole batches without a loop over rows, and scores exactly what it draws: the rule that
at least one position is unmasked is part of the law. B rows, L positions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.rng import RowStreams


def top(scores_BL: Tensor, open_BL: Tensor, count_B: Tensor | int) -> Tensor:
    """(B, L) bool: each row's `count` open positions of highest score; ties go to the left."""
    lowest = torch.finfo(scores_BL.dtype).min  # so that an open position at -inf still beats a closed one
    scores = scores_BL.clamp_min(lowest).masked_fill(~open_BL, -torch.inf)
    index_L = torch.arange(scores.shape[-1], device=scores.device)
    if not isinstance(count_B, Tensor) and count_B == 1:
        return (index_L == scores.argmax(-1, keepdim=True)) & open_BL
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    limit = count_B[:, None] if isinstance(count_B, Tensor) else count_B
    return torch.zeros_like(open_BL).scatter(-1, order, index_L.expand_as(order) < limit) & open_BL


@dataclass(frozen=True, slots=True)
class Fixed:
    """All probability on one set."""

    chosen_BL: Tensor

    def sample(self, streams: RowStreams) -> Tensor:
        return self.chosen_BL

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        same_B = (chosen_BL == self.chosen_BL).all(-1)
        return torch.zeros(same_B.shape, device=same_B.device).masked_fill(~same_B, -torch.inf)


@dataclass(frozen=True, slots=True)
class UniformOfSize:
    """Every set of min(count, open) open positions is as likely as any other."""

    open_BL: Tensor
    count: int

    def sample(self, streams: RowStreams) -> Tensor:
        noise = streams.uniform("subset", self.open_BL.shape[-1])
        return top(noise, self.open_BL, self.count)

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        n_B = self.open_BL.sum(-1).double()  # lgamma of hundreds leaves float32 no decimals
        k_B = n_B.clamp_max(self.count)
        value = torch.lgamma(k_B + 1) + torch.lgamma(n_B - k_B + 1) - torch.lgamma(n_B + 1)
        possible = (chosen_BL.sum(-1) == k_B) & ~(chosen_BL & ~self.open_BL).any(-1)
        return value.float().masked_fill(~possible, -torch.inf)


def _bernoulli_terms(logits_BL: Tensor, open_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Log p and log(1 - p) of open positions, 0 elsewhere; finite with finite gradients for any logit."""
    logits = torch.where(open_BL, logits_BL.float().clamp(-1e4, 1e4), 0.0)
    take, keep = F.logsigmoid(logits), F.logsigmoid(-logits)
    return torch.where(open_BL, take, 0.0), torch.where(open_BL, keep, 0.0)


def _independent_log_prob(take_BL: Tensor, keep_BL: Tensor, chosen_BL: Tensor) -> Tensor:
    return torch.where(chosen_BL, take_BL, keep_BL).sum(-1)


@dataclass(frozen=True, slots=True)
class NonEmptyBernoulli:
    """Independent coins, conditioned on at least one head.

    Drawn exactly and without rejection: first the leftmost head, with weight p_j prod_{i<j} (1 - p_i), then
    independent coins to its right. The sum of these weights, 1 - prod (1 - p_i), is the normaliser; summing
    it in logs keeps it exact where all p are tiny.
    """

    logits_BL: Tensor
    open_BL: Tensor

    def _leftmost_log_weight(self, take_BL: Tensor, keep_BL: Tensor) -> Tensor:
        before_BL = keep_BL.cumsum(-1) - keep_BL
        return torch.where(self.open_BL, take_BL + before_BL, -torch.inf)

    def sample(self, streams: RowStreams) -> Tensor:
        take_BL, keep_BL = _bernoulli_terms(self.logits_BL, self.open_BL)
        width = take_BL.shape[-1]
        weight_BL = self._leftmost_log_weight(take_BL, keep_BL)
        first_B1 = (weight_BL + streams.gumbel("leftmost", width)).argmax(-1, keepdim=True)
        heads_BL = streams.uniform("subset", width).log() < take_BL
        index_L = torch.arange(width, device=take_BL.device)
        return ((heads_BL & (index_L > first_B1)) | (index_L == first_B1)) & self.open_BL

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        take_BL, keep_BL = _bernoulli_terms(self.logits_BL, self.open_BL)
        normaliser_B = self._leftmost_log_weight(take_BL, keep_BL).logsumexp(-1)
        value_B = _independent_log_prob(take_BL, keep_BL, chosen_BL) - normaliser_B
        possible_B = chosen_BL.any(-1) & ~(chosen_BL & ~self.open_BL).any(-1)
        return torch.where(possible_B, value_B, -torch.inf)


@dataclass(frozen=True, slots=True)
class BernoulliWithFallback:
    """Independent coins; if all fall tails, the position of the largest probability (dUltra, as published).

    The published training code scores a fallback as log p of that position; here {argmax} gets the
    probability it is drawn with, prod of (1 - p) over the others (papers: arXiv 2512.21446, sampling rule).
    """

    logits_BL: Tensor
    open_BL: Tensor

    def _fallback(self) -> Tensor:
        return top(self.logits_BL.float(), self.open_BL, 1)

    def sample(self, streams: RowStreams) -> Tensor:
        take_BL, _ = _bernoulli_terms(self.logits_BL, self.open_BL)
        heads_BL = (streams.uniform("subset", take_BL.shape[-1]).log() < take_BL) & self.open_BL
        return torch.where(heads_BL.any(-1, keepdim=True), heads_BL, self._fallback())

    def log_prob(self, chosen_BL: Tensor) -> Tensor:
        take_BL, keep_BL = _bernoulli_terms(self.logits_BL, self.open_BL)
        value_B = _independent_log_prob(take_BL, keep_BL, chosen_BL)
        fallback_BL = self._fallback()
        others_B = torch.where(fallback_BL, 0.0, keep_BL).sum(-1)
        is_fallback_B = (chosen_BL == fallback_BL).all(-1)
        possible_B = chosen_BL.any(-1) & ~(chosen_BL & ~self.open_BL).any(-1)
        return torch.where(possible_B, torch.where(is_fallback_B, others_B, value_B), -torch.inf)
