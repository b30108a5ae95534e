"""`unmask bench`."""

from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import (
    Compile,
    Device,
    Dtype,
    Graphs,
    Length,
    Model,
    StepsPerSync,
    Temperature,
    end,
    engine_settings,
    refuse_repeats,
)

if TYPE_CHECKING:
    from unmask.models.transformer import Transformer


def bench(
    model: Model = "bundled",
    planner: Annotated[list[str], typer.Option("--planner", "-p", help="One, named as in eval.")] = [  # noqa: B006
        "factor(1.0)"
    ],
    prompts: Annotated[
        str, typer.Option(help="A task, or a range of lengths such as 40-400 for prompts of random tokens.")
    ] = "chain",
    num_prompts: Annotated[int, typer.Option("--num-prompts", "-n")] = 4,
    length: Length = 64,
    block_length: Annotated[int, typer.Option("--block-length", "-b")] = 32,
    temperature: Temperature = 0.0,
    record: Annotated[
        bool, typer.Option("--record", help="Keep log-likelihoods, as rollouts for training do.")
    ] = False,
    cache: Annotated[list[str], typer.Option(help="As in eval; repeatable.")] = ["none"],  # noqa: B006
    against: Annotated[
        list[str],
        typer.Option(help="dultra=FOLDER or fast-dllm=FOLDER: runs the code in that clone; repeatable."),
    ] = [],  # noqa: B006
    max_rows: Annotated[int | None, typer.Option(help="Rows that the engine decodes at a time.")] = None,
    compiled: Compile = False,
    graphs: Graphs = None,
    steps_per_sync: StepsPerSync = 1,
    rounds: Annotated[int, typer.Option(help="Timings of each; medians are shown.")] = 3,
    seed: int = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Time the ways of decoding beside the bare forward, the machine's limits and published code."""
    from unmask.eval import ways as way
    from unmask.eval.bench import bench as measure
    from unmask.eval.bench import print_report
    from unmask.eval.published import caches_of, load_published
    from unmask.eval.timing import hardware, measure_limits
    from unmask.models.load import load_denoiser
    from unmask.planners.load import parse_planner

    if rounds < 1:
        raise ValueError(f"{rounds} rounds time nothing; use 1 or more")
    if num_prompts < 1:
        raise ValueError(f"{num_prompts} prompts are nothing to decode; use 1 or more")
    if len(planner) > 1:
        raise ValueError(f"bench times one planner, and -p names {len(planner)}; call it for each")
    (decides_by,) = planner
    refuse_repeats(cache)
    refuse_repeats([text.partition("=")[0] for text in against])
    engines = {
        kind: engine_settings(
            device,
            cache=kind,
            graphs=graphs,
            compiled=compiled,
            steps_per_sync=steps_per_sync,
            max_rows=num_prompts if max_rows is None else max_rows,
        )
        for kind in cache
    }
    denoiser = load_denoiser(model, device=device, dtype=dtype)
    decides = parse_planner(decides_by, own=model, device=device, dtype=denoiser.embed.weight.dtype)
    job = way.Workload(
        denoiser,
        decides,
        _prompts(prompts, num_prompts, denoiser, seed),
        length=length,
        block_length=block_length,
        temperature=temperature,
        seed=seed,
        record_log_probs=record,
    )
    ways = {"reference loop": way.reference(job)}
    for kind, settings in engines.items():
        assert settings is not None  # the engine is the default
        ways["engine" if kind == "none" else f"engine, {kind} cache"] = way.engine(job, settings)
    for text in against:
        for kind in [kind for kind in cache if kind in caches_of(text)] or cache[:1]:
            loaded = load_published(
                text,
                denoiser,
                decides,
                length=length,
                block_length=block_length,
                temperature=temperature,
                cache=kind,
                record=record,
            )
            name = text.partition("=")[0]
            ways[name if kind == "none" else f"{name}, {kind} cache"] = way.published(job, loaded)
    limits = measure_limits(denoiser.device, denoiser.embed.weight.dtype)
    report = measure(job, ways, rounds=rounds, limits=limits)
    print_report(report)
    end(
        {
            "hardware": hardware(denoiser.device),
            "tflops": limits.flops / 1e12,
            "gigabytes_per_second": limits.bandwidth / 1e9,
            "model": model,
            "planner": decides_by,
            **report.as_json(),
        }
    )


def _prompts(text: str, number: int, denoiser: "Transformer", seed: int) -> list[list[int]]:
    """Of a task, or random tokens of evenly spaced lengths."""
    from unmask.decode.text import encode_prompts
    from unmask.eval.ways import random_prompts
    from unmask.tasks.load import load_task

    low, dash, high = text.partition("-")
    if low.isdigit() and (not dash or high.isdigit()):
        if dash and int(low) > int(high):
            raise ValueError(f"--prompts {text}: the shortest is longer than the longest")
        return random_prompts(denoiser, number, int(low), int(high or low), seed)
    if denoiser.tokenizer is None:
        raise ValueError("this model has no tokenizer; give lengths such as --prompts 40-400")
    task = load_task(text)
    return encode_prompts(denoiser.tokenizer, [task.problem("test", index) for index in range(number)])
