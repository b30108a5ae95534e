"""Teaching a new head to imitate Fast-dLLM's factor rule before any reinforcement (dUltra, stage 1).

B rows, L completion positions, T = prompt + L.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config import GrpoRecipe, HeadConfig, InitRecipe
from unmask.models.load import load_denoiser
from unmask.models.transformer import Transformer
from unmask.planners.base import View, make_view
from unmask.planners.features import confidence
from unmask.planners.heuristics import factor_rule
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import HEADS, load_planner, make_head
from unmask.rng import RowStreams, seeded
from unmask.train.checkpoint import TrainState
from unmask.train.data import Examples, check_rows_fit, noise_streams, random_mask, reference_batches
from unmask.train.loop import Metrics
from unmask.train.optim import adamw, clip_and_step, set_learning_rate
from unmask.workers import Workers


def new_planner(config: HeadConfig, denoiser: Transformer, seed: int) -> LearnedPlanner:
    """The head of a recipe: loaded from `start`, or new with the shape that fits the denoiser.

    It samples from its law, however the planner at `start` decides.
    """
    if config.start is not None:
        loaded = load_planner(config.start)
        if type(loaded.head) is not HEADS[config.kind][0]:
            raise ValueError(
                f"head.start {config.start!r} is a {type(loaded.head).__name__}, not {config.kind!r}"
            )
        return loaded.tuned(law=config.law, mode="sample", factor=1.0, temperature=1.0)
    with seeded(torch.device("cpu"), seed, "head"):
        if config.kind == "confidence":
            bias = {} if config.bias is None else {"bias": config.bias}
            head = make_head("confidence", mlp_dim=config.mlp_dim or 512, **bias)
        else:
            net = denoiser.config
            head = make_head(
                "dultra",
                hidden_size=net.dim,
                num_heads=net.num_heads,
                mlp_dim=config.mlp_dim or net.mlp_dim,
                rope_theta=net.rope_theta,
                norm_eps=net.norm_eps,
            )
    return LearnedPlanner(head, law=config.law)


def noised_windows(streams: RowStreams, length: int, min_block: int) -> tuple[Tensor, Tensor]:
    """What is masked, and what of it is open, each (B, L) bool.

    A random window of at least `min_block` positions: before it all is fixed, in it a random share is
    masked, after it all is masked. Only the window is open.
    """
    cuts_B2 = streams.uniform("window", 2)
    size_B = min_block + (cuts_B2[:, 0] * (length - min_block + 1)).long()
    start_B = (cuts_B2[:, 1] * (length - size_B + 1)).long()
    index_L = torch.arange(length, device=size_B.device)
    inside_BL = (index_L >= start_B[:, None]) & (index_L < (start_B + size_B)[:, None])
    after_BL = index_L >= (start_B + size_B)[:, None]
    noise_BL = torch.where(inside_BL, streams.uniform("mask", length), 2.0)
    ratio_B = streams.uniform("time") * size_B / length
    open_BL = random_mask(ratio_B, noise_BL) & inside_BL
    return open_BL | after_BL, open_BL


def positive_weight(num_positive: float, num_open: float) -> float:
    """Negatives / positives; 1 where either is missing."""
    num_negative = num_open - num_positive
    return num_negative / num_positive if num_positive and num_negative else 1.0


def imitation_loss(logits_BL: Tensor, target_BL: Tensor, open_BL: Tensor, weight: float) -> Tensor:
    """Summed binary cross-entropy over the open positions; positives weigh `weight`."""
    nats_BL = F.binary_cross_entropy_with_logits(
        logits_BL, target_BL.float(), pos_weight=logits_BL.new_tensor(weight), reduction="none"
    )
    return (nats_BL * open_BL).sum()


def frozen_denoiser(recipe: InitRecipe | GrpoRecipe, workers: Workers) -> Transformer:
    """One that only a planner learns on: with bf16 it is held in bfloat16."""
    dtype = "bfloat16" if recipe.precision == "bf16" else "float32"
    return load_denoiser(recipe.denoiser, device=workers.device, dtype=dtype)


class InitStage:
    """A `Stage` (see `unmask.train.loop`)."""

    def __init__(self, recipe: InitRecipe, workers: Workers) -> None:
        self.recipe, self.workers, self.total = recipe, workers, recipe.steps
        self.denoiser = frozen_denoiser(recipe, workers)
        if self.denoiser.tokenizer is None:
            raise ValueError(f"{recipe.denoiser} has no tokenizer.json, so the tasks cannot be read")
        check_rows_fit(recipe, self.denoiser, recipe.denoiser)
        self.planner = new_planner(recipe.head, self.denoiser, recipe.seed).to(workers.device)
        self.state = TrainState(adamw([(recipe.optim.lr, self.planner)], recipe.optim), None, self.planner)
        self.stream: Iterator[Examples] = iter(())

    def prepare(self, first: int) -> None:
        self.stream = reference_batches(self.recipe, self.denoiser.tokenizer, self.workers, first)

    def step(self, index: int) -> Metrics:
        recipe, device = self.recipe, self.workers.device
        examples = Examples(*(part.to(device, non_blocking=True) for part in next(self.stream)))
        view = self._view(examples)
        target_BL = factor_rule(confidence(view.logits_BLV), view.open_BL, recipe.factor)
        with self.workers.autocast(self.recipe.precision):
            logits_BL = self.planner.head(view)
        num_open, num_positive = float(view.open_BL.sum()), float((target_BL & view.open_BL).sum())
        counts = self.workers.sum({"open": num_open, "positive": num_positive})
        weight = positive_weight(counts["positive"], counts["open"]) if recipe.class_weight else 1.0
        total = imitation_loss(logits_BL, target_BL, view.open_BL, weight)
        (total / counts["open"]).backward()
        self.workers.sum_gradients(self.planner.parameters())
        set_learning_rate(self.state.optimizer, recipe.optim, index, self.total)
        norm = clip_and_step(self.state.optimizer, recipe.optim)
        agree = (((logits_BL > 0) == target_BL) & view.open_BL).sum()
        sums = self.workers.sum({"loss": float(total.detach()), "agreement": float(agree)})
        return {**{name: value / counts["open"] for name, value in sums.items()}, "grad_norm": norm}

    @torch.no_grad()
    def _view(self, examples: Examples) -> View:
        length = self.recipe.length
        streams = noise_streams(self.recipe.seed, "init", examples.index_B)
        masked_BL, open_BL = noised_windows(streams, length, min(self.recipe.min_block, length))
        completion_BL = torch.where(masked_BL, self.denoiser.mask_id, examples.tokens_BT[:, -length:])
        tokens_BT = torch.cat([examples.tokens_BT[:, :-length], completion_BL], dim=-1)
        with self.workers.autocast(self.recipe.precision):
            logits_BTV, hidden_BTD = self.denoiser(tokens_BT, examples.attention_mask_BT)
        num_fixed_B = length - masked_BL.sum(-1)
        step_B = (num_fixed_B * streams.uniform("step")).long()  # any count of steps that fits the state
        view = make_view(
            logits_BTV,
            hidden_BTD,
            tokens_BT,
            examples.attention_mask_BT,
            length=length,
            block_length=length,
            step_B=step_B,
            mask_id=self.denoiser.mask_id,
        )
        return replace(view, open_BL=open_BL)
