"""Runs one program in a confined process and sends its answers.

Nothing here guards anything: the program shares this interpreter and may change all of it.
"""

import json
import os
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from unmask.sandbox import _values

ANSWER_FD = 3
MAX_ANSWER_BYTES = 1 << 20
_FILE_NAME = "<program>"
_MAX_ERROR_CHARS = 2000


def run_program(request: dict[str, Any]) -> NoReturn:
    """Answer every call or say why not, one line each, then end the process.

    A line is the job's token, a space and `{"value": ...}`, `{"error": text}`, `{"memory": text}`,
    `{"exit": text}` or `{"done": true}`.
    """
    leave, write, dumps = os._exit, os.write, json.dumps
    streams = (sys.stdout, sys.stderr)
    out_of_memory = f'{request["token"]} {{"memory": "MemoryError"}}\n'.encode()

    def send(kind: str, content: object) -> None:
        line = f"{request['token']} {dumps({kind: content}, allow_nan=False)}\n".encode()
        if len(line) > MAX_ANSWER_BYTES:
            raise ValueError(f"a result is larger than {MAX_ANSWER_BYTES} bytes")
        view = memoryview(line)
        while view:
            view = view[write(ANSWER_FD, view) :]

    finished = False
    try:
        try:
            finished = _answer(request, send)
        except MemoryError:
            write(ANSWER_FD, out_of_memory)
        except SystemExit as stop:
            send("exit", _describe(stop))
        except BaseException as error:
            send("error", _describe(error))
        for stream in streams:
            with suppress(OSError, ValueError):  # the program may have closed it
                stream.flush()
        if finished:
            send("done", True)
    finally:
        leave(0)


def _answer(request: dict[str, Any], send: Callable[[str, object], None]) -> bool:
    """False if a result was not JSON, which has then been sent as the error."""
    loads, why_not_json = json.loads, _values.why_not_json
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    exec(compile(request["source"], _FILE_NAME, "exec"), module.__dict__)
    name = request["function"]
    if name not in module.__dict__:
        send("error", f"the program defines no function {name!r}")
        return False
    for index, call in enumerate(request["calls"]):
        value = module.__dict__[name](*loads(call))
        why = why_not_json(value, MAX_ANSWER_BYTES)
        if why:
            send("error", f"the result of call {index} is not JSON: {why}")
            return False
        send("value", value)
    return True


def _describe(error: BaseException) -> str:
    """The exception as its type, message and the last line of the program it passed through."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == _FILE_NAME:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    try:
        message = str(error)[:_MAX_ERROR_CHARS]
    except BaseException as second:
        message = f"its message raised {type(second).__name__}"
    place = "" if line is None else f" (line {line})"
    return f"{type(error).__name__}: {message}{place}"
