"""What a finished job amounts to, from what its processes left behind."""

import json
import signal
from typing import Any

from unmask.sandbox.jobs import AnyJob, Check, Job, Limits, Outcome, Script, Status

Message = tuple[str, object]

_REPORTS: dict[str, tuple[Status, str]] = {
    "failed": ("failed", "{content}"),
    "error": ("error", "{content}"),
    "memory": ("memory", "it needed more than {memory_mb} MB"),
    "exit": ("crashed", "it exited before every call was answered: {content}"),
}


def judge(reply: dict[str, Any], token: str, job: AnyJob, limits: Limits) -> Outcome:
    """The answer is whatever the program chose to write; of a check it is what its tests wrote."""
    messages = _messages(reply["answer"], token)
    values = tuple(content for kind, content in messages or () if kind == "value")
    status, error = _status(reply, messages, values, job, limits)
    used = reply["program"]
    stdout, seconds = reply["output"], reply["seconds"]
    return Outcome(status, values, error, seconds, stdout, used["cpu_seconds"], used["memory_mb"])


def _status(
    reply: dict[str, Any],
    messages: list[Message] | None,
    values: tuple[object, ...],
    job: AnyJob,
    limits: Limits,
) -> tuple[Status, str]:
    last, content = messages[-1] if messages else ("nothing", "")
    if isinstance(job, Check) and last == "done":
        return "ok", ""
    if reply["end"] == "wall":
        return "timeout", f"it ran longer than {limits.wall_seconds} s"
    for end in (reply["program"], reply["tests"]):
        if _used_up_cpu(end, limits):
            return "timeout", f"it used {limits.cpu_seconds} s of CPU time"
    if reply["end"] == "overflow":
        return "error", "its results are larger than the sandbox accepts"
    if messages is None or last == "spoiled":
        return "crashed", "it wrote into the channel its results are sent through"
    if last in _REPORTS:
        status, text = _REPORTS[last]
        return status, text.format(content=content, memory_mb=limits.memory_mb)
    if isinstance(job, Script) and reply["output_bytes"] > limits.output_kb << 10:
        return "error", f"it printed more than {limits.output_kb} KB"
    return _ended(reply["program"]["exit_code"], last, values, job)


def _used_up_cpu(end: dict[str, Any], limits: Limits) -> bool:
    """The kernel counts in ticks what it enforces, and exactly what it reports: less, on a busy machine."""
    if end["exit_code"] == -signal.SIGXCPU:
        return True
    return bool(end["exit_code"] == -signal.SIGKILL and end["cpu_seconds"] > 0.5 * limits.cpu_seconds)


def _ended(code: int, last: str, values: tuple[object, ...], job: AnyJob) -> tuple[Status, str]:
    """The verdict on a process of its own accord: it should have answered everything before."""
    if isinstance(job, Script) and code == 0:
        return "ok", ""
    if isinstance(job, Job) and last == "done" and len(values) == len(job.calls):
        return "ok", ""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return "crashed", f"its process ended before every call was answered: {how}"


def _messages(answer: str, token: str) -> list[Message] | None:
    """What the lines say, None if one is not a message that bears the token."""
    messages: list[Message] = []
    for line in answer.splitlines():
        if not line.startswith(f"{token} "):
            return None
        try:
            message = json.loads(line[len(token) + 1 :], parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
        if not isinstance(message, dict) or len(message) != 1:
            return None
        messages.extend(message.items())
    return messages


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
