"""The autoregressive baseline: the causal model that an MDLM was made of, fine-tuned and decoded greedily.

The net is the same one with `ahead=0` (see `unmask.models.causal`), so that prompts, completions, optimiser,
precision and grading are those of the MDLM. B rows, P prompt and L completion positions, T = P + L.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config import DenoiseRecipe
from unmask.decode.loop import left_pad
from unmask.layers import Padded
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner
from unmask.train.data import Examples, ReferenceBatches
from unmask.train.denoise import DenoiseStage, Noised, packed
from unmask.train.loop import OnStep, run
from unmask.trajectory import Trajectory
from unmask.workers import Workers

PACKED_LENGTH = 656
"""Two of the longest rows, four of the usual ones."""


def next_token_batch(examples: Examples, length: int, eos_id: int, width: int) -> Noised:
    """Completions up to and including their first EOS, each token weighing the same; several to a row.

    The sum over the batch is the mean over its tokens times its rows, as `DenoiseStage` divides by rows.
    """
    is_end_BL = examples.tokens_BT[:, -length:] == eos_id
    learned_BL = is_end_BL.long().cumsum(-1) - is_end_BL.long() == 0
    prompt_length = examples.tokens_BT.shape[1] - length
    weight_BT = F.pad(learned_BL, (prompt_length, 0)) * (len(learned_BL) / learned_BL.sum())
    seen_BT = examples.attention_mask_BT & F.pad(learned_BL, (prompt_length, 0), value=True)
    return packed(Noised(examples.tokens_BT, examples.tokens_BT, weight_BT, seen_BT, None), width)


def train_causal(
    recipe: DenoiseRecipe, folder: Path, workers: Workers, report: OnStep | None = None
) -> DenoiseStage:
    """The stage of an MDLM that hides nothing and looks at nothing ahead: supervised fine-tuning."""
    stage = DenoiseStage(recipe, workers)
    if not stage.net.config.shift:
        raise ValueError(
            f"{recipe.start} does not predict the next token; make it with from_causal(shift=True)"
        )
    eos_id = stage.net.eos_id
    stage.noise = lambda examples: next_token_batch(examples, recipe.length, eos_id, PACKED_LENGTH)
    stage.ahead = lambda index: 0
    run(stage, recipe, folder, workers, report)
    return stage


def steps_of(recipe: DenoiseRecipe, tokenizer: object, epochs: float) -> int:
    """Steps in which a run sees its finite source `epochs` times."""
    (source,) = ReferenceBatches(recipe, tokenizer).sources
    return round(epochs * source.size / recipe.batch_size)  # type: ignore[attr-defined]


def decode_causal(
    denoiser: Transformer,
    prompts: Sequence[Sequence[int]],
    planner: Planner,
    *,
    length: int,
    block_length: int,
    temperature: float,
    seed: Sequence[int],
    stop_at_eos: bool,
    batch_size: int,
) -> Iterator[tuple[int, Trajectory]]:
    """Greedy, one token a call, until EOS: a `Decode` (see `unmask.eval.run`) for `ahead=0`.

    Nothing is cached, which costs time and changes no token. What `decode` takes beside a length is not used.
    """
    for start in range(0, len(prompts), batch_size):
        yield from enumerate(_decode_batch(denoiser, prompts[start : start + batch_size], length), start)


@torch.no_grad()
def _decode_batch(net: Transformer, prompts: Sequence[Sequence[int]], length: int) -> list[Trajectory]:
    laid_BT, mask_BT = left_pad(prompts, length, net.mask_id, net.pad_id)
    mask_BT = torch.ones_like(laid_BT, dtype=torch.bool) if mask_BT is None else mask_BT
    tokens_BT, mask_BT = laid_BT.to(net.device), mask_BT.to(net.device)
    first = tokens_BT.shape[1] - length
    alive_B = torch.arange(len(prompts), device=net.device)
    for column in range(first, tokens_BT.shape[1]):
        seen = slice(0, column + 1)  # the position to fill is [MASK]: nobody before it sees it
        found_B = _next_tokens(net, tokens_BT[alive_B, seen], mask_BT[alive_B, seen])
        tokens_BT[alive_B, column] = found_B
        alive_B = alive_B[found_B != net.eos_id]
        if not len(alive_B):
            break
    return [
        _trajectory(net, prompt, row_L)
        for prompt, row_L in zip(prompts, tokens_BT[:, first:].cpu(), strict=True)
    ]


def _next_tokens(net: Transformer, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
    shape = (tokens_BT.shape[0], tokens_BT.shape[1])
    hidden_BTD = net.encode(tokens_BT, Padded.of(mask_BT, shape, tokens_BT.device).up_to(0))
    logits_BV: Tensor = net.head(hidden_BTD[:, -1])
    logits_BV[:, net.mask_id] = -torch.inf
    return logits_BV.argmax(-1)


def _trajectory(net: Transformer, prompt: Sequence[int], tokens_L: Tensor) -> Trajectory:
    """A call for each token, EOS included."""
    is_end_L = tokens_L == net.eos_id
    num = int(is_end_L.int().argmax()) + 1 if bool(is_end_L.any()) else len(tokens_L)
    step_L = torch.arange(len(tokens_L), dtype=torch.int16)
    step_L[num:] = -1
    filled_L = tokens_L.clone()
    filled_L[num:] = net.eos_id
    return Trajectory(
        prompt=torch.tensor(prompt),
        tokens=filled_L,
        unmask_step=step_L,
        block_length=len(tokens_L),
        mask_id=net.mask_id,
        temperature=0.0,
    )
