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
NUM_PARTS = 7


def read_rows(
    logits_MV: Tensor, mask_id: int, words_M: Tensor, temperature_M: Tensor | None, spread: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """(M,) each of `unmask.decode.readout.Reading`; margins and entropies are None without `spread`.

    `words_M` are int64 hash words of (seed, step, position); no temperature means 0 everywhere.
    """
    num_rows, num_symbols = logits_MV.shape
    device, words_M = logits_MV.device, words_M.contiguous()
    if temperature_M is not None:
        temperature_M = temperature_M.contiguous()  # of one row it may be an expanded view
    tokens = torch.empty(num_rows, dtype=torch.int64, device=device)
    # Each of its own: Triton compiles anew where memory is aligned in another way.
    confidence = torch.empty(num_rows, dtype=torch.float32, device=device)
    log_prob, margin, entropy = (torch.empty_like(confidence) for _ in range(3))
    found = tokens, confidence, log_prob, margin if spread else None, entropy if spread else None
    if not num_rows:
        return found
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
            spread=spread,
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
            margin,
            entropy,
            num_symbols,
            shares,
            draws=draws,
            spread=spread,
            block=triton.next_power_of_2(shares),
            num_warps=1,
        )
    return found


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
    spread: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * stride
    word = tl.load(words + row).to(tl.uint32)
    temperature, noise_scale = _temperature(temperatures, row, draws)
    lane = tl.arange(0, block)
    top = tl.full((block,), -1e30, tl.float32)  # largest logit of each lane
    total = tl.zeros((block,), tl.float32)  # sum of exp(logit - top)
    weighted = tl.zeros((block,), tl.float32)  # sum of exp(logit - top) (logit - top)
    second = tl.full((block,), -1e30, tl.float32)  # second largest logit of each lane
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
        if spread:
            second = tl.maximum(second, tl.minimum(top, logit))
            weighted = (weighted + total * (top - higher)) * tl.exp(top - higher)
            term = tl.exp(logit - higher) * (logit - higher)
            weighted += tl.where(logit == float("-inf"), 0.0, term)
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
    if spread:
        weighted += total * (top - highest)
        tl.store(here + 5 * step, tl.sum(weighted * tl.exp(top - highest), 0))
        tl.store(here + 6 * step, _second(top, second, highest))
    tl.store(where + row * tl.num_programs(1) + tl.program_id(1), token)


@triton.jit
def _second(top, second, highest):
    """The second largest of all, from the two largest of each lane."""
    beside = tl.max(tl.where(top == highest, second, top), 0)
    num_highest = tl.sum((top == highest).to(tl.int32), 0)
    return tl.where(num_highest > 1, highest, beside)


@triton.jit
def _join_shares(
    temperatures,
    parts,
    where,
    tokens,
    confidences,
    log_probs,
    margins,
    entropies,
    num_symbols,
    shares,
    draws: tl.constexpr,
    spread: tl.constexpr,
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
    mass = tl.sum(total * tl.exp(top - highest), 0)
    tl.store(confidences + row, 1.0 / mass)
    if spread:
        weighted = tl.load(here + 5 * step, mask=is_share, other=0.0) + total * (top - highest)
        second = tl.load(here + 6 * step, mask=is_share, other=-1e30)
        gap = tl.exp(_second(top, second, highest) - highest)
        tl.store(margins + row, (1.0 - gap) / mass)
        mean = tl.sum(weighted * tl.exp(top - highest), 0) / mass
        tl.store(entropies + row, tl.log(mass) - mean)
    log_prob = 0.0
    if draws:
        hot = tl.sum(tempered * tl.exp((top - highest) / temperature), 0)
        chosen = tl.max(tl.where(best_at == token, best_logit, -1e30), 0)
        log_prob = ((chosen - highest) / temperature - tl.log(hot)) * noise_scale
    tl.store(log_probs + row, log_prob)
