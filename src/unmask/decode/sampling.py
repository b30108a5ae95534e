"""Which token goes where, and how likely that was. B rows, L positions, V symbols."""

from torch import Tensor

from unmask.rng import RowStreams


def sample_tokens(logits_BLV: Tensor, temperature: float, streams: RowStreams) -> Tensor:
    """(B, L) tokens by Gumbel-max from softmax(logits / temperature); the most likely ones at 0."""
    if temperature == 0:
        return logits_BLV.argmax(-1)
    noise_BLV = streams.gumbel("tokens", logits_BLV.shape[1], logits_BLV.shape[2])
    return (logits_BLV / temperature + noise_BLV).argmax(-1)


def token_log_prob(logits_BLV: Tensor, tokens_BL: Tensor, chosen_BL: Tensor, temperature: float) -> Tensor:
    """(B,) log-likelihood of the tokens fixed at the chosen positions, under the law that drew them.

    At temperature 0 tokens are a function of the state, so it is 0.
    """
    if temperature == 0:
        return logits_BLV.new_zeros(logits_BLV.shape[0])
    scaled_BLV = logits_BLV / temperature
    safe_BL = tokens_BL.masked_fill(~chosen_BL, 0)
    picked_BL = scaled_BLV.gather(-1, safe_BL[..., None]).squeeze(-1)
    log_prob_BL = picked_BL - scaled_BLV.logsumexp(-1)
    return log_prob_BL.masked_fill(~chosen_BL, 0.0).sum(-1)
