"""A bounded pool of servers, each with a thread of the caller's process that talks to it."""

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeAlias

from unmask.sandbox import _framing
from unmask.sandbox._scratch import remove_tree
from unmask.sandbox._verdict import judge
from unmask.sandbox.jobs import AnyJob, Limits, Outcome

MECHANISMS = ("landlock", "seccomp")
_SERVER = Path(__file__).with_name("_start.py")
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the same program iterates its sets in the same order
_GOODBYE = b"null"
_DEFAULT = Limits()
_SECONDS_TO_START = 30.0
_SECONDS_TO_CLEAN_UP = 30.0

Queue: TypeAlias = "SimpleQueue[tuple[AnyJob, Future[Outcome]] | None]"


class Sandbox:
    """Runs jobs on `workers` servers; each job gets a process and a folder of its own.

    `run` may be called from any thread. Close it, or use it as a context manager; a sandbox that
    was forgotten closes when it is collected or the interpreter ends.
    """

    def __init__(self, workers: int = 2, limits: Limits = _DEFAULT, packages: tuple[str, ...] = ()) -> None:
        """Programs import the standard library and those of `packages` that are installed.

        Raises:
            ValueError: for fewer than 1 worker.
        """
        if workers < 1:
            raise ValueError(f"workers is {workers}; use at least 1")
        self._jobs: Queue = SimpleQueue()
        root = tempfile.mkdtemp(prefix="unmask-sandbox-")
        arguments = (self._jobs, limits, root, packages)
        threads = [
            threading.Thread(target=_serve, args=arguments, daemon=True, name=f"sandbox-{index}")
            for index in range(workers)
        ]
        for thread in threads:
            thread.start()
        self._shut_down = weakref.finalize(self, _shut_down, self._jobs, threads, root)

    def run(self, job: AnyJob) -> Outcome:
        """How the job ended.

        Raises:
            ValueError: after `close`.
            RuntimeError: where a server cannot start.
        """
        return self._submit(job).result()

    def run_all(self, jobs: Iterable[AnyJob]) -> list[Outcome]:
        """The outcomes in the order of the jobs, which run in parallel; raises what `run` does."""
        futures = [self._submit(job) for job in jobs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Finish what was submitted, then end every process and remove every folder."""
        self._shut_down()

    def _submit(self, job: AnyJob) -> Future[Outcome]:
        if not self._shut_down.alive:
            raise ValueError("the sandbox is closed; make a new one")
        future: Future[Outcome] = Future()
        self._jobs.put((job, future))
        return future

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _serve(jobs: Queue, limits: Limits, root: str, packages: tuple[str, ...]) -> None:
    """A thread: it starts its server itself, for the server dies with the thread that did."""
    worker: Worker | None = None
    while (item := jobs.get()) is not None:
        job, future = item
        try:
            if worker is not None and not worker.is_alive:
                worker.close()
                worker = None
            if worker is None:
                worker = Worker(limits, root, packages=packages)
            future.set_result(worker.run(job))
        except Exception as error:  # the caller of `run` gets it
            future.set_exception(error)
            if worker is not None:
                worker.close()
                worker = None
    if worker is not None:
        worker.close()


def _shut_down(jobs: Queue, threads: list[threading.Thread], root: str) -> None:
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()
    remove_tree(root)


class Worker:
    """One server process and the conversation with it. For one thread only."""

    def __init__(
        self,
        limits: Limits,
        root: str,
        mechanisms: tuple[str, ...] = MECHANISMS,
        packages: tuple[str, ...] = (),
    ) -> None:
        """Leaving a name out of `mechanisms` shows what holds without it."""
        self._limits = limits
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            env=_ENVIRONMENT,
            bufsize=0,
            start_new_session=True,  # an interrupt typed at the terminal is not meant for it
        )
        config = {"limits": asdict(limits), "root": root, "mechanisms": mechanisms, **_folders(packages)}
        found = self._ask([json.dumps(config).encode()], _SECONDS_TO_START)
        if found is None:
            self.close()
            raise RuntimeError(f"{sys.executable} could not run {_SERVER}; its message is on stderr")
        self.found: dict[str, Any] = found

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: AnyJob) -> Outcome:
        token = os.urandom(8).hex()
        start = time.monotonic()
        patience = self._limits.wall_seconds + _SECONDS_TO_CLEAN_UP
        reply = self._ask(job.messages(token), patience)
        if reply is None:
            self._process.kill()
            self._process.wait()
            seconds = time.monotonic() - start
            return Outcome("crashed", (), "the sandbox server ended", seconds, "")
        return judge(reply, token, job, self._limits)

    def close(self) -> None:
        """End the server, which cleans up behind the job it may be at."""
        with suppress(BrokenPipeError):  # it has ended already
            self._send(_GOODBYE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, messages: list[bytes], patience: float) -> dict[str, Any] | None:
        """The reply; None if the server ended, or was still silent after `patience` seconds."""
        assert self._process.stdout is not None
        try:
            for message in messages:
                self._send(message)
        except BrokenPipeError:
            return None
        deadline = time.monotonic() + patience
        fd = self._process.stdout.fileno()
        header = _read(fd, 4, deadline)
        body = _read(fd, int.from_bytes(header, "big"), deadline) if header else None
        reply: dict[str, Any] | None = json.loads(body) if body else None
        return reply

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        _framing.write(self._process.stdin.fileno(), message)


def _read(fd: int, size: int, deadline: float) -> bytes | None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    parts = bytearray()
    while len(parts) < size:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        part = os.read(fd, min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _folders(packages: tuple[str, ...]) -> dict[str, list[str]]:
    """Where the packages lie, with the libraries that wheels bring beside them, and what to import from."""
    found = [spec for name in packages if (spec := importlib.util.find_spec(name)) is not None]
    folders = [Path(folder) for spec in found for folder in spec.submodule_search_locations or ()]
    libraries = [folder.with_name(f"{folder.name}.libs") for folder in folders]
    parents = dict.fromkeys(str(folder.parent) for folder in folders)
    return {"packages": [str(folder) for folder in (*folders, *libraries)], "import_from": list(parents)}
