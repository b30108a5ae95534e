import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eval.toys import record
from unmask.eval.metrics import summarise
from unmask.eval.pareto import (
    Point,
    accuracy_at,
    accuracy_under_parallelism,
    area_under,
    family,
    frontier,
    points_of,
)

point_lists = st.lists(
    st.builds(
        Point,
        nfe=st.integers(1, 12).map(float),
        accuracy=st.integers(0, 8).map(lambda eighths: eighths / 8),
        label=st.sampled_from(["a", "b"]),
    ),
    max_size=12,
)
THREE = [Point(4, 0.2), Point(8, 0.6), Point(16, 0.8)]


def matches(one: Point, other: Point) -> bool:
    return one.nfe <= other.nfe and one.accuracy >= other.accuracy


@pytest.mark.parametrize(
    ("label", "expected"),
    [("factor(1.0)", "factor"), ("top_k k=2", "top_k"), ("dultra@0.5", "dultra"), ("(odd", "(odd")],
)
def test_a_family_is_a_label_without_settings(label: str, expected: str) -> None:
    assert family(label) == expected


@given(point_lists)
def test_the_frontier_is_what_nothing_beats(points: list[Point]) -> None:
    best = frontier(points)
    assert set(best) <= set(points)
    for point in points:
        assert any(matches(one, point) for one in best)
    for one in best:
        beaten = [p for p in points if matches(p, one) and (p.nfe, p.accuracy) != (one.nfe, one.accuracy)]
        assert beaten == []


@given(point_lists)
def test_the_frontier_of_a_frontier_is_itself(points: list[Point]) -> None:
    assert frontier(frontier(points)) == frontier(points)


@given(point_lists, st.randoms(use_true_random=False))
def test_the_frontier_does_not_depend_on_order(points: list[Point], rng: random.Random) -> None:
    shuffled = rng.sample(points, len(points))
    assert frontier(shuffled) == frontier(points)


@given(point_lists.filter(bool), st.data())
def test_dominated_points_change_nothing(points: list[Point], data: st.DataObject) -> None:
    over = data.draw(st.sampled_from(points))
    worse = Point(over.nfe + data.draw(st.integers(0, 3)), over.accuracy - 0.01, "worse")
    assert frontier([worse, *points]) == frontier(points)
    assert area_under([worse, *points], 10) == area_under(points, 10)


def test_a_budget_buys_the_best_point_below_it() -> None:
    budgets = [3.9, 4, 7.9, 8, 12, 16, 99]
    assert [accuracy_at(THREE, nfe) for nfe in budgets] == [0, 0.2, 0.2, 0.6, 0.6, 0.8, 0.8]


def test_areas_agree_with_hand_computed_ones() -> None:
    assert area_under(THREE, 20) == pytest.approx((4 * 0.2 + 8 * 0.6 + 4 * 0.8) / 20)
    assert area_under(THREE, 12) == pytest.approx((4 * 0.2 + 4 * 0.6) / 12)
    assert area_under(THREE, 4) == 0
    assert area_under([], 4) == 0
    with pytest.raises(ValueError, match="no budget"):
        area_under(THREE, 0)


@given(point_lists, st.integers(1, 14))
def test_an_area_is_the_mean_over_budgets(points: list[Point], nfe_max: int) -> None:
    cuts = 64  # the midpoint rule is exact here: points lie on integers
    budgets = [(index + 0.5) / cuts for index in range(nfe_max * cuts)]
    mean = sum(accuracy_at(points, nfe) for nfe in budgets) / len(budgets)
    assert area_under(points, nfe_max) == pytest.approx(mean)


def test_aup_agrees_with_a_hand_computed_example() -> None:
    # TPF 1, 2, 4 at 80, 78, 76 %, best method 80 %: y W(y) = 80, 78 exp(-0.075), 76 exp(-0.15)
    weighted = [80.0, 78 * math.exp(-0.075), 76 * math.exp(-0.15)]
    expected = 1 * 80 + 1 * (weighted[0] + weighted[1]) / 2 + 2 * (weighted[1] + weighted[2]) / 2
    assert expected == pytest.approx(293.9598, abs=1e-3)
    assert accuracy_under_parallelism([2, 4, 1], [0.78, 0.76, 0.80], best_accuracy=0.8) == pytest.approx(
        expected
    )


def test_aup_drops_what_lost_more_than_five_points_and_caps_the_weight_at_one() -> None:
    base = accuracy_under_parallelism([1, 2], [0.8, 0.75], best_accuracy=0.8)
    assert base == accuracy_under_parallelism([1, 2, 50], [0.8, 0.75, 0.749], best_accuracy=0.8)
    assert accuracy_under_parallelism([1, 3], [0.5, 0.5], best_accuracy=0.4) == pytest.approx(150)
    with pytest.raises(ValueError, match="fractions"):
        accuracy_under_parallelism([1], [80], best_accuracy=0.8)
    with pytest.raises(ValueError, match="positive TPF"):
        accuracy_under_parallelism([], [], best_accuracy=0.8)


def test_a_summary_becomes_a_point() -> None:
    summary = summarise([record(nfe=4), record(id="b", nfe=8, correct=False)])[0]
    assert points_of([summary])[0] == Point(6, 0.5, "top_k(2) on toy, block 4")
