"""The records a caller hands to the sandbox and gets back."""

import json
from dataclasses import dataclass, fields
from typing import Literal

from unmask.sandbox._values import why_not_json

Status = Literal["ok", "failed", "error", "timeout", "memory", "crashed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. The clock of `wall_seconds` starts when its process does.

    Raises:
        ValueError: for a limit that is not positive, or fewer than 8 files.
    """

    wall_seconds: float = 2.0
    cpu_seconds: int = 2
    memory_mb: int = 512
    """Address space, the interpreter's own 30 MB or so included."""
    file_mb: int = 1
    """Size of any one file."""
    num_files: int = 32
    """Files open at the same time, the few the sandbox itself uses included."""
    output_kb: int = 64
    """Printed text that is kept; the rest is read and dropped."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} is {value}; use a positive number")
        if self.num_files < 8:
            raise ValueError(f"num_files is {self.num_files}; use at least 8, imports need them")


@dataclass(frozen=True, slots=True)
class Job:
    """Call `function` of the program `source` once per argument tuple, in one process.

    Raises:
        ValueError: for arguments that are not JSON.
    """

    source: str
    function: str
    calls: tuple[tuple[object, ...], ...]

    def __post_init__(self) -> None:
        for index, call in enumerate(self.calls):
            why = why_not_json(call)
            if why:
                raise ValueError(f"the arguments of call {index} are not JSON: {why}")

    def messages(self, token: str) -> list[bytes]:
        """What a server is sent. Each call is its own text, decoded anew per call."""
        calls = [json.dumps(call, allow_nan=False) for call in self.calls]
        return [_message("calls", token, source=self.source, function=self.function, calls=calls)]


@dataclass(frozen=True, slots=True)
class Script:
    """Run `source` as a main program that reads `stdin`; `ok` if it ends with exit code 0.

    Only stdout is kept; the caller compares it.
    """

    source: str
    stdin: str = ""

    def messages(self, token: str) -> list[bytes]:
        return [_message("script", token, source=self.source, stdin=self.stdin)]


@dataclass(frozen=True, slots=True)
class Check:
    """Run `tests`, Python code that you trust, on the program `source`, each in a process of its own.

    Every name in `names` stands in the tests for what the program binds to it. A call of it crosses to the
    program's process with plain arguments and comes back with a plain value; neither the tests nor what
    they expect are ever in that process, and no object of the program's is in theirs.
    """

    source: str
    tests: str
    names: tuple[str, ...]
    setup: str = ""
    """Code that the tests need, run before the names are bound."""

    def messages(self, token: str) -> list[bytes]:
        """The tests come apart: the server hands them on unread."""
        apart = {"setup": self.setup, "tests": self.tests, "names": self.names}
        program = _message("check", token, source=self.source, names=self.names)
        return [program, json.dumps(apart).encode()]


AnyJob = Job | Script | Check


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended."""

    status: Status
    """`ok`: every call answered, every test held, the script ended well. `failed`: a test did not hold.
    `error`: the program raised, or answered with something that is not JSON. `timeout`: wall or CPU time
    ran out. `memory`: MemoryError. `crashed`: the process ended, or spoiled its result channel, before
    every call was answered."""
    values: tuple[object, ...]
    """What the calls of a `Job` returned, in order. Unless `ok`, only those answered before the end."""
    error: str
    """Empty when `ok`."""
    seconds: float
    """Wall time of the process, from its start until it was gone."""
    stdout: str
    """What was printed, capped by `Limits.output_kb`; to stderr too, but for a `Script`."""
    cpu_seconds: float = 0.0
    """User and system time of the program."""
    memory_mb: float = 0.0
    """The most memory the program had resident at a time, the interpreter's own included."""


def _message(kind: str, token: str, **content: object) -> bytes:
    return json.dumps({"kind": kind, "token": token, **content}).encode()
