"""The hash words of `unmask.rng` in one Triton kernel: on a GPU a word is cheap and a launch is not."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def words(seed_B: Tensor, step_B: Tensor, position_BL: Tensor, salt: int) -> Tensor:
    """(B, L) int64 words of `RowStreams.words` with one axis; all arguments int64."""
    num_rows, length = position_BL.shape
    found_BL = torch.empty(num_rows, length, dtype=torch.int64, device=seed_B.device)
    if not found_BL.numel():
        return found_BL
    with torch.cuda.device_of(seed_B):
        block = min(1024, triton.next_power_of_2(length))
        _row_words[(num_rows, triton.cdiv(length, block))](
            seed_B,
            seed_B.stride(0),
            step_B,
            step_B.stride(0),
            position_BL,
            *position_BL.stride(),
            found_BL,
            salt,
            length,
            block=block,
        )
    return found_BL


@triton.jit
def mix(word):
    """`unmask.rng._mix` of uint32."""
    word = (word ^ (word >> 16)) * 0x7FEB352D
    word = (word ^ (word >> 15)) * 0x846CA68B
    return word ^ (word >> 16)


@triton.jit
def spaced(index):
    """What the word of an index is moved by."""
    return (index + 1).to(tl.uint32) * 0x9E3779B9


@triton.jit(do_not_specialize=["salt"])
def _row_words(
    seeds,
    seed_stride,
    steps,
    step_stride,
    positions,
    row_stride,
    column_stride,
    found,
    salt,
    length,
    block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    seed = tl.load(seeds + row * seed_stride)
    step = tl.load(steps + row * step_stride)
    state = mix((seed >> 32).to(tl.uint32) ^ salt.to(tl.uint32))
    state = mix(state ^ seed.to(tl.uint32))
    state = mix(state + step.to(tl.uint32) * 0x9E3779B9)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < length
    position = tl.load(positions + row * row_stride + column * column_stride, mask=inside, other=0)
    word = mix(state + spaced(position))
    tl.store(found + row * length + column, word.to(tl.int64), mask=inside)
