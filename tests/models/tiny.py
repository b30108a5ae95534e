"""Nets small enough to build in a test."""

from typing import Any

import torch

from unmask.models.transformer import Transformer, TransformerConfig

MASK, EOS, PAD = 10, 11, 12
VOCAB = 13


def tiny_config(**settings: Any) -> TransformerConfig:
    sizes = {"dim": 16, "num_layers": 2, "num_heads": 2, "mlp_dim": 24, "max_length": 96}
    return TransformerConfig(vocab_size=VOCAB, mask_id=MASK, eos_id=EOS, pad_id=PAD, **(sizes | settings))


def tiny_net(seed: int = 0, **settings: Any) -> Transformer:
    """Random weights, large enough that positions and tokens differ by far more than rounding."""
    net = Transformer(tiny_config(**settings))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.zero_()
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.3)
    return net.eval().requires_grad_(False)


def ragged_prompts(rng: torch.Generator, num: int, longest: int = 9) -> list[list[int]]:
    """Different lengths, no special tokens."""
    lengths = [1 + (5 * row) % longest for row in range(num)]
    return [torch.randint(0, MASK, (size,), generator=rng).tolist() for size in lengths]
