"""Which steps are captured, how long they are kept, and what a replay may rely on.

Here a stand-in launches anew where a GPU would replay; `test_gpu.py` does it there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import unmask
from tests.decode.test_engine import SHARED, TOP_K, engine
from tests.decode.test_loop import PLANNERS, PROMPTS, assert_same, decode, policy
from tests.decode.test_sight import Derived, DerivedLearned, Wrapper, by_state_of_the_row
from tests.models.tiny import tiny_net
from unmask.decode import engine as of_engine
from unmask.decode import graphs
from unmask.decode.engine import Engine, EngineSettings
from unmask.decode.graphs import GraphedRunner, uses_graphs
from unmask.models.transformer import Transformer
from unmask.planners.base import is_capturable
from unmask.planners.load import make_head


@dataclass(eq=False)
class Relaunched:
    """In place of a CUDA graph."""

    replay: Callable[[], None]


class StandIn:
    """In place of `Capture`."""

    captured = 0

    def __init__(self, device: torch.device) -> None:
        del device

    def __call__(self, call: Callable[[], None]) -> Relaunched:
        type(self).captured += 1
        return Relaunched(call)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(StandIn, "captured", 0)
    monkeypatch.setattr(graphs, "Capture", StandIn)
    monkeypatch.setattr(of_engine, "uses_graphs", lambda wanted, *_: wanted is not False)
    return StandIn


def runner_of(served: Engine) -> GraphedRunner:
    assert isinstance(served._runner, GraphedRunner)
    return served._runner


def test_ours_can_be_captured_and_others_may_not() -> None:
    assert all(is_capturable(planner) for planner in PLANNERS.values())
    assert is_capturable(tiny_net())
    theirs = (by_state_of_the_row, Wrapper(TOP_K), Derived(), DerivedLearned(policy()))
    assert not any(is_capturable(planner) for planner in theirs)
    assert not is_capturable(unmask.LearnedPlanner(type("Head", (type(policy()),), {})(policy().config)))
    assert not is_capturable(type("Net", (Transformer,), {})(tiny_net().config))


def test_on_a_cpu_nothing_is_captured_unless_it_is_asked_for() -> None:
    assert not engine().graphs
    assert not uses_graphs(False, tiny_net(), TOP_K)
    with pytest.raises(ValueError, match="the model is on meta"):
        uses_graphs(True, tiny_net().to("meta"), TOP_K)


@pytest.mark.parametrize("most", [1, 64])
def test_however_few_graphs_are_kept_the_rows_are_those_of_the_loop(
    captures: type[StandIn], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", most)
    planner = PLANNERS["factor"]
    served, wanted = engine(planner, max_rows=2), decode(PROMPTS * 2, planner)
    for _ in range(3):
        for row, other in zip(served.decode(PROMPTS * 2, **SHARED), wanted, strict=True):
            assert_same(row, other)
    assert 1 <= len(runner_of(served)._graphs) <= most
    assert (captures.captured > most) == (most < 64)


def test_the_graph_that_was_used_last_stays(captures: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    served = engine(max_rows=1)
    for prompt in (PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[0]):
        served.decode([prompt], **SHARED)
    assert len({len(prompt) for prompt in PROMPTS[:3]}) == 3  # a shape each
    assert captures.captured == 3  # the first was never captured anew
    assert len(runner_of(served)._graphs) == 2


def test_settings_that_change_between_decodes_are_seen(captures: type[StandIn]) -> None:
    planner = unmask.LearnedPlanner(policy(), mode="top_k")
    served = engine(planner)
    slow = served.decode(PROMPTS, **SHARED)
    before = runner_of(served)._graphs.copy()
    served.decode(PROMPTS, **SHARED)
    assert before.items() <= runner_of(served)._graphs.items()
    planner.factor = 4.0
    for row, other in zip(served.decode(PROMPTS, **SHARED), decode(PROMPTS, planner), strict=True):
        assert_same(row, other)
    assert not set(before.values()) & set(runner_of(served)._graphs.values())
    assert sum(row.nfe for row in served.decode(PROMPTS, **SHARED)) < sum(row.nfe for row in slow)


@pytest.mark.parametrize("change", ["place", "dtype", "layer"])
def test_weights_that_lie_elsewhere_are_seen(captures: type[StandIn], change: str) -> None:
    net = tiny_net()
    served = engine(net=net)
    served.decode(PROMPTS, **SHARED)
    before = set(runner_of(served)._graphs.values())
    if change == "place":
        net.load_state_dict({name: each.clone() for name, each in net.state_dict().items()}, assign=True)
    elif change == "dtype":
        net.double()
    else:
        net.head = torch.nn.Linear(net.hidden_size, net.vocab_size, bias=False)
    for row, other in zip(served.decode(PROMPTS, **SHARED), decode(PROMPTS, TOP_K, net=net), strict=True):
        assert_same(row, other)
    assert not before & set(runner_of(served)._graphs.values())


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("no memory"), RuntimeError("cannot capture")])
def test_without_a_capture_steps_are_launched(
    captures: type[StandIn], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    served, calls = engine(max_rows=3), []

    def fail(self: StandIn, call: Callable[[], None]) -> Relaunched:  # nothing has been carried out
        calls.append(1)
        raise error

    monkeypatch.setattr(StandIn, "__call__", fail)
    with pytest.warns(UserWarning, match=f"run without graphs, as one could not be captured: {error}"):
        rows = served.decode(PROMPTS, **SHARED)
    assert len(calls) == 1
    for row, other in zip(rows, decode(PROMPTS, TOP_K), strict=True):
        assert_same(row, other)


def test_an_error_of_the_planner_in_a_capture_is_raised_and_loses_no_row(
    captures: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = engine(max_rows=3)

    def fail(self: StandIn, call: Callable[[], None]) -> Relaunched:
        monkeypatch.undo()
        raise ValueError("a fault")

    monkeypatch.setattr(StandIn, "__call__", fail)
    for prompt in PROMPTS:
        served.submit(prompt, **SHARED)
    with pytest.raises(ValueError, match="a fault"):
        list(served.run())
    monkeypatch.setattr(graphs, "Capture", StandIn)
    rows = [each.trajectory for each in sorted(served.run(), key=lambda each: each.id)]
    for row, other in zip(rows, decode(PROMPTS, TOP_K), strict=True):
        assert row is not None
        assert_same(row, other)


def test_the_linear_head_and_every_cache_take_replayed_batches(captures: type[StandIn]) -> None:
    """A batch that has changed is copied into the one that was captured."""
    planner = unmask.LearnedPlanner(make_head("linear", hidden_size=tiny_net().hidden_size))
    for cache in ("none", "prefix", "dual"):
        settings: dict[str, Any] = {"max_rows": 3, "cache": cache}
        plain = Engine(tiny_net(), planner, EngineSettings(graphs=False, **settings))
        wanted, served = plain.decode(PROMPTS * 2, **SHARED), engine(planner, **settings)
        for _ in range(2):
            for row, other in zip(served.decode(PROMPTS * 2, **SHARED), wanted, strict=True):
                assert_same(row, other)
