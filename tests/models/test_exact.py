"""The exact denoisers: marginals by enumeration, best planners, and what goes wrong without them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import unmask
from unmask.models.base import Denoiser
from unmask.models.exact import (
    EXACT,
    FEATURES,
    ExactDenoiser,
    MarkovChain,
    Pairs,
    Permutation,
    Slots,
)
from unmask.planners.base import Subset, View
from unmask.planners.heads import LinearHead, LinearHeadConfig
from unmask.planners.subsets import Fixed

SMALL: dict[str, Callable[[], ExactDenoiser]] = {
    "pairs": lambda: Pairs(num_pairs=2, num_symbols=3),
    "slots": lambda: Slots(num_slots=4, num_symbols=5),
    "markov": lambda: MarkovChain(length=5),
    "permutation": lambda: Permutation(size=4),
}
LINEAR: dict[str, dict[str, float]] = {
    "pairs": {"bias": 15.0, "odd": -30.0, "left_fixed": 30.0},
    "slots": {"bias": 15.0},
    "markov": {"bias": 15.0, "odd": -30.0, "left_fixed": 30.0},
    "permutation": {"bias": -15.0, "leftmost": 30.0},
}


@dataclass(frozen=True)
class Rounds:
    """Position i in the round `rounds_L[i]`."""

    rounds_L: Tensor

    def __call__(self, view: View) -> Subset:
        return Fixed(view.open_BL & (self.rounds_L == view.step_B[:, None]))


def best_planner(net: ExactDenoiser) -> Rounds:
    positions_L = torch.arange(net.length)
    return Rounds(positions_L if isinstance(net, Permutation) else positions_L % net.optimal_nfe)


def decode(net: ExactDenoiser, planner: unmask.Planner, num: int = 64) -> tuple[list[int], list[bool]]:
    rows = unmask.decode(
        net,
        [net.prompt] * num,
        planner,
        length=net.length,
        block_length=net.length,
        temperature=1.0,
    )
    return [row.nfe for row in rows], [net.is_valid(row.tokens) for row in rows]


def contexts(valid_NL: Tensor, mask_id: int) -> Tensor:
    """Every state that a valid completion can go through."""
    length = valid_NL.shape[1]
    hidden = torch.tensor(list(itertools.product([False, True], repeat=length)))
    return valid_NL[:, None].where(~hidden, mask_id).reshape(-1, length).unique(dim=0)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_conditional_marginals_found_by_enumeration(name: str) -> None:
    net = SMALL[name]()
    every = torch.tensor(list(itertools.product(range(net.num_symbols), repeat=net.length)))
    valid_NL = every[[net.is_valid(tokens_L) for tokens_L in every]]
    context_BL = contexts(valid_NL, net.mask_id)
    masked_BL = context_BL == net.mask_id
    agrees_BN = ((context_BL[:, None] == valid_NL) | masked_BL[:, None]).all(-1)
    onehot_NLV = torch.nn.functional.one_hot(valid_NL, net.vocab_size).double()
    expected_BLV = torch.einsum("bn,nlv->blv", agrees_BN.double(), onehot_NLV)
    expected_BLV /= agrees_BN.sum(-1)[:, None, None]

    prompt_BP = torch.full((len(context_BL), 2), net.bos_id)
    out = net(torch.cat([prompt_BP, context_BL], dim=1))
    probability_BLV = out.logits.softmax(-1)[:, 2:]
    torch.testing.assert_close(probability_BLV, expected_BLV.float(), rtol=0, atol=1e-6)
    assert len(valid_NL) < len(every)


@pytest.mark.parametrize("name", SMALL)
def test_contradictions_give_finite_uniform_marginals(name: str) -> None:
    net = SMALL[name]()
    clash_L = torch.full((net.length,), net.mask_id)
    clash_L[:2] = {
        "pairs": torch.tensor([0, 1]),
        "slots": torch.tensor([4, 4]),
        "markov": torch.tensor([0, 2]),
        "permutation": torch.tensor([1, 1]),
    }[name]
    out = net(torch.cat([torch.tensor(net.prompt), clash_L])[None])
    probability_BTV = out.logits.softmax(-1)
    assert not probability_BTV.isnan().any()
    assert not out.hidden.isnan().any()
    if name in ("markov", "permutation"):  # in the others a clash says nothing about the rest
        assert probability_BTV[0, 3:, : net.num_symbols].allclose(torch.tensor(1 / net.num_symbols))
    completed_L = clash_L.where(clash_L != net.mask_id, 0)
    assert not net.is_valid(completed_L)


@pytest.mark.parametrize("name", EXACT)
def test_it_is_a_denoiser_whose_rows_do_not_depend_on_prompt_or_neighbours(name: str) -> None:
    net = EXACT[name]()
    assert isinstance(net, Denoiser)
    state_BL = torch.full((2, net.length), net.mask_id)
    state_BL[0, ::3] = 0
    short = net(torch.cat([torch.full((2, 1), net.bos_id), state_BL], dim=1))
    long = net(torch.cat([torch.full((1, 7), net.bos_id), state_BL[:1]], dim=1))
    assert short.logits.shape == (2, net.length + 1, net.vocab_size)
    assert short.hidden.shape == (2, net.length + 1, net.hidden_size)
    assert torch.equal(short.logits[:1, 1:], long.logits[:, 7:])
    assert torch.equal(short.hidden[:1, 1:], long.hidden[:, 7:])


def test_features_say_what_their_names_say() -> None:
    net = Pairs(num_pairs=2, num_symbols=4)
    hidden_LD = net(torch.tensor([[net.bos_id, 2, net.mask_id, net.mask_id, net.mask_id]])).hidden
    seen = dict(zip(FEATURES, hidden_LD[0, 1:].T.tolist(), strict=True))
    assert seen == {
        "masked": [0, 1, 1, 1],
        "confidence": [1, 1, 0.25, 0.25],
        "entropy": [0, 0, 1, 1],
        "odd": [0, 1, 0, 1],
        "left_fixed": [0, 1, 0, 0],
        "right_fixed": [0, 0, 0, 0],
        "masked_fraction": [0.75] * 4,
        "leftmost": [0, 1, 0, 0],
    }


@pytest.mark.parametrize("name", EXACT)
def test_the_best_planner_reaches_the_optimal_nfe_without_a_mistake(name: str) -> None:
    net = EXACT[name]()
    nfe, is_valid = decode(net, best_planner(net))
    assert set(nfe) == {net.optimal_nfe}
    assert all(is_valid)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("mode", ["sample", "threshold", "top_k"])
def test_nine_parameters_can_plan_it_perfectly(name: str, mode: str) -> None:
    net = EXACT[name]()
    head = LinearHead(LinearHeadConfig(net.hidden_size))
    weights = [LINEAR[name].get(feature, 0.0) for feature in FEATURES]
    head.score.weight.data = torch.tensor([weights])
    head.score.bias.data = torch.tensor([LINEAR[name]["bias"]])
    assert sum(parameter.numel() for parameter in head.parameters()) == 9
    nfe, is_valid = decode(net, unmask.LearnedPlanner(head, mode=mode))
    # int(sum of probabilities) may fall one short of a whole number
    assert set(nfe) == {net.optimal_nfe} or (mode == "top_k" and max(nfe) <= net.optimal_nfe + 2)
    assert all(is_valid)


@pytest.mark.parametrize("name", EXACT)
def test_one_position_at_a_time_is_always_right(name: str) -> None:
    net = EXACT[name]()
    nfe, is_valid = decode(net, unmask.planner("random", k=1), num=32)
    assert set(nfe) == {net.length}
    assert all(is_valid)


@pytest.mark.parametrize("name", ["pairs", "markov", "permutation"])
def test_four_at_a_time_often_clash(name: str) -> None:
    net = EXACT[name]()
    _, is_valid = decode(net, unmask.planner("top_k", k=4))
    assert sum(is_valid) < len(is_valid) / 2


@pytest.mark.parametrize("name", SMALL)
def test_an_unfinished_completion_is_not_valid(name: str) -> None:
    net = SMALL[name]()
    assert not net.is_valid(torch.full((net.length,), net.mask_id))


def test_too_narrow_input_and_impossible_sizes_are_refused() -> None:
    net = Pairs(num_pairs=2)
    with pytest.raises(ValueError, match="4 columns"):
        net(torch.full((1, 4), net.mask_id))
    with pytest.raises(ValueError, match="length 0"):
        MarkovChain(length=0)
    with pytest.raises(ValueError, match="5 or more"):
        Slots(num_symbols=4)
    with pytest.raises(ValueError, match="length=4"):
        unmask.decode(net, [[0]], unmask.planner("top_k"), length=8, block_length=8)
