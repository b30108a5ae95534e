"""Rebuilding the states of recorded rollouts, exactly and packed.

Every (row, step) pair with a non-zero advantage is one independent row of a micro-batch, so a long
trajectory costs what it must and a row without advantage nothing. A policy on confidences is replayed from
those that the rollout recorded, without the denoiser.
B rows, L completion positions, T = prompt + L, N pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decode.loop import left_pad
from unmask.decode.sampling import token_log_prob
from unmask.models.base import Denoiser
from unmask.planners.base import Planner, make_view, sight_of, view_of_confidence
from unmask.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Replay:
    """Rollouts of equal length, ready to be visited again."""

    tokens_BT: Tensor
    attention_mask_BT: Tensor | None
    unmask_step_BL: Tensor
    old_BS: Tensor
    """Recorded log-likelihoods of what is trained; S = L columns, zero after the row's last step."""
    confidence_NL: Tensor | None
    """What a policy saw in each pair, where that was recorded and the denoiser stays as it is."""
    first_B: Tensor
    """The pair of a wanted row's first step."""
    row_N: Tensor
    """The pairs, on the CPU."""
    step_N: Tensor
    block_length: int
    temperature: float
    mask_id: int
    with_tokens: bool

    @staticmethod
    def of(
        rows: Sequence[Trajectory],
        wanted: Sequence[bool],
        pad_id: int,
        device: torch.device,
        with_tokens: bool,
    ) -> "Replay":
        """All steps of the wanted rows; `with_tokens` where the denoiser is trained too."""
        length, mask_id = len(rows[0].tokens), rows[0].mask_id
        tokens_BT, mask_BT = left_pad([row.prompt.tolist() for row in rows], length, mask_id, pad_id)
        tokens_BT[:, -length:] = torch.stack([row.tokens for row in rows])
        old_BS = torch.zeros(len(rows), length)
        for index, row in enumerate(rows):
            if row.planner_log_prob is None or row.token_log_prob is None:
                raise ValueError("a rollout without log-probabilities; decode with record_log_probs=True")
            old_BS[index, : row.nfe] = row.planner_log_prob
            if with_tokens:
                old_BS[index, : row.nfe] += row.token_log_prob
        pairs = [(index, step) for index, row in enumerate(rows) if wanted[index] for step in range(row.nfe)]
        pairs_N2 = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        num_B = torch.tensor([row.nfe if wanted[index] else 0 for index, row in enumerate(rows)])
        seen = [row.confidence for index, row in enumerate(rows) if wanted[index]]
        known = [each for each in seen if each is not None]
        is_known = bool(known) and len(known) == len(seen) and not with_tokens
        return Replay(
            tokens_BT=tokens_BT.to(device),
            attention_mask_BT=None if mask_BT is None else mask_BT.to(device),
            unmask_step_BL=torch.stack([row.unmask_step for row in rows]).to(device),
            old_BS=old_BS.to(device),
            confidence_NL=torch.cat(known).to(device) if is_known else None,
            first_B=(num_B.cumsum(0) - num_B).to(device),
            row_N=pairs_N2[:, 0],
            step_N=pairs_N2[:, 1],
            block_length=rows[0].block_length,
            temperature=rows[0].temperature,
            mask_id=mask_id,
            with_tokens=with_tokens,
        )

    def micro_batches(self, max_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(row, step) index tensors on the device, at most `max_tokens` positions together."""
        laid = self.tokens_BT if self.confidence_NL is None else self.unmask_step_BL
        size = max(1, max_tokens // laid.shape[1])
        device = self.tokens_BT.device
        if not len(self.row_N):
            return
        for row_N, step_N in zip(self.row_N.split(size), self.step_N.split(size), strict=True):
            yield row_N.to(device), step_N.to(device)

    def log_prob(self, denoiser: Denoiser, planner: Planner, row_N: Tensor, step_N: Tensor) -> Tensor:
        """(N,) log-likelihood of the recorded set, and of the tokens fixed, under the present weights."""
        length = self.unmask_step_BL.shape[-1]
        unmask_step_NL = self.unmask_step_BL[row_N]
        masked_NL = (unmask_step_NL < 0) | (unmask_step_NL >= step_N[:, None])
        chosen_NL = unmask_step_NL == step_N[:, None]
        if self.confidence_NL is not None and sight_of(planner) == "confidence":
            seen_NL = self.confidence_NL[self.first_B[row_N] + step_N]
            view = view_of_confidence(seen_NL, masked_NL, block_length=self.block_length, step_B=step_N)
            return planner(view).log_prob(chosen_NL)
        final_NT = self.tokens_BT[row_N]
        completion_NL = torch.where(masked_NL, self.mask_id, final_NT[:, -length:])
        tokens_NT = torch.cat([final_NT[:, :-length], completion_NL], dim=-1)
        mask_NT = None if self.attention_mask_BT is None else self.attention_mask_BT[row_N]
        with torch.set_grad_enabled(self.with_tokens and torch.is_grad_enabled()):
            logits_NTV, hidden_NTD = denoiser(tokens_NT, mask_NT)
        view = make_view(
            logits_NTV,
            hidden_NTD,
            tokens_NT,
            mask_NT,
            length=length,
            block_length=self.block_length,
            step_B=step_N,
            mask_id=self.mask_id,
        )
        planner_N = planner(view).log_prob(chosen_NL)
        if not self.with_tokens:
            return planner_N
        fixed_N = token_log_prob(view.logits_BLV, final_NT[:, -length:], chosen_NL, self.temperature)
        return planner_N + fixed_N
