"""What the reference loop refuses, and what it takes."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import unmask
from tests.decode.test_loop import BLOCK, LENGTH, NET, PLANNERS, PROMPTS, decode
from tests.models.tiny import MASK, tiny_net
from unmask.decode.loop import DecodeError
from unmask.models.base import Denoised
from unmask.planners.base import Subset, View
from unmask.planners.subsets import Fixed


def test_a_planner_that_chooses_nothing_is_an_error() -> None:
    def nothing(view: View) -> Subset:
        return Fixed(torch.zeros_like(view.open_BL))

    with pytest.raises(DecodeError, match="row 0: the planner chose no position"):
        decode(PROMPTS, nothing)


@pytest.mark.parametrize("name", ["top_k", "factor", "random", "margin", "left_to_right"])
def test_logits_that_are_no_numbers_are_an_error(name: str) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.head.weight[5] = torch.nan
    with pytest.raises(DecodeError, match="returned NaN"):
        unmask.decode(net, PROMPTS, unmask.planner(name), length=LENGTH, block_length=BLOCK)


def test_nan_at_one_open_position_ends_its_row_whatever_the_planner_takes() -> None:
    """The likelihood of the set that is left would not be that of the set drawn."""
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight[7] = torch.nan
    settings: dict[str, Any] = {"length": LENGTH, "block_length": BLOCK, "batch_size": 1}
    with pytest.raises(DecodeError, match=r"row 2: .* NaN"):
        unmask.decode(net, [[1], [2], [7]], unmask.planner("random"), **settings)

    class Once:
        """Does not know what to say at the last position of the block in the first step."""

        calls = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(NET, name)

        def __call__(self, *given: Any) -> Denoised:
            out, self.calls = NET(*given), self.calls + 1
            out.logits[:, -LENGTH + BLOCK - 1] *= torch.nan if self.calls == 1 else 1
            return out

    with pytest.raises(DecodeError, match="NaN"):
        unmask.decode(Once(), [[1]], unmask.planner("left_to_right"), length=LENGTH, block_length=BLOCK)


@pytest.mark.parametrize("temperature", [np.float32(0.5), torch.tensor(0.5)], ids=["numpy", "tensor"])
def test_a_temperature_may_be_any_number(temperature: Any) -> None:
    settings: dict[str, Any] = {"length": LENGTH, "block_length": BLOCK}
    planner = unmask.planner("top_k")
    found = unmask.decode(NET, PROMPTS, planner, temperature=temperature, **settings)
    wanted = unmask.decode(NET, PROMPTS, planner, temperature=0.5, **settings)
    assert [row.tokens.tolist() for row in found] == [row.tokens.tolist() for row in wanted]


def test_no_prompts_give_no_rows() -> None:
    assert decode([], PLANNERS["top_k"]) == []


@pytest.mark.parametrize(
    ("prompts", "settings", "match"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1] * 90], {}, "prompt 0 has 90 tokens"),
        ([[1, MASK]], {}, "mask token"),
        ([[1]], {"block_length": 5}, "block_length 5 does not divide length 12; use 4 or 6"),
        ([[1]], {"block_length": 24}, "use 6 or 12"),
        ([[1]], {"block_length": 0}, "block_length 0"),
        ([[1]], {"length": 0}, "length 0"),
        ([[1]], {"temperature": -0.5}, r"temperature -0\.5"),
        ([[1]], {"temperature": math.nan}, "temperature nan"),
        ([[1]], {"temperature": math.inf}, "temperature inf"),
        ([[1, 500]], {}, "prompt 0 has ids from 1 to 500"),
        ([[-1]], {}, "ids from -1"),
        ([[1]], {"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ([[1]], {"batch_size": -1}, "batch_size -1"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(
    prompts: list[list[int]], settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        decode(prompts, PLANNERS["top_k"], **settings)
