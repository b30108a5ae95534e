"""What the engine promises: see `unmask.decode.engine`."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

import unmask
from tests.decode.test_loop import (
    BLOCK,
    LENGTH,
    NET,
    PLANNERS,
    PROMPTS,
    assert_same,
    decode,
    every_planner,
)
from tests.decode.test_synchronisation import CountWaits
from tests.models.tiny import EOS, MASK, ragged_prompts, tiny_net
from unmask.decode.batches import whole_rows
from unmask.decode.engine import Engine, EngineSettings, Finished
from unmask.decode.layouts import KeyValueCache, Recording, Windows
from unmask.decode.state import SPARE, Request
from unmask.layers import Padded
from unmask.models.exact import EXACT
from unmask.planners.base import Planner, Subset, View
from unmask.trajectory import Trajectory

TOP_K, SHARED = unmask.planner("top_k", k=1), {"length": LENGTH, "block_length": BLOCK}


def engine(planner: Planner = TOP_K, net: Any = NET, **settings: Any) -> Engine:
    return Engine(net, planner, EngineSettings(**settings))


def by_id(finished: list[Finished]) -> dict[int, Finished]:
    return {each.id: each for each in finished}


def trajectory(finished: Finished) -> Trajectory:
    assert finished.trajectory is not None, finished.error
    return finished.trajectory


@every_planner
@pytest.mark.parametrize(("temperature", "stop"), [(0.0, False), (1.0, True)])
@pytest.mark.parametrize("max_rows", [2, 8])
def test_it_decodes_as_the_reference_loop_does(
    planner: Planner, temperature: float, stop: bool, max_rows: int
) -> None:
    settings = {"temperature": temperature, "stop_at_eos": stop, "seed": 5, "record_log_probs": True}
    wanted = decode(PROMPTS, planner, **settings)
    found = engine(planner, max_rows=max_rows).decode(PROMPTS, **SHARED, **settings)
    for row, other in zip(found, wanted, strict=True):
        assert_same(row, other)
        assert row.is_exact
        for ours, theirs in (
            (row.planner_log_prob, other.planner_log_prob),
            (row.token_log_prob, other.token_log_prob),
        ):
            assert ours is not None
            assert theirs is not None
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@every_planner
def test_rows_that_come_at_random_with_settings_of_their_own_get_what_they_get_alone(
    planner: Planner,
) -> None:
    rng = random.Random(7)
    prompts = ragged_prompts(torch.Generator().manual_seed(3), 9)
    choices = [
        {
            "length": (length := rng.choice([4, 8, 12])),
            "block_length": rng.choice([2, 4, length]),
            "temperature": rng.choice([0.0, 0.7]),
            "seed": index,
            "stop_at_eos": rng.random() < 0.5,
        }
        for index in range(9)
    ]
    served = engine(planner, max_rows=3)
    numbers, finished = [], []
    for prompt, choice in zip(prompts, choices, strict=True):
        numbers.append(served.submit(prompt, **choice))
        for _ in range(rng.randrange(3)):
            finished += served.step()
    found = by_id(finished + list(served.run()))
    assert sorted(found) == numbers
    for number, prompt, choice in zip(numbers, prompts, choices, strict=True):
        assert_same(trajectory(found[number]), unmask.decode(NET, [prompt], planner, **choice)[0])


@every_planner
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_row_does_not_notice_the_blocks_of_its_neighbours(planner: Planner, cache: Any) -> None:
    """Not even under a cache, where the windows of all rows are as wide as the widest."""
    settings = {"temperature": 0.7, "stop_at_eos": True}
    sizes = [(12, 12), (4, 2), (8, 4), (6, 1), (6, 3)]
    prompts = ragged_prompts(torch.Generator().manual_seed(4), len(sizes))
    for seed in range(4):
        served, numbers = engine(planner, cache=cache), []
        for prompt, (length, block) in zip(prompts, sizes, strict=True):
            number = served.submit(prompt, length=length, block_length=block, seed=seed, **settings)
            numbers.append(number)
        found = by_id(list(served.run()))
        for number, prompt, (length, block) in zip(numbers, prompts, sizes, strict=True):
            alone = engine(planner, cache=cache)
            wanted = alone.decode([prompt], length=length, block_length=block, seed=seed, **settings)[0]
            assert_same(trajectory(found[number]), wanted)


def test_longer_rows_that_come_later_do_not_disturb_those_that_run() -> None:
    net, calls = tiny_net(), []
    encode = net.encode

    def counted(tokens_XT: Tensor, layout: Any, *shown: Tensor) -> Tensor:
        calls.append(int((layout.positions_XT == 0).sum()))
        return encode(tokens_XT, layout, *shown)

    net.encode = counted  # type: ignore[method-assign]
    served, numbers, finished = engine(net=net, max_rows=3), [], []
    sizes = [4, 6, 8, 20, 40, 80]
    for length in sizes:
        numbers.append(served.submit([1], length=length, block_length=length, temperature=1.0))
        finished += served.step()
    found = by_id(finished + list(served.run()))
    assert sum(calls) == sum(trajectory(found[number]).nfe for number in numbers) == sum(sizes)
    for number, length in zip(numbers, sizes, strict=True):
        settings = {"length": length, "block_length": length, "temperature": 1.0}
        assert_same(trajectory(found[number]), unmask.decode(net, [[1]], TOP_K, **settings)[0])


@every_planner
@pytest.mark.parametrize("max_rows", [1, 3])
def test_nets_that_shift_and_share_key_heads_are_decoded_alike(planner: Planner, max_rows: int) -> None:
    net = tiny_net(shift=True, num_kv_heads=1, qk_norm=False)
    settings = {"temperature": 1.0, "seed": 3}
    found = engine(planner, net, max_rows=max_rows).decode(PROMPTS, **SHARED, **settings)
    for row, other in zip(found, decode(PROMPTS, planner, net=net, **settings), strict=True):
        assert_same(row, other)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_windows_of_a_net_that_shifts_begin_one_token_earlier(cache: Any) -> None:
    """With one layer a cache forgets nothing, so any shift of a window shows."""
    net, planner = tiny_net(shift=True, num_layers=1), unmask.planner("factor")
    rows = engine(planner, net, cache=cache).decode(PROMPTS, **SHARED)
    for row, other in zip(rows, decode(PROMPTS, planner, net=net), strict=True):
        assert_same(row, other)
        assert row.num_cached_steps > 0


def test_waiting_rows_take_the_place_of_finished_ones() -> None:
    calls: list[int] = []

    class Watched:
        def __call__(self, view: View) -> Subset:
            calls.append(int(view.open_BL.any(-1).sum()))
            return TOP_K(view)

    served = engine(Watched(), max_rows=2)
    for length in (2, 6, 4):
        served.submit([1], length=length, block_length=length)
    assert len(list(served.run())) == 3
    assert calls == [2] * 6


def test_a_token_budget_limits_the_rows_that_run_together() -> None:
    served = engine(max_tokens=2 * (LENGTH + 1))
    for _ in range(4):
        served.submit([1], **SHARED)
    together = []
    while served.num_unfinished:
        served.step()
        together.append(len(served._running))
    assert max(together) == 2


@pytest.mark.parametrize("limit", [1, 30, 10_000])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", ["factor", "entropy", "policy"])
def test_how_many_logits_are_held_changes_nothing(limit: int, temperature: float, name: str) -> None:
    settings = {"temperature": temperature, "seed": 2, "record_log_probs": True}
    planner = PLANNERS[name]
    found = engine(planner, max_logits=limit).decode(PROMPTS, **SHARED, **settings)
    for row, other in zip(found, decode(PROMPTS, planner, **settings), strict=True):
        assert_same(row, other)


@pytest.mark.parametrize("steps", [2, 5, 100])
@pytest.mark.parametrize("name", ["factor", "policy"])
def test_how_often_the_host_looks_changes_nothing(steps: int, name: str) -> None:
    settings = {"temperature": 0.8, "seed": 2, "record_log_probs": True, "stop_at_eos": True}
    planner = PLANNERS[name]
    served = engine(planner, max_rows=3, steps_per_sync=steps)
    found = served.decode(PROMPTS, **SHARED, **settings)
    for row, other in zip(found, decode(PROMPTS, planner, **settings), strict=True):
        assert_same(row, other)
        if name == "policy":
            assert row.confidence is not None
            assert row.confidence.shape == (row.nfe, LENGTH)


@pytest.mark.parametrize("num_rows", [1, 3, 16, 17, 100])
@pytest.mark.parametrize("is_packed", [False, True])
def test_shapes_for_graphs_are_few_and_little_larger(num_rows: int, is_packed: bool) -> None:
    requests = [
        Request(row, (1,) * (3 + row % 5 * is_packed), LENGTH, BLOCK, 0.0, 0, False, False)
        for row in range(num_rows)
    ]
    slots = range(1, num_rows + 1)
    batch = whole_rows(slots, requests, torch.device("cpu"), 64, fixed=True)
    assert batch.column_XT is not None
    tokens = sum(request.size for request in requests)
    assert tokens <= batch.column_XT.numel() <= 1.13 * tokens + 80
    assert batch.column_XT.max() < 64  # also of the empty rows that fill up
    assert batch.place_N is None or batch.place_N.max() < 64 * len(batch.slot_B)
    spare_B = batch.slot_B[num_rows:]
    assert (spare_B == SPARE).all()
    assert batch.slot_B[:num_rows].tolist() == list(slots)


def test_a_step_waits_for_the_device_less_often_than_once() -> None:
    """The status is read by one copy, which the counter does not see; nothing else may wait."""
    served = engine(unmask.planner("factor", factor=1e-9, last_pair=False))
    for prompt in PROMPTS:
        served.submit(prompt, temperature=0.5, record_log_probs=True, **SHARED)
    served.step()
    with CountWaits() as counter:
        served.step()
    assert counter.num_waits == 0


def test_what_cannot_be_decoded_is_reported_and_the_others_are_served() -> None:
    served = engine()
    bad = [served.submit(prompt, **SHARED) for prompt in ([], [1] * 90, [MASK], [99])]
    good = served.submit([1, 2], **SHARED)
    found = by_id(list(served.run()))
    for number, why in zip(bad, ("empty", "holds", "mask token", "own tokenizer"), strict=True):
        error = found[number].error
        assert error is not None
        assert why in error
    assert_same(trajectory(found[good]), decode([[1, 2]], TOP_K)[0])


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_cancelled_row_is_reported_and_the_others_go_on(when: str) -> None:
    served = engine(max_rows=1 if when == "waiting" else 4)
    first, second = served.submit([1], **SHARED), served.submit([2], **SHARED)
    finished = served.step()
    assert served.cancel(second)
    assert not served.cancel(second)
    assert not served.cancel(99)
    found = by_id(finished + list(served.run()))
    assert found[second].error == "cancelled"
    assert_same(trajectory(found[first]), decode([[1]], TOP_K)[0])


@pytest.mark.parametrize("columns", [slice(7, 13), slice(7, 19)])
def test_a_window_on_a_fresh_cache_sees_what_the_whole_row_sees(columns: slice, rng: torch.Generator) -> None:
    tokens_BT = torch.randint(0, MASK, (3, 19), generator=rng)
    where_BT = torch.arange(19).expand(3, -1)
    slot_B = torch.tensor([2, 0, 1])
    cache = KeyValueCache()
    cache.reserve(4, 4, 24)
    whole = Padded.of(None, (3, 19), tokens_BT.device)
    recording = Recording(whole, cache, slot_B[:, None].expand(3, 19), where_BT)
    hidden_BTD = NET.encode(tokens_BT, recording)
    bias = torch.zeros(3, 1, 1, 24).masked_fill(torch.arange(24) >= 19, -torch.inf)
    window = Windows(where_BT[:, columns], where_BT[:, columns], slot_B, slot_B, cache, bias)
    found_BQD = NET.encode(tokens_BT[:, columns], window)
    torch.testing.assert_close(found_BQD, hidden_BTD[:, columns], rtol=0, atol=1e-5)
    changed_BT = tokens_BT.clone()
    changed_BT[:, 8] = (changed_BT[:, 8] + 1) % MASK
    again_BQD = NET.encode(changed_BT[:, columns], window)
    assert (again_BQD - found_BQD).abs().max() > 1e-2


@every_planner
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_that_is_refreshed_by_every_other_step_still_decodes_every_row(
    planner: Planner, cache: Any
) -> None:
    settings = {"temperature": 0.7, "seed": 1, "record_log_probs": True}
    rows = engine(planner, cache=cache, refresh_every=1).decode(PROMPTS, **SHARED, **settings)
    for row in rows:
        assert not row.is_exact
        assert row.cache == cache
        assert row.num_cached_steps <= row.nfe // 2
        assert not (row.tokens == MASK).any()
        assert (row.unmask_step >= 0).all()


def test_a_prefix_cache_that_holds_nothing_to_forget_is_exact() -> None:
    """With one layer no key or value depends on other tokens."""
    net = tiny_net(num_layers=1)
    planner = unmask.planner("factor")
    for cache in ("prefix", "dual"):
        rows = engine(planner, net, cache=cache).decode(PROMPTS, **SHARED)
        for row, other in zip(rows, decode(PROMPTS, planner, net=net), strict=True):
            assert_same(row, other)
            assert row.num_cached_steps > 0


def test_a_cache_grows_with_the_rows_that_run_and_forgets_nothing() -> None:
    served, one = engine(cache="dual", max_rows=16), engine(cache="dual")
    first = served.submit(PROMPTS[0], **SHARED)
    for _ in range(3):
        served.step()
    assert served._cache is not None
    assert served._cache.num_slots == 2
    for prompt in PROMPTS:
        served.submit(prompt, **SHARED)
    found = by_id(list(served.run()))
    assert served._cache.num_slots == 6
    assert_same(trajectory(found[first]), one.decode(PROMPTS[:1], **SHARED)[0])


def test_blocks_begin_with_a_whole_step_and_go_on_with_windows() -> None:
    (row,) = engine(cache="dual").decode([[1, 2]], **SHARED)
    assert row.nfe == LENGTH
    assert row.num_cached_steps == LENGTH - LENGTH // BLOCK


def test_a_row_stops_at_a_settled_eos() -> None:
    net = tiny_net()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.weight[EOS] = net.norm.weight * 0 + 1.0
        net.norm.weight.fill_(1.0)
    rows = engine(unmask.planner("left_to_right", k=1), net).decode(PROMPTS, stop_at_eos=True, **SHARED)
    for row, other in zip(
        rows, decode(PROMPTS, unmask.planner("left_to_right", k=1), net=net, stop_at_eos=True), strict=True
    ):
        assert_same(row, other)


def test_it_refuses_a_denoiser_that_it_cannot_take_apart() -> None:
    with pytest.raises(ValueError, match=r"use unmask\.decode"):
        Engine(EXACT["pairs"](), TOP_K)  # type: ignore[arg-type]


def test_it_refuses_graphs_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="graphs are CUDA graphs, and the model is on cpu"):
        engine(graphs=True)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cache": "all"}, "unknown cache"),
        ({"max_rows": 0}, "max_rows"),
        ({"refresh_every": 0}, "refresh"),
        ({"graphs": "no"}, "graphs='no': give True or False"),
        ({"compile": "no"}, "compile='no': give True or False"),
        ({"compile": None}, "compile=None: give True or False"),
    ],
)
def test_it_refuses_settings_that_make_no_sense(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        EngineSettings(**settings)


def test_a_stream_gives_each_row_with_its_place_as_soon_as_it_is_finished() -> None:
    served = engine(unmask.planner("top_k", k=2), max_rows=2)
    stream = served.stream(PROMPTS, **SHARED)
    first = next(stream)
    assert served.num_unfinished >= len(PROMPTS) - 2  # the others have not been waited for
    rows = dict([first, *stream])
    assert sorted(rows) == list(range(len(PROMPTS)))
    for place, other in enumerate(served.decode(PROMPTS, **SHARED)):
        assert_same(rows[place], other)


def test_a_stream_that_is_given_up_leaves_nothing_behind() -> None:
    served = engine(max_rows=2)
    stream = served.stream(PROMPTS, **SHARED)
    next(stream)
    stream.close()
    assert {each.error for each in served.run()} <= {"cancelled", None}
    assert served.num_unfinished == 0


def test_a_stream_leaves_rows_that_were_submitted_to_those_who_submitted_them() -> None:
    served = engine(max_rows=3)
    number = served.submit(PROMPTS[0], **SHARED)
    streams = [served.stream(PROMPTS, **SHARED) for _ in range(2)]
    found = [dict(pairs) for pairs in zip(*(zip(*streams, strict=True)), strict=True)]
    for rows in found:
        for place, other in enumerate(decode(PROMPTS, TOP_K)):
            assert_same(rows[place], other)
    (finished,) = served.run()
    assert finished.id == number
    assert_same(trajectory(finished), decode(PROMPTS[:1], TOP_K)[0])
