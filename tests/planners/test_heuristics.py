"""Each heuristic against its definition on rows small enough to do by hand."""

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import unmask
from tests.planners.views import streams, view_of, view_with_confidences
from unmask.planners.base import View
from unmask.planners.heuristics import HEURISTICS, factor_rule, linear_schedule
from unmask.planners.load import parse_planner

SETTINGS: dict[str, list[dict[str, float | str]]] = {
    "random": [{"k": 1}, {"k": 3}],
    "left_to_right": [{"k": 1}, {"k": 3}],
    "top_k": [{"k": 1}, {"k": 3}],
    "margin": [{"k": 1}, {"k": 3}],
    "entropy": [{"k": 1}, {"k": 3}],
    "threshold": [{"tau": 0.5}, {"tau": 0.99}, {"tau": 7.0}],
    "factor": [{"factor": 0.01}, {"factor": 1.0}, {"factor": 50.0}],
    "entropy_bound": [{"gamma": 0.0}, {"gamma": 1.0}],
    "schedule": [{"steps": 2}, {"steps": 5, "by": "margin", "among": 2}, {"steps": 1, "by": "confidence"}],
}


def chosen(name: str, view: View, **settings: float | str) -> Tensor:
    return unmask.planner(name, **settings)(view).sample(streams(len(view.open_BL)))


def positions(name: str, view: View, **settings: float | str) -> list[int]:
    """What a heuristic takes of the only row."""
    return chosen(name, view, **settings)[0].nonzero().squeeze(-1).tolist()


def row(*confidences: float) -> View:
    return view_with_confidences(torch.tensor([confidences]))


def three_symbols(*probabilities: list[float]) -> View:
    logits_BLV = torch.tensor([probabilities]).log()
    return view_of(logits_BLV, torch.ones(logits_BLV.shape[:2], dtype=torch.bool))


# Most confident: 0. Largest margin: 1. Lowest entropy: 2.
DISAGREEING = three_symbols([0.58, 0.40, 0.02], [0.56, 0.22, 0.22], [0.57, 0.425, 0.005])


def test_settings_cover_every_heuristic() -> None:
    assert set(SETTINGS) == set(HEURISTICS)


def test_top_k_takes_the_most_confident() -> None:
    assert positions("top_k", row(0.6, 0.9, 0.7, 0.8), k=1) == [1]
    assert positions("top_k", row(0.6, 0.9, 0.7, 0.8), k=2) == [1, 3]
    assert positions("top_k", row(0.6, 0.9, 0.7, 0.8), k=9) == [0, 1, 2, 3]


def test_confidence_margin_and_entropy_order_differently() -> None:
    assert positions("top_k", DISAGREEING, k=1) == [0]
    assert positions("margin", DISAGREEING, k=1) == [1]
    assert positions("entropy", DISAGREEING, k=1) == [2]


def test_left_to_right_takes_the_leftmost_masks() -> None:
    masked_BL = torch.tensor([[False, True, False, True, True]])
    view = view_with_confidences(torch.full((1, 5), 0.7), masked_BL)
    assert positions("left_to_right", view, k=1) == [1]
    assert positions("left_to_right", view, k=2) == [1, 3]


def test_random_takes_k_open_positions_all_alike() -> None:
    masked_BL = torch.tensor([[False, True, True, True, True]]).expand(4000, -1)
    view = view_with_confidences(torch.full((4000, 5), 0.7), masked_BL)
    chosen_BL = chosen("random", view, k=2)
    assert (chosen_BL.sum(-1) == 2).all()
    assert not chosen_BL[:, 0].any()
    assert (chosen_BL[:, 1:].float().mean(0) - 0.5).abs().max() < 0.04
    log_prob_B = unmask.planner("random", k=2)(view).log_prob(chosen_BL)
    torch.testing.assert_close(log_prob_B.exp(), torch.full((4000,), 1 / 6))


def test_threshold_takes_all_that_reach_it_and_always_the_best() -> None:
    view = row(0.6, 0.95, 0.7, 0.9375)
    assert positions("threshold", view, tau=0.9) == [1, 3]
    assert positions("threshold", view, tau=0.9374) == [1, 3]
    assert positions("threshold", view, tau=0.99) == [1]
    assert positions("threshold", view, tau=0.5) == [0, 1, 2, 3]


def test_factor_takes_the_longest_run_that_keeps_its_bound() -> None:
    # (i + 1)(1 - c) for i = 1 .. 5: 0.02, 0.06, 0.4, 1.25, 2.4
    view = row(0.98, 0.9, 0.99, 0.6, 0.75)
    assert positions("factor", view, factor=0.03) == [2]
    assert positions("factor", view, factor=0.5) == [0, 1, 2]
    assert positions("factor", view, factor=0.3) == [0, 2]
    assert positions("factor", view, factor=3.0) == [0, 1, 2, 3, 4]


def test_factor_stops_at_the_first_failure() -> None:
    # ranks 1 .. 4 bound the confidence by 0.5, 0.667, 0.75, 0.8: rank 2 fails, as do those behind it
    assert positions("factor", row(0.66, 0.65, 0.64, 0.63), factor=1.0) == [0]


def test_factor_takes_the_last_two_masks_together() -> None:
    """As the published code does: see `Factor`."""
    assert positions("factor", row(0.9, 0.51), factor=0.25) == [0, 1]
    assert positions("factor", row(0.9, 0.51, 0.51), factor=0.25) == [0]


def test_entropy_bound_adds_up_all_but_the_largest_entropy() -> None:
    def binary(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    view = row(0.8, 0.99, 0.95)
    small, middle = binary(0.99), binary(0.95)
    assert positions("entropy_bound", view, gamma=0.0) == [1]
    assert positions("entropy_bound", view, gamma=small - 1e-3) == [1]
    assert positions("entropy_bound", view, gamma=small + 1e-3) == [1, 2]
    assert positions("entropy_bound", view, gamma=small + middle + 1e-3) == [0, 1, 2]


def test_only_the_current_block_is_open() -> None:
    masked_BL = torch.tensor([[False, True, True, True, True, True], [False] * 4 + [True, True]])
    logits_BLV = torch.zeros(2, 6, 3)
    logits_BLV[:, 5, 0] = 9.0
    view = view_of(logits_BLV, masked_BL, block_length=2)
    assert view.open_BL.nonzero().tolist() == [[0, 1], [1, 4], [1, 5]]
    assert chosen("top_k", view, k=1).nonzero().tolist() == [[0, 1], [1, 5]]


def test_the_mask_token_never_counts_as_a_choice() -> None:
    view = row(0.6, 0.7)
    assert (view.logits_BLV[..., -1] == -torch.inf).all()
    assert view.logits_BLV.argmax(-1).tolist() == [[0, 0]]


def test_larger_factors_and_smaller_thresholds_take_more(rng: torch.Generator) -> None:
    view = view_with_confidences(torch.rand(64, 12, generator=rng) * 0.5 + 0.5)
    for name, setting, values in [
        ("factor", "factor", [0.1, 0.5, 1.0, 2.0, 8.0]),
        ("threshold", "tau", [0.99, 0.9, 0.7, 0.5]),
        ("entropy_bound", "gamma", [0.0, 0.1, 1.0, 9.0]),
        ("top_k", "k", [1, 2, 5, 12]),
    ]:
        sets = [chosen(name, view, **{setting: value}) for value in values]
        for smaller, larger in pairwise(sets):
            assert not (smaller & ~larger).any()


@pytest.mark.parametrize("name", SETTINGS)
@given(
    st.lists(
        st.tuples(st.floats(-80, 80, width=32), st.floats(-80, 80, width=32), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 7),
)
def test_there_is_always_progress_and_only_at_open_positions(
    name: str, cells: list[tuple[float, float, bool]], forced: int
) -> None:
    logits_BLV = torch.tensor([[cell[:2] for cell in cells]])
    masked_BL = torch.tensor([[cell[2] for cell in cells]])
    masked_BL[0, forced % len(cells)] = True
    view = view_of(logits_BLV, masked_BL)
    for settings in SETTINGS[name]:
        subset = unmask.planner(name, **settings)(view)
        chosen_BL = subset.sample(streams(1, forced))
        assert chosen_BL.any()
        assert not (chosen_BL & ~view.open_BL).any()
        assert subset.log_prob(chosen_BL).isfinite().all()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_is_planned_as_if_it_were_alone(name: str, rng: torch.Generator) -> None:
    logits_BLV = torch.randn(6, 8, 5, generator=rng) * 3
    masked_BL = torch.rand(6, 8, generator=rng) < 0.7
    masked_BL[:, 3] = True
    batch, seeds = chosen(name, view_of(logits_BLV, masked_BL)), streams(6)
    for index in range(6):
        alone = view_of(logits_BLV[index : index + 1], masked_BL[index : index + 1])
        own = type(seeds)(seeds.seed_B[index : index + 1], seeds.step_B[index : index + 1])
        assert torch.equal(unmask.planner(name)(alone).sample(own)[0], batch[index])


def test_the_factor_rule_ignores_closed_positions(rng: torch.Generator) -> None:
    confidence_BL = torch.rand(32, 10, generator=rng)
    open_BL = torch.rand(32, 10, generator=rng) < 0.6
    open_BL[:, 0] = True
    expected = factor_rule(confidence_BL, open_BL, 1.0)
    noisy_BL = torch.where(open_BL, confidence_BL, torch.rand(32, 10, generator=rng))
    assert torch.equal(factor_rule(noisy_BL, open_BL, 1.0), expected)


def test_unknown_planners_and_settings_name_the_choices() -> None:
    with pytest.raises(ValueError, match=r"unknown planner 'greedy'.*entropy_bound.*top_k"):
        unmask.planner("greedy")
    with pytest.raises(ValueError, match=r"top_k has no 'tau'; it takes k"):
        unmask.planner("top_k", tau=0.5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("top_k", {"k": 0}),
        ("random", {"k": -1}),
        ("top_k", {"k": 1.5}),
        ("random", {"k": 0.5}),
        ("threshold", {"tau": 0.0}),
        ("threshold", {"tau": math.nan}),
        ("factor", {"factor": 0.0}),
        ("entropy_bound", {"gamma": -0.1}),
        ("entropy_bound", {"gamma": math.nan}),
        ("entropy_bound", {"gamma": "0.1"}),
        ("threshold", {"tau": "0.9"}),
        ("factor", {"last_pair": "no"}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        unmask.planner(name, **settings)


def test_a_schedule_takes_as_many_as_its_time_says() -> None:
    """Of n masks at time t, int(n (1 - s / t)) go until time s; t falls by nearly a quarter a step."""
    assert linear_schedule(8, 4)[8].tolist() == [1, 2, 2, 3]
    assert linear_schedule(8, 1)[8].tolist() == [8]


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_schedule_unmasks_everything_in_at_most_its_steps(length: int, steps: int) -> None:
    counts = linear_schedule(40, steps)[length].tolist()
    assert len(counts) == steps
    left = length
    for count in counts:
        assert count >= 1
        left -= min(count, left)
    assert left == 0


def test_a_schedule_goes_by_what_it_was_told_and_by_the_step_of_the_row() -> None:
    def taken(step: int, by: str) -> list[int]:
        view = dataclasses.replace(DISAGREEING, step_B=torch.tensor([step]))
        return positions("schedule", view, steps=3, by=by)

    assert linear_schedule(3, 3)[3].tolist() == [1, 2, 3]
    assert [taken(0, by) for by in ("confidence", "margin", "entropy")] == [[0], [1], [2]]
    assert taken(1, "entropy") == [0, 2]
    assert taken(9, "entropy") == [0, 1, 2]


def test_a_schedule_can_leave_unlikely_tokens_out_of_account() -> None:
    view = three_symbols([0.58, 0.40, 0.02], [0.52, 0.24, 0.24], [0.34, 0.33, 0.33])
    assert positions("schedule", view, steps=3, by="confidence") == [0]
    assert positions("schedule", view, steps=3, by="confidence", among=2) == [1]
    assert positions("schedule", view, steps=3, by="confidence", among=3) == [0]


def test_a_schedule_refuses_what_it_cannot_do() -> None:
    for settings, message in (
        ({"steps": 0}, "steps=0 is no number of steps"),
        ({"by": "luck"}, "by='luck' is unknown"),
        ({"by": "margin", "among": 1}, "second token"),
    ):
        with pytest.raises(ValueError, match=message):
            unmask.planner("schedule", **settings)
    planner = parse_planner("schedule(24, by=margin, among=50)")
    assert planner == unmask.planner("schedule", steps=24, by="margin", among=50)


@pytest.mark.parametrize("name", ["top_k", "random", "schedule"])
def test_counts_may_be_numpys(name: str) -> None:
    view = view_with_confidences(torch.tensor([[0.9, 0.6, 0.7, 0.55]]))
    setting = "steps" if name == "schedule" else "k"
    sets = [unmask.planner(name, **{setting: k})(view).sample(streams(1)) for k in (2, np.int64(2))]
    assert torch.equal(*sets)


@pytest.mark.parametrize(
    "text", ["top_k(2.0)", "random(1e20)", "schedule(4.0)", "schedule(4, among=3.0)", "top_k(1e400)"]
)
def test_counts_are_whole_numbers_of_a_sensible_size(text: str) -> None:
    with pytest.raises(ValueError, match="give a whole number above 0"):
        parse_planner(text)
