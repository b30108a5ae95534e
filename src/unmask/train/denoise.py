"""Training a denoiser with the LLaDA objective (arXiv 2502.09992, equation 3).

B rows, P prompt and L completion positions, T = P + L, N learned tokens, V symbols, D width.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config import DenoiseRecipe
from unmask.layers import Padded
from unmask.models.adapters import add_adapter
from unmask.models.load import load_denoiser
from unmask.models.transformer import Transformer, TransformerConfig
from unmask.rng import generator, seeded
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.checkpoint import TrainState
from unmask.train.data import Examples, check_rows_fit, noise_streams, random_mask, reference_batches
from unmask.train.loop import Metrics
from unmask.train.optim import adamw, clip_and_step, set_learning_rate
from unmask.train.packing import pack
from unmask.workers import Workers


class Noised(NamedTuple):
    """What the net is shown, and what it shall say: padded rows, or packed ones."""

    shown_BT: Tensor
    target_BT: Tensor
    weight_BT: Tensor
    """float32: of a token in the loss; 0 where nothing is learned."""
    attention_mask_BT: Tensor | None
    segments_BT: Tensor | None
    """As in `Packing`; None where a row is one example."""

    def layout(self) -> Padded:
        """Whom a token sees: its own example."""
        if self.segments_BT is not None:
            return Padded.packed(self.segments_BT)
        shape = (self.shown_BT.shape[0], self.shown_BT.shape[1])
        return Padded.of(self.attention_mask_BT, shape, self.shown_BT.device)


def noised(examples: Examples, masked_BL: Tensor, mask_id: int) -> Noised:
    """Completions with `masked_BL` hidden; each hidden token weighs 1 / (number hidden in its row).

    That is LLaDA's 1/t over L: with t the masked fraction, t L tokens weigh 1/(t L).
    """
    prompt_length = examples.tokens_BT.shape[1] - masked_BL.shape[1]
    hidden_BT = F.pad(masked_BL, (prompt_length, 0))
    weight_BT = hidden_BT / masked_BL.sum(-1, keepdim=True)
    shown_BT = examples.tokens_BT.masked_fill(hidden_BT, mask_id)
    return Noised(shown_BT, examples.tokens_BT, weight_BT, examples.attention_mask_BT, None)


def packed(batch: Noised, width: int) -> Noised:
    """The same examples with several to a row; sums over the batch stay as they are."""
    assert batch.attention_mask_BT is not None
    packing = pack(batch.attention_mask_BT.cpu(), width)
    packing = type(packing)(*(part.to(batch.shown_BT.device) for part in packing))
    shown_BT, target_BT = (packing.gather(each, 0) for each in (batch.shown_BT, batch.target_BT))
    return Noised(shown_BT, target_BT, packing.gather(batch.weight_BT, 0), None, packing.segments_BW)


def denoising_loss(net: Transformer, batch: Noised, ahead: int | None = None) -> Tensor:
    """The weighted sum of the cross-entropies of the learned tokens, in nats.

    Divided by the rows it is an upper bound on the negative log-likelihood per token. The output layer is
    computed for the learned tokens alone: with a large vocabulary it is much of the work.
    """
    learned_N = batch.weight_BT.flatten().nonzero().squeeze(-1)
    hidden_BTD = net.encode(batch.shown_BT, batch.layout().up_to(ahead))
    logits_NV = net.head(hidden_BTD.flatten(0, 1)[learned_N])
    nats_N = F.cross_entropy(logits_NV.float(), batch.target_BT.flatten()[learned_N], reduction="none")
    return (nats_N * batch.weight_BT.flatten()[learned_N]).sum()


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
        qk_norm=recipe.net.qk_norm,
    )
    net = Transformer(config, tokenizer)
    net.initialise(generator(recipe.seed, "denoiser"))
    return net


def start_denoiser(recipe: DenoiseRecipe, device: torch.device) -> Transformer:
    """The net to train: new, or loaded from `start`."""
    if recipe.start is None:
        return new_denoiser(recipe).to(device)
    frozen_bf16 = recipe.lora is not None and recipe.precision == "bf16"
    net = load_denoiser(recipe.start, device=device, dtype="bfloat16" if frozen_bf16 else "float32")
    if net.tokenizer is None:
        raise ValueError(f"{recipe.start} has no tokenizer.json, so examples cannot be encoded")
    check_rows_fit(recipe, net, recipe.start)
    return net.requires_grad_(True)


class DenoiseStage:
    """A `Stage` (see `unmask.train.loop`)."""

    def __init__(self, recipe: DenoiseRecipe, workers: Workers) -> None:
        self.recipe, self.workers, self.total = recipe, workers, recipe.steps
        self.net = net = start_denoiser(recipe, workers.device)
        lora, base = recipe.lora, str(recipe.start)
        adapter = add_adapter(net, lora, base, recipe.seed) if lora else None
        self.state = TrainState(adamw([(recipe.optim.lr, net)], recipe.optim), net, None, adapter=adapter)
        net.train()
        net.recompute = recipe.recompute
        if recipe.compile:
            for block in net.blocks:  # one compilation serves them all
                block.compile()
        self.stream: Iterator[Examples] = iter(())

    def prepare(self, first: int) -> None:
        self.stream = reference_batches(self.recipe, self.net.tokenizer, self.workers, first)

    def step(self, index: int) -> Metrics:
        recipe, device = self.recipe, self.workers.device
        examples = Examples(*(part.to(device, non_blocking=True) for part in next(self.stream)))
        num = len(examples.index_B)
        size = min(recipe.micro_batch or num, num)
        loss, tokens = torch.zeros((), device=device), 0
        with seeded(device, recipe.seed, "dropout", index, self.workers.rank):
            for start in range(0, num, size):
                batch = self.noise(examples.part(start, start + size))
                with self.workers.autocast(recipe.precision):
                    part = denoising_loss(self.net, batch, self.ahead(index)) / recipe.batch_size
                part.backward()
                loss += part.detach()
                tokens += batch.shown_BT.numel()
        self.workers.sum_gradients(self.net.parameters())
        set_learning_rate(self.state.optimizer, recipe.optim, index, self.total)
        norm = clip_and_step(self.state.optimizer, recipe.optim)
        return {**self.workers.sum({"loss": float(loss), "tokens": float(tokens)}), "grad_norm": norm}

    def noise(self, examples: Examples) -> Noised:
        """Hide a random share of each completion, stratified over the batch of all processes."""
        recipe = self.recipe
        streams = noise_streams(recipe.seed, "denoise", examples.index_B)
        place_B = (examples.index_B % recipe.batch_size).float()
        ratio_B = (place_B + streams.uniform("time")) / recipe.batch_size
        masked_BL = random_mask(ratio_B, streams.uniform("mask", recipe.length))
        batch = noised(examples, masked_BL, self.net.mask_id)
        return batch if recipe.packed_length is None else packed(batch, recipe.packed_length)

    def ahead(self, index: int) -> int | None:
        """From causal to bidirectional over `anneal_steps`."""
        total = self.recipe.prompt_length + self.recipe.length
        return total * index // self.recipe.anneal_steps if index < self.recipe.anneal_steps else None
