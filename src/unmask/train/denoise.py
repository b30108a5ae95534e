"""Training a denoiser with the LLaDA objective (arXiv 2502.09992, equation 3).

B rows, P prompt and L completion positions, T = P + L, V symbols.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config import DenoiseRecipe
from unmask.models.transformer import Transformer, TransformerConfig
from unmask.rng import generator
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.checkpoint import TrainState
from unmask.train.data import Examples, noise_streams, random_mask, reference_batches
from unmask.train.loop import Metrics
from unmask.train.optim import adamw, clip_and_step, set_learning_rate
from unmask.train.parallel import Workers


def denoising_loss(
    net: Transformer, tokens_BT: Tensor, attention_mask_BT: Tensor, masked_BL: Tensor
) -> Tensor:
    """(B,) cross-entropy of the masked completion tokens, each weighted 1/t, over L.

    t is the masked fraction. The mean over t is an upper bound on the negative log-likelihood per token, in
    nats.
    """
    length = masked_BL.shape[-1]
    target_BL = tokens_BT[:, -length:]
    noisy_BL = torch.where(masked_BL, net.mask_id, target_BL)
    noisy_BT = torch.cat([tokens_BT[:, :-length], noisy_BL], dim=-1)
    logits_BLV = net(noisy_BT, attention_mask_BT).logits[:, -length:]
    nats_BL = F.cross_entropy(logits_BLV.float().transpose(1, 2), target_BL, reduction="none")
    return (nats_BL * masked_BL).sum(-1) / masked_BL.sum(-1)


def new_denoiser(recipe: DenoiseRecipe) -> Transformer:
    """An untrained net with the tokenizer of the testbed."""
    tokenizer: Any = build_tokenizer()
    config = TransformerConfig(
        vocab_size=len(tokenizer),
        mask_id=tokenizer.mask_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        dim=recipe.net.dim,
        num_layers=recipe.net.num_layers,
        num_heads=recipe.net.num_heads,
        mlp_dim=recipe.net.mlp_dim,
        max_length=recipe.net.max_length,
    )
    net = Transformer(config, tokenizer)
    net.initialise(generator(recipe.seed, "denoiser"))
    return net


class DenoiseStage:
    """A `Stage` (see `unmask.train.loop`)."""

    def __init__(self, recipe: DenoiseRecipe, workers: Workers) -> None:
        self.recipe, self.workers, self.total = recipe, workers, recipe.steps
        net = new_denoiser(recipe).to(workers.device)
        self.state = TrainState(adamw([(recipe.optim.lr, net)], recipe.optim), net, None)
        self.net = net
        self.loss = torch.compile(denoising_loss) if recipe.compile else denoising_loss
        self.stream: Iterator[Examples] = iter(())

    def prepare(self, first: int) -> None:
        self.stream = reference_batches(self.recipe, self.net.tokenizer, self.workers, first)

    def step(self, index: int) -> Metrics:
        recipe, device = self.recipe, self.workers.device
        examples = Examples(*(part.to(device, non_blocking=True) for part in next(self.stream)))
        streams = noise_streams(recipe.seed, "denoise", examples.index_B)
        place_B = (examples.index_B % recipe.batch_size).float()
        ratio_B = (place_B + streams.uniform("time")) / recipe.batch_size  # stratified over the global batch
        masked_BL = random_mask(ratio_B, streams.uniform("mask", recipe.length))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss_B = self.loss(self.net, examples.tokens_BT, examples.attention_mask_BT, masked_BL)
        loss = loss_B.sum() / recipe.batch_size
        loss.backward()
        self.workers.sum_gradients(self.net.parameters())
        set_learning_rate(self.state.optimizer, recipe.optim, index, self.total)
        norm = clip_and_step(self.state.optimizer, recipe.optim)
        metrics = self.workers.sum({"loss": float(loss.detach())})
        tokens = recipe.batch_size * (recipe.prompt_length + recipe.length)
        return {**metrics, "grad_norm": norm, "tokens": float(tokens)}
