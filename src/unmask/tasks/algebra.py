"""Whether two answers are the same by algebra (math-verify), in processes that can be ended.

Computer algebra may take for ever, or all memory. A pair gets a limited time of computing, which does not
depend on what else the machine does; a process that goes on is killed.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, cast

Verdict = Literal["same", "different", "too long"]
_PROGRAM = Path(__file__).with_name("_algebra_worker.py")
_NUM_KEPT = 100_000
_MEGABYTES = 4096
_START_SECONDS = 120.0
"""For the libraries to load, on a machine that does much else."""


class Algebra:
    """A few processes, started when needed, which end with this object."""

    def __init__(self, workers: int, cpu_seconds: float = 2.0) -> None:
        self._cpu_seconds = cpu_seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="algebra")
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)
        self._running: list[_Worker] = []
        self._known: dict[tuple[str, str], Verdict] = {}
        self.close = weakref.finalize(self, _end_all, self._running)
        """Ends the processes; runs by itself with the last reference, or at exit."""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """For each (gold, answer), both LaTeX or text in which an answer is to be found.

        Verdicts are kept, because training asks for the same pairs again and again.
        """
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        found = dict(zip(new, self._threads.map(self._verdict, new), strict=True))
        verdicts = [found.get(pair) or self._known[pair] for pair in pairs]
        self._known.update(found)
        for pair in list(self._known)[: max(0, len(self._known) - _NUM_KEPT)]:
            del self._known[pair]
        return verdicts

    def _verdict(self, pair: tuple[str, str]) -> Verdict:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = _Worker(self._cpu_seconds)
                self._running.append(worker)
            verdict = worker.ask(pair)
            if not worker.is_alive():
                self._running.remove(worker)
                worker = None
            return verdict
        finally:
            self._idle.put(worker)


class _Worker:
    def __init__(self, cpu_seconds: float) -> None:
        # -P: the folder of the program, whose modules have names of the standard library, stays off the path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), str(cpu_seconds), str(_MEGABYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.wall_seconds = 10 * cpu_seconds + 5
        """For an answer, whatever else the machine does; the first has the libraries to load besides."""
        self._extra = _START_SECONDS

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, pair: tuple[str, str]) -> Verdict:
        """Ends the process when it does not answer in time."""
        said = self._exchange(json.dumps(pair))
        self._extra = 0.0
        if not said:
            self.end()
            return "too long"
        return cast(Verdict, said) if said in ("same", "too long") else "different"

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([self._process.stdout], [], [], self.wall_seconds + self._extra)
        return self._process.stdout.readline().decode().strip() if ready else ""

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


@cache
def algebra() -> Algebra:
    """The one that the graders share."""
    return Algebra(max(2, min(16, (os.cpu_count() or 2) // 2)))
