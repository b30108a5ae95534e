"""What an engine that lives long promises, whoever calls it and how."""

from typing import Any

import pytest
import torch

from tests.decode.test_engine import SHARED, TOP_K, by_id, engine, trajectory
from tests.decode.test_loop import PROMPTS, assert_same, decode
from unmask.decode.batches import windows
from unmask.decode.engine import FEW
from unmask.decode.state import Request


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


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_slots_are_there_for_the_rows_that_come_and_not_for_all_that_might(cache: Any) -> None:
    served = engine(cache=cache, max_rows=10**6)
    first = served.submit(PROMPTS[0], seed=3, temperature=1.0, **SHARED)
    finished = served.step()
    assert served._state is not None
    assert len(served._state.stops_R) == 1 + FEW
    numbers = [served.submit(PROMPTS[1], seed=seed, temperature=1.0, **SHARED) for seed in range(FEW)]
    found = by_id(finished + list(served.run()))
    assert len(served._state.stops_R) == 1 + 2 * FEW
    alone = engine(cache=cache)
    for number, prompt, seed in [(first, PROMPTS[0], 3), (numbers[-1], PROMPTS[1], FEW - 1)]:
        wanted = alone.decode([prompt], seed=seed, temperature=1.0, **SHARED)[0]
        assert_same(trajectory(found[number]), wanted)


@pytest.mark.parametrize(("sizes", "seen"), [((20, 40), 64), ((100, 200), 256), ((1000, 1001), 1024)])
def test_windows_see_up_to_a_power_of_two_of_columns(sizes: tuple[int, ...], seen: int) -> None:
    requests = [Request(n, (1,), size - 1, 1, 0.0, 0, False, False) for n, size in enumerate(sizes)]
    for width in (2048, seen - 1):
        batch = windows([1, 2], requests, 1, torch.device("cpu"), width, True, True)
        assert batch.shape.width == min(seen, width)
