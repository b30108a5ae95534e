"""Decoding at LLaDA-8B's shape beside published code, on the same random weights and schedule, in one run.

    python -m benchmarks.published --device cuda --dultra CLONE --fast-dllm CLONE --out results.json
    python -m benchmarks.published --size tiny --device cpu --dtype float32 --length 64 --dultra CLONE

Each scenario decodes the same prompts in every way. Against dUltra, a head with equal scores makes the
schedule: with --probability 0.5 a block of 32 takes 6 steps where the expected number is unmasked (T = 0, as
dUltra evaluates), and as many as chance wants where positions are drawn (T = 0.1, as it trains). Against
Fast-dLLM --tokens-per-step makes it. The last line of stdout is one JSON object.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import unmask
from benchmarks.kernels import profiled
from benchmarks.sizes import SIZES, random_net, random_planner
from unmask.decode.engine import EngineSettings
from unmask.device import DTYPES
from unmask.eval.bench import bench, print_report
from unmask.eval.provenance import commit
from unmask.eval.published import FAST_DLLM, load_published
from unmask.eval.timing import hardware, measure_limits
from unmask.eval.ways import Way, Workload, engine, published, random_prompts, reference
from unmask.models.transformer import Transformer
from unmask.planners.load import parse_planner


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = _options(arguments)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    net = random_net(SIZES[options.size], options.device, dtype)
    limits = measure_limits(device, dtype)
    result: dict[str, Any] = {"benchmark": "published", "size": options.size, "dtype": options.dtype}
    result |= {"hardware": hardware(device), "torch": torch.__version__, "unmask": unmask.__version__}
    result |= {"commit": commit(), "rounds": options.rounds}
    result |= {"tflops": limits.flops / 1e12, "gigabytes_per_second": limits.bandwidth / 1e9, "scenarios": {}}
    print(f"{result['hardware']}: {result['tflops']:.1f} TFLOP/s, {result['gigabytes_per_second']:.0f} GB/s")
    for name in options.scenarios:
        scenario = SCENARIOS[name]
        job = job_of(scenario, net, options)
        ways = ways_of(scenario, job, options)
        print(f"\n{name}: {scenario.about}; {scenario.rows} prompt(s)")
        report = bench(job, ways, rounds=options.rounds, limits=limits)
        print_report(report)
        result["scenarios"][name] = report.as_json()
        if options.profile:
            result["scenarios"][name]["profile"] = {
                way: profiled(f"{name}, {way}", ways[way], device)
                for way in ways
                if way.startswith("engine") and way not in report.failed
            }
        if options.out is not None:  # a run that is cut short keeps what it has
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))
    return result


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--dultra", type=Path, help="clone of github.com/chinsengi/dUltra-os")
    parser.add_argument("--fast-dllm", type=Path, help="clone of github.com/NVlabs/Fast-dLLM")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=200, help="tokens in a prompt")
    parser.add_argument("--length", type=int, default=256, help="tokens in a completion")
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--probability", type=float, default=0.5, help="of unmasking, in the planner head")
    parser.add_argument("--tokens-per-step", type=int, default=4)
    parser.add_argument("--profile", action="store_true", help="list the kernels of a decode by the engine")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is decoded, and in which ways."""

    about: str
    rows: int
    against: str
    """Whose schedule, and whose code where there is a clone: dultra, or fast-dllm. A head is dUltra's."""
    draws: bool = False
    """Positions and tokens are drawn, and log-probabilities kept."""
    mixed: bool = False
    """Prompts of many lengths."""
    caches: tuple[str, ...] = ("none",)
    planner: str = ""
    """Named as in `unmask eval`, where it is not that of the published code. The bundled policy's schedule
    depends on the weights."""
    law: str = "fallback"
    """Of the sets that a head draws; dUltra's by default."""


POLICY = "bundled/policy(mode=sample, temperature=20, law={law})"
"""So hot it takes several positions a step of a net with random weights, which is sure of none."""

SCENARIOS = {
    "dultra-1": Scenario("as dUltra evaluates, T = 0", 1, "dultra"),
    "dultra-12": Scenario("as dUltra evaluates, T = 0", 12, "dultra"),
    "rollout-1": Scenario("as dUltra trains, T = 0.1", 1, "dultra", draws=True),
    "rollout-12": Scenario("as dUltra trains, T = 0.1", 12, "dultra", draws=True),
    "rollout-mixed": Scenario("the same, prompts of 1/5 to twice the length", 12, "dultra", True, mixed=True),
    "fast-dllm-1": Scenario("top-k as Fast-dLLM", 1, "fast-dllm", caches=tuple(FAST_DLLM)),
    "cached-12": Scenario("top-k with caches", 12, "", caches=("none", "dual")),
    "random-1": Scenario("any positions, T = 0", 1, "", planner="random(4)"),
    "left-to-right-1": Scenario("the leftmost positions, T = 0", 1, "", planner="left_to_right(4)"),
    "margin-1": Scenario("largest margin, T = 0", 1, "", planner="margin(4)"),
    "entropy-1": Scenario("lowest entropy, T = 0", 1, "", planner="entropy(4)"),
    "threshold-1": Scenario("a block at once, T = 0", 1, "", planner="threshold(1e-9)"),
    "factor-1": Scenario("7 tokens a step, T = 0", 1, "", planner="factor(8)"),
    "entropy-bound-1": Scenario("4 tokens a step, T = 0", 1, "", planner="entropy_bound(40)"),
    "schedule-1": Scenario("64 steps as Dream, T = 0", 1, "", planner="schedule(64)"),
    "policy-1": Scenario("a policy, T = 0", 1, "", planner="bundled/policy(mode=threshold)"),
    "policy-rollout-1": Scenario(
        "a policy draws, Bernoulli, T = 0.1", 1, "", draws=True, planner=POLICY.format(law="nonempty")
    ),
    "plackett-luce-1": Scenario(
        "a policy draws, Plackett-Luce, T = 0.1",
        1,
        "",
        draws=True,
        planner=POLICY.format(law="plackett_luce"),
    ),
    "plackett-luce-head-1": Scenario(
        "a dUltra head draws, Plackett-Luce, T = 0.1", 1, "head", draws=True, law="plackett_luce"
    ),
    "learned-1": Scenario("a dUltra head with caches, T = 0", 1, "head", caches=("none", "prefix", "dual")),
    "learned-12": Scenario("a dUltra head with caches, T = 0", 12, "head", caches=("none", "dual")),
}


ENGINES = ({"graphs": False}, {"graphs": True}, {"compile": True, "graphs": True})
"""Settings of the engine that are timed; on a CPU the first."""


def job_of(scenario: Scenario, net: Transformer, options: argparse.Namespace) -> Workload:
    shortest, longest = options.prompt, options.prompt
    if scenario.mixed:
        shortest, longest = options.prompt // 5, options.prompt * 2
    if scenario.against in ("dultra", "head"):
        mode = "sample" if scenario.draws else "top_k"
        planner = random_planner(net, options.probability).tuned(mode=mode, law=scenario.law)
    elif scenario.planner:
        planner = parse_planner(scenario.planner, device=options.device, dtype=net.embed.weight.dtype)
    else:
        planner = unmask.planner("top_k", k=options.tokens_per_step)
    return Workload(
        net,
        planner,
        random_prompts(net, scenario.rows, shortest, longest),
        length=options.length,
        block_length=options.block_length,
        temperature=0.1 if scenario.draws else 0.0,
        record_log_probs=scenario.draws,
    )


def ways_of(scenario: Scenario, job: Workload, options: argparse.Namespace) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    checkout = {"dultra": options.dultra, "fast-dllm": options.fast_dllm}.get(scenario.against)
    for cache in scenario.caches if checkout else ():
        code = load_published(
            f"{scenario.against}={checkout}",
            job.denoiser,
            job.planner,
            length=job.length,
            block_length=job.block_length,
            temperature=job.temperature,
            cache=cache,
            record=job.record_log_probs,
        )
        name = scenario.against if cache == "none" else f"{scenario.against}, {cache} cache"
        ways[name] = published(job, code)
    if scenario.rows == 1 or job.denoiser.device.type != "cuda":
        ways["reference loop"] = reference(job)  # at full size and batch 12 it takes minutes
    for cache in scenario.caches:
        for more in _engines(job):
            settings = EngineSettings(max_rows=scenario.rows, cache=cache, **more)
            words = ["engine"] if cache == "none" else ["engine", f"{cache} cache"]
            words += [name for name, is_on in more.items() if is_on]
            ways[", ".join(words)] = engine(job, settings)
    return ways


def _engines(job: Workload) -> tuple[dict[str, bool], ...]:
    if job.denoiser.device.type != "cuda":
        return ENGINES[:1]
    return ENGINES if len(job.prompts) == 1 else (ENGINES[0], ENGINES[-1])  # graphs alone help one row


if __name__ == "__main__":
    main()
