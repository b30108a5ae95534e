"""The whole idea in one file, PyTorch only: GRPO finds out which positions may be unmasked together.

The "language" has 8 pairs of equal symbols. Its denoiser is exact: a masked position whose partner is fixed
must be equal to it, any other is uniform over 4 symbols. Unmasking both ends of a pair in one step makes them
clash three times in four, so the best plan takes one end of each pair, then the other: 2 calls. The planner
is 3 numbers and starts blind. Run it: `python examples/grpo_in_one_file.py`

G rollouts a group, L positions, S steps.
"""

import torch
import torch.nn.functional as F

PAIRS, SYMBOLS, MASK = 8, 4, -1
LENGTH = 2 * PAIRS
ODD_L = torch.arange(LENGTH) % 2
PARTNER_L = torch.arange(LENGTH) ^ 1


def features(tokens_GL):
    """(G, L, 3): is the position odd, is its partner fixed, 1."""
    partner_fixed_GL = (tokens_GL[:, PARTNER_L] != MASK).float()
    return torch.stack(
        [ODD_L.expand_as(tokens_GL).float(), partner_fixed_GL, torch.ones_like(partner_fixed_GL)], -1
    )


def log_prob(logits_GL, open_GL, chosen_GL):
    """(G,) of independent coins on the open positions, given that at least one falls heads."""
    take_GL, keep_GL = F.logsigmoid(logits_GL), F.logsigmoid(-logits_GL)
    drawn_G = (torch.where(chosen_GL, take_GL, keep_GL) * open_GL).sum(-1)
    empty_G = (keep_GL * open_GL).sum(-1)
    return drawn_G - torch.log1p(-empty_G.exp().clamp_max(1 - 1e-6))


def denoise(tokens_GL, rng):
    """Draw a token for every position from its exact marginal."""
    anything_GL = torch.randint(SYMBOLS, tokens_GL.shape, generator=rng)
    partner_GL = tokens_GL[:, PARTNER_L]
    return torch.where(partner_GL == MASK, anything_GL, partner_GL)


def rollout(weights, num_rows, rng):
    """Decode `num_rows` rows; returns tokens, NFE and what happened in each step."""
    tokens_GL = torch.full((num_rows, LENGTH), MASK)
    nfe_G, steps = torch.zeros(num_rows), []
    while (tokens_GL == MASK).any():
        open_GL = tokens_GL == MASK
        chance_GL = (features(tokens_GL) @ weights).sigmoid() * open_GL
        chosen_GL = torch.rand(chance_GL.shape, generator=rng) < chance_GL
        while (empty_G := ~chosen_GL.any(-1) & open_GL.any(-1)).any():  # condition on being non-empty
            again_GL = torch.rand(chance_GL.shape, generator=rng) < chance_GL.clamp_min(1e-3) * open_GL
            chosen_GL = torch.where(empty_G[:, None], again_GL, chosen_GL)
        steps.append((tokens_GL, open_GL, chosen_GL))
        nfe_G += open_GL.any(-1)
        tokens_GL = torch.where(chosen_GL, denoise(tokens_GL, rng), tokens_GL)
    return tokens_GL, nfe_G, steps


def main(updates=150, num_rows=256):
    rng = torch.Generator().manual_seed(0)
    weights = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.3)
    for update in range(updates):
        with torch.no_grad():
            tokens_GL, nfe_G, steps = rollout(weights, num_rows, rng)
        valid_G = (tokens_GL[:, 0::2] == tokens_GL[:, 1::2]).all(-1).float()
        reward_G = valid_G * (LENGTH - nfe_G + 1) / LENGTH
        advantage_G = reward_G - reward_G.mean()
        loss = torch.zeros(())
        for before_GL, open_GL, chosen_GL in steps:  # replay: the states are all that is needed
            alive_G = open_GL.any(-1)
            likely_G = log_prob(features(before_GL) @ weights, open_GL, chosen_GL)
            loss = loss - (advantage_G * torch.where(alive_G, likely_G, 0.0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 15 == 0 or update == updates - 1:
            odd, partner, bias = weights.tolist()
            print(
                f"update {update:3d}  valid {valid_G.mean():4.0%}  NFE {nfe_G.mean():5.2f}   "
                f"logit = {odd:+.1f} odd {partner:+.1f} partner fixed {bias:+.1f}"
            )
    return float(valid_G.mean()), float(nfe_G.mean())


if __name__ == "__main__":
    main()
