import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eval.toys import record
from unmask.eval.metrics import (
    accuracy,
    mean_nfe,
    paired_difference,
    paired_nfe_ratio,
    pass_at_k,
    seconds_per_sample,
    summarise,
    tokens_per_forward,
    wilson,
)
from unmask.eval.records import Record

ROUNDS = 400


def sampled(rng: random.Random, skills: list[float], num_seeds: int, **fields: object) -> list[Record]:
    return [
        record(id=f"{index}", seed=seed, correct=rng.random() < skill, **fields)
        for index, skill in enumerate(skills)
        for seed in range(num_seeds)
    ]


def test_wilson_agrees_with_the_published_example() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20)
    assert (low, round(high, 4)) == (0.0, 0.1611)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_and_is_symmetric(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_with_one_sample_per_problem_the_interval_is_wilsons(outcomes: list[bool]) -> None:
    estimate = accuracy([record(id=f"{i}", correct=one) for i, one in enumerate(outcomes)])
    assert estimate.value == pytest.approx(sum(outcomes) / len(outcomes))
    assert (estimate.low, estimate.high) == pytest.approx(wilson(sum(outcomes), len(outcomes)))


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(2, 5))
def test_seeds_that_always_agree_add_nothing(outcomes: list[bool], num_seeds: int) -> None:
    once = [record(id=f"{i}", correct=one) for i, one in enumerate(outcomes)]
    copies = [
        record(id=f"{i}", correct=one, seed=seed)
        for i, one in enumerate(outcomes)
        for seed in range(num_seeds)
    ]
    single, several = accuracy(once), accuracy(copies)
    assert (several.low, several.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize(
    ("skills_of", "num_seeds"),
    [
        (lambda rng: [rng.betavariate(0.5, 0.5) for _ in range(60)], 4),
        (lambda rng: [rng.betavariate(0.3, 2) for _ in range(60)], 3),
        (lambda rng: [rng.betavariate(8, 0.5) for _ in range(60)], 2),
        (lambda rng: [0.97] * 60, 1),
    ],
)
def test_accuracy_intervals_hold_the_truth_nineteen_times_in_twenty(
    skills_of: object, num_seeds: int
) -> None:
    rng = random.Random(1)
    truth = sum(sum(skills_of(rng)) for _ in range(4000)) / (4000 * 60)  # type: ignore[operator]
    held = 0
    for _ in range(ROUNDS):
        estimate = accuracy(sampled(rng, skills_of(rng), num_seeds))  # type: ignore[operator]
        held += estimate.low <= truth <= estimate.high
    assert 0.92 <= held / ROUNDS <= 0.99


def test_more_seeds_narrow_the_interval_of_hard_to_tell_problems() -> None:
    rng = random.Random(0)
    one, many = (accuracy(sampled(rng, [0.5] * 50, seeds)) for seeds in (1, 8))
    assert many.half_width < 0.6 * one.half_width


def test_nfe_intervals_hold_the_truth_nineteen_times_in_twenty() -> None:
    rng = random.Random(2)
    held = 0
    for _ in range(ROUNDS):
        records = []
        for index in range(60):
            centre = rng.randint(10, 30)
            records += [
                record(id=f"{index}", seed=seed, nfe=centre + rng.randint(-5, 5)) for seed in range(3)
            ]
        estimate = mean_nfe(records)
        held += estimate.low <= 20 <= estimate.high
    assert 0.92 <= held / ROUNDS <= 0.98


def test_one_problem_leaves_the_nfe_interval_unknown() -> None:
    estimate = mean_nfe([record(nfe=4), record(nfe=6, seed=1)])
    assert estimate.value == 5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_tpf_is_a_ratio_of_sums() -> None:
    records = [record(id="a", tokens=10, nfe=2), record(id="b", tokens=0, nfe=8)]
    assert tokens_per_forward(records) == 1.0


def test_every_problem_counts_alike_however_many_seeds_it_has() -> None:
    records = [record(id="a", seconds=1.0), record(id="a", seed=1, seconds=3.0)]
    records.append(record(id="b", seconds=4.0, correct=False))
    assert seconds_per_sample(records) == 3.0
    assert accuracy(records).value == 0.5


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_success(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([index < c for index in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_refuses_more_draws_than_samples() -> None:
    with pytest.raises(ValueError, match="k <= n"):
        pass_at_k(3, 1, 4)


def test_summaries_are_grouped_and_counted() -> None:
    records = [
        record(planner=planner, block_length=block, id=f"{index}", seed=seed)
        for planner in ("factor(1)", "top_k(2)")
        for block in (4, 8)
        for index in range(3)
        for seed in (0, 1)
    ]
    summaries = summarise(records)
    assert [(one.planner, one.block_length) for one in summaries] == [
        ("factor(1)", 4),
        ("factor(1)", 8),
        ("top_k(2)", 4),
        ("top_k(2)", 8),
    ]
    assert {(one.num_records, one.num_problems) for one in summaries} == {(6, 3)}


@pytest.mark.parametrize("change", [{"version": 4}, {"length": 16}, {"temperature": 1.0}, {"cache": "dual"}])
def test_what_cannot_be_compared_is_not_averaged(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="top_k\\(2\\) on parity mix"):
        summarise([record(), record(id="b", **change)])


def test_metrics_of_nothing_are_refused() -> None:
    for metric in (accuracy, mean_nfe, tokens_per_forward, seconds_per_sample):
        with pytest.raises(ValueError, match="no records"):
            metric([])
    assert summarise([]) == []


@pytest.mark.parametrize(("num_problems", "gap"), [(40, 0.0), (60, 0.3)])
def test_paired_intervals_hold_the_truth_and_beat_unpaired_ones(num_problems: int, gap: float) -> None:
    rng = random.Random(3)
    held, paired_width, unpaired_width = 0, 0.0, 0.0
    for _ in range(ROUNDS):
        skills = [rng.choice([0.02, 0.68]) for _ in range(num_problems)]
        a = sampled(rng, [skill + gap for skill in skills], 3)
        b = sampled(rng, skills, 3)
        estimate = paired_difference(a, b).estimate
        held += estimate.low <= gap <= estimate.high
        paired_width += estimate.half_width
        unpaired_width += math.hypot(accuracy(a).half_width, accuracy(b).half_width)
    assert 0.92 <= held / ROUNDS <= 0.99
    assert paired_width < 0.8 * unpaired_width


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_swapping_a_paired_comparison_mirrors_it(outcomes: list[tuple[bool, bool]]) -> None:
    a, b = (
        [record(id=f"{i}", correct=pair[side], nfe=1 + i + 3 * pair[side]) for i, pair in enumerate(outcomes)]
        for side in (0, 1)
    )
    forth, back = paired_difference(a, b).estimate, paired_difference(b, a).estimate
    assert forth.low <= forth.value <= forth.high
    assert (-back.value, -back.high, -back.low) == pytest.approx((forth.value, forth.low, forth.high))
    ratio, inverse = paired_nfe_ratio(a, b).estimate, paired_nfe_ratio(b, a).estimate
    assert ratio.value * inverse.value == pytest.approx(1)
    if len(outcomes) > 1:
        assert ratio.low * inverse.high == pytest.approx(1)


def test_paired_comparisons_use_common_samples_only() -> None:
    a = [record(id="x", nfe=2), record(id="y", nfe=4), record(id="only a", correct=False)]
    b = [record(id="y", nfe=8, correct=False), record(id="x", nfe=4), record(id="x", seed=9)]
    difference, ratio = paired_difference(a, b), paired_nfe_ratio(a, b)
    assert (difference.num_pairs, difference.num_problems) == (2, 2)
    assert difference.estimate.value == 0.5
    assert ratio.estimate.value == 0.5
    assert ratio.estimate.low == pytest.approx(0.5)  # exactly half as many in both


def test_paired_comparisons_need_common_samples_of_one_version() -> None:
    with pytest.raises(ValueError, match="share no"):
        paired_difference([record()], [record(seed=1)])
    with pytest.raises(ValueError, match="task version"):
        paired_difference([record()], [record(version=2)])


def test_nfe_ratio_intervals_hold_the_truth_nineteen_times_in_twenty() -> None:
    rng = random.Random(4)
    held = 0
    for _ in range(ROUNDS):
        centres = [rng.randint(20, 60) for _ in range(50)]
        a = [record(id=f"{i}", nfe=c // 2 + rng.randint(-4, 4)) for i, c in enumerate(centres)]
        b = [record(id=f"{i}", nfe=2 * (c // 2) + rng.randint(-9, 9)) for i, c in enumerate(centres)]
        estimate = paired_nfe_ratio(a, b).estimate
        held += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= held / ROUNDS <= 0.98
