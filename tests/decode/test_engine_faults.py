"""What goes wrong with a row, or with memory, costs the engine no other row."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unmask
from tests.decode.test_engine import SHARED, TOP_K, by_id, engine, trajectory
from tests.decode.test_loop import LENGTH, NET, PROMPTS, assert_same, decode, every_planner
from tests.models.tiny import MASK, tiny_net
from unmask.decode.layouts import KeyValueCache
from unmask.decode.state import State
from unmask.planners.base import Planner, View
from unmask.planners.subsets import Fixed


class Broken(torch.nn.Module):
    """Scores of NaN for rows of one size."""

    def forward(self, view: View) -> Tensor:
        is_bad_B = view.canvas.size_B == LENGTH + 3
        return torch.where(is_bad_B[:, None], torch.nan, torch.zeros(view.open_BL.shape))


@pytest.mark.parametrize("mode", ["sample", "threshold", "top_k"])
def test_a_planner_that_returns_nan_costs_only_that_row(mode: Any) -> None:
    planner = unmask.LearnedPlanner(Broken(), mode=mode)
    served = engine(planner)
    bad, good = served.submit([1, 2, 3], **SHARED), served.submit([1, 2], **SHARED)
    found = by_id(list(served.run()))
    error = found[bad].error
    assert error is not None
    assert "NaN" in error
    assert_same(trajectory(found[good]), decode([[1, 2]], planner)[0])


@every_planner
@pytest.mark.parametrize(
    "prompts", [[[7, 7, 7, 7], [1, 2]], [[1, 2], [7, 7, 7, 7]], [[1], [2, 7], [3, 5, 6]]]
)
def test_a_row_of_which_the_model_returns_nan_costs_no_other(
    planner: Planner, prompts: list[list[int]]
) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight[7] = torch.nan
    served = engine(planner, net)
    numbers = [served.submit(prompt, **SHARED) for prompt in prompts]
    found = by_id(list(served.run()))
    for number, prompt in zip(numbers, prompts, strict=True):
        if 7 in prompt:
            assert "NaN" in (found[number].error or "")
        else:
            assert_same(trajectory(found[number]), decode([prompt], planner, net=net)[0])


@every_planner
def test_a_row_of_nan_is_reported_late_but_well_where_the_host_looks_seldom(planner: Planner) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight[7] = torch.nan
    served = engine(planner, net, steps_per_sync=5)
    number = served.submit([7], length=2, block_length=2, record_log_probs=True)
    other = served.submit([8], **SHARED)  # so that the first idles
    found = by_id(list(served.run()))
    assert "NaN" in (found[number].error or "")
    assert_same(trajectory(found[other]), decode([[8]], planner, net=net)[0])


@every_planner
def test_a_longer_row_of_nan_costs_no_shorter_one(planner: Planner) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight[7] = torch.nan
    for order in ([0, 1], [1, 0]):
        served, rows = engine(planner, net), [([6, 7], 2 * LENGTH), ([6, 8, 9], LENGTH)]
        numbers = {}
        for which in order:
            prompt, length = rows[which]
            numbers[which] = served.submit(prompt, length=length, block_length=LENGTH)
        found = by_id(list(served.run()))
        assert "NaN" in (found[numbers[0]].error or "")
        assert_same(
            trajectory(found[numbers[1]]), decode([rows[1][0]], planner, net=net, block_length=LENGTH)[0]
        )


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_what_a_row_of_nan_left_in_a_cache_is_forgotten(cache: Any) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight[7] = torch.nan
    served = engine(net=net, cache=cache, max_rows=1)
    numbers = [served.submit(prompt, **SHARED) for prompt in ([7] * 10, [1, 2], [3, 4, 5])]
    found = by_id(list(served.run()))
    assert [found[number].error is None for number in numbers] == [False, True, True]


@every_planner
def test_logits_of_nan_are_noticed(planner: Planner) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.head.weight[5] = torch.nan
    served = engine(planner, net)
    served.submit([1, 2], **SHARED)
    (finished,) = list(served.run())
    assert "NaN" in (finished.error or "")


def test_a_planner_that_chooses_nothing_is_reported_at_once() -> None:
    served = engine(lambda view: Fixed(torch.zeros_like(view.open_BL)))
    served.submit([1], **SHARED)
    (finished,) = served.step()
    assert finished.error is not None
    assert "chose no position" in finished.error


def test_a_planner_that_raises_loses_no_row() -> None:
    broken = True

    def planner(view: View) -> Any:
        if broken and (view.step_B > 2).any():
            raise KeyError("a fault of the planner")
        return TOP_K(view)

    served = engine(planner, cache="dual")
    numbers = [served.submit(prompt, **SHARED) for prompt in PROMPTS]
    with pytest.raises(KeyError, match="a fault"):
        list(served.run())
    assert served.num_unfinished == len(PROMPTS)
    broken = False
    found = by_id(list(served.run()))
    wanted = engine(cache="dual").decode(PROMPTS, **SHARED)
    for number, row in zip(numbers, wanted, strict=True):
        assert_same(trajectory(found[number]), row)


def test_out_of_memory_makes_batches_smaller_and_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    served, wanted = engine(max_rows=4), decode(PROMPTS, TOP_K)
    encode, most, rows_seen = NET.encode, 2, []

    def scarce(tokens_XT: Tensor, layout: Any, *shown: Tensor) -> Tensor:
        if layout.positions_XT.numel() > most * (LENGTH + 9):
            raise torch.OutOfMemoryError("made up")
        rows_seen.append(int((layout.positions_XT == 0).sum()))
        return encode(tokens_XT, layout, *shown)

    monkeypatch.setattr(NET, "encode", scarce)
    for row, other in zip(served.decode(PROMPTS, **SHARED), wanted, strict=True):
        assert_same(row, other)
    assert max(rows_seen) == 2
    most = len(PROMPTS)
    for row, other in zip(served.decode(PROMPTS, **SHARED), wanted, strict=True):
        assert_same(row, other)
    assert max(rows_seen) == 4  # the engine was empty in between
    most = 0
    served.submit([1], **SHARED)
    (finished,) = list(served.run())
    assert finished.error == "out of memory, alone in its step"


def test_a_row_that_never_fits_leaves_the_others_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, rows_seen = NET.encode, []

    def scarce(tokens_XT: Tensor, layout: Any, *shown: Tensor) -> Tensor:
        if int(layout.positions_XT.max()) >= 30:
            raise torch.OutOfMemoryError("made up")
        rows_seen.append(int((layout.positions_XT == 0).sum()))
        return encode(tokens_XT, layout, *shown)

    monkeypatch.setattr(NET, "encode", scarce)
    served = engine(max_rows=8)
    large = served.submit([1] * 40, **SHARED)
    small = [served.submit([1], **SHARED) for _ in range(7)]
    found = by_id(list(served.run()))
    assert "out of memory" in (found[large].error or "")
    assert all(found[number].error is None for number in small)
    assert max(rows_seen) == 7


@pytest.mark.parametrize("num_columns", [1000, 6600])
def test_a_large_row_that_waits_takes_no_cache_from_small_ones(
    monkeypatch: pytest.MonkeyPatch, num_columns: int
) -> None:
    """Memory for so many columns: the large row fits alone, or not at all."""
    write = KeyValueCache.write

    def scarce(cache: KeyValueCache, layer: int, *given: Tensor) -> None:
        if layer not in cache.layers and cache.num_slots * (cache.width + 1) > num_columns:
            raise torch.OutOfMemoryError("made up")
        write(cache, layer, *given)

    monkeypatch.setattr(KeyValueCache, "write", scarce)
    served = engine(net=tiny_net(max_length=4096), cache="dual", max_rows=4)
    small = [served.submit([1], **SHARED) for _ in range(5)]
    large = served.submit([1] * 3000, **SHARED)
    found = by_id(list(served.run()))
    assert all(found[number].error is None for number in small)
    assert (found[large].error is None) == (num_columns > 3000)


def test_room_comes_back_while_rows_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, rows_seen = NET.encode, []

    def once(tokens_XT: Tensor, layout: Any, *shown: Tensor) -> Tensor:
        rows_seen.append(int((layout.positions_XT == 0).sum()))
        if len(rows_seen) == 3:
            raise torch.OutOfMemoryError("made up")
        return encode(tokens_XT, layout, *shown)

    monkeypatch.setattr(NET, "encode", once)
    served, finished = engine(unmask.planner("top_k", k=4), max_rows=4), 0
    while finished < 40:
        while len(served._waiting) < 4:
            served.submit([1], **SHARED)
        finished += len(served.step())
    assert rows_seen[:5] == [4, 4, 4, 2, 2]
    assert rows_seen[-1] == 4


@pytest.mark.parametrize("name", ["admit", "free"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("made up")])
def test_an_interrupt_loses_and_repeats_no_row(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    served, left, method = engine(max_rows=2), [error], getattr(State, name)
    numbers = [served.submit(prompt, **SHARED) for prompt in PROMPTS]

    def once(*given: Any) -> Any:
        if left:
            raise left.pop()
        return method(*given)

    monkeypatch.setattr(State, name, once)
    finished = []
    while served.num_unfinished:
        with suppress(KeyboardInterrupt):
            finished += served.step()
    assert not left
    assert sorted(each.id for each in finished) == numbers
    found = by_id(finished)
    for number, row in zip(numbers, decode(PROMPTS, TOP_K), strict=True):
        assert_same(trajectory(found[number]), row)


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("made up"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),  # of pinned memory
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_no_memory_for_rows_that_come_in_is_no_loss_either(
    monkeypatch: pytest.MonkeyPatch, cache: Any, error: Exception
) -> None:
    owners = [(State, "admit"), (State, "grown"), (KeyValueCache, "reserve")]
    for owner, name in owners[: 2 if cache == "none" else 3]:
        served = engine(cache=cache)
        numbers = [served.submit([1], length=4, block_length=4)]
        finished = served.step()
        numbers += [served.submit(prompt, **SHARED) for prompt in PROMPTS]
        numbers.append(served.submit([1], length=80, block_length=4))
        left, method = [error], getattr(owner, name)

        def once(*given: Any, left: list[Exception] = left, method: Any = method) -> Any:
            if left:
                raise left.pop()
            return method(*given)

        monkeypatch.setattr(owner, name, once)
        found = by_id(finished + list(served.run()))
        assert not left
        monkeypatch.undo()
        assert sorted(found) == numbers
        for number in numbers:
            assert not (trajectory(found[number]).tokens == MASK).any()


def test_a_row_takes_no_more_steps_than_it_has_positions() -> None:
    """Each step fixes one at least; without an end, a row whose masks come back would run for ever."""
    served = engine()
    served.submit([1], **SHARED)
    served.step()
    assert served._state is not None
    served._state.numbers_R5[1, 3] = SHARED["length"] - 1
    (finished,) = served.step()
    assert finished.error is not None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"length": 8.0}, "length 8.0 is no whole number"),
        ({"block_length": 4.0}, "block_length 4.0 is no whole number"),
        ({"temperature": 1e39}, "temperature 1e+39"),
        ({"temperature": None}, "temperature None"),
        ({"temperature": 1e-46}, "temperature 1e-46"),
    ],
)
def test_settings_that_cannot_be_met_are_reported_with_their_row(
    settings: dict[str, Any], words: str
) -> None:
    served = engine()
    bad = served.submit([1], **(SHARED | settings))
    good = served.submit([1], **SHARED)
    found = by_id(list(served.run()))
    assert words in (found[bad].error or "")
    assert found[good].error is None


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_sizes_may_be_numbers_of_numpy(cache: Any) -> None:
    served, (wanted,) = engine(cache=cache), engine(cache=cache).decode([[1, 2]], length=12, block_length=6)
    number = served.submit(np.array([1, 2]), length=np.int64(12), block_length=np.int64(6))  # type: ignore[arg-type]
    served.submit([3], **SHARED)
    assert_same(trajectory(by_id(list(served.run()))[number]), wanted)


@pytest.mark.parametrize(("steps", "calls"), [(1000, LENGTH), (3, 3)])
def test_no_more_steps_are_queued_than_rows_have_masks(steps: int, calls: int) -> None:
    served = engine(unmask.planner("top_k", k=LENGTH), steps_per_sync=steps)
    served.decode([[1, 2]], length=LENGTH, block_length=LENGTH)
    assert served.calls == {"whole": calls}


def test_a_stream_whose_rows_another_caller_took_says_so() -> None:
    served = engine(max_rows=1)
    rows = served.stream(PROMPTS, **SHARED)
    next(rows)
    list(served.run())
    served.submit([1], **SHARED)
    with pytest.raises(RuntimeError, match="another caller"):
        list(rows)
    (finished,) = served.run()
    assert finished.error is None


@pytest.mark.parametrize("name", ["max_rows", "steps_per_sync", "max_logits"])
def test_a_setting_without_a_default_of_none_has_to_be_a_number(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} None is no whole number"):
        unmask.EngineSettings(**{name: None})


def test_a_stream_refuses_what_cannot_be_decoded_at_once() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        engine().stream([[1]], length=6, block_length=4)


def test_a_planner_that_speaks_of_memory_has_not_run_out_of_it() -> None:
    def talks(view: View) -> Any:
        raise ValueError("out of memory for names")

    served = engine(talks)
    served.submit([1], **SHARED)
    with pytest.raises(ValueError, match="for names"):
        served.step()
