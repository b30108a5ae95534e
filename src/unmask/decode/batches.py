"""How the rows that take a step together lie on the canvas. Two short lists go to the device, no more."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unmask.decode.runner import Batch, Shape
from unmask.decode.state import SPARE, Request
from unmask.device import send


def whole_rows(
    slots: Sequence[int],
    requests: Sequence[Request],
    device: torch.device,
    width: int,
    fixed: bool,
) -> Batch:
    """Rows of equal size beside each other, others end to end.

    Args:
        slots: of the rows.
        requests: the rows.
        device: where the tensors go.
        width: longest row there may be.
        fixed: round shapes up with empty rows, so that few of them occur.
    """
    sizes = [request.size for request in requests]
    is_packed = len(set(sizes)) > 1
    missing = _round_up(len(sizes), 16) - len(sizes) if fixed else 0
    widest = max(sizes)
    if is_packed and fixed:
        widest = _columns(widest, width)
        empty = _empty_rows(sum(sizes) + missing, widest)
        sizes += [1] * missing + empty
        missing += len(empty)
    else:
        sizes += sizes[:1] * missing
    padded_slots = [*slots, *[SPARE] * missing]
    num_rows, num_tokens = len(sizes), sum(sizes)
    slot_B, size_B = send([padded_slots, sizes], device)
    start_B = size_B.cumsum(0) - size_B
    row_N = torch.arange(num_rows, device=device).repeat_interleave(size_B, output_size=num_tokens)
    column_N = torch.arange(num_tokens, device=device) - start_B[row_N]
    canvas = (1, num_tokens) if is_packed else (num_rows, sizes[0])
    packing: dict[str, Tensor] = {}
    if is_packed:
        columns_T = torch.arange(widest, device=device)
        packing = {
            "bounds_B": torch.nn.functional.pad(size_B.cumsum(0), (1, 0)).int(),
            "pad_BT": start_B[:, None] + torch.minimum(columns_T, size_B[:, None] - 1),
            "is_token_BT": columns_T < size_B[:, None],
            "place_N": row_N * widest + column_N,
        }
    shape = _shape(requests, num_rows, num_tokens if is_packed else sizes[0], False, is_packed, widest)
    return Batch(
        shape,
        slot_B,
        _as_slice(padded_slots, slot_B),
        slot_XT=slot_B[row_N].view(canvas),
        column_XT=column_N.view(canvas),
        row_XT=row_N.view(canvas),
        start_B=start_B,
        **packing,
    )


def windows(
    slots: Sequence[int],
    requests: Sequence[Request],
    columns: int,
    device: torch.device,
    width: int,
    fixed: bool,
    end_with_block: bool,
) -> Batch:
    """`columns` of each row; the others are cached. Where they begin, the state knows.

    They end where the row's block does, or where the row does; what is left over is computed for nothing.
    They see as many columns as the longest of the rows, up to a power of two; `width` is what a cache holds.
    """
    padded_slots = [*slots, *[SPARE] * (_round_up(len(slots), 16) - len(slots) if fixed else 0)]
    slot_B = send(padded_slots, device)
    seen = _columns(max(request.size for request in requests), width)
    shape = _shape(requests, len(padded_slots), columns, True, False, seen)
    shape = replace(shape, ends_with_block=end_with_block)
    return Batch(shape, slot_B, _as_slice(padded_slots, slot_B))


def _shape(
    requests: Sequence[Request], num_rows: int, num_tokens: int, is_window: bool, is_packed: bool, width: int
) -> Shape:
    return Shape(
        num_rows=num_rows,
        num_tokens=num_tokens,
        is_window=is_window,
        is_packed=is_packed,
        shown=max(request.block_length for request in requests),
        length=max(request.length for request in requests),
        width=width,
        draws=any(request.temperature > 0 for request in requests),
        stops=any(request.stop_at_eos for request in requests),
        records=any(request.record_log_probs for request in requests),
    )


def _columns(longest: int, width: int) -> int:
    """That a row of this length needs, up to a power of two: few shapes, also where rows come and go."""
    return min(width, max(64, 1 << (longest - 1).bit_length()))


def _empty_rows(num_tokens: int, width: int) -> list[int]:
    """Sizes of rows, none over `width`, that fill up to a round number; as many rows for each such number."""
    total = _round_up(num_tokens + 1, 64)
    while (num_rows := -(-_unit(total, 64) // (width - 1))) > total - num_tokens:
        total = _round_up(total + 1, 64)
    each, more = divmod(total - num_tokens, num_rows)
    return [each + 1] * more + [each] * (num_rows - more)


def _round_up(count: int, exact: int) -> int:
    """Counts up to `exact` as they are, larger ones by at most an eighth: few of them are left."""
    unit = _unit(count, exact)
    return -(-count // unit) * unit


def _unit(count: int, exact: int) -> int:
    return 1 if count <= exact else max(exact // 2, 1 << (count.bit_length() - 4))


def _as_slice(slots: Sequence[int], slot_B: Tensor) -> slice | Tensor:
    first, end = slots[0], slots[0] + len(slots)
    return slice(first, end) if list(slots) == list(range(first, end)) else slot_B
