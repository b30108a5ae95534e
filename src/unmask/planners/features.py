"""What can be read off the logits of a position. B rows, L positions, V symbols."""

from torch import Tensor


def confidence(logits_BLV: Tensor) -> Tensor:
    """(B, L) probability of the most likely token."""
    return (logits_BLV.amax(-1) - logits_BLV.logsumexp(-1)).exp()


def margin(logits_BLV: Tensor) -> Tensor:
    """(B, L) probability of the most likely token minus that of the second."""
    best = logits_BLV.topk(2, dim=-1).values
    return (best - logits_BLV.logsumexp(-1, keepdim=True)).exp().diff(dim=-1).squeeze(-1).neg()


def entropy(logits_BLV: Tensor) -> Tensor:
    """(B, L) entropy in nats."""
    log_probs = logits_BLV.log_softmax(-1)
    return -(log_probs.exp() * log_probs.clamp_min(-1e4)).sum(-1)
