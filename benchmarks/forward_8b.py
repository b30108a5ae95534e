"""A net of LLaDA-8B's shape: loading a checkpoint, and one forward beside the limit of its matrix products.

    python -m benchmarks.forward_8b --device cuda --out benchmarks/results/forward_8b.json
    python -m benchmarks.forward_8b --size tiny --device cpu

The weights are random. The last line of stdout is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unmask
from benchmarks.kernels import profiled
from benchmarks.sizes import SIZES, forget_cached, random_net, write_checkpoint
from unmask.decode.graphs import Capture
from unmask.device import DTYPES
from unmask.eval.timing import (
    Roofline,
    forward_flops,
    hardware,
    interleaved,
    measure_limits,
    median_seconds,
    weight_bytes,
)
from unmask.eval.ways import on_same_weights
from unmask.models.transformer import Transformer

MODES = ("eager", "compiled", "graph", "compiled+graph")

# Prints the most that another process held while this one watched: anonymous memory, and all that is
# resident, which counts the mapped pages of weight files too.
WATCH = """
import select, sys
most = {"RssAnon": 0, "VmRSS": 0}
print("watching", flush=True)
stop = False
while not stop:
    stop = select.select([sys.stdin], [], [], 0.004)[0]
    for line in open(f"/proc/{sys.argv[1]}/status"):
        name, _, value = line.partition(":")
        if name in most:
            most[name] = max(most[name], int(value.split()[0]) * 1024)
print(most["RssAnon"], most["VmRSS"])
"""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--tokens", type=int, default=456, help="positions in a row")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--modes", nargs="+", choices=MODES, help="all on cuda, eager elsewhere")
    parser.add_argument("--repeats", type=int, default=20, help="interleaved timings of each mode")
    parser.add_argument("--skip-load", action="store_true", help="make the net in place")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written for a while")
    parser.add_argument("--profile", action="store_true", help="list the kernels of one forward")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args(arguments)
    dtype = DTYPES[options.dtype]
    result: dict[str, Any] = {"benchmark": "forward", "size": options.size, "dtype": options.dtype}
    device = torch.device(options.device)
    result |= {"hardware": hardware(device), "torch": torch.__version__, "unmask": unmask.__version__}
    limits = measure_limits(device, dtype)
    result |= {"tflops": limits.flops / 1e12, "gigabytes_per_second": limits.bandwidth / 1e9}
    print(f"{result['hardware']}: {result['tflops']:.1f} TFLOP/s, {result['gigabytes_per_second']:.0f} GB/s")
    if options.skip_load:
        net = random_net(SIZES[options.size], options.device, dtype)
    else:
        net, result["load"] = measure_load(options, dtype)
        print_load(result["load"])
    modes = options.modes or (MODES if options.device.startswith("cuda") else MODES[:1])
    result["forward"] = []
    for batch in options.batch:
        rows = measure_forward(net, batch, options.tokens, modes, options.repeats, limits)
        result["forward"] += rows
        print_forward(rows)
    if options.profile:
        input_BT = random_tokens(net, options.batch[0], options.tokens)
        result["profile"] = {
            mode: profiled(mode, forward_call(net, input_BT, mode), device) for mode in modes
        }
    text = json.dumps(result)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text)
    return result


# Loading


def measure_load(options: argparse.Namespace, dtype: torch.dtype) -> tuple[Transformer, dict[str, float]]:
    """Load a sharded checkpoint twice: from the disk, then from the page cache."""
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        begin = time.perf_counter()
        weights = write_checkpoint(folder, SIZES[options.size], options.device, dtype)
        result: dict[str, float] = {"weight_bytes": weights, "write_seconds": time.perf_counter() - begin}
        for name in ("cold", "warm"):
            if name == "cold":
                forget_cached(folder)
            net = None  # the one before must not count
            net, measured = _load_once(folder, options, weights)
            result |= {f"{name}_{key}": value for key, value in measured.items()}
        assert net is not None
        return net, result
    finally:
        shutil.rmtree(folder)


def _load_once(
    folder: Path, options: argparse.Namespace, weights: int
) -> tuple[Transformer, dict[str, float]]:
    cuda = options.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    anonymous, resident = _memory_now()
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    watch.stdout.readline()
    begin = time.perf_counter()
    net = unmask.load_denoiser(folder, device=options.device, dtype=options.dtype)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    most_anonymous, most_resident = map(int, watch.communicate("stop\n")[0].split())
    measured = {
        "seconds": seconds,
        "host_anonymous_per_weight_byte": (most_anonymous - anonymous) / weights,
        "host_resident_per_weight_byte": (most_resident - resident) / weights,
    }
    if cuda:
        measured["gpu_per_weight_byte"] = (torch.cuda.max_memory_allocated() - before) / weights
    return net, measured


def _memory_now() -> tuple[int, int]:
    """Anonymous and resident bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return tuple(int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "VmRSS"))


def print_load(load: dict[str, float]) -> None:
    weights = load["weight_bytes"]
    print(f"checkpoint: {weights / 1e9:.2f} GB of weights, written in {load['write_seconds']:.1f} s")
    for name in ("cold", "warm"):
        shares = ", ".join(
            f"{what} {load[f'{name}_{key}_per_weight_byte']:.3f}"
            for what, key in (
                ("GPU", "gpu"),
                ("host anonymous", "host_anonymous"),
                ("host resident", "host_resident"),
            )
            if f"{name}_{key}_per_weight_byte" in load
        )
        seconds = load[f"{name}_seconds"]
        print(f"  {name} load: {seconds:.1f} s, {weights / seconds / 1e9:.1f} GB/s; peak / weights: {shares}")


# The forward


def measure_forward(
    net: Transformer, batch: int, tokens: int, modes: tuple[str, ...], repeats: int, limits: Roofline
) -> list[dict[str, Any]]:
    """Times of each mode and of the net's matrix products alone, interleaved."""
    input_BT = random_tokens(net, batch, tokens)
    calls = {"matrix products": matrix_products(net, batch * tokens)}
    calls |= {mode: forward_call(net, input_BT, mode) for mode in modes}
    runs = interleaved(calls, repeats, net.device, warm_up=3)
    positions = batch * tokens
    limit = limits.seconds(forward_flops(net, positions, tokens, positions), weight_bytes(net))
    products = median_seconds(runs["matrix products"])
    return [
        {
            "batch": batch,
            "tokens": tokens,
            "mode": mode,
            "ms": median_seconds(runs[mode]) * 1e3,
            "ms_quartiles": [1e3 * each for each in quartiles([run.seconds for run in runs[mode]])],
            "matrix_products_ms": products * 1e3,
            "limit_ms": limit * 1e3,
            "share_of_limit": limit / median_seconds(runs[mode]),
        }
        for mode in modes
    ]


def random_tokens(net: Transformer, batch: int, tokens: int) -> Tensor:
    """Tokens that differ: a GPU multiplies equal rows faster, as they cost less power."""
    rng = torch.Generator(net.device).manual_seed(0)
    return torch.randint(0, net.vocab_size, (batch, tokens), device=net.device, generator=rng)


def forward_call(net: Transformer, input_BT: Tensor, mode: str) -> Callable[[], Any]:
    runner = net
    if mode.startswith("compiled"):
        runner = on_same_weights(net)
        runner.compile_blocks()
    call = torch.no_grad()(lambda: runner(input_BT).logits)
    return captured(call) if mode.endswith("graph") else discarding(call)


def discarding(call: Callable[[], Any]) -> Callable[[], None]:
    """The call without its result, so that no logits pile up."""

    def run() -> None:
        call()

    return run


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = Capture(torch.device("cuda", torch.cuda.current_device()))(call)

    def replay(held: Callable[[], Any] = call) -> None:  # what the graph reads lives as long as the call
        graph.replay()

    return replay


def matrix_products(net: Transformer, num_positions: int) -> Callable[[], Any]:
    """Exactly the net's products with its weights, back to back and with nothing between them."""
    weights = [module.weight for module in net.modules() if isinstance(module, nn.Linear)]
    like = net.embed.weight
    inputs = {
        width: torch.randn(num_positions, width, device=like.device, dtype=like.dtype)
        for width in {weight.shape[1] for weight in weights}
    }

    def call() -> None:
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)

    return captured(call) if net.device.type == "cuda" else call


def quartiles(values: list[float]) -> list[float]:
    first, _, third = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return [first, third]


def print_forward(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print(
        f"batch {first['batch']}, {first['tokens']} positions: matrix products alone "
        f"{first['matrix_products_ms']:.2f} ms, limit {first['limit_ms']:.2f} ms"
    )
    for row in rows:
        print(f"  {row['mode']:15} {row['ms']:8.2f} ms  {row['share_of_limit']:6.1%} of the limit")


if __name__ == "__main__":
    main()
