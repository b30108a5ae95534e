"""Which steps are captured, how long they are kept, and what a replay may rely on.

Here operations are recorded where a GPU would capture kernels; `test_graphs_gpu.py` does it there.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import unmask
from tests.decode.recorded import RecordedCapture, Recording
from tests.decode.test_engine import SHARED, TOP_K, engine
from tests.decode.test_loop import PLANNERS, PROMPTS, assert_same, decode, every_planner, policy
from tests.decode.test_sight import Derived, DerivedLearned, Wrapper, by_state_of_the_row
from tests.models.tiny import tiny_net
from unmask.decode import engine as of_engine
from unmask.decode import graphs
from unmask.decode.engine import Engine
from unmask.decode.graphs import GraphedRunner, uses_graphs
from unmask.models.exact import EXACT
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner, Subset, View, is_capturable
from unmask.planners.load import make_head

DRAWN: dict[str, Any] = {"temperature": 1.0, "record_log_probs": True, **SHARED}


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> type[RecordedCapture]:
    monkeypatch.setattr(RecordedCapture, "captured", 0)
    monkeypatch.setattr(graphs, "Capture", RecordedCapture)
    monkeypatch.setattr(of_engine, "uses_graphs", lambda wanted, *_: wanted is not False)
    return RecordedCapture


def runner_of(served: Engine) -> GraphedRunner:
    assert isinstance(served._runner, GraphedRunner)
    return served._runner


def assert_as_a_new_one(
    served: Engine, prompts: list[list[int]] = PROMPTS, graphs: bool | None = False
) -> None:
    """That is, as an engine without a past, and as a rule without graphs."""
    new = Engine(served.denoiser, served.planner, replace(served.settings, graphs=graphs))
    wanted = new.decode(prompts, **DRAWN)
    for row, other in zip(served.decode(prompts, **DRAWN), wanted, strict=True):
        assert_same(row, other)
        for ours, theirs in (
            (row.token_log_prob, other.token_log_prob),
            (row.planner_log_prob, other.planner_log_prob),
        ):
            torch.testing.assert_close(ours, theirs)


def test_ours_can_be_captured_and_others_may_not() -> None:
    assert all(is_capturable(planner) for planner in PLANNERS.values())
    assert is_capturable(unmask.LearnedPlanner(make_head("linear", hidden_size=16)))
    net = tiny_net()
    assert is_capturable(net)
    theirs = (by_state_of_the_row, Wrapper(TOP_K), Derived(), DerivedLearned(policy()))
    assert not any(is_capturable(planner) for planner in theirs)
    assert not is_capturable(unmask.LearnedPlanner(type("Head", (type(policy()),), {})(policy().config)))
    assert not is_capturable(type("Net", (Transformer,), {})(net.config))
    net.head = type("Head", (torch.nn.Linear,), {})(net.hidden_size, net.vocab_size, bias=False)
    assert not is_capturable(net)


def test_adapters_can_be_captured(captures: type[RecordedCapture]) -> None:
    peft, net = pytest.importorskip("peft"), tiny_net()
    adapted = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["out"], init_lora_weights=False))
    assert is_capturable(net)
    served = engine(net=net)
    for change in (lambda: None, adapted.merge_adapter, adapted.unmerge_adapter):
        change()
        for _ in range(2):
            assert_as_a_new_one(served)
    assert captures.captured


def test_on_a_cpu_nothing_is_captured_unless_it_is_asked_for() -> None:
    assert not engine().graphs
    assert not uses_graphs(False, tiny_net(), TOP_K)
    assert not uses_graphs(None, EXACT["pairs"](), TOP_K)  # type: ignore[arg-type]  # has no parameters
    with pytest.raises(ValueError, match="the model is on meta"):
        uses_graphs(True, tiny_net().to("meta"), TOP_K)


@every_planner
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_replayed_steps_are_those_of_an_engine_without_graphs(
    captures: type[RecordedCapture], planner: Planner, cache: str
) -> None:
    served = engine(planner, max_rows=3, cache=cache)
    served.decode(PROMPTS, **DRAWN, seed=1)
    assert_as_a_new_one(served)
    assert captures.captured


@pytest.mark.parametrize("most", [1, 64])
def test_however_few_graphs_are_kept_the_rows_are_those_of_the_loop(
    captures: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", most)
    planner = PLANNERS["factor"]
    served, wanted = engine(planner, max_rows=2), decode(PROMPTS * 2, planner)
    for _ in range(3):
        for row, other in zip(served.decode(PROMPTS * 2, **SHARED), wanted, strict=True):
            assert_same(row, other)
    assert 1 <= len(runner_of(served)._graphs) <= most
    assert (captures.captured > most) == (most < 64)


def test_the_graph_that_was_used_last_stays(
    captures: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    served = engine(max_rows=1)
    first, second, third = PROMPTS[:3]
    assert len({len(prompt) for prompt in PROMPTS[:3]}) == 3  # a shape each
    for prompt in (first, second, first, third, first):
        served.decode([prompt], **SHARED)
    assert captures.captured == 3  # the first was never captured anew
    assert len(runner_of(served)._graphs) == 2
    served.submit(second, **SHARED)
    served.step()
    assert captures.captured == 3  # it was given up, and is launched once before it is captured again
    list(served.run())
    assert captures.captured == 4


def test_a_batch_of_the_same_shape_is_copied(captures: type[RecordedCapture]) -> None:
    long, short = [1, 2, 3, 4, 5], [6, 7, 8]
    served = engine()
    for prompts in ([long, short], [short, long], [long, short]):
        assert_as_a_new_one(served, prompts)
    assert captures.captured == 1


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_that_has_grown_is_the_one_that_is_read(captures: type[RecordedCapture], cache: str) -> None:
    served = engine(cache=cache)
    served.decode([[1, 2, 3] * 3], **DRAWN)
    served.decode([[1, 2, 3] * 3] * 4, **DRAWN)
    assert_as_a_new_one(served, [[5, 4] * 5])  # seen whole in a new shape, and windows in one that is known


@pytest.mark.parametrize("kind", [float, np.float32])
@pytest.mark.parametrize("cache", ["none", "prefix"])
def test_settings_that_change_between_decodes_are_seen(
    captures: type[RecordedCapture], kind: type, cache: str
) -> None:
    planner = unmask.LearnedPlanner(policy(), mode="top_k", factor=kind(1))
    served = engine(planner, cache=cache)
    served.decode(PROMPTS[:1], **DRAWN)
    for factor in (4, 1):
        planner.factor = kind(factor)
        for prompts in (PROMPTS[:2], PROMPTS):  # more rows: the cache is replaced
            served.decode(prompts, **DRAWN)
            assert_as_a_new_one(served, prompts)
    before = captures.captured
    assert_as_a_new_one(served)
    assert captures.captured == before  # nothing has changed


def test_a_setting_that_changes_while_rows_run_leaves_nothing(
    captures: type[RecordedCapture],
) -> None:
    planner = unmask.LearnedPlanner(policy(), mode="top_k", factor=0.1)
    served = engine(planner)
    served.submit(PROMPTS[0], **DRAWN)
    served.step()
    planner.factor = 4.0
    list(served.run())
    assert captures.captured
    planner.factor = 0.1
    assert_as_a_new_one(served, PROMPTS[:1])


@pytest.mark.parametrize("change", ["place", "dtype", "layer", "config", "strides"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_a_net_that_has_changed_is_seen(captures: type[RecordedCapture], change: str, cache: str) -> None:
    net = tiny_net()
    served = engine(net=net, cache=cache)
    for _ in range(2):
        assert_as_a_new_one(served)
    before = captures.captured
    if change == "place":
        net.load_state_dict({name: each * 0.5 for name, each in net.state_dict().items()}, assign=True)
    elif change == "dtype":
        net.double()
    elif change == "layer":
        net.head = torch.nn.Linear(net.hidden_size, net.vocab_size, bias=False)
    elif change == "config":
        net.config = replace(net.config, rope_theta=2.0)
    else:
        weight = net.blocks[0].attention.out.weight
        weight.data = weight.data.t()
    for _ in range(2):
        assert_as_a_new_one(served)
    assert captures.captured > before


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("prompts", [PROMPTS, [*PROMPTS, [1, 2] * 30]], ids=["as long", "longer"])
def test_autocast_that_comes_or_goes_is_seen(
    captures: type[RecordedCapture], cache: str, prompts: list[list[int]]
) -> None:
    served = engine(PLANNERS["policy"], cache=cache)
    for enabled, rows in ((True, PROMPTS), (False, prompts), (True, prompts)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            served.decode(rows, **DRAWN)
            assert_as_a_new_one(served, rows, graphs=None)  # bf16 rounds as the shapes are padded


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_that_was_filled_under_autocast_is_not_read_without(
    captures: type[RecordedCapture], cache: str
) -> None:
    served = engine(cache=cache)
    with torch.autocast("cpu", torch.bfloat16):
        served.submit(PROMPTS[0], **DRAWN)
        served.step()
        served.step()
    list(served.run())
    assert_as_a_new_one(served)


class Around:
    """A planner of somebody's own that holds a net."""

    capturable = True

    def __init__(self, net: torch.nn.Module) -> None:
        self.net = net

    def __call__(self, view: View) -> Subset:
        subset: Subset = self.net(view)
        return subset


@pytest.mark.parametrize("kind", [Around, lambda planner: planner], ids=["around", "itself"])
@pytest.mark.parametrize("change", ["weights", "layer", "hook"])
def test_a_net_in_a_planner_that_has_changed_is_seen(
    captures: type[RecordedCapture], kind: Callable[[Any], Planner], change: str
) -> None:
    net, calls = copy.deepcopy(PLANNERS["dultra, sample"]), []
    assert isinstance(net, unmask.LearnedPlanner)
    served = engine(kind(net))
    for _ in range(2):
        assert_as_a_new_one(served)
    if change == "weights":
        net.load_state_dict({name: each * 0.5 for name, each in net.state_dict().items()}, assign=True)
    elif change == "layer":
        net.head.time[1] = torch.nn.ReLU()  # type: ignore[index, operator]
    else:
        net.head.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        assert_as_a_new_one(served)
    if change == "hook":
        calls.clear()
        rows = served.decode(PROMPTS, **DRAWN)
        assert len(calls) == max(row.nfe for row in rows)


def test_hooks_are_called_in_every_step(captures: type[RecordedCapture]) -> None:
    net, calls = tiny_net(), []
    served = engine(net=net)
    served.decode(PROMPTS, **SHARED)
    before = captures.captured
    hook = net.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    rows = served.decode(PROMPTS, **SHARED)
    assert len(calls) == max(row.nfe for row in rows)
    assert captures.captured == before
    hook.remove()
    served.decode(PROMPTS, **SHARED)
    assert captures.captured > before


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("no"), RuntimeError("no")])
def test_after_a_capture_that_fails_steps_are_launched(
    captures: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    served, calls = engine(max_rows=3), []

    def fail(self: RecordedCapture, call: Callable[[], None]) -> Recording:  # and nothing is carried out
        calls.append(1)
        raise error

    served.decode(PROMPTS[:1], **DRAWN)
    monkeypatch.setattr(RecordedCapture, "__call__", fail)
    with pytest.warns(UserWarning, match="run without graphs, as one was not captured: no"):
        assert_as_a_new_one(served)
    assert_as_a_new_one(served)
    assert len(calls) == 1
    assert not runner_of(served)._graphs  # their memory is free


def test_an_error_of_the_planner_in_a_capture_is_raised_and_loses_no_row(
    captures: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = engine(max_rows=3)

    def fail(self: RecordedCapture, call: Callable[[], None]) -> Recording:
        raise ValueError("a fault")

    for prompt in PROMPTS:
        served.submit(prompt, **SHARED)
    with monkeypatch.context() as patch:
        patch.setattr(RecordedCapture, "__call__", fail)
        with pytest.raises(ValueError, match="a fault"):
            list(served.run())
    rows = [each.trajectory for each in sorted(served.run(), key=lambda each: each.id)]
    for row, other in zip(rows, decode(PROMPTS, TOP_K), strict=True):
        assert row is not None
        assert_same(row, other)
