"""What a decode did, token by token, in a file beside the records; kept when asked for.

B states, L completion positions, T = prompt + L, V symbols.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from unmask.eval.jsonl import append_line
from unmask.eval.records import Record, Run, Sample, read_lines
from unmask.models.base import Denoiser
from unmask.planners.base import without_mask
from unmask.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One decoded row of one record."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    run: Run
    id: str
    seed: int
    tokens: list[int]
    unmask_step: list[int]
    """As in `Trajectory`: -1 for what a settled EOS filled."""
    confidence: list[float | None]
    """Of each token, the denoiser's probability (temperature 1, [MASK] left out) in the state that it was
    fixed in; null where the step is -1."""
    content: int
    """Positions up to the first EOS, with it."""

    @property
    def sample(self) -> Sample:
        return self.run.task, self.id, self.seed


_TRACE = TypeAdapter(Trace)


def trace_of(denoiser: Denoiser, row: Trajectory, record: Record, batch_size: int) -> Trace:
    """The trace of a decoded row; costs as many denoiser calls as decoding it did."""
    tokens = row.tokens.tolist()
    confidence = token_confidence(denoiser, row, batch_size).tolist()
    return Trace(
        run=record.run,
        id=record.id,
        seed=record.seed,
        tokens=tokens,
        unmask_step=row.unmask_step.tolist(),
        confidence=[None if one < 0 else round(one, 6) for one in confidence],
        content=tokens.index(denoiser.eos_id) + 1 if denoiser.eos_id in tokens else len(tokens),
    )


@torch.no_grad()
def token_confidence(denoiser: Denoiser, row: Trajectory, batch_size: int) -> Tensor:
    """(L,) the probability of each token in the state that it was fixed in; -1 where no step fixed it.

    Every state is rebuilt and shown to the denoiser in full, so a decode with an inexact cache gets what the
    denoiser itself says, which is not what the cache said.
    """
    length = len(row.tokens)
    confidence_L = torch.full((length,), -1.0)
    for start in range(0, row.nfe, batch_size):
        steps = range(start, min(start + batch_size, row.nfe))
        states_BT = torch.stack([torch.cat([row.prompt, row.state_at(step)]) for step in steps])
        raw_BLV = denoiser(states_BT.to(denoiser.device)).logits[:, -length:]
        logits_BLV = without_mask(raw_BLV, denoiser.mask_id)
        tokens_B1 = row.tokens.to(logits_BLV.device).expand(len(steps), length)[..., None]
        chances_BL = logits_BLV.log_softmax(-1).gather(-1, tokens_B1)[..., 0].exp().cpu()
        for chances_L, step in zip(chances_BL, steps, strict=True):
            confidence_L = torch.where(row.unmask_step == step, chances_L, confidence_L)
    return confidence_L


def traces_path(records: Path) -> Path:
    """The file of traces that belongs to a file of records."""
    return records.with_name(f"{records.stem}.traces{records.suffix}")


def append_traces(records: Path, traces: Sequence[Trace]) -> None:
    """Add a line each to the file beside the records."""
    for trace in traces:
        append_line(traces_path(records), asdict(trace))


def read_traces(records: Path) -> dict[Run, dict[Sample, Trace]]:
    """The traces beside a file of records, by run and sample; of repeated ones the last.

    Raises:
        ValueError: naming the line that is no trace.
    """
    path = traces_path(records)
    found: dict[Run, dict[Sample, Trace]] = {}
    for trace in read_lines(path, _TRACE) if path.is_file() else []:
        found.setdefault(trace.run, {})[trace.sample] = trace
    return found
