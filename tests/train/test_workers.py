"""What a data worker does with signals, and at the end of its trainer."""

import multiprocessing
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess

import pytest

from tests.train.small import denoise_recipe
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.data import ReferenceBatches, batches


def test_a_worker_survives_the_signal_that_its_trainer_gets_but_not_a_second_one() -> None:
    stream = batches(ReferenceBatches(denoise_recipe(batch_size=2), build_tokenizer()), 0, 100, 1)
    next(stream)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    for _ in range(20):
        next(stream)
    assert worker.is_alive()
    with pytest.raises(RuntimeError, match="Terminated"):  # PyTorch tells of a worker that was killed
        _terminate(worker)
    worker.join(5)
    assert not worker.is_alive()


def _terminate(worker: BaseProcess) -> None:
    for _ in range(100):
        worker.terminate()
        time.sleep(0.05)


TRAINER = """
from tests.train.small import denoise_recipe
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.data import ReferenceBatches, batches

if __name__ == "__main__":
    stream = batches(ReferenceBatches(denoise_recipe(batch_size=2), build_tokenizer()), 0, 100, 2)
    next(stream)
    raise RuntimeError("out of memory, for instance")
"""


def test_a_trainer_that_fails_takes_its_workers_with_it() -> None:
    found = subprocess.run(
        [sys.executable, "-c", TRAINER], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 1
    assert found.stderr.rstrip().endswith("RuntimeError: out of memory, for instance")
