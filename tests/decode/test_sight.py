"""What a planner looks at is computed, and no more; see `unmask.planners.base.sight_of`."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import unmask
from tests.decode.test_loop import BLOCK, LENGTH, NET, PLANNERS, PROMPTS, assert_same, decode
from tests.models.tiny import tiny_net
from unmask.decode.engine import Engine, EngineSettings
from unmask.layers import Padded
from unmask.planners.base import Planner, Subset, View, is_capturable, sight_of
from unmask.planners.heuristics import TopK
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import make_head
from unmask.planners.subsets import Fixed, top

TOP_K, SHARED = unmask.planner("top_k", k=1), {"length": LENGTH, "block_length": BLOCK}


def by_confidence_of_all(view: View) -> Subset:
    """The open positions whose confidence is highest, among all of the completion, give or take one."""
    above_B1 = view.confidence_BC().mean(-1, keepdim=True)
    confidence_BL = view.confidence_BC().gather(1, view.position_BL)
    return Fixed((view.open_BL & (confidence_BL > above_B1)) | top(confidence_BL, view.open_BL, 1))


def by_state_of_the_row(view: View) -> Subset:
    """One position, by what the hidden states of all of the row say."""
    canvas = view.canvas
    hidden_ND, row_N = canvas.hidden_XTD.flatten(0, 1).float(), canvas.row_XT.flatten()
    sums_BD = hidden_ND.new_zeros(len(view.open_BL), hidden_ND.shape[-1]).index_add(0, row_N, hidden_ND)
    return Fixed(top((canvas.hidden_at_shown() * sums_BD[:, None]).sum(-1), view.open_BL, 1))


class Derived(TopK):
    def __call__(self, view: View) -> Subset:
        return by_confidence_of_all(view)


class DerivedWithStates(TopK):
    def __call__(self, view: View) -> Subset:
        return by_state_of_the_row(view)


class DerivedLearned(LearnedPlanner):
    def forward(self, view: View) -> Subset:
        return by_state_of_the_row(view)


class Wrapper:
    def __init__(self, inner: Planner) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, view: View) -> Subset:
        return by_state_of_the_row(view)


def test_ours_say_what_they_look_at_and_others_may_look_at_anything() -> None:
    assert {name: sight_of(planner) for name, planner in PLANNERS.items() if "," not in name} == {
        **dict.fromkeys(("random", "left_to_right", "top_k", "margin", "entropy", "threshold"), "block"),
        **dict.fromkeys(("factor", "entropy_bound", "schedule"), "block"),
        "policy": "confidence",
    }
    assert sight_of(PLANNERS["dultra, sample"]) == "row"
    assert sight_of(LearnedPlanner(make_head("linear", hidden_size=16))) == "block"
    assert sight_of(by_state_of_the_row) == sight_of(Wrapper(TOP_K)) == sight_of(Derived()) == "row"
    with pytest.raises(ValueError, match="looks_at 'rows' of Wrong"):
        sight_of(type("Wrong", (), {"looks_at": "rows"})())
    with pytest.raises(ValueError, match="looks_at 'rows' of Wrong"):
        Engine(NET, type("Wrong", (), {"looks_at": "rows"})())


@pytest.mark.parametrize(
    "planner",
    [
        Derived(),
        DerivedWithStates(),
        DerivedLearned(make_head("linear", hidden_size=16)),
        DerivedLearned(make_head("confidence", dim=16, mlp_dim=24)),
        Wrapper(TOP_K),
        by_confidence_of_all,
    ],
    ids=lambda planner: getattr(planner, "__name__", type(planner).__name__),
)
def test_planners_of_ones_own_see_what_they_see_in_the_loop(planner: Planner) -> None:
    prompts = [
        [1, 2],
        [3, 4],
        [5, 6],
        [1, 7],
    ]  # of one length: the canvas of the loop has states of padding too
    served = Engine(tiny_net(), planner, EngineSettings(max_rows=3))
    for row, other in zip(served.decode(prompts, **SHARED), decode(prompts, planner), strict=True):
        assert_same(row, other)


def test_a_planner_that_looks_at_more_than_it_says_is_told_so() -> None:
    class Liar(TopK):
        looks_at = "block"

        def __call__(self, view: View) -> Subset:
            return by_confidence_of_all(view)

    with pytest.raises(ValueError, match="says block, and it asks for the whole completion"):
        Engine(tiny_net(), Liar()).decode(PROMPTS, **SHARED)


@pytest.mark.parametrize(
    ("name", "temperature", "of_block", "of_head"),
    [
        ("top_k", 0.0, BLOCK, BLOCK),
        ("policy", 0.0, LENGTH, LENGTH),
        ("policy", 1.0, LENGTH, LENGTH),
        ("dultra, sample", 0.0, None, BLOCK),
    ],
)
def test_no_more_is_computed_than_the_planner_looks_at(
    name: str, temperature: float, of_block: int | None, of_head: int
) -> None:
    net = tiny_net()
    served = Engine(net, PLANNERS[name])
    found: dict[str, int] = {"block": 0, "head": 0}

    def count(what: str, num: int) -> None:
        found[what] += num

    net.blocks[-1].mlp.register_forward_hook(lambda _, given, out: count("block", out.shape[:-1].numel()))
    net.head.register_forward_hook(lambda _, given, out: count("head", out.shape[:-1].numel()))
    for prompt in ([1, 2], [3, 4]):
        served.submit(prompt, **SHARED, temperature=temperature, record_log_probs=True)
    served.step()
    assert found == {"block": 2 * (of_block or 2 + LENGTH), "head": 2 * of_head}


def test_a_policy_and_the_tokens_of_a_window_are_read_off_the_same_logits() -> None:
    net, read = tiny_net(), []
    net.head.register_forward_hook(lambda _, given, out: read.append(out.shape[:-1].numel()))
    served = Engine(net, PLANNERS["policy"], EngineSettings(cache="dual"))
    served.submit([1, 2], **SHARED, temperature=1.0)
    served.step()
    served.step()
    assert read == [LENGTH, BLOCK]


def test_under_autocast_confidences_are_read_in_half_precision() -> None:
    """A policy computes in float32 what is its own, and the denoiser's part is no part of that."""
    net, dtypes = tiny_net(), []
    net.head.register_forward_hook(lambda _, given, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        Engine(net, PLANNERS["policy"]).decode([[1, 2]], **SHARED)
    assert set(dtypes) == {torch.bfloat16}


@pytest.mark.parametrize("settings", [{}, {"shift": True}, {"num_layers": 0}, {"num_kv_heads": 1}])
def test_shown_states_are_those_of_the_whole_canvas(settings: dict[str, Any], rng: torch.Generator) -> None:
    net, tokens_BT = tiny_net(**settings), torch.randint(0, 10, (2, 9), generator=rng)
    layout = Padded.of(torch.tensor([[1] * 9, [0] * 2 + [1] * 7]), (2, 9), tokens_BT.device)
    shown_BL = torch.tensor([[0, 8, 3], [11, 17, 12]])
    found_BLD = net.encode(tokens_BT, layout, shown_BL)
    wanted_BLD = net.encode(tokens_BT, layout).flatten(0, 1)[shown_BL]
    torch.testing.assert_close(found_BLD, wanted_BLD, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="see different keys"):
        net.encode(tokens_BT, layout.up_to(0), shown_BL)


def test_a_compiled_planner_can_be_copied() -> None:
    planner = LearnedPlanner(make_head("dultra", hidden_size=16, num_heads=2, mlp_dim=24))
    planner.head.compile_blocks()
    other = copy.deepcopy(planner)
    assert other.head.block.is_compiled
    assert other.head.block.mlp.down.weight is not planner.head.block.mlp.down.weight


def test_the_planner_of_the_docs_decodes_as_in_the_loop() -> None:
    text = (Path(__file__).parents[2] / "docs/engine.md").read_text()
    (code,) = re.findall(r"```python\n(from typing.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    planner = names["EverySecond"]()
    assert sight_of(planner) == "block"
    assert is_capturable(planner)
    served = Engine(tiny_net(), planner, EngineSettings(max_rows=3))
    wanted = decode(PROMPTS, planner)
    for row, other in zip(served.decode(PROMPTS, **SHARED), wanted, strict=True):
        assert_same(row, other)
        assert row.nfe < LENGTH
