"""Each test attacks one promise of docs/sandbox.md."""

import os
import sys

import pytest

from unmask.sandbox import Job, Limits, Sandbox, enforcement
from unmask.sandbox.pool import Worker


def test_an_endless_loop_is_killed_with_its_children(run):
    outcome = run("import time\ndef f():\n    while True: time.sleep(0.01)")
    assert (outcome.status, outcome.values) == ("timeout", ())
    assert 1.0 <= outcome.seconds < 2.0


def test_a_program_that_stops_itself_is_killed(run):
    source = "import os, signal\ndef f():\n    os.kill(os.getpid(), signal.SIGSTOP)"
    assert run(source).status == "timeout"


def test_cpu_time_is_limited_whatever_handler_is_set(needs):
    needs("cpu_time")
    source = "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\n"
    source += "def f():\n    while True: pass"
    with Sandbox(workers=1, limits=Limits(wall_seconds=8.0, cpu_seconds=1)) as sandbox:
        outcome = sandbox.run(Job(source, "f", ((),)))
    assert outcome.status == "timeout"
    assert "CPU" in outcome.error
    assert outcome.seconds < 6.0


@pytest.mark.parametrize(
    "body",
    [
        "return len(bytearray(10 << 30))",
        "a = []\n    while True: a.append(bytes(1 << 20))",
        "a = [0]\n    while True: a += a",
    ],
)
def test_memory_is_limited(run, needs, body):
    needs("memory")
    assert run(f"def f():\n    {body}").status == "memory"


def test_a_memory_error_that_the_program_survives_is_no_failure(run, needs):
    needs("memory")
    source = "def f():\n    try: bytearray(10 << 30)\n    except MemoryError: return 'small'"
    assert run(source).values == ("small",)


def denied(run, body: str) -> None:
    """The body must end in an OSError, and the program answer all the same."""
    lines = "".join(f"        {line}\n" for line in body.split("\n"))
    source = "import ctypes, os, socket, subprocess, sys, signal\n"
    source += "libc = ctypes.CDLL(None, use_errno=True)\n"
    source += "def must(result):\n    if result < 0: raise OSError(ctypes.get_errno(), 'denied')\n"
    source += f"def f():\n    try:\n{lines}    except OSError as e: return 'denied'\n    return 'done'"
    outcome = run(source)
    assert (outcome.status, outcome.values) == ("ok", ("denied",)), outcome


@pytest.mark.parametrize(
    "body",
    [
        "while True: os.fork()",
        "subprocess.run(['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "must(libc.vfork())",
        "must(libc.syscall(435, None, 0))",
        "if os.system('true'): raise OSError",
        "import multiprocessing as m\np = m.Process(target=print)\np.start()",
    ],
)
def test_no_process_is_created(run, needs, body):
    needs("processes")
    denied(run, body)


def test_threads_work(run):
    source = "import concurrent.futures as c\ndef f():\n"
    source += "    with c.ThreadPoolExecutor(4) as pool: return sum(pool.map(abs, range(9)))"
    assert run(source).values == (36,)


def test_an_event_loop_works(run):
    source = "import asyncio\nasync def g():\n    await asyncio.sleep(0)\n    return 5\n"
    assert run(f"{source}def f(): return asyncio.run(g())").values == (5,)


def test_open_files_are_limited(run, needs):
    needs("open_files")
    denied(run, "while True: os.dup(0)")


def test_file_size_is_limited(run, needs):
    needs("file_size")
    denied(run, "with open('big', 'wb') as file: file.write(bytes(2 << 20))")


def test_limits_cannot_be_raised(run, needs):
    needs("network")
    body = "import resource as r\ntry: r.setrlimit(r.RLIMIT_NOFILE, (9, 9))\n"
    denied(run, f"{body}except ValueError: raise OSError")


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW"])
def test_there_is_no_network(run, needs, family, kind):
    needs("network")
    denied(run, f"socket.socket(socket.{family}, socket.{kind})")


def test_a_socket_pair_cannot_be_turned_towards_a_named_socket(run, needs):
    needs("network")
    denied(run, "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)")


WRITES = [
    "open(path, 'w')",
    "open(path, 'a')",
    "open(path, 'r+')",
    "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "os.truncate(path, 0)",
    "os.unlink(path)",
    "os.rename(path, path + '2')",
    "os.rename(path, 'mine')",
    "os.link(path, 'mine')",
    "open('mine', 'w').close(); os.rename('mine', path)",
    "os.symlink(path, 'mine'); open('mine', 'w')",
    "os.mkdir(path + '.d')",
    "os.rmdir(os.path.dirname(path) + '/folder')",
    "os.symlink('a', path + '.link')",
    "os.mkfifo(path + '.fifo')",
    "open(path + '.new', 'x')",
    "os.rename('.', '../elsewhere')",
]


@pytest.mark.parametrize("body", WRITES)
def test_nothing_is_written_deleted_or_renamed_outside_the_scratch_folder(run, needs, tmp_path, body):
    needs("writes")
    (tmp_path / "folder").mkdir()
    kept = tmp_path / "kept"
    kept.write_text("kept")
    denied(run, f"path = {str(kept)!r}\n{body}")
    assert kept.read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["folder", "kept"]


@pytest.mark.parametrize(
    "body",
    [
        "os.chmod(path, 0o777)",
        "os.chown(path, 1, 1)",
        "os.utime(path, (0, 0))",
        "os.setxattr(path, 'user.a', b'b')",
        "fd = os.open(path, os.O_RDONLY)\nos.fchmod(fd, 0o777)",
    ],
)
def test_modes_owners_times_and_attributes_stay(run, needs, tmp_path, body):
    needs("metadata")
    if "xattr" in body and sys.platform != "linux":
        pytest.skip("setxattr is Linux's")
    kept = tmp_path / "kept"
    kept.write_text("kept")
    before = kept.stat()
    denied(run, f"path = {str(kept)!r}\n{body}")
    after = kept.stat()
    assert (before.st_mode, before.st_mtime) == (after.st_mode, after.st_mtime)


SCRATCH = """
import os, shutil, tempfile
def f():
    os.makedirs('a/b')
    with open('a/b/c', 'w') as file: file.write('text')
    os.rename('a/b/c', 'a/d')
    with tempfile.NamedTemporaryFile('w') as file: pass
    with open(os.devnull, 'w') as file: file.write('gone')
    shutil.rmtree('a/b')
    return [os.getcwd(), os.listdir('.'), open('a/d').read()]
"""


def test_the_scratch_folder_is_the_current_one_is_writable_and_is_removed(run, needs):
    if enforcement()["writes"] == "seccomp":
        pytest.skip("without landlock nothing at all is writable")
    (first,), (second,) = run(SCRATCH).values, run(SCRATCH).values
    assert first[1:] == second[1:] == [["a"], "text"]
    assert first[0] != second[0]
    assert not os.path.exists(first[0])


@pytest.mark.parametrize(
    "body",
    [
        "for _ in range(3000):\n        os.mkdir('d')\n        os.chdir('d')",
        "for i in range(3000): open(f'{i}', 'w').close()",
        "os.mkdir('locked')\n    open('locked/file', 'w').close()\n    os.mkdir('closed', 0)",
        "os.symlink('/', 'root')\n    os.symlink('root', 'loop')\n    os.mkdir('d')\n"
        "    os.symlink('/', 'd/root')",
    ],
)
def test_a_scratch_folder_is_removed_whatever_is_in_it(tmp_path, body):
    worker = Worker(Limits(wall_seconds=5.0), str(tmp_path))
    outcome = worker.run(Job(f"import os\ndef f():\n    {body}", "f", ((),)))
    assert worker.is_alive
    worker.close()
    if enforcement()["writes"] != "seccomp":
        assert outcome.status == "ok"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getppid(), 0)",
        "os.kill(PARENT, 0)",
        "os.kill(-1, 0)",
        "os.killpg(1, 0)",
        "os.kill(os.getppid(), signal.SIGKILL)",
        "must(libc.syscall(434, os.getppid(), 0))",
        "import fcntl\nfcntl.fcntl(1, fcntl.F_SETOWN, PARENT)",
        "os.setpriority(os.PRIO_PROCESS, PARENT, 19)",
    ],
)
def test_no_other_process_is_signalled_or_slowed(run, needs, body):
    needs("signals")
    denied(run, body.replace("PARENT", str(os.getpid())))


def test_the_environment_of_the_caller_is_out_of_reach(monkeypatch, needs):
    monkeypatch.setenv("UNMASK_TEST_SECRET", "secret")
    read = "os.environ | {'own': open('/proc/self/environ').read()}"
    if not os.path.isdir("/proc/self"):
        read = "dict(os.environ)"
    with Sandbox(workers=1) as sandbox:
        outcome = sandbox.run(Job(f"import os\ndef f(): return {read}", "f", ((),)))
    assert outcome.status == "ok"
    assert "secret" not in str(outcome.values).lower()


@pytest.mark.parametrize("name", ["environ", "mem", "fd/0"])
def test_the_memory_of_the_server_and_the_caller_is_out_of_reach(run, needs, needs_proc, name):
    if enforcement()["writes"] != "landlock":
        pytest.skip("landlock is what separates processes of one user")
    for pid in ("os.getppid()", str(os.getpid())):
        denied(run, f"open(f'/proc/{{{pid}}}/{name}', 'rb').read(1)")


def test_no_descriptor_but_the_four_needed_is_inherited(run, needs_proc):
    source = "import os\ndef f(): return sorted(map(int, os.listdir('/proc/self/fd')))"
    assert run(source).values == ([0, 1, 2, 3, 4],)  # 4 is the listing itself


@pytest.mark.parametrize(
    "body",
    [
        "must(libc.ptrace(0, 0, 0, 0))",
        "must(libc.unshare(0x10000000))",
        "must(libc.prctl(1, 0, 0, 0, 0))",
        "must(libc.mount(b'none', b'.', b'tmpfs', 0, None))",
        "must(libc.shmget(0, 4096, 0o1600))",
        "must(libc.memfd_create(b'a', 0))",
        "must(libc.sethostname(b'a', 1))",
        "must(libc.syscall(425, 8, None))",
        "must(libc.syscall(9999))",
        "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')",
    ],
)
def test_the_system_is_left_alone(run, needs, body):
    if enforcement()["network"] != "seccomp":
        pytest.skip("seccomp is what denies these calls")
    denied(run, body)


def test_calls_of_the_other_abi_are_denied(run, needs):
    if os.uname().machine != "x86_64" or enforcement()["network"] != "seccomp":
        pytest.skip("the x32 ABI is of x86_64, and seccomp is what denies it")
    denied(run, "must(libc.syscall(0x40000000 | 39))")


def test_without_landlock_the_filter_denies_every_write(tmp_path):
    worker = Worker(Limits(), str(tmp_path), mechanisms=("seccomp",))
    if "seccomp" in worker.found["why_not"]:
        worker.close()
        pytest.skip(f"seccomp: {worker.found['why_not']['seccomp']}")

    def run(source: str):
        return worker.run(Job(source, "f", ((),)))

    kept = tmp_path / "kept"
    kept.write_text("kept")
    for body in WRITES:
        denied(run, f"path = {str(kept)!r}\n{body}")
    assert run(f"def f(): return open({str(kept)!r}).read()").values == ("kept",)
    worker.close()


def test_every_promise_names_what_holds_it():
    held = enforcement()
    assert set(held) >= {"processes", "network", "writes", "signals", "memory", "cpu_time"}
    for mechanism in held.values():
        assert mechanism in ("seccomp", "landlock", "rlimit") or mechanism.startswith("none: ")
