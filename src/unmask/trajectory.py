"""What a decode did: the tokens and the step that unmasked each. L completion positions, S steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

CACHES = ("none", "prefix", "dual")
"""What a decode may remember of earlier steps, see `unmask.decode.engine`."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One decoded row. It holds all that is needed to rebuild every state it went through."""

    prompt: Tensor
    """(P,) int64."""
    tokens: Tensor
    """(L,) int64, the completion only."""
    unmask_step: Tensor
    """(L,) int16: the row's own step, from 0, that unmasked the position; -1 where nothing did, because the
    row had stopped at a settled EOS (the token there is EOS)."""
    block_length: int
    mask_id: int
    temperature: float = 0.0
    planner_log_prob: Tensor | None = None
    """(S,) float32 of the chosen sets, where the decode recorded them."""
    token_log_prob: Tensor | None = None
    """(S,) float32 of the tokens fixed in each step, at the temperature that sampled them."""
    confidence: Tensor | None = None
    """(S, L) float32: what a policy on confidences saw in each step, where the decode recorded it. With it
    the policy can be replayed without the denoiser."""
    cache: str = "none"
    """What the decode remembered of earlier steps; with any other than "none" it is an approximation."""
    seen_whole: Tensor | None = None
    """(S,) int16, under a cache: for each step the last one, itself or earlier, that saw the whole row. From
    there a step on a window took the keys and values of all else."""

    @property
    def nfe(self) -> int:
        """Denoiser calls that this row took part in."""
        return int(self.unmask_step.max()) + 1

    @property
    def num_cached_steps(self) -> int:
        """Denoiser calls on a window of the row only, the rest being cached: they count in `nfe`."""
        if self.seen_whole is None:
            return 0
        return int((self.seen_whole < torch.arange(len(self.seen_whole))).sum())

    @property
    def is_exact(self) -> bool:
        """Whether every step saw the whole row."""
        return self.cache == "none" or (self.seen_whole is not None and self.num_cached_steps == 0)

    def masked_at(self, step: int) -> Tensor:
        """(L,) bool: still masked when `step` begins."""
        return (self.unmask_step < 0) | (self.unmask_step >= step)

    def state_at(self, step: int) -> Tensor:
        """(L,) the completion as the denoiser saw it at `step`; `state_at(nfe)` is the end."""
        if step >= self.nfe:
            return self.tokens.clone()
        return torch.where(self.masked_at(step), self.mask_id, self.tokens)

    def num_content_tokens(self, eos_id: int, pad_id: int) -> int:
        """Tokens that are neither EOS nor padding: the numerator of TPF."""
        return int(((self.tokens != eos_id) & (self.tokens != pad_id)).sum())


def save(path: Path | str, trajectories: Sequence[Trajectory]) -> None:
    """Write trajectories of any lengths to one safetensors file; two may share tensors."""
    tensors: dict[str, Tensor] = {}
    for index, row in enumerate(trajectories):
        tensors[f"{index}.prompt"] = row.prompt
        tensors[f"{index}.tokens"] = row.tokens
        tensors[f"{index}.unmask_step"] = row.unmask_step
        cache = float(CACHES.index(row.cache))
        settings = [float(row.block_length), float(row.mask_id), row.temperature, cache]
        tensors[f"{index}.settings"] = torch.tensor(settings, dtype=torch.float64)
        if row.planner_log_prob is not None and row.token_log_prob is not None:
            tensors[f"{index}.planner_log_prob"] = row.planner_log_prob.clone(
                memory_format=torch.contiguous_format
            )
            tensors[f"{index}.token_log_prob"] = row.token_log_prob.clone(
                memory_format=torch.contiguous_format
            )
        if row.confidence is not None:
            tensors[f"{index}.confidence"] = row.confidence
        if row.seen_whole is not None:
            tensors[f"{index}.seen_whole"] = row.seen_whole
    apart = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(apart, str(path))


def load(path: Path | str) -> list[Trajectory]:
    """Read what `save` wrote, bit for bit."""
    tensors = load_file(str(path))
    rows = []
    for index in range(sum(name.endswith(".tokens") for name in tensors)):
        block_length, mask_id, temperature, *kept = tensors[f"{index}.settings"].tolist()
        cache = kept[0] if kept else 0.0  # files of version 0.1 do not say
        rows.append(
            Trajectory(
                prompt=tensors[f"{index}.prompt"],
                tokens=tensors[f"{index}.tokens"],
                unmask_step=tensors[f"{index}.unmask_step"],
                block_length=int(block_length),
                mask_id=int(mask_id),
                temperature=temperature,
                planner_log_prob=tensors.get(f"{index}.planner_log_prob"),
                token_log_prob=tensors.get(f"{index}.token_log_prob"),
                confidence=tensors.get(f"{index}.confidence"),
                cache=CACHES[int(cache)],
                seen_whole=tensors.get(f"{index}.seen_whole"),
            )
        )
    return rows
