"""The records a caller hands to the sandbox and gets back."""

import json
from dataclasses import dataclass, fields
from typing import Literal

from unmask.sandbox._values import why_not_json

Status = Literal["ok", "error", "timeout", "memory", "crashed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. The clock of `wall_seconds` starts when its process does."""

    wall_seconds: float = 2.0
    cpu_seconds: int = 2
    memory_mb: int = 512
    """Address space, the interpreter's own 30 MB or so included."""
    file_mb: int = 1
    """Size of any one file."""
    num_files: int = 32
    """Files open at the same time, the four the sandbox itself uses included."""
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
    """Call `function` of the program `source` once per argument tuple, in one process."""

    source: str
    function: str
    calls: tuple[tuple[object, ...], ...]

    def __post_init__(self) -> None:
        for index, call in enumerate(self.calls):
            why = why_not_json(call)
            if why:
                raise ValueError(f"the arguments of call {index} are not JSON: {why}")

    def request(self, token: str) -> bytes:
        """The message a server understands. Each call is its own text, decoded anew per call."""
        calls = [json.dumps(call, allow_nan=False) for call in self.calls]
        message = {"source": self.source, "function": self.function, "calls": calls, "token": token}
        return json.dumps(message).encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended."""

    status: Status
    """`ok`: every call answered. `error`: the program raised, or answered with something that is
    not JSON. `timeout`: wall or CPU time ran out. `memory`: MemoryError. `crashed`: the process
    ended, or spoiled its result channel, before every call was answered."""
    values: tuple[object, ...]
    """What the calls returned, in order. Unless `ok`, only those answered before the end."""
    error: str
    """Empty when `ok`."""
    seconds: float
    """Wall time of the process, from its start until it was gone."""
    stdout: str
    """What was printed to stdout and stderr together, capped by `Limits.output_kb`."""
