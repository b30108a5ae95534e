"""Random streams that belong to a row, not to a batch.

Every number is a hash of (row seed, step, stream name, position), so a row draws the same numbers whatever
else is in its batch, on every device, and a resumed run needs no stored generator state: its step is enough.

B rows, N numbers per row.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import SupportsIndex

import torch
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None
_WORD = 0xFFFFFFFF
_SPACING = 0x9E3779B9  # odd, so multiplying by it is one-to-one on 32-bit words


def derive(seed: int, *names: str | int) -> int:
    """A 62-bit seed for the stream that `names` describe, e.g. `derive(seed, "rollout", step)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for what has no rows, such as initial weights."""
    return torch.Generator().manual_seed(derive(seed, *names))


def python_random(seed: int, *names: str | int) -> random.Random:
    """The same for procedural data."""
    return random.Random(derive(seed, *names))


@contextmanager
def seeded(device: torch.device, seed: int, *names: str | int) -> Iterator[None]:
    """Seeds PyTorch's own generators inside, for code that takes no generator: initial weights, dropout."""
    value = derive(seed, *names)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(value)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(value)
        yield


def row_seeds(seed: int | Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
    """One seed per row, from its prompt and the number of equal prompts before it in the batch.

    A prompt therefore gets the same seed alone and among others, and copies of one prompt get different ones.
    Seeds that are given one by one belong to their rows, whatever the prompts.

    Raises:
        ValueError: for what is no whole number, or another number of seeds than of prompts.
    """
    if isinstance(seed, float):
        raise ValueError(f"seed {seed} is no whole number")
    if not isinstance(seed, SupportsIndex):
        if len(seed) != len(prompts):
            raise ValueError(f"{len(seed)} seeds for {len(prompts)} prompts; give one seed or one per prompt")
        if not all(isinstance(one, SupportsIndex) for one in seed):
            raise ValueError("seeds must be whole numbers")
        return [derive(one) for one in seed]
    seen: dict[tuple[int, ...], int] = {}
    seeds = []
    for prompt in prompts:
        key = tuple(int(token) for token in prompt)
        seen[key] = seen.get(key, -1) + 1
        digest = hashlib.blake2b(str(key).encode(), digest_size=16).hexdigest()
        seeds.append(derive(int(seed), "row", digest, seen[key]))
    return seeds


def _mix(word: Tensor) -> Tensor:
    """A bijective scramble of 32-bit words held in int64 (constants: Wellons, hash-prospector lowbias32)."""
    word = word & _WORD
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & _WORD
    word = ((word ^ (word >> 15)) * 0x846CA68B) & _WORD
    return word ^ (word >> 16)


@dataclass(frozen=True, slots=True)
class RowStreams:
    """The random numbers of one decoding step: `seed_B` and `step_B` are int64.

    While decoding `position_BL` says which positions of the completion are at hand: they get the numbers that
    they would get among all, and the first axis asked for is theirs. A number for each row has no axis.
    """

    seed_B: Tensor
    step_B: Tensor
    position_BL: Tensor | None = None

    def each(self, length: int) -> "RowStreams":
        """The same numbers where each of the `length` positions of each row is a row of its own."""
        shape = (len(self.seed_B), length)
        position_L = torch.arange(length, device=self.seed_B.device)
        position_BL = position_L if self.position_BL is None else self.position_BL
        seed_N, step_N = (each[:, None].expand(shape).flatten() for each in (self.seed_B, self.step_B))
        return RowStreams(seed_N, step_N, position_BL.expand(shape).flatten()[:, None])

    def part(self, where: slice) -> "RowStreams":
        """Of a slice of the rows."""
        position_BL = None if self.position_BL is None else self.position_BL[where]
        return RowStreams(self.seed_B[where], self.step_B[where], position_BL)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """(B, *shape) float32 in the open interval (0, 1).

        Raises:
            ValueError: where the first axis is that of the positions at hand, and not so many are asked for.
        """
        return ((self.words(name, *shape) >> 9).float() + 0.5) * 2.0**-23

    def words(self, name: str, *shape: int) -> Tensor:
        """(B, *shape) 32-bit hash words in int64; raises as `uniform`."""
        salt = derive(0, name) & _WORD
        axes = [torch.arange(size, device=self.seed_B.device, dtype=torch.int64) for size in shape]
        if axes and self.position_BL is not None:
            if shape[0] != self.position_BL.shape[-1]:
                raise ValueError(
                    f"{shape[0]} random numbers for the {self.position_BL.shape[-1]} positions of a row; "
                    f"ask for one each, or for one a row, which has no axis: uniform({name!r})"
                )
            axes[0] = self.position_BL
        if axes and self.seed_B.is_cuda and HAS_TRITON:
            from unmask.rng_kernel import words

            state = words(self.seed_B, self.step_B, axes[0].expand(len(self.seed_B), -1), salt)
            axes = axes[1:]
        else:
            state = _mix((self.seed_B >> 32) ^ salt)
            state = _mix(state ^ self.seed_B)
            state = _mix(state + self.step_B * _SPACING)
        for index in axes:
            state = _mix(state.unsqueeze(-1) + (index + 1) * _SPACING)
        return state

    def gumbel(self, name: str, *shape: int) -> Tensor:
        """(B, *shape) standard Gumbel noise; raises as `uniform`."""
        return -torch.log(-torch.log(self.uniform(name, *shape)))
