"""Rebuilding the states of recorded rollouts, exactly and packed.

Every (row, step) pair with a non-zero advantage is one independent row of a micro-batch, so a long
trajectory costs what it must and a row without advantage nothing. A policy on confidences is replayed from
those that the rollout recorded, without the denoiser. Steps that used a cache are replayed with what it held;
those of a micro-batch share the whole rows that they took from.
B rows, L completion positions, T = prompt + L, N pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decode.loop import left_pad
from unmask.decode.sampling import token_log_prob
from unmask.models.base import Denoiser
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, View, make_view, sight_of, view_of_confidence
from unmask.train.cached_replay import CachedSteps, state_of
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
    cache: str
    seen_whole_BS: Tensor | None
    """Under a cache, see `Trajectory`."""

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
        has_cache = rows[0].cache != "none"
        seen_whole_BS = torch.zeros(len(rows), length, dtype=torch.long)
        for index, row in enumerate(rows):
            if row.seen_whole is not None:
                seen_whole_BS[index, : row.nfe] = row.seen_whole
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
            cache=rows[0].cache,
            seen_whole_BS=seen_whole_BS.to(device) if has_cache else None,
        )

    def micro_batches(self, max_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(row, step) index tensors on the device, at most `max_tokens` positions together."""
        positions = self.unmask_step_BL.shape[1]
        if self.confidence_NL is None:
            window = {"none": 0, "dual": 1 + self.block_length, "prefix": 1 + positions}
            positions = self.tokens_BT.shape[1] + window[self.cache]  # at most: pairs share whole rows
        size = max(1, max_tokens // positions)
        device = self.tokens_BT.device
        if not len(self.row_N):
            return
        for row_N, step_N in zip(self.row_N.split(size), self.step_N.split(size), strict=True):
            yield row_N.to(device), step_N.to(device)

    def log_prob(self, denoiser: Denoiser, planner: Planner, row_N: Tensor, step_N: Tensor) -> Tensor:
        """(N,) log-likelihood of the recorded set, and of the tokens fixed, under the present weights."""
        num_pairs, row_B = len(row_N), row_N
        masked_NL = self._masked(row_N, step_N)
        if self.confidence_NL is not None and sight_of(planner) == "confidence":
            seen_NL = self.confidence_NL[self.first_B[row_N] + step_N]
            view = view_of_confidence(seen_NL, masked_NL, block_length=self.block_length, step_B=step_N)
        else:
            with torch.set_grad_enabled(self.with_tokens and torch.is_grad_enabled()):
                if self.seen_whole_BS is None:
                    view = self._whole_view(denoiser, masked_NL, row_N, step_N)
                else:  # the pairs are the last of its rows
                    view, row_B = self._cached_view(denoiser, masked_NL, row_N, step_N)
        fixed_at_BL = self.unmask_step_BL[row_B].gather(1, view.position_BL)
        chosen_BL = view.open_BL & (fixed_at_BL == view.step_B[:, None])
        planner_N = planner(view).log_prob(chosen_BL)[-num_pairs:]
        if not self.with_tokens:
            return planner_N
        completion_NL = self.tokens_BT[row_N, -masked_NL.shape[1] :]
        tokens_NL = completion_NL.gather(1, view.position_BL[-num_pairs:])
        logits_NLV, chosen_NL = view.logits_BLV[-num_pairs:], chosen_BL[-num_pairs:]
        return planner_N + token_log_prob(logits_NLV, tokens_NL, chosen_NL, self.temperature)

    def _masked(self, row_N: Tensor, step_N: Tensor) -> Tensor:
        """(N, L) bool: masked when the step begins."""
        unmask_step_NL = self.unmask_step_BL[row_N]
        return (unmask_step_NL < 0) | (unmask_step_NL >= step_N[:, None])

    def _cached_view(
        self, denoiser: Denoiser, masked_NL: Tensor, row_N: Tensor, step_N: Tensor
    ) -> tuple[View, Tensor]:
        """Of the whole rows that pairs take from, each once, and then of the pairs; and which row each is."""
        assert isinstance(denoiser, Transformer)
        assert self.seen_whole_BS is not None
        taken_N2 = torch.stack([row_N, self.seen_whole_BS[row_N, step_N]], dim=-1)
        whole_G2, row_of_N = taken_N2.unique(dim=0, return_inverse=True)
        row_G, seen_G = whole_G2.unbind(-1)
        mask_BT = self.attention_mask_BT
        steps = CachedSteps(
            tokens_GT=self.tokens_BT[row_G],
            is_token_GT=(torch.ones_like(self.tokens_BT) if mask_BT is None else mask_BT)[row_G].bool(),
            then_GL=self._masked(row_G, seen_G),
            seen_G=seen_G,
            row_of_N=row_of_N,
            now_NL=masked_NL,
            step_N=step_N,
            block_length=self.block_length,
            is_dual=self.cache == "dual",
            mask_id=self.mask_id,
        )
        return steps.view(denoiser), torch.cat([row_G, row_N])

    def _whole_view(self, denoiser: Denoiser, masked_NL: Tensor, row_N: Tensor, step_N: Tensor) -> View:
        tokens_NT = state_of(self.tokens_BT[row_N], masked_NL, self.mask_id)
        mask_NT = None if self.attention_mask_BT is None else self.attention_mask_BT[row_N]
        logits_NTV, hidden_NTD = denoiser(tokens_NT, mask_NT)
        return make_view(
            logits_NTV,
            hidden_NTD,
            tokens_NT,
            mask_NT,
            length=masked_NL.shape[1],
            block_length=self.block_length,
            step_B=step_N,
            mask_id=self.mask_id,
        )
