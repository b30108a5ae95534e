"""A Triton kernel that writes the keys and values of a layer into the cache, in one launch.

PyTorch's indexing takes a launch for each of them and, at 8B, several times as long as the memory needs.
(X, T) canvas, G key heads, K width of a head, R slots, W columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def put(
    keys_RWGK: Tensor, values_RWGK: Tensor, slot_XT: Tensor, column_XT: Tensor, k_XTGK: Tensor, v_XTGK: Tensor
) -> None:
    """Write each token's keys and values where `slot_XT` and `column_XT` (int64, any strides) say."""
    num_rows, width, *head = k_XTGK.shape
    k_XTGK, v_XTGK = (each if _is_whole(each) else each.contiguous() for each in (k_XTGK, v_XTGK))
    if not num_rows * width:
        return
    size = head[0] * head[1]
    with torch.cuda.device_of(keys_RWGK):
        _put[(num_rows * width,)](
            keys_RWGK,
            values_RWGK,
            *keys_RWGK.stride()[:2],
            slot_XT,
            *slot_XT.stride(),
            column_XT,
            *column_XT.stride(),
            k_XTGK,
            *k_XTGK.stride()[:2],
            v_XTGK,
            *v_XTGK.stride()[:2],
            width,
            size,
            block=triton.next_power_of_2(size),
        )


def _is_whole(each_XTGK: Tensor) -> bool:
    """Whether the heads of a token lie end to end."""
    return each_XTGK.stride(-1) == 1 and each_XTGK.stride(-2) == each_XTGK.shape[-1]


@triton.jit(do_not_specialize=["slot_row", "slot_token", "column_row", "column_token", "width"])
def _put(
    keys,
    values,
    kept_slot,
    kept_column,
    slots,
    slot_row,
    slot_token,
    columns,
    column_row,
    column_token,
    k,
    k_row,
    k_token,
    v,
    v_row,
    v_token,
    width,
    size,
    block: tl.constexpr,
):
    row = (tl.program_id(0) // width).to(tl.int64)
    token = (tl.program_id(0) % width).to(tl.int64)
    slot = tl.load(slots + row * slot_row + token * slot_token)
    column = tl.load(columns + row * column_row + token * column_token)
    to = slot * kept_slot + column * kept_column
    lane = tl.arange(0, block)
    inside = lane < size
    key = tl.load(k + row * k_row + token * k_token + lane, mask=inside)
    value = tl.load(v + row * v_row + token * v_token + lane, mask=inside)
    tl.store(keys + to + lane, key, mask=inside)
    tl.store(values + to + lane, value, mask=inside)
