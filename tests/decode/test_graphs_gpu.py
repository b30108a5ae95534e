"""Steps captured and replayed on a GPU; what needs none is in `test_graphs.py`."""

import copy
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unmask
from tests.decode.test_engine import SHARED
from tests.decode.test_loop import PLANNERS, PROMPTS, assert_same, decode, policy
from tests.models.tiny import tiny_net
from unmask.decode import graphs
from unmask.decode.engine import Engine, EngineSettings
from unmask.planners.base import Planner, Subset, View
from unmask.planners.heuristics import TopK

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
TOP_K = unmask.planner("top_k", k=2)


class Waits(TopK):
    """Cannot be captured, and does not say that it can."""

    def __call__(self, view: View) -> Subset:
        assert view.open_BL.any().item()
        return super().__call__(view)


class Lies(Waits):
    capturable = True


class Hungry(TopK):
    """Takes half a GiB for each row."""

    capturable = True

    def __call__(self, view: View) -> Subset:
        torch.empty(len(view.open_BL), 2**29, dtype=torch.uint8, device=view.open_BL.device)
        return super().__call__(view)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """3 GiB beside what is in use."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 3 * 2**30) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def assert_as_the_loop(served: Engine, planner: Planner, **settings: Any) -> None:
    wanted = decode(PROMPTS * 2, planner, net=served.denoiser, **settings)
    for row, other in zip(served.decode(PROMPTS * 2, **SHARED, **settings), wanted, strict=True):
        assert_same(row, other)


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_of_ours_are_captured_by_default(name: str) -> None:
    net, planner = tiny_net().cuda(), copy.deepcopy(PLANNERS[name])
    if isinstance(planner, torch.nn.Module):
        planner.cuda()
    served = Engine(net, planner)
    assert served.graphs
    for _ in range(2):
        assert_as_the_loop(served, planner, temperature=1.0, seed=3)


def test_others_are_captured_only_if_that_is_asked_for() -> None:
    net, planner = tiny_net().cuda(), Waits(2)
    served = Engine(net, planner)
    assert not served.graphs
    assert_as_the_loop(served, planner)


def decode_with_one_that_lies() -> None:
    net, planner = tiny_net().cuda(), Lies(2)
    served = Engine(net, planner)
    assert served.graphs
    with pytest.warns(UserWarning, match="run without graphs, as one was not captured"):
        assert_as_the_loop(served, planner)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert_as_the_loop(served, planner)
    assert_as_the_loop(Engine(net, TOP_K), TOP_K)


def test_after_a_capture_that_fails_steps_are_launched() -> None:
    """In a process of its own: PyTorch up to 2.11 does not tidy up after such a capture."""
    process = multiprocessing.get_context("spawn").Process(target=decode_with_one_that_lies)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("most", [1, 2])
def test_a_graph_makes_room_for_another(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", most)
    planner = PLANNERS["factor"]
    served = Engine(tiny_net().cuda(), planner, EngineSettings(max_rows=3))
    for _ in range(3):
        assert_as_the_loop(served, planner)


def test_settings_and_weights_that_change_between_decodes_are_seen() -> None:
    net, planner = tiny_net().cuda(), unmask.LearnedPlanner(policy(), mode="top_k").cuda()
    served = Engine(net, planner)
    for _ in range(2):
        assert_as_the_loop(served, planner)
    planner.factor = 4.0
    assert_as_the_loop(served, planner)
    net.load_state_dict({name: each * 0.5 for name, each in net.state_dict().items()}, assign=True)
    assert_as_the_loop(served, planner)
    net.double()
    assert_as_the_loop(served, planner)


@pytest.mark.filterwarnings("ignore:steps run without graphs")
def test_where_a_capture_finds_no_memory_fewer_rows_run(little_memory: None) -> None:
    net, planner = tiny_net().cuda(), Hungry(2)
    served = Engine(net, planner)
    wanted = decode(PROMPTS * 4, TOP_K, net=net)
    for _ in range(3):
        for row, other in zip(served.decode(PROMPTS * 4, **SHARED), wanted, strict=True):
            assert_same(row, other)
