"""Programs that run side by side, as `torchrun` starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def side_by_side(size: int, *words: object, timeout: float = 120) -> list[str]:
    """What each of `size` Python processes prints, all over gloo on this machine; all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=os.environ | common | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for rank in range(size)
    ]
    try:
        printed = []
        for process in processes:
            output, errors = process.communicate(timeout=timeout)
            assert process.returncode == 0, errors[-3000:]
            printed.append(output)
        return printed
    finally:
        for process in processes:
            process.kill()
            process.wait()
