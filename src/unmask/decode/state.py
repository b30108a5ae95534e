"""The rows of the engine, one slot each. R slots, N bytes of a slot, W columns, C completion positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unmask.device import send
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


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that the host reads of the slots: views of one piece of memory, so that it comes by one transfer.

    The last column of each, but of the status, takes what must not be written anywhere.
    """

    memory_RN: Tensor
    """uint8: the fields below of a slot, one behind the other."""
    status_R: Tensor
    """int64: the first masked position, DONE or one of FAILURES."""
    tokens_RW: Tensor
    """int64"""
    planner_log_prob_RC: Tensor
    """float32, by step; as `token_log_prob_RC`."""
    token_log_prob_RC: Tensor
    confidence_RC: Tensor
    """float32, as last computed: what a cached step knows of positions outside its window, and what a policy
    saw where that is recorded."""
    unmask_step_RC: Tensor
    """int16"""

    @staticmethod
    def empty(
        num_slots: int, width: int, length: int, device: torch.device, pinned: bool = False
    ) -> "Ledger":
        """All zero; `pinned` is memory of the host that a GPU copies to at its full speed."""
        columns, places = width + 1, length + 1
        kinds = (torch.int64, torch.int64, *[torch.float32] * 3, torch.int16)
        counts = (1, columns, places, places, places, places)
        sizes = [kind.itemsize * count for kind, count in zip(kinds, counts, strict=True)]
        shape = (num_slots, -(-sum(sizes) // 8) * 8)  # a view of wider numbers has to begin where one does
        memory_RN = torch.zeros(shape, dtype=torch.uint8, device=device, pin_memory=pinned)
        bytes_of = memory_RN[:, : sum(sizes)].split(sizes, dim=1)
        status_R1, *others = (part.view(kind) for part, kind in zip(bytes_of, kinds, strict=True))
        return Ledger(memory_RN, status_R1[:, 0], *others)


@dataclass(slots=True)
class State:
    """Tensors of all slots on the device, last columns as in `Ledger`, and what the host knows of them."""

    ledger: Ledger
    on_host: Ledger
    """As last looked at; the very same where the device is a CPU."""
    seen: dict[int, list[Tensor]]
    """By slot, on the host: the confidences (C,) that a policy saw in each step, where they are recorded."""
    numbers_R5: Tensor
    """int64: prompt length, completion length, block length, step, row seed."""
    temperature_R: Tensor
    stops_R: Tensor

    @staticmethod
    def empty(num_slots: int, width: int, length: int, device: torch.device) -> "State":
        """All slots free, from 1 on, and the spare one."""
        count = num_slots + 1
        ledger = Ledger.empty(count, width, length, device)
        ledger.status_R.fill_(DONE)
        ledger.unmask_step_RC.fill_(-1)
        on_host = ledger
        if device.type == "cuda":
            on_host = Ledger.empty(count, width, length, torch.device("cpu"), pinned=True)
        numbers_R5 = torch.zeros(count, 5, dtype=torch.int64, device=device)
        numbers_R5[:, 0:3:2] = 1
        return State(
            ledger=ledger,
            on_host=on_host,
            seen={},
            numbers_R5=numbers_R5,
            temperature_R=torch.zeros(count, dtype=torch.float32, device=device),
            stops_R=torch.zeros(count, dtype=torch.bool, device=device),
        )

    def grown(self, num_slots: int, width: int, length: int) -> "State":
        """A state at least as large, with the same rows; spare columns may hold anything."""
        num_slots = max(num_slots, len(self.stops_R) - 1)
        width, length = max(width, self.width), max(length, self.length)
        other = State.empty(num_slots, width, length, self.stops_R.device)
        other.seen.update(self.seen)
        for old, new in zip(self._tensors(), other._tensors(), strict=True):
            new[tuple(slice(size) for size in old.shape)] = old
        return other

    def _tensors(self) -> list[Tensor]:
        """All on the device, each once."""
        views = [getattr(self.ledger, each.name) for each in fields(Ledger) if each.name != "memory_RN"]
        return [*views, self.numbers_R5, self.temperature_R, self.stops_R]

    @property
    def width(self) -> int:
        return self.ledger.tokens_RW.shape[1] - 1

    @property
    def length(self) -> int:
        return self.ledger.unmask_step_RC.shape[1] - 1

    def holds(self, num_slots: int, width: int, length: int) -> bool:
        """Whether as many slots are there beside the spare one, and rows of this size fit."""
        return len(self.stops_R) > num_slots and self.width >= width and self.length >= length

    def admit(self, slots: Sequence[int], requests: Sequence[Request], mask_id: int) -> None:
        """Lay out new rows: prompt, then masks."""
        device, ledger = self.stops_R.device, self.ledger
        slot_B = send(slots, device)
        host = torch.device("cpu")
        tokens = torch.zeros(len(slots), ledger.tokens_RW.shape[1], dtype=torch.int64, device=host)
        temperatures = torch.tensor([r.temperature for r in requests], dtype=torch.float32, device=host)
        for row, request in enumerate(requests):
            prompt = len(request.prompt)
            tokens[row, :prompt] = torch.tensor(request.prompt, device=host)
            tokens[row, prompt : request.size] = mask_id
        numbers = [[len(r.prompt), r.length, r.block_length, 0, r.seed] for r in requests]
        ledger.tokens_RW[slot_B] = send(tokens, device)
        self.numbers_R5[slot_B] = send(numbers, device)
        self.temperature_R[slot_B] = send(temperatures, device)
        self.stops_R[slot_B] = send([r.stop_at_eos for r in requests], device)
        ledger.unmask_step_RC.index_fill_(0, slot_B, -1)
        ledger.status_R.index_fill_(0, slot_B, 0)
        for values in (ledger.planner_log_prob_RC, ledger.token_log_prob_RC, ledger.confidence_RC):
            values.index_fill_(0, slot_B, 0.0)
        self.seen.update((slot, []) for slot in slots)

    def free(self, slots: Sequence[int]) -> None:
        """Leave nothing to do in these slots."""
        self.seen.update((slot, []) for slot in slots)
        slot_B = send(slots, self.stops_R.device)
        self.numbers_R5[slot_B] = self.numbers_R5[SPARE].clone()
        self.ledger.status_R.index_fill_(0, slot_B, DONE)

    def look(self, slots: Sequence[int], recorded: Mapping[int, int]) -> list[int]:
        """The status of some slots. Here, and nowhere else in a step, the host waits for the device.

        Of slots that are `recorded`, so many positions of what a policy saw in the last step are kept.
        """
        end = 1 + max(slots)
        if self.on_host is not self.ledger:
            self.on_host.memory_RN[:end].copy_(self.ledger.memory_RN[:end])
        for slot, length in recorded.items():
            self.seen[slot].append(self.on_host.confidence_RC[slot, :length].clone())
        status = self.on_host.status_R[:end].tolist()
        return [status[slot] for slot in slots]

    def harvest(
        self, slot: int, request: Request, mask_id: int, cache: str, seen_whole: Sequence[int]
    ) -> Trajectory:
        """A row that was finished at the last look, on the CPU; `seen_whole` as there, under a cache."""
        found, prompt, records = self.on_host, len(request.prompt), request.record_log_probs
        unmask_step = found.unmask_step_RC[slot, : request.length].clone()
        nfe, seen = int(unmask_step.max()) + 1, self.seen[slot]
        return Trajectory(
            prompt=found.tokens_RW[slot, :prompt].clone(),
            tokens=found.tokens_RW[slot, prompt : request.size].clone(),
            unmask_step=unmask_step,
            block_length=request.block_length,
            mask_id=mask_id,
            temperature=request.temperature,
            planner_log_prob=found.planner_log_prob_RC[slot, :nfe].clone() if records else None,
            token_log_prob=found.token_log_prob_RC[slot, :nfe].clone() if records else None,
            confidence=torch.stack(seen) if seen else None,
            cache=cache,
            seen_whole=None if cache == "none" else torch.tensor(seen_whole, dtype=torch.int16, device="cpu"),
        )
