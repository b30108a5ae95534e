"""The server: a single-threaded process that forks a confined child for every job.

Loads nothing but the standard library. It speaks length-prefixed JSON: a
configuration comes first and is answered with the mechanisms found, then each job with a reply.
It never decodes what a program wrote.
"""

import bisect  # noqa: F401  (these modules are loaded once here, not by every program)
import collections  # noqa: F401
import copy  # noqa: F401
import dataclasses
import datetime  # noqa: F401
import decimal  # noqa: F401
import fcntl
import fractions  # noqa: F401
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import operator  # noqa: F401
import os
import random  # noqa: F401
import re  # noqa: F401
import select
import signal
import statistics  # noqa: F401
import string  # noqa: F401
import sys
import time
import typing  # noqa: F401
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from unmask.sandbox import _confine, _program, _scratch

_HIGH_FD = 100  # descriptors from here on stay clear of those a child arranges below
_FIRST_UNNEEDED_FD = _program.ANSWER_FD + 1
_CLEANUP_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Server:
    """What stays the same from job to job."""

    pid: int
    root: str
    wall_seconds: float
    output_bytes: int
    rlimits: dict[str, int]
    mechanisms: _confine.Mechanisms


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What came out of a child, and what ended the watch: `closed`, `wall` or `overflow`."""

    end: str
    answer: bytes
    output: bytes


def main() -> None:
    receive, send = _detach_standard_streams()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    _confine.die_with_parent(signal.SIGTERM)
    _confine.adopt_orphans()
    server = _configure(_read_message(receive))
    _write_message(send, dataclasses.asdict(server.mechanisms))
    gc.collect()
    gc.freeze()
    try:
        while (request := _read_request(receive)) is not None:
            _write_message(send, _run_job(server, request))
    except (EOFError, BrokenPipeError, SystemExit):  # the caller was killed and cannot clean up
        with suppress(OSError):  # another server may still have a folder there
            os.rmdir(server.root)


def _detach_standard_streams() -> tuple[int, int]:
    """Move the conversation to high descriptors; what is printed or read here goes nowhere."""
    receive = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    send = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=False)  # type: ignore[union-attr]
    return receive, send


def _configure(config: dict[str, Any]) -> _Server:
    limits = config["limits"]
    rlimits = _confine.rlimits_for(
        limits["cpu_seconds"], limits["memory_mb"], limits["file_mb"], limits["num_files"]
    )
    mechanisms = _confine.find_mechanisms(config["mechanisms"], rlimits)
    output_bytes = limits["output_kb"] << 10
    return _Server(os.getpid(), config["root"], limits["wall_seconds"], output_bytes, rlimits, mechanisms)


def _run_job(server: _Server, request: dict[str, Any]) -> dict[str, Any]:
    scratch = os.path.join(server.root, os.urandom(8).hex())
    answer_receive, answer_send = os.pipe()
    output_receive, output_send = os.pipe()
    os.mkdir(scratch, 0o700)
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become_program(server, request, scratch, answer_send, output_send)
    try:
        os.close(answer_send)
        os.close(output_send)
        with _stoppable():
            seen = _watch(answer_receive, output_receive, start + server.wall_seconds, server)
    finally:
        status, cpu_seconds = _end(pid)
        seconds = time.monotonic() - start
        os.close(answer_receive)
        os.close(output_receive)
        _scratch.remove_tree(scratch)
    return {
        "end": seen.end,
        "answer": seen.answer.decode("ascii", "backslashreplace"),
        "output": seen.output.decode("utf-8", "replace"),
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_seconds": cpu_seconds,
        "seconds": seconds,
    }


def _become_program(
    server: _Server, request: dict[str, Any], scratch: str, answer: int, output: int
) -> NoReturn:
    leave = os._exit
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        answer = fcntl.fcntl(answer, fcntl.F_DUPFD, _HIGH_FD)
        output = fcntl.fcntl(output, fcntl.F_DUPFD, _HIGH_FD)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(answer, _program.ANSWER_FD)
        os.closerange(_FIRST_UNNEEDED_FD, 2 * _HIGH_FD)
        _confine.confine(scratch, server.mechanisms, server.rlimits)
        if os.getppid() != server.pid:  # it ended before its end could be noticed
            leave(70)
        _program.run_program(request)
    except BaseException as error:
        os.write(2, f"the process could not be confined: {error}\n".encode())
    finally:
        leave(70)


def _watch(answer_fd: int, output_fd: int, deadline: float, server: _Server) -> _Seen:
    """Read both pipes until both are closed, too much is answered, or the time is up."""
    answer, output = bytearray(), bytearray()
    poll = select.poll()
    num_open = 2
    for fd in (answer_fd, output_fd):
        poll.register(fd, select.POLLIN)
    end = "closed"
    while num_open and end == "closed":
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            end = "wall"
            break
        for fd, _ in poll.poll(remaining * 1000):
            data = os.read(fd, 1 << 16)
            if not data:
                poll.unregister(fd)
                num_open -= 1
            elif fd == output_fd:
                output += data[: server.output_bytes - len(output)]
            else:
                answer += data
        if len(answer) > _program.MAX_ANSWER_BYTES:
            end = "overflow"
    return _Seen(end, bytes(answer[: _program.MAX_ANSWER_BYTES]), bytes(output))


def _end(pid: int) -> tuple[int, float]:
    """Kill and reap the child, its group and whatever escaped the group; its status and CPU time.

    A child that is already on its way out keeps the exit status it chose.
    """
    for kill in (os.kill, os.killpg):
        with suppress(ProcessLookupError, PermissionError):  # no group yet, or only its corpse
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    deadline = time.monotonic() + _CLEANUP_SECONDS
    while time.monotonic() < deadline:
        try:
            orphan, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, usage.ru_utime + usage.ru_stime
        if orphan == 0:
            for child in _children():
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
    raise RuntimeError(f"descendants of {pid} multiply faster than they can be killed")


def _children() -> list[int]:
    """Children of this process; only Linux gives it any but those it forked itself."""
    children = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as stat:
                parent = stat.read().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid():
                    children.append(int(name))
    return children


@contextmanager
def _stoppable() -> Iterator[None]:
    """Only in here does SIGTERM end the server; elsewhere it waits."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _read_request(fd: int) -> Any:
    """The next job, or None if the caller takes its leave."""
    with _stoppable():
        return _read_message(fd)


def _read_message(fd: int) -> Any:
    size = int.from_bytes(_read(fd, 4), "big")
    return json.loads(_read(fd, size))


def _read(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the caller closed its end of the pipe")
        parts += part
    return bytes(parts)


def _write_message(fd: int, message: object) -> None:
    body = json.dumps(message).encode()
    view = memoryview(len(body).to_bytes(4, "big") + body)
    while view:
        view = view[os.write(fd, view) :]
