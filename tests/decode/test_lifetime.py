"""What an engine that lives long promises, whoever calls it and how."""

import copy
from typing import Any

import pytest
import torch

from tests.decode.test_engine import SHARED, TOP_K, by_id, engine, trajectory
from tests.decode.test_loop import BLOCK, LENGTH, PLANNERS, PROMPTS, assert_same, decode
from unmask.decode.batches import windows
from unmask.decode.engine import FEW
from unmask.decode.state import Request
from unmask.trajectory import Trajectory


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_inference_mode_may_come_and_go(cache: Any) -> None:
    served, wanted = engine(cache=cache), engine(cache=cache).decode(PROMPTS, **SHARED)
    with torch.inference_mode():
        rows = served.decode(PROMPTS, **SHARED)
    for again in (rows, served.decode(PROMPTS, **SHARED)):
        for row, other in zip(again, wanted, strict=True):
            assert_same(row, other)
            assert not row.tokens.is_inference()


def test_a_cache_takes_the_precision_of_its_rows() -> None:
    served, wanted = engine(cache="dual"), engine(cache="dual").decode(PROMPTS, **SHARED)
    with torch.autocast("cpu", torch.bfloat16):
        served.decode(PROMPTS, **SHARED)
    for row, other in zip(served.decode(PROMPTS, **SHARED), wanted, strict=True):
        assert_same(row, other)
    assert served._cache is not None
    assert {each.dtype for pair in served._cache.layers.values() for each in pair} == {torch.float32}


@pytest.mark.parametrize("word", [None, "yes", 1])
def test_flags_are_taken_for_what_python_takes_them(word: Any) -> None:
    served = engine()
    number = served.submit(PROMPTS[0], stop_at_eos=word, **SHARED)
    other = served.submit(PROMPTS[1], **SHARED)
    found = by_id(list(served.run()))
    assert_same(trajectory(found[number]), decode(PROMPTS[:1], TOP_K, stop_at_eos=bool(word))[0])
    assert_same(trajectory(found[other]), decode(PROMPTS[1:2], TOP_K)[0])


def test_ids_that_are_no_whole_numbers_are_refused() -> None:
    served = engine()
    with pytest.raises(TypeError, match="float"):
        served.submit([1.5, 2], **SHARED)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="float"):
        served.decode([[1.5, 2]], **SHARED)  # type: ignore[list-item]


def test_a_cache_shrinks_once_the_long_rows_are_gone() -> None:
    served = engine(cache="dual", max_rows=4)
    short = served.decode(PROMPTS[:3], **SHARED)
    assert served._cache is not None
    small = served._cache.width
    served._cache.width = 4 * small  # as if it had been wide
    for row, other in zip(served.decode(PROMPTS[:3], **SHARED), short, strict=True):
        assert_same(row, other)
    assert served._cache.width == small


@pytest.mark.parametrize("name", ["factor", "policy"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_slots_are_there_for_the_rows_that_come_and_not_for_all_that_might(name: str, cache: Any) -> None:
    """Rows that run while there come to be more, and wider ones, keep what was recorded of them."""
    planner, settings = PLANNERS[name], {"temperature": 1.0, "record_log_probs": True}
    served = engine(planner, cache=cache, max_rows=10**6)
    numbers = [served.submit(PROMPTS[0], seed=seed, **SHARED, **settings) for seed in range(FEW)]
    finished = served.step()
    assert served._state is not None
    assert len(served._state.stops_R) == 1 + FEW
    numbers.append(served.submit(PROMPTS[1], seed=FEW, length=24, block_length=BLOCK, **settings))
    found = by_id(finished + list(served.run()))
    assert len(served._state.stops_R) == 1 + 2 * FEW
    for seed, length, prompt in [(0, LENGTH, PROMPTS[0]), (FEW, 24, PROMPTS[1])]:
        alone = engine(planner, cache=cache).decode(
            [prompt], seed=seed, length=length, block_length=BLOCK, **settings
        )[0]
        row = trajectory(found[numbers[seed]])
        assert_same(row, alone)
        for ours, wanted in zip(recorded(row), recorded(alone), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
        assert (row.confidence is None) == (name == "factor")


def recorded(row: Trajectory) -> list[torch.Tensor]:
    found = (row.planner_log_prob, row.token_log_prob, row.confidence)
    return [each for each in found if each is not None]


@pytest.mark.parametrize("name", ["top_k", "policy"])
def test_defaults_of_pytorch_change_nothing(name: str) -> None:
    settings = {"temperature": 0.7, "record_log_probs": True, **SHARED}
    wanted = engine(PLANNERS[name], cache="dual").decode(PROMPTS, **settings)
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        found = engine(PLANNERS[name], cache="dual").decode(PROMPTS, **settings)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for row, other in zip(found, wanted, strict=True):
        assert_same(row, other)
        for ours, theirs in zip(recorded(row), recorded(other), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_finished_row_keeps_nothing_of_the_engine() -> None:
    served = engine(PLANNERS["policy"], max_rows=1)
    first = served.decode(PROMPTS[:1], record_log_probs=True, **SHARED)[0]
    kept = copy.deepcopy(first)
    served.decode(PROMPTS[1:], record_log_probs=True, temperature=1.0, **SHARED)
    assert_same(first, kept)
    for ours, wanted in zip(recorded(first), recorded(kept), strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize(("sizes", "seen"), [((20, 40), 64), ((100, 200), 256), ((1000, 1001), 1024)])
def test_windows_see_up_to_a_power_of_two_of_columns(sizes: tuple[int, ...], seen: int) -> None:
    requests = [Request(n, (1,), size - 1, 1, 0.0, 0, False, False) for n, size in enumerate(sizes)]
    for width in (2048, seen - 1):
        batch = windows([1, 2], requests, 1, torch.device("cpu"), width, True, True)
        assert batch.shape.width == min(seen, width)
