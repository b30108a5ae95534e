"""Blocks on several devices: which goes where, and that it changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unmask
from tests.models.tiny import MASK, tiny_net
from unmask.models.placement import move_between, place, spread

GPUS = [torch.device("cuda", index) for index in range(3)]


def on_gpus(placed: list[torch.device]) -> list[int]:
    return [device.index for device in placed]


def test_the_fewest_gpus_that_hold_it_are_filled_evenly() -> None:
    free = dict.fromkeys(GPUS, 100)
    assert on_gpus(spread(8, 10, 10, free, fewest=True)) == [0] * 8
    assert on_gpus(spread(8, 20, 10, free, fewest=True)) == [0] * 4 + [1] * 4
    assert on_gpus(spread(9, 10, 10, free, fewest=False)) == [0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_a_gpu_with_more_room_gets_more_blocks_and_the_home_fewer() -> None:
    free = {GPUS[0]: 300, GPUS[1]: 100}
    assert on_gpus(spread(20, 10, 20, free, fewest=False)) == [0] * 14 + [1] * 6
    assert on_gpus(spread(4, 10, 40, {GPUS[0]: 100, GPUS[1]: 100}, fewest=False)) == [1] * 4


def test_a_net_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the net needs 8\.0 GiB and a tenth more; 8\.0 are free"):
        spread(8, 2**30, 0, {GPUS[0]: 2**33}, fewest=True)


def test_without_a_gpu_every_word_means_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for word in ("auto", "balanced"):
        assert place(word, 3, 1, 1) == [torch.device("cpu")] * 3


def test_the_free_memory_of_each_gpu_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: ((300, 100)[gpu.index], 400))
    assert on_gpus(place("balanced", 8, 10, 0)) == [0] * 6 + [1] * 2


def test_a_map_names_each_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place({1: "cuda:1", 0: "cuda:0"}, 2, 1, 1) == GPUS[:2]
    with pytest.raises(ValueError, match="look at block 1"):
        place({0: "cpu"}, 2, 1, 1)
    with pytest.raises(ValueError, match="look at block 2"):
        place({0: "cpu", 1: "cpu", 2: "cpu"}, 2, 1, 1)
    with pytest.raises(ValueError, match="unknown device_map 'everywhere'"):
        place("everywhere", 2, 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device_map", "says"),
    [
        ({"model.layers.0": "cpu", "model.layers.1": "cpu"}, "look at block 'model.layers.0'"),
        ({"": "cpu", 0: "cpu"}, "look at block ''"),
        (["cpu", "cpu"], r"device_map is \['cpu', 'cpu'\]; use auto, balanced or a device for each block"),
        ({0: "cpu", 1: "foo"}, "unknown device 'foo'"),
        ({0: "cpu", 1: 1}, "unknown device 1"),
        ({"": "cuda:5"}, "device 'cuda:5' is not available here"),
    ],
)
def test_a_map_of_another_kind_or_to_nowhere_is_refused(
    device_map: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=says):
        place(device_map, 2, 1, 1)


def test_the_empty_name_is_the_whole_net(tmp_path: Path) -> None:
    unmask.save_denoiser(tmp_path, tiny_net())
    net = unmask.load_denoiser(tmp_path, device_map={"": "cpu"})
    assert {parameter.device for parameter in net.parameters()} == {torch.device("cpu")}


@pytest.mark.parametrize("tied", [False, True])
def test_a_net_in_parts_computes_the_same(tied: bool, tmp_path: Path, rng: torch.Generator) -> None:
    whole = tiny_net(tied=tied)
    unmask.save_denoiser(tmp_path, whole)
    parts = unmask.load_denoiser(tmp_path, device_map={0: "cpu", 1: "cpu:0"})
    tokens_BT = torch.randint(0, MASK, (2, 9), generator=rng)
    mask_BT = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    assert torch.equal(parts(tokens_BT, mask_BT).logits, whole(tokens_BT, mask_BT).logits)
    assert len(parts.blocks[1]._forward_pre_hooks) == 1
    assert (parts.head.weight is parts.embed.weight) == tied


def test_what_goes_into_a_block_moves_to_its_device() -> None:
    """Nothing comes back from the meta device, so this looks at the way in."""
    seen: list[Any] = []

    class Block(nn.Module):
        def forward(self, *inputs: Any) -> Tensor:
            seen.extend(inputs)
            return torch.zeros(1, device="meta")

    block, there, here = Block(), torch.device("meta"), torch.device("cpu")
    move_between(nn.ModuleList([nn.Identity(), block]), nn.Identity(), [here, there])
    block(torch.zeros(2), (torch.ones(1), torch.ones(1)), "layout", 1)
    assert [each.device for each in (seen[0], *seen[1])] == [there] * 3
    assert seen[2:] == ["layout", 1]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_net_on_two_gpus_computes_the_same(tmp_path: Path, rng: torch.Generator) -> None:
    unmask.save_denoiser(tmp_path, tiny_net())
    one = unmask.load_denoiser(tmp_path, "cuda:0")
    two = unmask.load_denoiser(tmp_path, device_map="balanced")
    assert {block.attention.out.weight.device.index for block in two.blocks} == {0, 1}
    tokens_BT = torch.randint(0, MASK, (2, 9), generator=rng).cuda()
    mask_BT = torch.tensor([[1] * 9, [0] * 3 + [1] * 6]).cuda()
    out = two(tokens_BT, mask_BT)
    assert out.logits.device.index == 0
    torch.testing.assert_close(out.logits, one(tokens_BT, mask_BT).logits, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_the_engine_decodes_on_two_gpus_what_it_decodes_on_one(tmp_path: Path, cache: Any) -> None:
    unmask.save_denoiser(tmp_path, tiny_net())
    planner, found = unmask.planner("factor"), []
    for placing in ({"device": "cuda:0"}, {"device_map": "balanced"}):
        net = unmask.load_denoiser(tmp_path, **placing)  # type: ignore[arg-type]
        served = unmask.Engine(net, planner, unmask.EngineSettings(cache=cache, max_rows=3))
        found.append(served.decode([[1, 2], [3], [5, 6, 7, 8], [2]], length=12, block_length=6))
    for row, other in zip(*found, strict=True):
        assert torch.equal(row.tokens, other.tokens)
        assert torch.equal(row.unmask_step, other.unmask_step)
