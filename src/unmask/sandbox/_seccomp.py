"""A seccomp filter, written in classic BPF. Allows what it does not name; see `_syscalls`."""

import ctypes
import errno
import os
import struct

from unmask.sandbox import _syscalls

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45

_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000

_CLONE_THREAD = 0x00010000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _FILTER_MODE = 1, 22, 2
_STREAM_SOCKET, _SOCKET_TYPE_BITS = 1, 0xF
_CREATING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Terminal questions, the close-on-exec and non-blocking flags, bytes waiting.
_HARMLESS_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_SETOWN, F_SETSIG and F_SETOWN_EX aim signals at others; F_SETLEASE and F_NOTIFY hold files up.
_FCNTLS_ABOUT_OTHERS = (8, 10, 15, 1024, 1026)

_Code = list[tuple[int, int, int, int]]
"""Instructions as (operation, skip if true, skip if false, operand)."""

_libc = ctypes.CDLL(None, use_errno=True)


def install_filter(machine: str, pid: int, landlock_abi: int) -> None:
    """Confine this thread, whose process is `pid`, for good. Needs no_new_privs set before."""
    code = filter_code(machine, pid, landlock_abi)
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, program, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def filter_code(machine: str, pid: int, landlock_abi: int) -> _Code:
    """`landlock_abi` 0: the filter also denies every creation, removal and opening to write."""
    refuse = _FAIL | errno.EPERM
    absent = _FAIL | errno.ENOSYS
    code: _Code = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, MACHINES[machine])]
    code += [(_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, refuse)]
    code += [(_IF_AT_LEAST, 0, 1, _syscalls.FIRST_UNKNOWN), (_RETURN, 0, 0, absent)]
    for name, number in _syscalls.by_argument(machine).items():
        body = _argument_code(name, pid, landlock_abi)
        code += [(_IF_EQUAL, 0, len(body), number), *body]
    for number in _syscalls.unreadable(machine):
        code += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, absent)]
    numbers = _syscalls.denied(machine)
    if landlock_abi == 0:
        numbers += _syscalls.file_changes(machine)
    elif landlock_abi < 3:
        numbers.append(_syscalls.truncate(machine))
    for number in numbers:
        code += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _argument_code(name: str, pid: int, landlock_abi: int) -> _Code:
    """Code that ends in allow or refuse on every path."""
    if name == "clone":
        return [_argument(0), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD), *_allow_else_refuse()]
    if name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        return _only(0, (pid,))
    if name == "prlimit64":  # reading a limit passes no new one: both halves of the pointer are 0
        high = (_LOAD, 0, 0, _ARGUMENTS + 2 * 8 + 4)
        both_zero = [(_IF_EQUAL, 0, 3, 0), high, (_IF_EQUAL, 0, 1, 0)]
        return [_argument(2), *both_zero, *_allow_else_refuse()]
    if name == "prctl":
        return _all_but(0, (_PR_SET_PDEATHSIG,))
    if name == "ioctl":
        return _only(1, _HARMLESS_IOCTLS)
    if name == "fcntl":
        return _all_but(1, _FCNTLS_ABOUT_OTHERS)
    if name == "socketpair":  # a datagram pair could be sent from to any named socket
        kind = (_AND, 0, 0, _SOCKET_TYPE_BITS)
        return [_argument(1), kind, (_IF_EQUAL, 0, 1, _STREAM_SOCKET), *_allow_else_refuse()]
    flags = _argument(1 if name == "open" else 2)
    if landlock_abi == 0:
        return [flags, (_IF_ANY_BIT, 1, 0, _CREATING), *_allow_else_refuse()]
    if landlock_abi < 3:  # such a Landlock does not see a truncation through a read-only opening
        writing = [(_IF_EQUAL, 1, 0, os.O_WRONLY), (_IF_EQUAL, 0, 1, os.O_RDWR)]
        untruncated = (_IF_ANY_BIT, 0, 3, os.O_TRUNC)
        return [flags, untruncated, (_AND, 0, 0, 3), *writing, *_allow_else_refuse()]
    return [(_RETURN, 0, 0, _ALLOW)]


def _argument(index: int) -> tuple[int, int, int, int]:
    """Load the low half of an argument; both machines are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _allow_else_refuse() -> _Code:
    return [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL | errno.EPERM)]


def _only(index: int, values: tuple[int, ...]) -> _Code:
    tests = [(_IF_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, *reversed(_allow_else_refuse())]


def _all_but(index: int, values: tuple[int, ...]) -> _Code:
    tests = [(_IF_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, *_allow_else_refuse()]
