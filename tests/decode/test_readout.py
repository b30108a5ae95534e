"""What is read off logits: see `unmask.decode.readout`. On a GPU: `test_gpu.py`."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from unmask.decode.readout import HeadReadout
from unmask.rng import RowStreams

NUM_SYMBOLS, MASK = 11, 4
NAMES = ("tokens", "confidence", "log_prob", "margin", "entropy", "logits")


def streams_at(position_BL: Tensor) -> RowStreams:
    return RowStreams(torch.arange(2) + 7, torch.tensor([3, 5]), position_BL)


@pytest.mark.parametrize("most", [1, 5, 12])
@pytest.mark.parametrize("temperature_B", [None, torch.tensor([0.0, 0.8])])
def test_a_part_of_a_readout_says_what_a_readout_of_the_part_says(
    rng: torch.Generator, most: int, temperature_B: Tensor | None
) -> None:
    asked: list[int] = []
    head = nn.Linear(3, NUM_SYMBOLS)
    head.register_forward_hook(lambda _, given, out: asked.append(len(out)))
    hidden_BLD = torch.randn(2, 6, 3, generator=rng)
    position_BK = torch.tensor([[1, 3], [0, 5]])
    index_BK = position_BK + torch.tensor([[0], [6]])
    streams = streams_at(position_BK)
    with torch.no_grad():
        whole = HeadReadout(head, hidden_BLD, MASK, most)
        whole.confidence()
        asked.clear()
        part = whole.at(index_BK, streams, temperature_B)
        found = [part.tokens(), part.confidence(), part.log_prob()]
        again = sum(asked)
        found += [part.margin(), part.entropy(), part.logits()]
        hidden_BKD = hidden_BLD.flatten(0, 1)[index_BK]
        alone = HeadReadout(head, hidden_BKD, MASK, most, streams, temperature_B)
        for name, ours in zip(NAMES, found, strict=True):
            torch.testing.assert_close(ours, getattr(alone, name)())
    is_known = temperature_B is None or most == 12  # nothing is drawn, or all logits are held
    assert again == (0 if is_known else 4)


def test_logits_go_with_their_readout() -> None:
    """Not some time later: they are the largest tensors of a step."""
    gc.collect()
    gc.disable()
    try:
        whole = HeadReadout(nn.Linear(3, NUM_SYMBOLS), torch.zeros(2, 6, 3), MASK, 12)
        part = whole.at(torch.tensor([[1], [7]]), streams_at(torch.zeros(2, 1, dtype=torch.int64)), None)
        part.tokens()
        part.entropy()
        kept = [weakref.ref(whole), weakref.ref(part)]
        del whole, part
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()
