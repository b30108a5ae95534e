"""The decode engine: rows come and go, each with its own length, block, random stream and settings.

Host half: which rows take a step, what becomes of them. The device half is `unmask.decode.runner`. Without a
cache the engine gives, token for token, what the reference loop `unmask.decode.loop` gives.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unmask.decode.batches import whole_rows, windows
from unmask.decode.graphs import GraphedRunner
from unmask.decode.layouts import KeyValueCache
from unmask.decode.loop import check
from unmask.decode.runner import Batch, Runner
from unmask.decode.state import DONE, FAILED, Request, State
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner
from unmask.rng import row_seeds
from unmask.trajectory import CACHES, Trajectory


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine works. With cache "none" no setting changes a result, only time and memory."""

    max_rows: int = 64
    """Rows decoded at a time."""
    max_tokens: int | None = None
    """Most tokens, prompts and completions, of the rows decoded at a time."""
    cache: Literal["none", "prefix", "dual"] = "none"
    """Which keys and values a step takes from the row's last whole step (Fast-dLLM, arXiv 2505.22618): none
    (exact), those before the current block, or those before and behind it (both approximate)."""
    refresh_every: int | None = None
    """With a cache: steps on a window after which the row is seen whole again; it always is when its block
    begins. None: only then."""
    compile: bool = False
    """Compile the parts of the blocks between attentions with torch.compile."""
    graphs: bool = False
    """Capture steps as CUDA graphs, one for each shape; steps are padded to few shapes."""
    steps_per_sync: int = 1
    """Without a cache: steps queued before the host looks who has finished. Rows that finish early idle."""
    max_logits: int = 2**26
    """Float32 logits held at a time, in elements (256 MiB)."""

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise ValueError(f"unknown cache {self.cache!r}; use one of {', '.join(CACHES)}")
        for name in ("max_rows", "max_tokens", "refresh_every", "steps_per_sync", "max_logits"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} leaves nothing to do; use 1 or more")


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a request: a trajectory, or one line that says why there is none."""

    id: int
    trajectory: Trajectory | None
    error: str | None = None


@dataclass(slots=True)
class _Running:
    """A row in a slot, as the host knows it."""

    request: Request
    slot: int
    first_masked: int = 0
    needs_whole: bool = True
    num_cached_steps: int = 0
    since_whole: int = 0


class Engine:
    """Decodes rows as they come.

    Args:
        denoiser: a `Transformer`, or what has its `encode`, `head` and `config`; weights may change in place.
        planner: decides which open positions to unmask, for all rows.
        settings: see `EngineSettings`.

    Raises:
        ValueError: for a denoiser that cannot be taken apart (use `unmask.decode`), or graphs on a CPU.
    """

    def __init__(
        self, denoiser: Transformer, planner: Planner, settings: EngineSettings = EngineSettings()
    ) -> None:
        if not all(hasattr(denoiser, name) for name in ("encode", "head", "config")):
            raise ValueError(f"the engine cannot run a {type(denoiser).__name__}; use unmask.decode")
        if settings.graphs and denoiser.device.type != "cuda":
            raise ValueError(f"graphs are CUDA graphs, and the model is on {denoiser.device}; leave them out")
        self.denoiser, self.planner, self.settings = denoiser, planner, settings
        self.max_rows = settings.max_rows
        if settings.compile:
            denoiser.compile_blocks()
        self._waiting: deque[Request] = deque()
        self._running: dict[int, _Running] = {}
        self._finished: list[Finished] = []
        self._state: State | None = None
        self._cache: KeyValueCache | None = None
        self._runner: Runner | GraphedRunner | None = None
        self._batches: dict[tuple[object, ...], Batch] = {}
        self._next_id = 0

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting) + len(self._running) + len(self._finished)

    def submit(
        self,
        prompt: Sequence[int],
        *,
        length: int = 256,
        block_length: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
        stop_at_eos: bool = False,
        record_log_probs: bool = False,
    ) -> int:
        """Queue a row; the number returned names it. Arguments are those of `unmask.decode`.

        A row that cannot be decoded is reported by the next `step`, and costs the others nothing.
        """
        tokens = tuple(int(token) for token in prompt)
        (row_seed,) = row_seeds(seed, [tokens])
        return self._enqueue(
            tokens, length, block_length, float(temperature), row_seed, stop_at_eos, record_log_probs
        )

    def _enqueue(self, *settings: Any) -> int:
        """Queue a row of these settings, those of `Request` behind its id."""
        number = self._next_id
        self._next_id += 1
        request = Request(number, *settings)
        try:
            check(self.denoiser, [request.prompt], request.length, request.block_length, request.temperature)
            if self.settings.max_tokens is not None and request.size > self.settings.max_tokens:
                raise ValueError(
                    f"a row of {request.size} tokens is over max_tokens {self.settings.max_tokens}"
                )
        except ValueError as error:
            self._finished.append(Finished(number, None, str(error)))
        else:
            self._waiting.append(request)
        return number

    def cancel(self, number: int) -> bool:
        """Drop a row that waits or runs; False where there is none. The next `step` reports it."""
        for request in self._waiting:
            if request.id == number:
                self._waiting.remove(request)
                self._finished.append(Finished(number, None, "cancelled"))
                return True
        running = self._running.get(number)
        if running is None:
            return False
        self._release([running])
        self._finished.append(Finished(number, None, "cancelled"))
        return True

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        length: int = 256,
        block_length: int = 32,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop_at_eos: bool = False,
        record_log_probs: bool = False,
    ) -> list[Trajectory]:
        """As `unmask.decode`: the same arguments, the same results without a cache.

        Raises:
            ValueError: for what `unmask.decode` refuses.
            RuntimeError: naming the first row that failed on the way.
        """
        rows = dict(
            self.stream(prompts, length, block_length, temperature, seed, stop_at_eos, record_log_probs)
        )
        return [rows[place] for place in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        length: int = 256,
        block_length: int = 32,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop_at_eos: bool = False,
        record_log_probs: bool = False,
    ) -> Iterator[tuple[int, Trajectory]]:
        """The rows of `decode`, each with its place as soon as it is finished; given up, it cancels the rest.

        Rows of others run beside them; `step` reports those.

        Raises:
            ValueError: for what `unmask.decode` refuses.
            RuntimeError: naming a row that failed on the way.
        """
        check(self.denoiser, prompts, length, block_length, temperature)
        tokens = [tuple(int(token) for token in prompt) for prompt in prompts]
        numbers = [
            self._enqueue(
                prompt, length, block_length, float(temperature), row_seed, stop_at_eos, record_log_probs
            )
            for prompt, row_seed in zip(tokens, row_seeds(seed, tokens), strict=True)
        ]
        places = {number: place for place, number in enumerate(numbers)}
        try:
            while places:
                reported = self.step()
                self._finished += [each for each in reported if each.id not in places]  # submitted by others
                for finished in (each for each in reported if each.id in places):
                    place = places.pop(finished.id)
                    if finished.trajectory is None:
                        raise RuntimeError(f"row {place}: {finished.error}")
                    yield place, finished.trajectory
        finally:
            for number in places:
                self.cancel(number)
            self._finished = [each for each in self._finished if each.id not in places]

    def run(self) -> Iterator[Finished]:
        """Steps until nothing is left, each row as it finishes."""
        while self.num_unfinished:
            yield from self.step()

    def step(self) -> list[Finished]:
        """Let rows in, call the denoiser on each running row once, and report what finished."""
        self._admit()
        if self._running:
            try:
                self._advance()
            except torch.OutOfMemoryError:
                self._retreat()
        reported, self._finished = self._finished, []
        return reported

    def _admit(self) -> None:
        tokens = sum(running.request.size for running in self._running.values())
        new: list[_Running] = []
        taken = {running.slot for running in self._running.values()}
        free = (slot for slot in range(1, self.max_rows + 1) if slot not in taken)
        while self._waiting and len(self._running) < self.max_rows:
            tokens += self._waiting[0].size
            if self.settings.max_tokens is not None and tokens > self.settings.max_tokens:
                break
            request = self._waiting.popleft()
            self._running[request.id] = _Running(request, next(free))
            new.append(self._running[request.id])
        if not new:
            return
        requests = [running.request for running in new]
        if self._grow(requests):
            new = list(self._running.values())
            requests = [running.request for running in new]
        assert self._state is not None
        self._state.admit([running.slot for running in new], requests, self.denoiser.mask_id)
        if self._cache is not None:
            slots = 1 + max(running.slot for running in self._running.values())
            moved = self._cache.reserve(slots, self.max_rows + 1)
            if moved and isinstance(self._runner, GraphedRunner):
                self._runner.forget()

    def _grow(self, requests: Sequence[Request]) -> bool:
        """Make a state that holds such rows; True where running rows must be laid out again.

        Rows start anew in it: their random streams are functions of the step, so they go the same way.
        """
        size, length = max(r.size for r in requests), max(r.length for r in requests)
        seen = getattr(self.planner, "sees_only_confidence", False) and any(
            request.record_log_probs for request in requests
        )
        if (state := self._state) is not None:
            if state.holds(self.max_rows, size, length, seen):
                return False
            size, length = max(size, state.width), max(length, state.length)
            seen = seen or state.seen_RSC is not None
        width = -(-size // 64) * 64
        device, settings = self.denoiser.device, self.settings
        self._state = State.empty(self.max_rows, width, length, device, self.denoiser.pad_id, seen)
        self._cache = None if settings.cache == "none" else KeyValueCache(width)
        runner = Runner(self.denoiser, self.planner, self._state, self._cache, settings.max_logits)
        self._runner = GraphedRunner(runner) if settings.graphs else runner
        self._batches.clear()
        for running in self._running.values():
            self._running[running.request.id] = _Running(running.request, running.slot)
        return True

    def _advance(self) -> None:
        """One step of every running row: rows that must be seen whole together, windows together."""
        state, runner = self._state, self._runner
        assert state is not None
        assert runner is not None
        whole = [each for each in self._running.values() if each.needs_whole]
        cached = [each for each in self._running.values() if not each.needs_whole]
        num_steps = self.settings.steps_per_sync if self.settings.cache == "none" else 1
        for group in (whole, cached):
            if group:
                batch = self._batch(group)
                for _ in range(num_steps):
                    runner.step(batch)
        status_R = state.status_R.tolist()  # the step's one host synchronisation
        done = []
        for running in list(self._running.values()):
            status = status_R[running.slot]
            self._count(running, status)
            if status == FAILED:
                self._release([running])
                why = "the planner chose no position, or the model or the planner returned NaN"
                self._finished.append(Finished(running.request.id, None, why))
            elif status == DONE:
                done.append(running)
        if done:
            self._harvest(done)

    def _count(self, running: _Running, first_masked: int) -> None:
        if running.needs_whole:
            running.since_whole = 0
        else:
            running.num_cached_steps += 1
            running.since_whole += 1
        block, limit = running.request.block_length, self.settings.refresh_every
        is_new_block = first_masked // block != running.first_masked // block
        running.needs_whole = (
            self.settings.cache == "none"
            or is_new_block
            or (limit is not None and running.since_whole >= limit)
        )
        running.first_masked = first_masked

    def _batch(self, group: Sequence[_Running]) -> Batch:
        """Indices of a group; made again only when the group has changed."""
        group = sorted(group, key=lambda running: running.slot)
        requests = [running.request for running in group]
        slots = [running.slot for running in group]
        is_window = not group[0].needs_whole
        columns = max(self._window(running) for running in group) if is_window else 0
        key = (is_window, columns, tuple(request.id for request in requests))
        if key not in self._batches:
            self._batches = {old: batch for old, batch in self._batches.items() if old[0] != is_window}
            assert self._state is not None
            device, width, fixed = self.denoiser.device, self._state.width, self.settings.graphs
            if is_window:
                made = windows(slots, requests, columns, device, width, fixed)
            else:
                made = whole_rows(slots, requests, device, width, fixed)
            self._batches[key] = made
        return self._batches[key]

    def _window(self, running: _Running) -> int:
        """Columns that a cached step of the row computes."""
        request, shift = running.request, int(getattr(self.denoiser.config, "shift", False))
        if self.settings.cache == "dual":
            return request.block_length + shift
        start = running.first_masked // request.block_length * request.block_length
        return request.length - start + shift

    def _harvest(self, done: Sequence[_Running]) -> None:
        assert self._state is not None
        rows = self._state.harvest(
            [running.slot for running in done],
            [running.request for running in done],
            self.denoiser.mask_id,
            self.settings.cache,
            [running.num_cached_steps for running in done],
        )
        pairs = zip(done, rows, strict=True)
        self._finished += [Finished(running.request.id, row) for running, row in pairs]
        self._release(done)

    def _release(self, gone: Sequence[_Running]) -> None:
        assert self._state is not None
        self._state.free([running.slot for running in gone])
        for running in gone:
            del self._running[running.request.id]

    def _retreat(self) -> None:
        """Out of memory: half the rows start anew later. A row that fails alone is reported."""
        rows = list(self._running.values())
        self._state = self._cache = self._runner = None
        self._running.clear()
        self._batches.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) == 1:
            self._finished.append(Finished(rows[0].request.id, None, "out of memory, alone in its step"))
            return
        self.max_rows = max(1, len(rows) // 2)
        self._waiting.extendleft(reversed([running.request for running in rows]))
