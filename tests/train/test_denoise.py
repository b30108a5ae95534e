"""The LLaDA objective and the stage that trains with it."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import unmask
from tests.train.small import (
    assert_resuming_changes_nothing,
    assert_same_run,
    denoise_recipe,
    metrics_of,
    tensors_of,
    terminate_at,
    train,
)
from unmask.config import DenoiseRecipe, NetConfig, OptimConfig
from unmask.layers import Padded
from unmask.train.data import Examples
from unmask.train.denoise import DenoiseStage, denoising_loss, noised
from unmask.train.loop import run
from unmask.workers import ALONE

MASK = 4
COMPILES = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@dataclass
class Remembers:
    """A net whose hidden states are its scores, and that keeps what it was shown."""

    logits_BTV: Tensor
    shown_BT: Tensor | None = None

    def encode(self, tokens_BT: Tensor, layout: Padded) -> Tensor:
        self.shown_BT = tokens_BT
        return self.logits_BTV

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def loss_of(net: Any, tokens_BT: Tensor, masked_BL: Tensor) -> Tensor:
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    examples = Examples(tokens_BT, mask_BT, torch.arange(len(tokens_BT)))
    return denoising_loss(net, noised(examples, masked_BL, MASK))


def test_the_loss_is_the_mean_cross_entropy_of_the_masked_completion_tokens(rng: torch.Generator) -> None:
    logits_BTV = torch.randn(2, 5, 5, generator=rng).requires_grad_()
    tokens_BT = torch.randint(0, MASK, (2, 5), generator=rng)
    masked_BL = torch.tensor([[True, False, True], [False, True, False]])
    loss = loss_of(Remembers(logits_BTV), tokens_BT, masked_BL)
    nats_BL = -logits_BTV.log_softmax(-1)[:, 2:].gather(-1, tokens_BT[:, 2:, None]).squeeze(-1)
    torch.testing.assert_close(loss, (nats_BL[0, 0] + nats_BL[0, 2]) / 2 + nats_BL[1, 1])
    # Per position of L it is 1/t of each masked token: t = 2/3 in the first row, 1/3 in the second.
    weighted_B = (nats_BL * masked_BL).sum(-1) / 3 / torch.tensor([2 / 3, 1 / 3])
    torch.testing.assert_close(loss, weighted_B.sum())


def test_only_masked_completion_tokens_are_hidden_and_learned(rng: torch.Generator) -> None:
    logits_BTV = torch.randn(2, 5, 5, generator=rng).requires_grad_()
    tokens_BT = torch.randint(0, MASK, (2, 5), generator=rng)
    masked_BL = torch.tensor([[True, False, True], [False, True, False]])
    net = Remembers(logits_BTV)
    loss_of(net, tokens_BT, masked_BL).backward()
    hidden_BT = torch.nn.functional.pad(masked_BL, (2, 0))
    assert net.shown_BT is not None
    assert torch.equal(net.shown_BT, tokens_BT.masked_fill(hidden_BT, MASK))
    assert logits_BTV.grad is not None
    assert torch.equal(logits_BTV.grad.ne(0).any(-1), hidden_BT)


def test_the_masked_share_is_stratified_over_the_batch() -> None:
    stage = DenoiseStage(denoise_recipe(batch_size=16), ALONE)
    stage.prepare(0)
    seen = [stage.noise(next(stage.stream)).weight_BT[:, -64:] > 0 for _ in range(3)]
    first_B = torch.arange(16) * 4  # 64 positions over 16 strata
    for masked_BL in seen:
        count_B = masked_BL.sum(-1)
        assert (count_B >= first_B.clamp_min(1)).all()
        assert (count_B <= first_B + 4).all()
    assert not torch.equal(seen[0], seen[1])


def gradients_of(recipe: DenoiseRecipe) -> tuple[float, list[Tensor]]:
    """The loss and the gradients of the first step."""
    stage = DenoiseStage(recipe, ALONE)
    stage.prepare(0)
    found: list[Tensor] = []

    def keep(parameters: Any) -> None:
        found.extend(p.grad.clone() for p in parameters if p.grad is not None)

    stage.workers = SimpleNamespace(
        rank=0, device=ALONE.device, autocast=ALONE.autocast, sum_gradients=keep, sum=ALONE.sum
    )
    return stage.step(0)["loss"], found


@pytest.mark.parametrize(
    "changes",
    [
        {"packed_length": 112},
        {"packed_length": 400},
        {"micro_batch": 3},
        {"packed_length": 250, "micro_batch": 5},
        {"recompute": True},
        pytest.param({"compile": True}, marks=[pytest.mark.slow, COMPILES]),
        {"anneal_steps": 1000, "packed_length": 300},
    ],
)
def test_how_a_batch_is_computed_changes_neither_loss_nor_gradients(changes: dict[str, Any]) -> None:
    alike = {"anneal_steps": changes.get("anneal_steps", 0)}
    loss, gradients = gradients_of(denoise_recipe(**alike))
    other_loss, other_gradients = gradients_of(denoise_recipe(**changes))
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert gradients
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def test_packed_rows_leave_out_the_padding() -> None:
    stages = [DenoiseStage(denoise_recipe(packed_length=width), ALONE) for width in (None, 400)]
    sizes = []
    for stage in stages:
        stage.prepare(0)
        batch = stage.noise(next(stage.stream))
        sizes.append(batch.shown_BT.numel())
        total = float(batch.weight_BT.sum())
        assert total == pytest.approx(8)  # a whole completion each, of 8 examples
    assert sizes[1] < sizes[0]


def test_attention_goes_from_causal_to_bidirectional() -> None:
    recipe = denoise_recipe(anneal_steps=4)
    stage = DenoiseStage(recipe, ALONE)
    stage.prepare(0)
    batch = stage.noise(next(stage.stream))
    net = stage.net.requires_grad_(False)
    reach = []
    for index in (0, 1, 3, 4):
        ahead = stage.ahead(index)
        changed = batch._replace(shown_BT=batch.shown_BT.clone())
        changed.shown_BT[:, -1] = 5
        one, other = (net.encode(each.shown_BT, each.layout().up_to(ahead)) for each in (batch, changed))
        reach.append(int((one != other).any(-1).any(0).nonzero().min()))
    assert reach[0] == recipe.prompt_length + recipe.length - 1
    assert reach[0] > reach[1] > reach[2] >= reach[3]


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
    (tmp_path / "final/notes.txt").write_text("mine")
    done: list[int] = []
    _, finished = train(recipe, tmp_path, lambda step, total, metrics: done.append(step))
    assert finished
    assert done == []
    after = tensors_of(tmp_path / "last") | tensors_of(tmp_path / "final")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "metrics.jsonl").read_text() == log
    assert (tmp_path / "final/notes.txt").read_text() == "mine"


def test_a_folder_is_not_shared_by_two_recipes(tmp_path: Path) -> None:
    train(denoise_recipe(steps=1), tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train(denoise_recipe(steps=2), tmp_path)


def test_a_folder_is_not_shared_by_two_runs_at_a_time(tmp_path: Path) -> None:
    def again(done: int, total: int, metrics: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="under way"):
            train(denoise_recipe(steps=2), tmp_path)

    train(denoise_recipe(steps=2), tmp_path, again)
    assert [entry["step"] for entry in metrics_of(tmp_path)] == [0, 1]


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


def test_training_goes_on_from_a_checkpoint(base: Path, tmp_path: Path) -> None:
    recipe = denoise_recipe(start=str(base), net=NetConfig(), steps=3)
    first = DenoiseStage(recipe, ALONE).net
    assert torch.equal(first.embed.weight, tensors_of(base)["model.safetensors:embed.weight"])
    train(recipe, tmp_path / "run")
    after = tensors_of(tmp_path / "run/final")["model.safetensors:blocks.1.mlp.down.weight"]
    assert not torch.equal(after, first.blocks[1].mlp.down.weight)
    assert_resuming_changes_nothing(recipe, tmp_path / "runs", stop=1)


def test_a_checkpoint_that_cannot_be_trained_is_refused(base: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.mkdir()
    for name in ("config.json", "model.safetensors"):
        (mute / name).write_bytes((base / name).read_bytes())
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        DenoiseStage(denoise_recipe(start=str(mute), net=NetConfig()), ALONE)
    with pytest.raises(ValueError, match=r"prompt_length \+ length is 264, but .* holds 128"):
        DenoiseStage(denoise_recipe(start=str(base), net=NetConfig(), prompt_length=200), ALONE)


def test_a_limit_of_time_ends_a_run_with_its_schedule(tmp_path: Path) -> None:
    recipe = denoise_recipe(steps=100_000, minutes=2 / 60, optim=OptimConfig(warmup=0))
    stage, finished = train(recipe, tmp_path)
    assert finished
    assert (tmp_path / "final/model.safetensors").is_file()
    assert 1.0 < stage.state.seconds < 3.0
    assert 3 < stage.state.step < 100_000
    assert stage.state.optimizer.param_groups[0]["lr"] < 0.2 * recipe.optim.lr  # the cosine came to its end
    _, finished = train(recipe, tmp_path)  # nothing is left to do
    assert finished
    assert len(metrics_of(tmp_path)) == stage.state.step


def test_a_limit_of_time_covers_all_parts_of_a_run(tmp_path: Path) -> None:
    recipe = denoise_recipe(steps=100_000, minutes=1.5 / 60)
    stage, finished = train(recipe, tmp_path, terminate_at(3))
    assert not finished
    spent = stage.state.seconds
    assert spent > 0
    stage, finished = train(recipe, tmp_path)
    assert finished
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert stage.state.seconds == pytest.approx(sum(seconds))
    assert stage.state.seconds < 2.5
