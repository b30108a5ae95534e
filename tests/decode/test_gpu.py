"""The engine on a GPU gives what the reference loop gives there, and the kernel what PyTorch gives."""

import copy
import warnings
from itertools import product
from typing import Any

import pytest
import torch

import unmask
from tests.decode.test_engine import SHARED
from tests.decode.test_loop import PLANNERS, PROMPTS, assert_same, decode
from tests.models.tiny import tiny_net
from unmask.decode.engine import Engine, EngineSettings
from unmask.decode.layouts import KeyValueCache, Windows
from unmask.decode.readout import HeadReadout
from unmask.decode.sampling import position_log_prob, sample_tokens
from unmask.planners import features
from unmask.planners.base import without_mask
from unmask.rng import RowStreams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("draws", [True, False])
@pytest.mark.parametrize(
    ("num_symbols", "mask_id", "most"), [(13, 4, 35), (5000, 4999, 8), (126_464, 126_336, 40)]
)
def test_the_kernel_reads_what_pytorch_reads(
    dtype: torch.dtype, draws: bool, num_symbols: int, mask_id: int, most: int
) -> None:
    rng = torch.Generator("cuda").manual_seed(0)
    raw_BLV = (torch.randn(5, 7, num_symbols, generator=rng, device="cuda") * 3).to(dtype)
    raw_BLV[..., mask_id] = 99.0
    raw_BLV[0, 0, :3] = 40.0  # equal ones: no margin
    raw_BLV[0, 3, [0, num_symbols - 1]] = 40.0  # read by two programs where there are many
    raw_BLV[0, 4, [0, 4096 % num_symbols]] = 40.0  # read by one lane
    raw_BLV[0, 1, 7] = 60.0  # hardly any entropy
    raw_BLV[0, 2, 8] = -torch.inf
    seed_B = torch.arange(5, device="cuda") * 1_234_567_890_123
    position_BL = torch.arange(7, device="cuda").expand(5, -1) + 3
    streams = RowStreams(seed_B, seed_B % 11, position_BL)
    temperature_B = torch.tensor([0.0, 0.1, 0.5, 1.0, 1.5], device="cuda") if draws else None
    readout, other = (
        HeadReadout(lambda hidden: hidden, raw_BLV, mask_id, most, streams, temperature_B) for _ in range(2)
    )
    logits_BLV = without_mask(raw_BLV, mask_id)
    torch.testing.assert_close(other.entropy(), features.entropy(logits_BLV), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.margin(), features.margin(logits_BLV), rtol=1e-4, atol=1e-6)
    for name in ("tokens", "confidence", "log_prob"):
        assert torch.equal(getattr(other, name)(), getattr(readout, name)())
    temperature = 0.0 if temperature_B is None else temperature_B
    tokens_BL = sample_tokens(logits_BLV, temperature, streams)
    assert torch.equal(readout.tokens(), tokens_BL)
    torch.testing.assert_close(readout.confidence(), features.confidence(logits_BLV), rtol=1e-4, atol=1e-6)
    wanted_BL = position_log_prob(logits_BLV, tokens_BL, temperature)
    torch.testing.assert_close(readout.log_prob(), wanted_BL, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_decodes_as_the_reference_loop_does(name: str, graphs: bool, temperature: float) -> None:
    net, planner = tiny_net().cuda(), PLANNERS[name]
    if isinstance(planner, torch.nn.Module):
        planner.cuda()
    try:
        settings: dict[str, Any] = {"temperature": temperature, "seed": 5, "stop_at_eos": True}
        wanted = decode(PROMPTS * 2, planner, net=net, **settings)
        served = Engine(net, planner, EngineSettings(max_rows=3, graphs=graphs))
        assert_same(served.decode(PROMPTS[:1], **SHARED, **settings)[0], wanted[0])
        for _ in range(2):  # the second time everything is a replay
            for row, other in zip(served.decode(PROMPTS * 2, **SHARED, **settings), wanted, strict=True):
                assert_same(row, other)
    finally:
        if isinstance(planner, torch.nn.Module):
            planner.cpu()


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_the_host_waits_once_a_step(name: str, graphs: bool, cache: Any) -> None:
    """Also where rows finish and others take their places."""
    net, planner = tiny_net().cuda(), copy.deepcopy(PLANNERS[name])
    if isinstance(planner, torch.nn.Module):
        planner.cuda()
    served = Engine(net, planner, EngineSettings(max_rows=3, graphs=graphs, cache=cache))
    settings: dict[str, Any] = {"temperature": 1.0, "stop_at_eos": True, "record_log_probs": True}
    for _ in range(3):  # makes room and captures
        served.decode(PROMPTS * 2, **SHARED, **settings)
    for prompt in PROMPTS * 2:
        served.submit(prompt, **SHARED, **settings)
    waits = []
    while served.num_unfinished:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                served.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("called a synchronizing" in str(each.message) for each in caught))
    assert len(waits) > 3
    assert set(waits) == {1}


def test_half_precision_rows_end_to_end_get_what_they_get_alone() -> None:
    net, planner = tiny_net(dim=64).cuda().bfloat16(), unmask.planner("top_k", k=1)
    served = Engine(net, planner, EngineSettings(max_rows=8, graphs=False))
    together = served.decode(PROMPTS, **SHARED)
    alone = [served.decode([prompt], **SHARED)[0] for prompt in PROMPTS]
    same = sum(int((row.tokens == other.tokens).sum()) for row, other in zip(together, alone, strict=True))
    assert same >= 0.9 * sum(len(row.tokens) for row in together)


def test_weights_that_change_in_place_are_seen_by_captured_steps() -> None:
    net, planner = tiny_net().cuda(), unmask.planner("top_k", k=2)
    served = Engine(net, planner, EngineSettings(graphs=True))
    for _ in range(3):
        served.decode(PROMPTS, **SHARED)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    for row, other in zip(served.decode(PROMPTS, **SHARED), decode(PROMPTS, planner, net=net), strict=True):
        assert_same(row, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_ragged_rows_can_be_captured(dtype: torch.dtype) -> None:
    """The empty rows that round up their number of tokens are no longer than any row may be."""
    net, planner = tiny_net(dim=64).cuda().to(dtype), unmask.planner("top_k", k=2)
    captured = Engine(net, planner, EngineSettings(max_rows=128, graphs=True))
    for _ in range(3):
        rows = captured.decode(PROMPTS * 24, **SHARED)
    wanted = Engine(net, planner, EngineSettings(max_rows=128, graphs=False)).decode(PROMPTS * 24, **SHARED)
    same = sum(torch.equal(row.tokens, other.tokens) for row, other in zip(rows, wanted, strict=True))
    assert same >= (1.0 if dtype == torch.float32 else 0.9) * len(wanted)


def test_captured_steps_keep_the_confidences_that_a_policy_saw() -> None:
    net, planner = tiny_net().cuda(), unmask.load_planner("bundled/policy").tuned(mode="sample").cuda()
    found = []
    for graphs in (False, True):
        served = Engine(net, planner, EngineSettings(max_rows=3, graphs=graphs))
        for _ in range(2):
            rows = served.decode(PROMPTS * 2, **SHARED, seed=3, record_log_probs=True)
        found.append(rows)
    for row, other in zip(*found, strict=True):
        assert_same(row, other)
        assert row.confidence is not None
        assert row.confidence.shape == (row.nfe, SHARED["length"])
        torch.testing.assert_close(row.confidence, other.confidence)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("is_slice", [True, False])
@pytest.mark.parametrize("is_captured", [True, False])
def test_a_window_sees_the_columns_of_its_row_and_no_others(
    dtype: torch.dtype, kv_heads: int, is_slice: bool, is_captured: bool
) -> None:
    rng = torch.Generator("cuda").manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, device="cuda").to(dtype)

    keys, values = draw(4, 25, kv_heads, 64), draw(4, 25, kv_heads, 64)
    cache = KeyValueCache(is_captured, width=24, num_slots=4, layers={0: (keys, values)})
    slot_B = torch.tensor([0, 1, 2] if is_slice else [3, 0, 2], device="cuda")
    column_BQ = torch.tensor([[4, 5, 6], [0, 1, 2], [9, 10, 24]], device="cuda")
    size_B = torch.tensor([19, 24, 11], device="cuda")
    is_beyond = torch.arange(24, device="cuda") >= size_B[:, None, None, None]
    bias = torch.zeros(3, 1, 1, 24, device="cuda").masked_fill(is_beyond, -torch.inf)
    slots = slice(0, 3) if is_slice else slot_B
    window = Windows(column_BQ, column_BQ, slot_B, slots, cache, bias)
    both = draw(3, 3, 4 + kv_heads, 64).transpose(1, 2)  # as they come: queries and keys of a token together
    q, k, v = both[:, :4], both[:, 4:], draw(3, kv_heads, 3, 64)
    wanted_keys, wanted_values = keys.clone(), values.clone()
    for row in range(3):
        wanted_keys[slot_B[row], column_BQ[row]] = k[row].transpose(0, 1)
        wanted_values[slot_B[row], column_BQ[row]] = v[row].transpose(0, 1)
    found = window.attend(0, q, k, v)
    assert torch.equal(keys, wanted_keys)
    assert torch.equal(values, wanted_values)
    for row, (slot, size) in enumerate(zip(slot_B.tolist(), size_B.tolist(), strict=True)):
        seen = [each[slot, :size].float().transpose(0, 1) for each in (keys, values)]
        seen = [each.repeat_interleave(4 // kv_heads, dim=0) for each in seen]
        wanted = torch.nn.functional.scaled_dot_product_attention(q[row].float(), *seen)
        off = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found[row].float(), wanted, rtol=0, atol=off)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_cached_steps_can_be_compiled_and_captured(cache: Any) -> None:
    planner, found = unmask.planner("top_k", k=2), []
    for compiled, graphs in product((False, True), repeat=2):
        net = tiny_net(dim=64).cuda().bfloat16()
        served = Engine(net, planner, EngineSettings(8, cache=cache, compile=compiled, graphs=graphs))
        for _ in range(3):
            rows = served.decode(PROMPTS * 4, **SHARED)
        assert all(row.num_cached_steps for row in rows)
        found.append(torch.cat([row.tokens for row in rows]))
    for other in found[1:]:
        assert (other == found[0]).float().mean() >= 0.9


@pytest.mark.parametrize("name", ["tokens", "subset"])
@pytest.mark.parametrize("placed", [True, False])
def test_hash_words_are_those_of_the_cpu(name: str, placed: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    seed_B = torch.randint(-(2**62), 2**62, (5,), generator=rng)
    position_BL = torch.randint(0, 900, (5, 1500), generator=rng) if placed else None
    of_cpu = RowStreams(seed_B, torch.arange(5), position_BL)
    there = None if position_BL is None else position_BL.cuda()
    of_gpu = RowStreams(seed_B.cuda(), torch.arange(5).cuda(), there)
    assert torch.equal(of_gpu.words(name, 1500).cpu(), of_cpu.words(name, 1500))
    assert torch.equal(of_gpu.words(name, 1500, 3).cpu(), of_cpu.words(name, 1500, 3))


def test_the_kernel_passes_nan_on() -> None:
    raw_BLV = torch.zeros(1, 3, 5000, device="cuda")
    raw_BLV[0, 1, 4321] = torch.nan
    readout = HeadReadout(lambda hidden: hidden, raw_BLV, 4, 3)
    assert readout.confidence().isnan().tolist() == [[False, True, False]]


def test_what_was_compiled_at_another_size_can_be_captured() -> None:
    """A capture must not compile; that autocast keeps no casts in it is another state to torch.compile."""
    net, planner = tiny_net(dim=64).cuda().bfloat16(), unmask.planner("top_k", k=2)
    eager = Engine(net, planner, EngineSettings(max_rows=32, compile=True, graphs=False))
    wanted = eager.decode(PROMPTS * 4, **SHARED)
    captured = Engine(net, planner, EngineSettings(max_rows=32, compile=True, graphs=True))
    for _ in range(2):
        rows = captured.decode(PROMPTS * 4, **SHARED)
    same = sum(torch.equal(row.tokens, other.tokens) for row, other in zip(rows, wanted, strict=True))
    assert same >= 0.9 * len(wanted)
