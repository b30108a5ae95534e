"""GRPO finds the best order of every closed-form denoiser."""

import pytest

import unmask
from unmask.demo.closed_form import ALPHA, learn, measure
from unmask.models.exact import EXACT


def test_every_closed_form_denoiser_has_a_price_of_a_step() -> None:
    assert ALPHA.keys() == EXACT.keys()


@pytest.mark.parametrize("name", EXACT)
def test_grpo_finds_the_best_order(name: str) -> None:
    reached = measure(*learn(name))
    assert reached.accuracy >= 0.98
    assert reached.nfe <= 1.1 * reached.optimal_nfe


def test_watching_shows_the_reward_rise() -> None:
    seen: list[float] = []
    learn("slots", updates=20, watch=lambda update, metrics: seen.append(metrics["score"]))
    assert len(seen) == 20
    assert seen[-1] > seen[0]


def test_no_heuristic_matches_what_is_learned_on_pairs() -> None:
    denoiser = EXACT["pairs"]()
    one = measure(denoiser, unmask.planner("top_k", k=1), num_rows=100)
    four = measure(denoiser, unmask.planner("top_k", k=4), num_rows=100)
    assert one.accuracy == 1
    assert one.nfe > 4 * denoiser.optimal_nfe
    assert four.accuracy < 0.5
