"""What decoding means: see `unmask.decode.loop`."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import unmask
from tests.models.tiny import EOS, MASK, ragged_prompts, tiny_net
from unmask.decode.loop import settle
from unmask.decode.sampling import sample_tokens, token_log_prob
from unmask.models.base import Denoised
from unmask.models.exact import EXACT
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, Subset, View, make_view
from unmask.planners.heads import ConfidencePolicy, ConfidencePolicyConfig
from unmask.planners.load import make_head
from unmask.planners.subsets import Fixed
from unmask.rng import RowStreams, derive
from unmask.trajectory import Trajectory

LENGTH, BLOCK = 12, 6
NET = tiny_net()
PROMPTS = ragged_prompts(torch.Generator().manual_seed(1), 4)


def policy() -> ConfidencePolicy:
    """Confidence scores that differ by position, near one in four."""
    head = ConfidencePolicy(ConfidencePolicyConfig(dim=16, mlp_dim=24, bias=-1.0))
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name != "score.bias":
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.2)
    return head


def dultra_head() -> torch.nn.Module:
    head = make_head("dultra", hidden_size=NET.hidden_size, num_heads=2, mlp_dim=24)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.2)
    return head


PLANNERS: dict[str, Planner] = {
    "random": unmask.planner("random", k=2),
    "left_to_right": unmask.planner("left_to_right", k=2),
    "top_k": unmask.planner("top_k", k=1),
    "margin": unmask.planner("margin", k=2),
    "entropy": unmask.planner("entropy", k=5),
    "threshold": unmask.planner("threshold", tau=0.6),
    "factor": unmask.planner("factor", factor=1.0),
    "entropy_bound": unmask.planner("entropy_bound", gamma=1.0),
    "schedule": unmask.planner("schedule", steps=5, by="margin", among=7),
    "policy": unmask.LearnedPlanner(policy()),
    "policy, fallback": unmask.LearnedPlanner(policy(), law="fallback"),
    "policy, plackett_luce": unmask.LearnedPlanner(policy(), law="plackett_luce"),
    "dultra, sample": unmask.LearnedPlanner(dultra_head()),
    "dultra, top_k": unmask.LearnedPlanner(dultra_head(), mode="top_k"),
}
every_planner = pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)
either_temperature = pytest.mark.parametrize("temperature", [0.0, 1.0])


def decode(prompts: list[list[int]], planner: Planner, **settings: Any) -> list[Trajectory]:
    return unmask.decode(
        settings.pop("net", NET),
        prompts,
        planner,
        **({"length": LENGTH, "block_length": BLOCK} | settings),
    )


def assert_same(row: Trajectory, other: Trajectory) -> None:
    assert torch.equal(row.prompt, other.prompt)
    assert torch.equal(row.tokens, other.tokens)
    assert torch.equal(row.unmask_step, other.unmask_step)


@dataclass
class Counting:
    """A denoiser that counts the rows that it is asked about."""

    net: Transformer
    num_rows: int = 0
    calls: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        self.calls.append(len(tokens_BT))
        return self.net(tokens_BT, attention_mask_BT)


@every_planner
@either_temperature
def test_every_position_is_unmasked_once_and_the_prompt_is_untouched(
    planner: Planner, temperature: float
) -> None:
    rows = decode(PROMPTS, planner, temperature=temperature)
    assert [row.prompt.tolist() for row in rows] == PROMPTS
    for row in rows:
        assert row.tokens.shape == row.unmask_step.shape == (LENGTH,)
        assert not (row.tokens == MASK).any()
        assert row.unmask_step.min() >= 0
        assert 1 <= row.nfe <= LENGTH
        assert row.unmask_step.unique().tolist() == list(range(row.nfe))


@every_planner
@pytest.mark.parametrize("block_length", [1, 3, 12])
def test_blocks_are_finished_in_order(planner: Planner, block_length: int) -> None:
    for row in decode(PROMPTS[:3], planner, block_length=block_length):
        blocks = row.unmask_step.view(-1, block_length)
        assert (blocks[:-1].amax(-1) < blocks[1:].amin(-1)).all()
        if block_length == 1:
            assert row.unmask_step.tolist() == list(range(LENGTH))


@every_planner
@either_temperature
def test_a_row_decodes_as_if_it_were_alone(planner: Planner, temperature: float) -> None:
    rows = decode(PROMPTS, planner, temperature=temperature, seed=5)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert_same(row, decode([prompt], planner, temperature=temperature, seed=5)[0])


@every_planner
def test_the_batch_size_does_not_matter(planner: Planner) -> None:
    rows = decode(PROMPTS, planner, temperature=1.0)
    for row, other in zip(rows, decode(PROMPTS, planner, temperature=1.0, batch_size=2), strict=True):
        assert_same(row, other)


def test_the_order_of_prompts_does_not_matter() -> None:
    rows = decode(PROMPTS, PLANNERS["random"], temperature=1.0)
    for row, other in zip(
        rows, decode(PROMPTS[::-1], PLANNERS["random"], temperature=1.0)[::-1], strict=True
    ):
        assert_same(row, other)


def test_copies_of_a_prompt_differ_and_are_the_same_in_any_batch() -> None:
    rows = decode([PROMPTS[1]] * 4, PLANNERS["policy"], temperature=1.0)
    again = decode([PROMPTS[1]] * 4, PLANNERS["policy"], temperature=1.0, batch_size=3)
    assert len({tuple(row.tokens.tolist()) for row in rows}) == 4
    for row, other in zip(rows, again, strict=True):
        assert_same(row, other)


def test_the_seed_decides() -> None:
    first = decode(PROMPTS, PLANNERS["random"], temperature=1.0, seed=0)
    second = decode(PROMPTS, PLANNERS["random"], temperature=1.0, seed=1)
    assert any(not torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))
    listed = decode(PROMPTS, PLANNERS["random"], temperature=1.0, seed=[3, 4, 5, 6])
    assert_same(listed[2], decode([PROMPTS[2]], PLANNERS["random"], temperature=1.0, seed=[5])[0])


@every_planner
def test_nfe_counts_the_denoiser_calls_of_each_row(planner: Planner) -> None:
    net = Counting(NET)
    rows = decode(PROMPTS, planner, net=net, temperature=1.0)
    assert sum(net.calls) == sum(row.nfe for row in rows)
    assert len(net.calls) == max(row.nfe for row in rows)
    assert net.calls == sorted(net.calls, reverse=True)


@every_planner
@pytest.mark.parametrize(
    ("temperature", "stop_at_eos"), [(0.0, False), (0.7, True)], ids=["greedy", "sampled"]
)
def test_replaying_a_decode_gives_back_its_log_probs(
    planner: Planner, temperature: float, stop_at_eos: bool
) -> None:
    settings = {"temperature": temperature, "stop_at_eos": stop_at_eos, "record_log_probs": True}
    for row in decode(PROMPTS, planner, **settings):
        assert row.planner_log_prob is not None
        assert row.token_log_prob is not None
        steps_S = torch.arange(row.nfe)
        states_SL = torch.stack([row.state_at(step) for step in range(row.nfe)])
        tokens_ST = torch.cat([row.prompt.expand(row.nfe, -1), states_SL], dim=1)
        out = NET(tokens_ST)
        view = make_view(
            out.logits,
            out.hidden,
            tokens_ST,
            None,
            length=LENGTH,
            block_length=row.block_length,
            step_B=steps_S,
            mask_id=row.mask_id,
        )
        chosen_SL = row.unmask_step == steps_S[:, None]
        with torch.no_grad():
            planned_S = planner(view).log_prob(chosen_SL)
        tokens_SL = row.tokens.expand(row.nfe, -1)
        fixed_S = token_log_prob(view.logits_BLV, tokens_SL, chosen_SL, row.temperature)
        torch.testing.assert_close(planned_S, row.planner_log_prob, rtol=0, atol=1e-5)
        torch.testing.assert_close(fixed_S, row.token_log_prob, rtol=0, atol=1e-5)


def test_log_probs_are_only_kept_when_asked_for() -> None:
    row = decode(PROMPTS, PLANNERS["policy"])[0]
    assert row.planner_log_prob is None
    assert row.token_log_prob is None


@dataclass(frozen=True)
class Scripted:
    """A denoiser that always expects the same tokens."""

    expected: list[int]
    mask_id: int = MASK
    eos_id: int = EOS
    pad_id: int = 12
    vocab_size: int = 13
    max_length: int = 64
    hidden_size: int = 1
    tokenizer: None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        num_prompt = tokens_BT.shape[1] - len(self.expected)
        tokens_T = torch.tensor([0] * num_prompt + self.expected)
        logits_TV = 9.0 * torch.nn.functional.one_hot(tokens_T, self.vocab_size)
        num_rows = len(tokens_BT)
        return Denoised(logits_TV.expand(num_rows, -1, -1), torch.zeros(*tokens_BT.shape, 1))


def test_a_row_stops_at_an_eos_that_nothing_can_precede() -> None:
    net = Scripted([1, 2, EOS, 3, 4, 5])
    planner = unmask.planner("left_to_right", k=1)
    settings: dict[str, Any] = {"net": net, "length": 6, "block_length": 6}
    (row,) = decode([[1]], planner, stop_at_eos=True, record_log_probs=True, **settings)
    assert row.tokens.tolist() == [1, 2, EOS, EOS, EOS, EOS]
    assert row.unmask_step.tolist() == [0, 1, 2, -1, -1, -1]
    assert row.nfe == 3
    assert row.planner_log_prob is not None
    assert len(row.planner_log_prob) == 3
    (row,) = decode([[1]], planner, **settings)
    assert row.tokens.tolist() == net.expected
    assert row.nfe == 6


@dataclass(frozen=True)
class InOrder:
    """The positions of `order`, one per step."""

    order: list[int]

    def __call__(self, view: View) -> Subset:
        at_B = torch.tensor(self.order)[view.step_B]
        return Fixed(torch.arange(view.open_BL.shape[1]) == at_B[:, None])


def test_an_eos_behind_a_mask_does_not_stop_the_row() -> None:
    net = Scripted([1, 2, EOS, 3, 4, 5])
    planner = InOrder([2, 4, 0, 1, 3, 5])
    (row,) = decode([[1]], planner, net=net, length=6, block_length=6, stop_at_eos=True)
    assert row.tokens.tolist() == [1, 2, EOS, EOS, 4, EOS]
    assert row.unmask_step.tolist() == [2, 3, 0, -1, 1, -1]
    assert row.nfe == 4


def test_settling_fills_only_masks_behind_a_settled_eos() -> None:
    completion_BL = torch.tensor(
        [[1, EOS, MASK, 3, MASK], [MASK, EOS, MASK, 3, MASK], [EOS] + [MASK] * 4, [1, 2, 3, 4, 5]]
    )
    assert settle(completion_BL, MASK, EOS).tolist() == [
        [1, EOS, EOS, 3, EOS],
        [MASK, EOS, MASK, 3, MASK],
        [EOS] * 5,
        [1, 2, 3, 4, 5],
    ]


def test_a_planner_cannot_unmask_what_is_not_open() -> None:
    def everything(view: View) -> Subset:
        return Fixed(torch.ones_like(view.open_BL))

    for row in decode(PROMPTS, everything):
        assert row.unmask_step.tolist() == [0] * BLOCK + [1] * BLOCK


def test_tokens_are_drawn_from_the_tempered_softmax() -> None:
    num_rows = 20_000
    logits_BLV = torch.tensor([[0.0, 1.0, -2.0, -torch.inf]]).expand(num_rows, 1, -1)
    seed_B = torch.tensor([derive(0, row) for row in range(num_rows)])
    streams = RowStreams(seed_B, torch.zeros_like(seed_B))
    for temperature in (0.5, 1.0, 2.0):
        tokens_BL = sample_tokens(logits_BLV, temperature, streams)
        share_V = torch.bincount(tokens_BL.flatten(), minlength=4) / num_rows
        expected_V = (logits_BLV[0, 0] / temperature).softmax(-1)
        assert (share_V - expected_V).abs().max() < 0.015
        chosen_BL = torch.ones(num_rows, 1, dtype=torch.bool)
        scored_B = token_log_prob(logits_BLV, tokens_BL, chosen_BL, temperature)
        torch.testing.assert_close(scored_B.exp(), expected_V[tokens_BL.squeeze(-1)])
    assert (sample_tokens(logits_BLV, 0, streams) == 1).all()


def test_token_log_probs_add_up_over_the_chosen_positions(rng: torch.Generator) -> None:
    logits_BLV = torch.randn(2, 3, 4, generator=rng)
    tokens_BL = torch.randint(0, 4, (2, 3), generator=rng)
    chosen_BL = torch.tensor([[True, False, True], [False, False, False]])
    each_BL = logits_BLV.log_softmax(-1).gather(-1, tokens_BL[..., None]).squeeze(-1)
    expected_B = (each_BL * chosen_BL).sum(-1)
    torch.testing.assert_close(token_log_prob(logits_BLV, tokens_BL, chosen_BL, 1.0), expected_B)
    assert token_log_prob(logits_BLV, tokens_BL, chosen_BL, 0.0).tolist() == [0, 0]


@pytest.mark.parametrize("name", EXACT)
def test_exact_denoisers_decode_in_blocks_too(name: str) -> None:
    net = EXACT[name]()
    rows = unmask.decode(
        net,
        [net.prompt, net.prompt * 3],
        unmask.planner("random"),
        length=net.length,
        block_length=net.length // 2,
        temperature=1.0,
    )
    assert all(net.is_valid(row.tokens) for row in rows)
