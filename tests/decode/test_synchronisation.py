"""How often a decode waits for the device: counted by the operations that need their result on the host."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from tests.models.tiny import tiny_net
from unmask.planners.base import Planner
from unmask.planners.heads import ConfidencePolicy, ConfidencePolicyConfig

WAITING = ("aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select", "aten::equal")


class CountWaits(TorchDispatchMode):
    """On a GPU each of these, and indexing with a boolean mask, synchronises."""

    def __init__(self) -> None:
        super().__init__()
        self.num_waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = name == "aten::index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.num_waits += name in WAITING or by_mask
        return func(*args, **(kwargs or {}))


def num_waits(planner: Planner, length: int, temperature: float) -> int:
    with CountWaits() as counter:
        rows = unmask.decode(
            tiny_net(),
            [[1, 2], [3]],
            planner,
            length=length,
            block_length=length,
            temperature=temperature,
            record_log_probs=True,
        )
    assert [row.nfe for row in rows] == [length, length]
    return counter.num_waits


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    "name", ["top_k", "margin", "entropy", "random", "left_to_right", "threshold", "factor"]
)
def test_one_more_step_waits_once_more(name: str, temperature: float) -> None:
    settings = {"threshold": {"tau": 2.0}, "factor": {"factor": 1e-9, "last_pair": False}}
    planner = unmask.planner(name, **settings.get(name, {}))
    assert num_waits(planner, 12, temperature) - num_waits(planner, 8, temperature) == 4


def test_a_learned_planner_waits_no_more_than_a_heuristic() -> None:
    head = ConfidencePolicy(ConfidencePolicyConfig(dim=16, mlp_dim=16, bias=-60.0))
    planner = unmask.LearnedPlanner(head)
    assert num_waits(planner, 12, 0.8) - num_waits(planner, 8, 0.8) == 4
