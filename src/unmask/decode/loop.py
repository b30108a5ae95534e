"""The reference decode loop: read this to know what decoding means here.

Rows advance independently: each has its own prompt length, block, step count and random stream, and leaves
the batch when it is finished. B rows, P prompt and L completion positions, T = P + L, V symbols.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsFloat, SupportsIndex

import torch
from torch import Tensor

from unmask.decode.sampling import sample_tokens, token_log_prob
from unmask.models.base import Denoiser
from unmask.planners.base import Planner, make_view
from unmask.rng import RowStreams, row_seeds
from unmask.trajectory import Trajectory

LOWEST_TEMPERATURE = 1e-6


class DecodeError(RuntimeError):
    """A row could not be decoded to its end: no position was chosen, NaN, too little memory."""


@torch.no_grad()
def decode(
    denoiser: Denoiser,
    prompts: Sequence[Sequence[int]],
    planner: Planner,
    *,
    length: int = 256,
    block_length: int = 32,
    temperature: float = 0.0,
    seed: int | Sequence[int] = 0,
    stop_at_eos: bool = False,
    record_log_probs: bool = False,
    batch_size: int | None = None,
) -> list[Trajectory]:
    """Fill `length` masked positions after each prompt.

    Args:
        denoiser: the masked language model.
        prompts: lists of token ids, of any lengths.
        planner: decides which open positions to unmask in each step.
        length: completion positions.
        block_length: semi-autoregressive window; `length` for full diffusion.
        temperature: of token sampling; 0 takes the most likely token.
        seed: an int, or one per prompt. A prompt gets the same result alone and among others; in
            half precision up to rounding, which depends on the batch.
        stop_at_eos: finish a row once an EOS has only fixed tokens before it; the rest becomes EOS.
        record_log_probs: keep the log-likelihood of every step, for training.
        batch_size: rows per denoiser call; all by default.

    Returns:
        One trajectory per prompt, in order.

    Raises:
        ValueError: for an empty prompt, one longer than the model allows, with a mask token or ids out of
            the vocabulary in it, a block length that does not divide the length, a temperature or batch size
            out of range, or another number of seeds than of prompts.
        DecodeError: for a planner that chooses nothing, and logits that are no numbers.
    """
    check(denoiser, prompts, length, block_length, temperature)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size {batch_size} decodes nothing; use 1 or more")
    seeds = row_seeds(seed, prompts)
    settings = _Settings(length, block_length, float(temperature), stop_at_eos, record_log_probs)
    size = batch_size or max(1, len(prompts))
    done: dict[int, Trajectory] = {}
    for start in range(0, len(prompts), size):
        which = range(start, min(start + size, len(prompts)))
        rows = _Rows.lay_out(denoiser, prompts, seeds, which, settings)
        done |= _decode_batch(denoiser, planner, rows, settings)
    return [done[index] for index in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Settings:
    length: int
    block_length: int
    temperature: float
    stop_at_eos: bool
    record_log_probs: bool


@dataclass(slots=True)
class _Rows:
    """The unfinished rows of a batch. Prompts end at the same column; completions are the last L columns."""

    tokens_BT: Tensor
    attention_mask_BT: Tensor | None
    unmask_step_BL: Tensor
    planner_log_prob_BL: Tensor
    token_log_prob_BL: Tensor
    seed_B: Tensor
    index_B: Tensor

    @staticmethod
    def lay_out(
        denoiser: Denoiser,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        which: Sequence[int],
        settings: _Settings,
    ) -> "_Rows":
        device, length, num_rows = denoiser.device, settings.length, len(which)
        chosen = [prompts[index] for index in which]
        tokens_BT, attention_mask_BT = left_pad(chosen, length, denoiser.mask_id, denoiser.pad_id)
        log_prob_BL = torch.zeros(num_rows, length, device=device)
        return _Rows(
            tokens_BT=tokens_BT.to(device),
            attention_mask_BT=None if attention_mask_BT is None else attention_mask_BT.to(device),
            unmask_step_BL=torch.full((num_rows, length), -1, dtype=torch.int16, device=device),
            planner_log_prob_BL=log_prob_BL,
            token_log_prob_BL=log_prob_BL.clone(),
            seed_B=torch.tensor([seeds[index] for index in which], dtype=torch.int64, device=device),
            index_B=torch.tensor(which, device=device),
        )

    def select(self, keep_B: Tensor) -> "_Rows":
        mask_BT = self.attention_mask_BT
        return _Rows(
            tokens_BT=self.tokens_BT[keep_B],
            attention_mask_BT=None if mask_BT is None else mask_BT[keep_B],
            unmask_step_BL=self.unmask_step_BL[keep_B],
            planner_log_prob_BL=self.planner_log_prob_BL[keep_B],
            token_log_prob_BL=self.token_log_prob_BL[keep_B],
            seed_B=self.seed_B[keep_B],
            index_B=self.index_B[keep_B],
        )


def left_pad(
    prompts: Sequence[Sequence[int]], length: int, mask_id: int, pad_id: int
) -> tuple[Tensor, Tensor | None]:
    """(B, T) prompts followed by `length` masks, and their attention mask (None where all are as long)."""
    widest = max(len(prompt) for prompt in prompts)
    masks = [mask_id] * length
    tokens = [[pad_id] * (widest - len(prompt)) + list(prompt) + masks for prompt in prompts]
    if min(len(prompt) for prompt in prompts) == widest:
        return torch.tensor(tokens), None
    pads_B1 = torch.tensor([widest - len(prompt) for prompt in prompts])[:, None]
    return torch.tensor(tokens), torch.arange(widest + length) >= pads_B1


def _decode_batch(
    denoiser: Denoiser, planner: Planner, rows: _Rows, settings: _Settings
) -> dict[int, Trajectory]:
    finished: dict[int, Trajectory] = {}
    for step in range(settings.length):
        has_chosen_B = _unmask_once(denoiser, planner, rows, settings, step)
        is_left_B = (rows.tokens_BT[:, -settings.length :] == denoiser.mask_id).any(-1)
        goes_on_B = is_left_B & has_chosen_B
        unfinished_B = goes_on_B.nonzero().squeeze(-1)  # the step's one host synchronisation
        if len(unfinished_B) < len(rows.index_B):
            finished.update(_harvest(denoiser, rows, ~goes_on_B, settings))
            rows = rows.select(unfinished_B)
        if not len(unfinished_B):
            break
    return finished


def _unmask_once(denoiser: Denoiser, planner: Planner, rows: _Rows, settings: _Settings, step: int) -> Tensor:
    """One denoiser call: the planner says where, the sampler says what. (B,) bool: rows that got a token."""
    length = settings.length
    logits_BTV, hidden_BTD = denoiser(rows.tokens_BT, rows.attention_mask_BT)
    step_B = torch.full_like(rows.seed_B, step)
    view = make_view(
        logits_BTV,
        hidden_BTD,
        rows.tokens_BT,
        rows.attention_mask_BT,
        length=length,
        block_length=settings.block_length,
        step_B=step_B,
        mask_id=denoiser.mask_id,
    )
    streams = RowStreams(rows.seed_B, step_B, view.position_BL)
    subset = planner(view)
    is_nan_B1 = (view.logits_BLV.sum(-1).isnan() & view.open_BL).any(-1, keepdim=True)
    chosen_BL = subset.sample(streams) & view.open_BL & ~is_nan_B1
    sampled_BL = sample_tokens(view.logits_BLV, settings.temperature, streams)
    completion_BL = torch.where(chosen_BL, sampled_BL, rows.tokens_BT[:, -length:])
    if settings.record_log_probs:
        rows.planner_log_prob_BL[:, step] = subset.log_prob(chosen_BL)
        fixed_B = token_log_prob(view.logits_BLV, sampled_BL, chosen_BL, settings.temperature)
        rows.token_log_prob_BL[:, step] = fixed_B
    rows.unmask_step_BL = rows.unmask_step_BL.masked_fill(chosen_BL, step)
    if settings.stop_at_eos:
        completion_BL = settle(completion_BL, denoiser.mask_id, denoiser.eos_id)
    rows.tokens_BT = torch.cat([rows.tokens_BT[:, :-length], completion_BL], dim=-1)
    return chosen_BL.any(-1)


def settle(completion_BL: Tensor, mask_id: int, eos_id: int) -> Tensor:
    """Fill the masks behind an EOS that has only fixed tokens before it."""
    fixed_so_far_BL = (completion_BL != mask_id).long().cumprod(-1).bool()
    settled_BL = ((completion_BL == eos_id) & fixed_so_far_BL).long().cummax(-1).values.bool()
    return completion_BL.masked_fill(settled_BL & (completion_BL == mask_id), eos_id)


def _harvest(
    denoiser: Denoiser, rows: _Rows, is_done_B: Tensor, settings: _Settings
) -> Iterator[tuple[int, Trajectory]]:
    """The trajectories of rows that do not go on, on the CPU."""
    done = rows.select(is_done_B)
    tokens_BT, unmask_step_BL = done.tokens_BT.cpu(), done.unmask_step_BL.cpu()
    planner_BL, token_BL = done.planner_log_prob_BL.cpu(), done.token_log_prob_BL.cpu()
    mask_BT = None if done.attention_mask_BT is None else done.attention_mask_BT.cpu()
    for row, index in enumerate(done.index_B.tolist()):
        if (tokens_BT[row, -settings.length :] == denoiser.mask_id).any():
            raise DecodeError(f"row {index}: the planner chose no position, or the model returned NaN")
        prompt = tokens_BT[row, : -settings.length]
        if mask_BT is not None:
            prompt = prompt[mask_BT[row, : -settings.length]]
        num_steps = int(unmask_step_BL[row].max()) + 1
        recorded = settings.record_log_probs
        yield (
            index,
            Trajectory(
                prompt=prompt,
                tokens=tokens_BT[row, -settings.length :],
                unmask_step=unmask_step_BL[row],
                block_length=settings.block_length,
                mask_id=denoiser.mask_id,
                temperature=settings.temperature,
                planner_log_prob=planner_BL[row, :num_steps] if recorded else None,
                token_log_prob=token_BL[row, :num_steps] if recorded else None,
            ),
        )


def check(
    denoiser: Denoiser,
    prompts: Sequence[Sequence[int]],
    length: int,
    block_length: int,
    temperature: float,
) -> None:
    """Raise the ValueError of a request that cannot be decoded."""
    for name, value in (("length", length), ("block_length", block_length)):
        if not isinstance(value, SupportsIndex):
            raise ValueError(f"{name} {value!r} is no whole number")
    if length < 1:
        raise ValueError(f"length {length} leaves nothing to generate; use 1 or more")
    if block_length < 1 or length % block_length:
        near = [size for size in range(1, length + 1) if length % size == 0]
        choices = sorted(sorted(near, key=lambda size: abs(size - block_length))[:2])
        raise ValueError(
            f"block_length {block_length} does not divide length {length}; use "
            + " or ".join(map(str, choices))
        )
    if not isinstance(temperature, SupportsFloat):
        raise ValueError(f"temperature {temperature!r} is no number")
    if temperature != 0 and not LOWEST_TEMPERATURE <= temperature <= 1 / LOWEST_TEMPERATURE:
        raise ValueError(
            f"temperature {temperature} is neither 0, for the most likely token, nor from "
            f"{LOWEST_TEMPERATURE:g} to {1 / LOWEST_TEMPERATURE:g}"
        )
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompt {index} is empty; give at least one token")
        if len(prompt) + length > denoiser.max_length:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens and length is {length}, but the model holds "
                f"{denoiser.max_length}; shorten either"
            )
        if not 0 <= min(prompt) <= max(prompt) < denoiser.vocab_size:
            raise ValueError(
                f"prompt {index} has ids from {min(prompt)} to {max(prompt)}, the model knows 0 to "
                f"{denoiser.vocab_size - 1}; use its own tokenizer"
            )
        if denoiser.mask_id in prompt:
            raise ValueError(f"prompt {index} contains the mask token {denoiser.mask_id}; remove it")
