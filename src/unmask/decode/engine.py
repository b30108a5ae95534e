"""The decode engine: rows come and go, each with its own length, block, random stream and settings.

Host half: which rows take a step, what becomes of them. The device half is `unmask.decode.runner`. Without a
cache the engine gives in float32, token for token, what the reference loop `unmask.decode.loop` gives.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice
from operator import index

import torch

from unmask.decode.batches import whole_rows, windows
from unmask.decode.graphs import GraphedRunner, uses_graphs
from unmask.decode.layouts import KeyValueCache
from unmask.decode.loop import DecodeError, check
from unmask.decode.rows import Finished, Queue, Running, room_for
from unmask.decode.runner import Batch, Runner
from unmask.decode.settings import EngineSettings
from unmask.decode.state import DONE, FAILURES, Request, State
from unmask.device import is_out_of_memory
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, compile_head, sight_of
from unmask.rng import row_seeds
from unmask.trajectory import Trajectory

__all__ = ["Engine", "EngineSettings", "Finished"]

PATIENCE = 8
"""Out of memory, half as many rows run together; twice as many again after this many times them finished."""
FEW = 64
"""Slots for so many rows are there from the beginning; if more run together, they double."""
WASTE = 4
"""A cache this many times as wide as the rows that come is made anew, smaller, once nothing runs."""


class Engine:
    """Decodes rows as they come.

    Args:
        denoiser: a `Transformer`, or a `Denoiser` with its `encode`, `head` and `config`; weights may change
            in place.
        planner: decides which open positions to unmask, for all rows.
        settings: see `EngineSettings`.

    Raises:
        ValueError: for a denoiser that cannot be taken apart (use `unmask.decode`), a planner whose
            `looks_at` is unknown, or graphs on a CPU.
    """

    def __init__(
        self,
        denoiser: Transformer,
        planner: Planner,
        settings: EngineSettings = EngineSettings(),  # noqa: B008  # frozen
    ) -> None:
        if not all(hasattr(denoiser, name) for name in ("encode", "head", "config")):
            raise ValueError(f"the engine cannot run a {type(denoiser).__name__}; use unmask.decode")
        self.denoiser, self.planner, self.settings = denoiser, planner, settings
        self.sight = sight_of(planner)
        """What the planner looks at."""
        self.graphs = uses_graphs(settings.graphs, denoiser, planner)
        """Whether steps are captured as CUDA graphs."""
        self.calls: Counter[str] = Counter()
        """Of the denoiser so far, on however many rows: whole, window."""
        if settings.compile:
            denoiser.compile_blocks()
            compile_head(planner)
        self._room: int | None = None
        """Rows that may run together after memory ran out."""
        self._since_retreat = 0
        """Rows finished since."""
        self._tried_alone: set[int] = set()
        self._waiting = Queue()
        self._running: dict[int, Running] = {}
        self._finished: list[Finished] = []
        self._state: State | None = None
        self._cache: KeyValueCache | None = None
        self._cached_for: object = None
        """What was fixed when the cache was last empty."""
        self._runner: Runner | GraphedRunner | None = None
        self._batches: dict[tuple[object, ...], Batch] = {}
        self._ids = count()

    @property
    def num_unfinished(self) -> int:
        """Rows that `step` has not reported yet."""
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
        """Queue a row; the number returned names it. Arguments are those of `unmask.decode` of one prompt.

        Rows of one prompt and one seed are therefore equal. A row that cannot be decoded is reported by the
        next `step`, and costs the others nothing.

        Raises:
            TypeError, ValueError: for ids or a seed that are no numbers.
        """
        tokens = tuple(index(token) for token in prompt)
        (row_seed,) = row_seeds(seed, [tokens])
        settings = (length, block_length, temperature, row_seed, stop_at_eos, record_log_probs)
        number = next(self._ids)
        try:
            check(self.denoiser, [tokens], length, block_length, temperature)
            self._waiting.put(self._request(number, tokens, *settings))
        except ValueError as error:
            self._finished.append(Finished(number, None, str(error)))
        return number

    def _request(
        self,
        number: int,
        tokens: tuple[int, ...],
        length: int,
        block: int,
        temperature: float,
        seed: int,
        *flags: bool,
    ) -> Request:
        """Of what was checked; `flags` are the fields behind the seed."""
        settings = (index(length), index(block), float(temperature), seed)  # of NumPy, perhaps
        request = Request(number, tokens, *settings, *map(bool, flags))
        if self.settings.max_tokens is not None and request.size > self.settings.max_tokens:
            raise ValueError(f"a row of {request.size} tokens is over max_tokens {self.settings.max_tokens}")
        return request

    def cancel(self, number: int) -> bool:
        """Drop a row that waits or runs; False where there is none. The next `step` reports it."""
        if not self._waiting.drop(number):
            running = self._running.get(number)
            if running is None:
                return False
            self._release([running], [])
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
        """As `unmask.decode`, without its `batch_size`; the same results without a cache in float32.

        Beside log-likelihoods it records what a policy saw: 4 bytes for each step and completion position.

        Raises:
            ValueError: for what `unmask.decode` refuses, and a row over `max_tokens`.
            DecodeError: naming the first row that failed on the way.
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
            ValueError: for what `unmask.decode` refuses, and a row over `max_tokens`.
            DecodeError: while rows come, naming one that failed on the way.
        """
        check(self.denoiser, prompts, length, block_length, temperature)
        tokens = [tuple(index(token) for token in prompt) for prompt in prompts]
        sizes, flags = (length, block_length, temperature), (stop_at_eos, record_log_probs)
        requests = [
            self._request(next(self._ids), prompt, *sizes, each, *flags)
            for prompt, each in zip(tokens, row_seeds(seed, tokens), strict=True)
        ]
        return self._streamed(requests)

    def _streamed(self, requests: Sequence[Request]) -> Iterator[tuple[int, Trajectory]]:
        for request in requests:
            self._waiting.put(request)
        places = {request.id: place for place, request in enumerate(requests)}
        try:
            while places:
                is_ours = any(each.id in places for each in self._finished)
                if not (self._running or self._waiting or is_ours):
                    raise DecodeError(f"row {min(places.values())} was reported to another caller of `step`")
                reported = self.step()
                self._finished += [each for each in reported if each.id not in places]  # submitted by others
                for finished in (each for each in reported if each.id in places):
                    place = places.pop(finished.id)
                    if finished.trajectory is None:
                        raise DecodeError(f"row {place}: {finished.error}")
                    yield place, finished.trajectory
        finally:
            for number in places:
                self.cancel(number)
            self._finished = [each for each in self._finished if each.id not in places]

    def run(self) -> Iterator[Finished]:
        """Steps until nothing is left, each row as it finishes."""
        while self.num_unfinished:
            yield from self.step()

    @torch.inference_mode(False)  # the state outlives the mode of the caller
    def step(self) -> list[Finished]:
        """Let rows in, call the denoiser on each running row once, and report what finished.

        After an exception, of a planner for instance, no row is lost: all start anew in the next step.
        """
        try:
            self._admit()
            if self._running:
                self._advance()
        except BaseException as error:  # an interrupt, too, may come between two halves of a change
            unfinished = self._start_anew()
            if not is_out_of_memory(error):
                raise
            self._retreat(unfinished)
        if not self._running and not self._waiting:
            self._room = None
        reported, self._finished = self._finished, []
        return reported

    def _admit(self) -> None:
        most = min(self.settings.max_rows, self._room or self.settings.max_rows)
        budget = self.settings.max_tokens
        if budget is not None:
            budget -= sum(running.request.size for running in self._running.values())
        requests = self._waiting.first(most - len(self._running), budget)
        if not requests:
            return
        taken = {running.slot for running in self._running.values()}
        slots = list(islice((slot for slot in count(1) if slot not in taken), len(requests)))
        new = [Running(request, slot) for request, slot in zip(requests, slots, strict=True)]
        self._running.update((running.request.id, running) for running in new)
        for request in requests:  # only now: whatever interrupts this, a row is in one place at least
            self._waiting.drop(request.id)
        self._reserve(requests, most)
        assert self._state is not None
        self._state.admit(slots, requests, self.denoiser.mask_id)

    def _reserve(self, requests: Sequence[Request], most: int) -> None:
        """Have room for new rows, up to `most` together; those that run stay as they are."""
        settings = self.settings
        last = max(running.slot for running in self._running.values())
        most = min(most, max(FEW, 1 << (last - 1).bit_length()))
        is_idle = len(self._running) == len(requests)  # nobody needs what the cache holds
        waiting = self._waiting.all() if self._room is None else []  # short of memory, for these alone
        needed = room_for([*requests, *waiting])[0] if self._cache and is_idle else 0
        if self._cache and needed and self._cache.width >= WASTE * needed:
            self._state = self._cache = self._runner = None
        state = self._state
        if state is None or not state.holds(most, *room_for(requests)):
            width, length = room_for([*requests, *waiting])
            width = -(-width // 64) * 64
            if state is None:
                state = State.empty(most, width, length, self.denoiser.device)
            else:
                state = state.grown(most, width, length)
            if settings.cache != "none" and (self._cache is None or is_idle):
                self._cache = KeyValueCache(self.graphs)
            runner = Runner(self.denoiser, self.planner, state, self._cache, settings.max_logits)
            self._runner = GraphedRunner(runner) if self.graphs else runner
            self._state = state
            self._batches.clear()
        is_new = self._cache is not None and self._cache.reserve(last + 1, most + 1, state.width)
        if isinstance(self._runner, GraphedRunner):
            if is_new:
                self._runner.forget()
            if is_idle:
                self._runner.forget_what_changed()
                if self._cache is not None and self._runner.fixed != self._cached_for:
                    self._cache.layers.clear()  # they may get another dtype
                    self._runner.forget()
                self._cached_for = self._runner.fixed

    def _advance(self) -> None:
        """One step of every running row: rows that must be seen whole together, windows together."""
        state, runner, settings = self._state, self._runner, self.settings
        assert state is not None
        assert runner is not None
        running = list(self._running.values())
        sees = self.sight == "confidence"
        kept = [each for each in running if sees and each.request.record_log_probs]
        recorded = {each.slot: each.request.length for each in kept}
        left = max(each.request.length - each.first_masked for each in running)  # a step fixes a position
        num_steps = 1 if recorded else min(settings.steps_per_sync, left)
        whole = [each for each in running if each.needs_whole]
        cached = [each for each in running if not each.needs_whole]
        for group in (whole, cached):
            if group:
                batch = self._batch(group)
                for _ in range(num_steps):
                    runner.step(batch)
                self.calls["window" if batch.shape.is_window else "whole"] += num_steps
        done = []
        for each, status in zip(running, state.look([each.slot for each in running], recorded), strict=True):
            each.advance(status, self._cache is not None, settings.refresh_every)
            if status in FAILURES:
                if self._cache is not None:
                    self._cache.clear(each.slot)
                self._release([each], [Finished(each.request.id, None, FAILURES[status])])
            elif status == DONE:
                done.append(each)
        if done:
            self._harvest(done)

    def _batch(self, group: Sequence[Running]) -> Batch:
        """Indices of a group; made again only when the group has changed."""
        group = sorted(group, key=lambda running: running.slot)
        requests = [running.request for running in group]
        slots = [running.slot for running in group]
        is_window, is_dual = not group[0].needs_whole, self.settings.cache == "dual"
        shift = int(getattr(self.denoiser.config, "shift", False))
        columns = max(running.window(is_dual) for running in group) + shift if is_window else 0
        key = (is_window, columns, tuple(request.id for request in requests))
        if key not in self._batches:
            self._batches = {old: batch for old, batch in self._batches.items() if old[0] != is_window}
            assert self._state is not None
            device, width, fixed = self.denoiser.device, self._state.width, self.graphs
            if is_window:
                made = windows(slots, requests, columns, device, width, fixed, is_dual)
            else:
                made = whole_rows(slots, requests, device, width, fixed)
            self._batches[key] = made
        return self._batches[key]

    def _harvest(self, done: Sequence[Running]) -> None:
        assert self._state is not None
        state, cache, mask_id = self._state, self.settings.cache, self.denoiser.mask_id
        rows = [state.harvest(each.slot, each.request, mask_id, cache, each.seen_whole) for each in done]
        reports = [Finished(each.request.id, row) for each, row in zip(done, rows, strict=True)]
        self._release(done, reports)
        if self._room is not None:
            self._since_retreat += len(done)
            if self._since_retreat >= PATIENCE * self._room:
                self._room, self._since_retreat = 2 * self._room, 0

    def _release(self, gone: Sequence[Running], reports: Sequence[Finished]) -> None:
        """Free the slots of rows, and then report them: once, whatever is raised on the way."""
        if self._state is not None:
            self._state.free([running.slot for running in gone])
        for running in gone:
            del self._running[running.request.id]
        self._finished += reports

    def _start_anew(self) -> list[Request]:
        """Forget the device's half; rows that ran wait again.

        They lose nothing but time: what a row draws depends on the row and its step alone.
        """
        requests = [running.request for running in self._running.values()]
        self._state = self._cache = self._runner = None
        self._running.clear()
        self._batches.clear()
        self._waiting.put_back(requests)
        return requests

    def _retreat(self, requests: Sequence[Request]) -> None:
        """Out of memory: half as many rows from now on. A row that fails alone twice is reported."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._room, self._since_retreat = max(1, len(requests) // 2), 0
        if len(requests) != 1:
            return
        (request,) = requests
        if request.id in self._tried_alone:
            self._waiting.drop(request.id)
            self._finished.append(Finished(request.id, None, "out of memory, alone in its step"))
            self._room = None
        self._tried_alone ^= {request.id}
