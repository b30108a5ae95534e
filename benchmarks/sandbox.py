"""Sandboxed runs a second, for programs that do next to nothing: what the sandbox itself costs.

    python -m benchmarks.sandbox

`calls` asks a function for one result, `check` runs two trusted assertions on it from a second process,
`script` feeds stdin to a main program, `numpy` is a check of a program that imports NumPy.
"""

import argparse
import json
import resource
import time
from typing import Any

from unmask.sandbox import AnyJob, Check, Job, Limits, Sandbox, Script, enforcement

_FUNCTION = "def f(x):\n    return x + 1\n"
_TESTS = "assert f(1) == 2\nassert f(-1) == 0"
JOBS: dict[str, AnyJob] = {
    "calls": Job(_FUNCTION, "f", ((1,),)),
    "check": Check(_FUNCTION, _TESTS, ("f",)),
    "script": Script("print(int(input()) + 1)", "1\n"),
    "numpy": Check(f"import numpy\n{_FUNCTION}", _TESTS, ("f",)),
}
_LIMITS = Limits(wall_seconds=30.0, cpu_seconds=10, memory_mb=1024, num_files=64)


def measure(job: AnyJob, count: int, workers: int) -> dict[str, float]:
    """Runs a second, and CPU milliseconds a run, of `count` runs on warm servers."""
    before = _cpu_seconds()
    with Sandbox(workers, _LIMITS, packages=("numpy",)) as sandbox:
        sandbox.run_all([job] * workers)
        start = time.perf_counter()
        outcomes = sandbox.run_all([job] * count)
        seconds = time.perf_counter() - start
    assert {outcome.status for outcome in outcomes} == {"ok"}, outcomes[0]
    milliseconds = 1000 * (_cpu_seconds() - before) / (count + workers)
    return {"runs_per_second": round(count / seconds, 1), "cpu_ms_per_run": round(milliseconds, 2)}


def _cpu_seconds() -> float:
    """Of this process and of all that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="Runs of each kind; a tenth for numpy.")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(words)
    runs = {
        name: measure(job, max(1, options.count // (10 if name == "numpy" else 1)), options.workers)
        for name, job in JOBS.items()
    }
    print(f"{'':8}{'runs/s':>10}{'CPU ms/run':>12}")
    for name, one in runs.items():
        print(f"{name:8}{one['runs_per_second']:10}{one['cpu_ms_per_run']:12}")
    result = {"workers": options.workers, "runs": runs, "enforcement": enforcement()}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
