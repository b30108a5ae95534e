"""Training examples as tensors: a function of (recipe, step), so a resumed run sees what it would have seen.

B examples, P prompt and L completion positions, T = P + L.
"""

import atexit
import multiprocessing
import multiprocessing.process
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unmask.config import ReferenceConfig
from unmask.models.transformer import Transformer
from unmask.rng import RowStreams, derive
from unmask.train.sources import Pair, sources
from unmask.workers import Workers, share_of


class Examples(NamedTuple):
    tokens_BT: Tensor
    """int64: left-padded prompt, then the completion filled with EOS."""
    attention_mask_BT: Tensor
    """bool."""
    index_B: Tensor
    """int64: the row's number in the whole run, which seeds its noise."""

    def part(self, start: int, stop: int) -> "Examples":
        """Rows `start` to `stop - 1`."""
        return Examples(*(each[start:stop] for each in self))


class ReferenceBatches(Dataset[Examples]):
    """Item `step` is this process's share of the step's references."""

    def __init__(self, recipe: ReferenceConfig, tokenizer: Any, rank: int = 0, size: int = 1) -> None:
        self.recipe, self.eos_id = recipe, int(tokenizer.eos_token_id)
        self.sources = sources(recipe, tokenizer)
        self.rank, self.size = rank, size

    def __getitem__(self, step: int) -> Examples:
        first, count = step * self.recipe.batch_size, self.recipe.batch_size
        mine = share_of(range(first, first + count), self.rank, self.size)
        pairs = self._pairs(mine)
        pads_B1 = torch.tensor([[self.recipe.prompt_length - len(prompt)] for prompt, _ in pairs])
        mask_BT = torch.arange(self.recipe.prompt_length + self.recipe.length) >= pads_B1
        return Examples(torch.tensor([self._row(pair) for pair in pairs]), mask_BT, torch.tensor(mine))

    def _pairs(self, indices: Sequence[int]) -> list[Pair]:
        """Rows take their examples from the sources in turn."""
        pairs: list[Pair] = [([], [])] * len(indices)
        for turn, source in enumerate(self.sources):
            mine = [index for index in indices if index % len(self.sources) == turn]
            found = source.pairs([index // len(self.sources) for index in mine])
            for index, pair in zip(mine, found, strict=True):
                pairs[index - indices[0]] = pair
        return pairs

    def _row(self, pair: Pair) -> list[int]:
        prompt, completion = pair
        before = self.recipe.prompt_length - len(prompt)
        fill = self.recipe.length - len(completion)
        return [self.eos_id] * before + prompt + completion + [self.eos_id] * fill


def check_rows_fit(recipe: ReferenceConfig, net: Transformer, name: str) -> None:
    """Refuse rows that are longer than the denoiser called `name` holds."""
    total = recipe.prompt_length + recipe.length
    if total > net.max_length:
        raise ValueError(f"prompt_length + length is {total}, but {name} holds {net.max_length}")


def reference_batches(
    recipe: ReferenceConfig, tokenizer: Any, workers: Workers, first: int
) -> Iterator[Examples]:
    """This process's share of the steps of a recipe, from step `first` on."""
    dataset = ReferenceBatches(recipe, tokenizer, workers.rank, workers.size)
    return batches(dataset, first, recipe.steps, recipe.data_workers)


def batches(dataset: ReferenceBatches, first: int, total: int, num_workers: int) -> Iterator[Examples]:
    """The batches of steps `first` to `total - 1`, in order.

    Raises:
        ValueError, OSError: what the dataset raises, as it raised it, also in a worker.
    """
    loader: DataLoader[Examples | Exception] = DataLoader(
        _ErrorsAreItems(dataset),
        batch_size=None,
        sampler=range(first, total),
        num_workers=num_workers,
        prefetch_factor=8 if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    others = set(multiprocessing.active_children())
    stream = iter(loader)
    end = partial(_end, set(multiprocessing.active_children()) - others)
    atexit.register(end)  # where the trainer fails, its traceback may hold the stream until the very end
    try:
        for batch in stream:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del stream  # ends its workers
        atexit.unregister(end)


def _end(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Kill what swallows the one SIGTERM that Python sends at its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler takes it for a crash
    for process in processes:
        process.kill()


class _ErrorsAreItems(Dataset[Examples | Exception]):
    """A worker's error reaches the trainer by itself as text, with the worker's traceback; so it is sent."""

    def __init__(self, dataset: ReferenceBatches) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> Examples | Exception:
        try:
            return self.dataset[step]
        except (ValueError, OSError) as error:
            return error


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the trainer saves and then ends its workers.

    A second SIGTERM ends a worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def noise_streams(seed: int, name: str, index_B: Tensor) -> RowStreams:
    """The random numbers of training rows, whichever process and batch they are in."""
    return RowStreams(index_B, torch.full_like(index_B, derive(seed, name) & 0xFFFF))


def random_mask(ratio_B: Tensor, noise_BL: Tensor) -> Tensor:
    """(B, L) bool: ceil(ratio * L) positions a row, uniformly chosen, at least one."""
    length = noise_BL.shape[-1]
    count_B = (ratio_B * length).ceil().long().clamp(1, length)
    rank_BL = noise_BL.argsort(dim=-1).argsort(dim=-1)
    return rank_BL < count_B[:, None]
