import dataclasses

import pytest
import torch
from torch import Tensor, nn

import unmask
from benchmarks.sizes import random_planner
from tests.models.tiny import tiny_net
from unmask.decode.engine import EngineSettings
from unmask.eval.bare import BareCalls
from unmask.eval.bench import _Bare, bench, least_seconds, print_report
from unmask.eval.timing import Roofline, Run, forward_flops, interleaved, weight_bytes
from unmask.eval.ways import (
    Execution,
    Way,
    Work,
    Workload,
    engine,
    on_same_weights,
    random_prompts,
    reference,
)
from unmask.models.base import Denoised
from unmask.models.transformer import Transformer
from unmask.planners.base import View

CPU = torch.device("cpu")


class Watched:
    """A denoiser that keeps what it is given."""

    def __init__(self, net: Transformer) -> None:
        self.net = net
        self.seen: list[Tensor] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.net, name)

    def __call__(self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Denoised:
        self.seen.append(tokens_BT.clone())
        return self.net(tokens_BT, attention_mask_BT)


def job_on(net: object, **settings: object) -> Workload:
    prompts = random_prompts(net, 3, 4, 9)
    return Workload(net, unmask.planner("factor", factor=0.5), prompts, length=8, block_length=4, **settings)


def test_rounds_go_through_all_calls_in_turn() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    runs = interleaved(calls, rounds=2, device=CPU, warm_up=0)
    assert order == list("abcabc")
    assert {name: len(each) for name, each in runs.items()} == {"a": 2, "b": 2, "c": 2}


def test_the_bare_forward_repeats_the_calls_of_the_reference_loop() -> None:
    net = Watched(tiny_net())
    job = job_on(net)
    way = reference(job)
    work = way()
    of_loop, net.seen = net.seen, []
    bench(job, {"loop": way}, rounds=1)
    assert len(of_loop) == work.calls
    # The loop runs three times (memory, states, round), and the bare forward warms up.
    of_forward = net.seen[-work.calls :]
    assert len(net.seen) == 5 * work.calls
    assert all(torch.equal(a, b) for a, b in zip(of_loop, of_forward, strict=True))


def test_a_learned_planner_alone_is_called_as_the_reference_loop_calls_it() -> None:
    net = tiny_net()
    planner = random_planner(net, 0.5)
    job = dataclasses.replace(job_on(net), planner=planner)
    called: list[int] = []
    planner.head.register_forward_hook(lambda _, given, out: called.append(len(out)))
    reference(job)()
    of_loop = called.copy()
    bare = BareCalls.of(job)
    called.clear()
    bare.planners(Execution())()
    assert sorted(called) == sorted(of_loop)
    assert bare.nfe == sum(of_loop)


def test_a_planner_of_ones_own_is_timed_whatever_it_reads() -> None:
    class ByEntropy(nn.Module):
        def forward(self, view: View) -> Tensor:
            return 2 - 4 * view.readout.entropy()

    job = dataclasses.replace(job_on(tiny_net()), planner=unmask.LearnedPlanner(ByEntropy()))
    report = bench(job, {"loop": reference(job)}, rounds=1)
    assert report.planner_ms > 0


def test_overhead_is_a_share_of_the_forward_of_its_own_round() -> None:
    """A machine that is twice as slow in one round tells nothing new."""
    bare = _Bare(forwards=[1.0, 2.0, 1.0], planners=[0.5, 1.0, 0.5], calls=10, nfe=10)
    runs = [Run(seconds, None) for seconds in (16.0, 32.0, 16.0)]
    assert bare.overhead(runs) == pytest.approx(0.1)


def test_ways_are_compared_with_the_first_one_and_by_their_nfe() -> None:
    job = job_on(tiny_net())
    nfe = [row.nfe for row in unmask.decode(job.denoiser, job.prompts, job.planner, length=8, block_length=4)]

    def twice() -> Work:
        reference(job)()
        work = reference(job)()
        return Work([2 * each for each in work.nfe], 2 * work.calls)

    report = bench(job, {"once": reference(job), "twice": Way(twice)}, rounds=5)
    once, both = report.timings
    assert once.nfe_of_rows == nfe
    assert once.full_nfe == sum(nfe)
    assert once.speedup == once.speedup_per_nfe == 1
    assert 0.3 < both.speedup < 0.8
    assert 0.6 < both.speedup_per_nfe < 1.6
    assert once.overhead is not None
    assert both.overhead is None  # it made other calls than the reference loop


def test_the_engine_is_made_once_and_counts_steps_and_cached_calls() -> None:
    job = job_on(tiny_net())
    of_loop = reference(job)()
    way = engine(job, EngineSettings(max_rows=3))
    first, second = way(), way()
    assert first.nfe == second.nfe == of_loop.nfe
    assert first.calls == len(first.call_seconds) == of_loop.calls
    cached = engine(job, EngineSettings(max_rows=3, cache="dual"))()
    assert (
        sum(cached.nfe) - cached.block_nfe == 3 * 2
    )  # each of the two blocks of a row begins with a whole call
    assert engine(job, EngineSettings(max_rows=1))().calls == sum(of_loop.nfe)


def test_calls_are_those_of_the_denoiser_whatever_a_step_of_the_engine_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, made = job_on(tiny_net()), []
    encode = Transformer.encode
    monkeypatch.setattr(Transformer, "encode", lambda *given: made.append(given) or encode(*given))
    queued = engine(job, EngineSettings(steps_per_sync=4))()
    assert queued.calls == len(made) > len(queued.call_seconds)
    made.clear()
    staggered = engine(job, EngineSettings(max_rows=2, cache="dual"))()
    assert staggered.calls == len(made) > len(staggered.call_seconds) > 0


def test_equal_prompts_draw_what_they_draw_in_the_loop() -> None:
    prompts = [[1, 2, 3]] * 4
    job = Workload(tiny_net(), unmask.planner("factor"), prompts, length=8, block_length=4, temperature=1.0)
    assert engine(job, EngineSettings())().nfe == reference(job)().nfe


def test_a_twin_shares_weights_but_not_what_is_compiled() -> None:
    net = tiny_net()
    twin = on_same_weights(net)
    twin.compile_blocks()
    assert twin.blocks[0].is_compiled
    assert not net.blocks[0].is_compiled
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in net.parameters()]
    planner = random_planner(net, 0.5)
    on_same_weights(planner).head.compile_blocks()
    assert not planner.head.block.is_compiled


def test_a_way_that_fails_is_reported_and_the_others_are_timed(capfd: pytest.CaptureFixture[str]) -> None:
    job = job_on(tiny_net())

    def broken() -> Work:
        raise KeyError("use_cache")

    report = bench(job, {"theirs": Way(broken), "ours": reference(job)}, rounds=1)
    assert [each.name for each in report.timings] == ["ours"]
    assert report.timings[0].speedup == 1
    assert report.failed == {"theirs": "KeyError: 'use_cache'"}
    assert "Traceback" in capfd.readouterr().err
    print_report(report)
    assert "failed: KeyError" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="no way of decoding worked"):
        bench(job, {"theirs": Way(broken)}, rounds=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("is_learned", [True, False])
def test_the_engine_is_compared_with_a_forward_that_is_run_as_it_runs(is_learned: bool) -> None:
    net = tiny_net(dim=64, num_layers=8).cuda().bfloat16()
    planner = random_planner(net, 0.5) if is_learned else unmask.planner("top_k", k=1)
    job = Workload(net, planner, random_prompts(net, 1, 9, 9), length=32, block_length=8)
    ways = {
        "loop": reference(job),
        "graphs": engine(job, EngineSettings(graphs=True)),
        "both": engine(job, EngineSettings(graphs=True, compile=True)),
    }
    loop, graphs, both = bench(job, ways, rounds=5).timings
    assert graphs.forward_ms < 0.5 * loop.forward_ms  # a small net is all launches
    assert both.forward_ms < 0.5 * loop.forward_ms
    assert (graphs.planner_ms < 0.5 * loop.planner_ms) or not is_learned
    assert graphs.overhead is not None


def test_the_least_time_counts_whole_rows_windows_and_one_block_of_logits() -> None:
    net = tiny_net()
    job = job_on(net)
    sizes = [len(prompt) + 8 for prompt in job.prompts]
    config = net.config
    blocks = sum(each.weight.numel() for each in net.blocks.modules() if isinstance(each, nn.Linear))

    def flops(computed: float, seen: float, read: float) -> float:
        attention = 4 * seen * config.dim * config.num_layers
        return computed * (2 * blocks + attention) + read * 2 * config.dim * config.vocab_size

    mean = sum(2 * size for size in sizes) / 6
    whole = least_seconds(job, Work([2, 2, 2], calls=2), Roofline(flops=1e9, bandwidth=1e15))
    assert whole == pytest.approx(flops(2 * sum(sizes), mean, 6 * 4) / 1e9)
    cached = least_seconds(job, Work([2, 2, 2], calls=2, block_nfe=3), Roofline(flops=1e9, bandwidth=1e15))
    assert cached == pytest.approx(flops(3 * mean + 3 * 4, mean, 6 * 4) / 1e9)
    reading = least_seconds(job, Work([2, 2, 2], calls=2), Roofline(flops=1e20, bandwidth=1e6))
    assert reading == pytest.approx(2 * weight_bytes(net) / 1e6)


def test_flops_are_those_of_the_profiler() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    net = tiny_net()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, 16, dtype=torch.int64))
    assert forward_flops(net, 32, 16, 32) == counter.get_total_flops()


def test_random_prompts_have_the_lengths_asked_for_and_no_mask() -> None:
    net = tiny_net()
    prompts = random_prompts(net, 5, 10, 50)
    assert [len(prompt) for prompt in prompts] == [10, 20, 30, 40, 50]
    tokens = {token for prompt in random_prompts(net, 4, 2000, 2000) for token in prompt}
    assert tokens == set(range(net.vocab_size)) - {net.mask_id}
    assert prompts == random_prompts(net, 5, 10, 50)
