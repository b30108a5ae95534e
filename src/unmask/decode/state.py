"""The rows of the engine on the device, one slot each. R slots, W columns, C completion positions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unmask.trajectory import Trajectory

DONE, NAN, NOTHING = -1, -2, -3
FAILURES = {
    NAN: "the model or the planner returned NaN",
    NOTHING: "the planner chose no position, or its scores are NaN",
}
SPARE = 0
"""The slot that stays empty: it fills up batches of fixed shape."""


@dataclass(frozen=True, slots=True)
class Request:
    """A row to decode, with settings of its own."""

    id: int
    prompt: tuple[int, ...]
    length: int
    block_length: int
    temperature: float
    seed: int
    """Of its random stream, as `unmask.rng.row_seeds` derives it."""
    stop_at_eos: bool
    record_log_probs: bool

    @property
    def size(self) -> int:
        """Tokens, prompt and completion."""
        return len(self.prompt) + self.length


@dataclass(slots=True)
class State:
    """Tensors of all slots. The last column of each takes what must not be written anywhere."""

    tokens_RW: Tensor
    unmask_step_RC: Tensor
    planner_log_prob_RC: Tensor
    """By step; as `token_log_prob_RC`."""
    token_log_prob_RC: Tensor
    confidence_RC: Tensor
    """As last computed: what a cached step knows of positions outside its window."""
    seen_RSC: Tensor | None
    """Confidences that the planner saw, by step; None where they are not recorded."""
    status_R: Tensor
    """int64: the first masked position, DONE or one of FAILURES."""
    numbers_R5: Tensor
    """int64: prompt length, completion length, block length, step, row seed."""
    temperature_R: Tensor
    stops_R: Tensor

    @staticmethod
    def empty(num_slots: int, width: int, length: int, device: torch.device, seen: bool = False) -> "State":
        """All slots free, from 1 on, and the spare one."""
        slots, columns = num_slots + 1, length + 1
        floats = torch.zeros(slots, columns, device=device)
        numbers = torch.tensor([1, 0, 1, 0, 0], device=device).repeat(slots, 1)
        return State(
            tokens_RW=torch.zeros(slots, width + 1, dtype=torch.int64, device=device),
            unmask_step_RC=torch.full((slots, columns), -1, dtype=torch.int16, device=device),
            planner_log_prob_RC=floats,
            token_log_prob_RC=floats.clone(),
            confidence_RC=floats.clone(),
            seen_RSC=torch.zeros(slots, columns, length, device=device) if seen else None,
            status_R=torch.full((slots,), DONE, device=device),
            numbers_R5=numbers,
            temperature_R=torch.zeros(slots, device=device),
            stops_R=torch.zeros(slots, dtype=torch.bool, device=device),
        )

    def grown(self, num_slots: int, width: int, length: int, seen: bool) -> "State":
        """A state at least as large, with the same rows; spare columns may hold anything."""
        num_slots = max(num_slots, len(self.status_R) - 1)
        width, length = max(width, self.width), max(length, self.length)
        seen = seen or self.seen_RSC is not None
        other = State.empty(num_slots, width, length, self.tokens_RW.device, seen)
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(other, field.name)
            if old is not None:
                new[tuple(slice(size) for size in old.shape)] = old
        return other

    @property
    def width(self) -> int:
        return self.tokens_RW.shape[1] - 1

    @property
    def length(self) -> int:
        return self.unmask_step_RC.shape[1] - 1

    def holds(self, num_slots: int, width: int, length: int, seen: bool) -> bool:
        """Whether as many slots are there beside the spare one, and rows of this size fit."""
        fits = len(self.status_R) > num_slots and self.width >= width and self.length >= length
        return fits and (self.seen_RSC is not None or not seen)

    def admit(self, slots: Sequence[int], requests: Sequence[Request], mask_id: int) -> None:
        """Lay out new rows: prompt, then masks."""
        device = self.tokens_RW.device
        slot_B = torch.tensor(slots, device=device)
        tokens = torch.zeros(len(slots), self.tokens_RW.shape[1], dtype=torch.int64)
        for row, request in enumerate(requests):
            prompt = len(request.prompt)
            tokens[row, :prompt] = torch.tensor(request.prompt)
            tokens[row, prompt : prompt + request.length] = mask_id
        numbers = [[len(r.prompt), r.length, r.block_length, 0, r.seed] for r in requests]
        self.tokens_RW[slot_B] = tokens.to(device)
        self.numbers_R5[slot_B] = torch.tensor(numbers, device=device)
        self.temperature_R[slot_B] = torch.tensor([r.temperature for r in requests], device=device)
        self.stops_R[slot_B] = torch.tensor([r.stop_at_eos for r in requests], device=device)
        self.unmask_step_RC[slot_B] = -1
        self.status_R[slot_B] = 0
        for values in (self.planner_log_prob_RC, self.token_log_prob_RC, self.confidence_RC):
            values[slot_B] = 0.0

    def free(self, slots: Sequence[int]) -> None:
        """Leave nothing to do in these slots."""
        slot_B = torch.tensor(slots, device=self.tokens_RW.device)
        self.numbers_R5[slot_B] = self.numbers_R5[SPARE].clone()
        self.status_R[slot_B] = DONE

    def harvest(
        self,
        slots: Sequence[int],
        requests: Sequence[Request],
        mask_id: int,
        cache: str,
        seen_whole: Sequence[Sequence[int]],
    ) -> list[Trajectory]:
        """The trajectories of finished rows, on the CPU; `seen_whole` of each, as there, under a cache."""
        slot_B = torch.tensor(slots, device=self.tokens_RW.device)
        log_probs: list[Tensor] = []
        if any(request.record_log_probs for request in requests):
            log_probs = [self.planner_log_prob_RC, self.token_log_prob_RC]
            log_probs += [] if self.seen_RSC is None else [self.seen_RSC]
        sources = [self.tokens_RW, *log_probs, self.unmask_step_RC]
        tokens_BW, *log_probs, step_BC = _on_host([each[slot_B] for each in sources])
        seen_BSC = log_probs.pop() if len(log_probs) > 2 else None
        rows = []
        for row, request in enumerate(requests):
            prompt, unmask_step = len(request.prompt), step_BC[row, : request.length].clone()
            nfe = int(unmask_step.max()) + 1
            kept = [each[row, :nfe].clone() for each in log_probs] if request.record_log_probs else None
            seen = None if seen_BSC is None or not kept else seen_BSC[row, :nfe, : request.length].clone()
            rows.append(
                Trajectory(
                    prompt=tokens_BW[row, :prompt].clone(),
                    tokens=tokens_BW[row, prompt : request.size].clone(),
                    unmask_step=unmask_step,
                    block_length=request.block_length,
                    mask_id=mask_id,
                    temperature=request.temperature,
                    planner_log_prob=kept[0] if kept else None,
                    token_log_prob=kept[1] if kept else None,
                    confidence=seen,
                    cache=cache,
                    seen_whole=None if cache == "none" else torch.tensor(seen_whole[row], dtype=torch.int16),
                )
            )
        return rows


def _on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same on the CPU by one transfer, so that the host waits once. Wider types come first: all align."""
    bytes_N = torch.cat([each.flatten().view(torch.uint8) for each in tensors]).cpu()
    parts = bytes_N.split([each.numel() * each.element_size() for each in tensors])
    return [part.view(each.dtype).view(each.shape) for part, each in zip(parts, tensors, strict=True)]
