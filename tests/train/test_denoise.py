"""The LLaDA objective and the stage that trains with it."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unmask
from tests.train.small import (
    ALONE,
    assert_resuming_changes_nothing,
    assert_same_run,
    denoise_recipe,
    metrics_of,
    tensors_of,
    terminate_at,
    train,
)
from unmask.models.base import Denoised
from unmask.train.denoise import DenoiseStage, denoising_loss
from unmask.train.loop import run

MASK = 4


@dataclass
class Remembers:
    """A denoiser whose scores are given, and that keeps what it was shown."""

    logits_BTV: Tensor
    mask_id: int = MASK
    shown_BT: Tensor | None = None

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        self.shown_BT = tokens_BT
        return Denoised(self.logits_BTV, self.logits_BTV)


def loss_of(net: Any, tokens_BT: Tensor, masked_BL: Tensor) -> Tensor:
    return denoising_loss(net, tokens_BT, torch.ones_like(tokens_BT, dtype=torch.bool), masked_BL)


def test_the_loss_is_the_mean_cross_entropy_of_the_masked_completion_tokens(rng: torch.Generator) -> None:
    logits_BTV = torch.randn(2, 5, 5, generator=rng).requires_grad_()
    tokens_BT = torch.randint(0, MASK, (2, 5), generator=rng)
    masked_BL = torch.tensor([[True, False, True], [False, True, False]])
    net = Remembers(logits_BTV)
    loss_B = loss_of(net, tokens_BT, masked_BL)
    nats_BL = -logits_BTV.log_softmax(-1)[:, 2:].gather(-1, tokens_BT[:, 2:, None]).squeeze(-1)
    torch.testing.assert_close(loss_B[0], (nats_BL[0, 0] + nats_BL[0, 2]) / 2)
    torch.testing.assert_close(loss_B[1], nats_BL[1, 1])
    # Per position of L it is 1/t of each masked token: t = 2/3 in the first row, 1/3 in the second.
    torch.testing.assert_close(loss_B, (nats_BL * masked_BL).sum(-1) / 3 / torch.tensor([2 / 3, 1 / 3]))


def test_only_masked_completion_tokens_are_hidden_and_learned(rng: torch.Generator) -> None:
    logits_BTV = torch.randn(2, 5, 5, generator=rng).requires_grad_()
    tokens_BT = torch.randint(0, MASK, (2, 5), generator=rng)
    masked_BL = torch.tensor([[True, False, True], [False, True, False]])
    net = Remembers(logits_BTV)
    loss_of(net, tokens_BT, masked_BL).sum().backward()
    hidden_BT = torch.nn.functional.pad(masked_BL, (2, 0))
    assert net.shown_BT is not None
    assert torch.equal(net.shown_BT, tokens_BT.masked_fill(hidden_BT, MASK))
    assert logits_BTV.grad is not None
    assert torch.equal(logits_BTV.grad.ne(0).any(-1), hidden_BT)


def test_the_masked_share_is_stratified_over_the_batch() -> None:
    recipe = denoise_recipe(batch_size=16)
    stage = DenoiseStage(recipe, ALONE)
    seen: list[Tensor] = []

    def loss(net: Any, tokens_BT: Tensor, attention_mask_BT: Tensor, masked_BL: Tensor) -> Tensor:
        seen.append(masked_BL)
        return denoising_loss(net, tokens_BT, attention_mask_BT, masked_BL)

    stage.loss = loss
    stage.prepare(0)
    for index in range(3):
        stage.step(index)
    first_B = torch.arange(16) * 4  # 64 positions over 16 strata
    for masked_BL in seen:
        count_B = masked_BL.sum(-1)
        assert (count_B >= first_B.clamp_min(1)).all()
        assert (count_B <= first_B + 4).all()
    assert not torch.equal(seen[0], seen[1])


def test_the_loss_goes_down(tmp_path: Path) -> None:
    train(denoise_recipe(steps=60, batch_size=16), tmp_path)
    losses = [entry["loss"] for entry in metrics_of(tmp_path)]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]


@pytest.mark.parametrize("data_workers", [0, 1])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, data_workers: int) -> None:
    assert_resuming_changes_nothing(denoise_recipe(data_workers=data_workers), tmp_path, stop=3)


def test_a_run_that_dies_between_checkpoints_goes_back_to_the_last_one(tmp_path: Path) -> None:
    recipe = denoise_recipe(save_every=2)
    train(recipe, tmp_path / "unbroken")

    class PowerCutError(Exception):
        pass

    def power_cut(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 5:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(recipe, tmp_path / "broken", power_cut)
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    train(recipe, tmp_path / "broken")
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_the_seed_and_nothing_else_decides(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train(denoise_recipe(steps=2, seed=seed), tmp_path / name)
    assert_same_run(tmp_path / "one", tmp_path / "same")
    one, other = tensors_of(tmp_path / "one/final"), tensors_of(tmp_path / "other/final")
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = denoise_recipe(steps=2)
    train(recipe, tmp_path)
    before = tensors_of(tmp_path / "last") | tensors_of(tmp_path / "final")
    log = (tmp_path / "metrics.jsonl").read_text()
    done: list[int] = []
    _, finished = train(recipe, tmp_path, lambda step, total, metrics: done.append(step))
    assert finished
    assert done == []
    after = tensors_of(tmp_path / "last") | tensors_of(tmp_path / "final")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_a_folder_is_not_shared_by_two_recipes(tmp_path: Path) -> None:
    train(denoise_recipe(steps=1), tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train(denoise_recipe(steps=2), tmp_path)


def test_signals_are_handled_as_before_once_a_run_is_over(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    _, finished = train(denoise_recipe(), tmp_path, terminate_at(1, signal.SIGINT))
    assert not finished
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path) -> None:
    stage = DenoiseStage(denoise_recipe(), ALONE)

    def impatient(done: int, total: int, metrics: dict[str, float]) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(stage, stage.recipe, tmp_path, ALONE, impatient)


def test_what_was_trained_loads_and_decodes(base: Path) -> None:
    net = unmask.load_denoiser(base)
    prompt = net.tokenizer.encode("Ann has 14. How many has Ann?\n", add_special_tokens=False)
    (row,) = unmask.decode(net, [prompt], unmask.planner("top_k", k=4), length=16, block_length=8)
    assert row.nfe == 4


def test_a_problem_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="raise prompt_length 5 or length 64"):
        train(denoise_recipe(prompt_length=5), tmp_path)
