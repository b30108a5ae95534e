"""A Triton kernel that reads off logits all that a step needs, in one pass and without a float32 copy.

Its noise is that of `unmask.rng`, word for word. Where rows are few, several programs read a share of each,
so that the whole GPU is at work. M rows of logits, V symbols.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from unmask.rng_kernel import mix, spaced

BLOCK = 4096
PROGRAMS = 256
"""About two for each multiprocessor of a large GPU."""
NUM_PARTS = 5


def read_rows(
    logits_MV: Tensor, mask_id: int, words_M: Tensor, temperature_M: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(M,) tokens, confidences and log-likelihoods of the tokens, as `unmask.decode.readout.Reading`.

    `words_M` are int64 hash words of (seed, step, position); no temperature means 0 everywhere.
    """
    num_rows, num_symbols = logits_MV.shape
    device, words_M = logits_MV.device, words_M.contiguous()
    if temperature_M is not None:
        temperature_M = temperature_M.contiguous()  # of one row it may be an expanded view
    tokens = torch.empty(num_rows, dtype=torch.int64, device=device)
    confidence = torch.empty(num_rows, dtype=torch.float32, device=device)
    log_prob = torch.empty_like(confidence)
    if not num_rows:
        return tokens, confidence, log_prob
    with torch.cuda.device_of(logits_MV):
        block = min(BLOCK, triton.next_power_of_2(num_symbols))
        blocks = triton.cdiv(num_symbols, block)
        shares = max(1, min(blocks, PROGRAMS // num_rows))
        share = triton.cdiv(blocks, shares) * block
        shares = triton.cdiv(num_symbols, share)
        parts = torch.empty(NUM_PARTS, num_rows, shares, dtype=torch.float32, device=device)
        where = torch.empty(num_rows, shares, dtype=torch.int32, device=device)
        temperatures = confidence if temperature_M is None else temperature_M
        draws = temperature_M is not None
        _read_share[(num_rows, shares)](
            logits_MV.contiguous(),
            num_symbols,
            words_M,
            temperatures,
            parts,
            where,
            num_symbols,
            mask_id,
            share,
            draws=draws,
            block=block,
            num_warps=8,
        )
        _join_shares[(num_rows,)](
            temperatures,
            parts,
            where,
            tokens,
            confidence,
            log_prob,
            num_symbols,
            shares,
            draws=draws,
            block=triton.next_power_of_2(shares),
            num_warps=1,
        )
    return tokens, confidence, log_prob


@triton.jit
def _temperature(temperatures, row, draws: tl.constexpr):
    """What to divide by, and 1 or 0 for whether noise is added."""
    temperature = 1.0
    noise_scale = 0.0
    if draws:
        given = tl.load(temperatures + row)
        temperature = tl.where(given > 0, given, 1.0)
        noise_scale = tl.where(given > 0, 1.0, 0.0)
    return temperature, noise_scale


@triton.jit
def _read_share(
    logits,
    stride,
    words,
    temperatures,
    parts,
    where,
    num_symbols,
    mask_id,
    share,
    draws: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * stride
    word = tl.load(words + row).to(tl.uint32)
    temperature, noise_scale = _temperature(temperatures, row, draws)
    lane = tl.arange(0, block)
    top = tl.full((block,), -1e30, tl.float32)  # largest logit of each lane
    total = tl.zeros((block,), tl.float32)  # sum of exp(logit - top)
    tempered = tl.zeros((block,), tl.float32)  # sum of exp((logit - top) / temperature)
    best = tl.full((block,), float("-inf"), tl.float32)
    best_at = tl.zeros((block,), tl.int32) + num_symbols
    best_logit = tl.full((block,), -1e30, tl.float32)
    begin = tl.program_id(1) * share
    for first in range(begin, begin + share, block):
        column = first + lane
        allowed = (column < num_symbols) & (column != mask_id)
        logit = tl.load(start + column, mask=allowed, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, logit)
        total = total * tl.exp(top - higher) + tl.exp(logit - higher)
        score = logit
        if draws:
            tempered = tempered * tl.exp((top - higher) / temperature)
            tempered += tl.exp((logit - higher) / temperature)
            bits = mix(word + spaced(column))
            uniform = ((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
            gumbel = -libdevice.log(-libdevice.log(uniform))  # tl.log is too coarse near 1
            score = libdevice.div_rn(logit, temperature) + gumbel * noise_scale
        top = higher
        wins = score > best
        best = tl.where(wins, score, best)
        best_at = tl.where(wins, column, best_at)
        best_logit = tl.where(wins, logit, best_logit)
    highest = tl.max(top, 0)
    winner = tl.max(best, 0)
    token = tl.min(tl.where(best == winner, best_at, num_symbols), 0)
    here = parts + row * tl.num_programs(1) + tl.program_id(1)
    step = tl.num_programs(0) * tl.num_programs(1)
    tl.store(here, highest)
    tl.store(here + step, tl.sum(total * tl.exp(top - highest), 0))
    tl.store(here + 2 * step, tl.sum(tempered * tl.exp((top - highest) / temperature), 0))
    tl.store(here + 3 * step, winner)
    tl.store(here + 4 * step, tl.max(tl.where(best_at == token, best_logit, -1e30), 0))
    tl.store(where + row * tl.num_programs(1) + tl.program_id(1), token)


@triton.jit
def _join_shares(
    temperatures,
    parts,
    where,
    tokens,
    confidences,
    log_probs,
    num_symbols,
    shares,
    draws: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    temperature, noise_scale = _temperature(temperatures, row, draws)
    lane = tl.arange(0, block)
    is_share = lane < shares
    here = parts + row * shares + lane
    step = tl.num_programs(0) * shares
    top = tl.load(here, mask=is_share, other=-1e30)
    total = tl.load(here + step, mask=is_share, other=0.0)
    tempered = tl.load(here + 2 * step, mask=is_share, other=0.0)
    best = tl.load(here + 3 * step, mask=is_share, other=float("-inf"))
    best_logit = tl.load(here + 4 * step, mask=is_share, other=-1e30)
    best_at = tl.load(where + row * shares + lane, mask=is_share, other=num_symbols)
    highest = tl.max(top, 0)
    token = tl.min(tl.where(best == tl.max(best, 0), best_at, num_symbols), 0)
    token = tl.minimum(token, num_symbols - 1)  # where all is NaN: any, it is not used
    tl.store(tokens + row, token.to(tl.int64))
    tl.store(confidences + row, 1.0 / tl.sum(total * tl.exp(top - highest), 0))
    log_prob = 0.0
    if draws:
        mass = tl.sum(tempered * tl.exp((top - highest) / temperature), 0)
        chosen = tl.max(tl.where(best_at == token, best_logit, -1e30), 0)
        log_prob = ((chosen - highest) / temperature - tl.log(mass)) * noise_scale
    tl.store(log_probs + row, log_prob)
