"""`unmask eval`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from unmask.cli.common import (
    Blocks,
    Cache,
    Compile,
    Decoder,
    Device,
    DeviceMap,
    Dtype,
    Graphs,
    Length,
    Model,
    Planners,
    StepsPerSync,
    Temperature,
    check_writable,
    end,
    engine_settings,
    load_model,
    refuse_repeats,
)

if TYPE_CHECKING:
    from unmask.decode.engine import EngineSettings
    from unmask.eval.run import Conditions, Setting
    from unmask.models.transformer import Transformer
    from unmask.tasks.base import Task


def evaluate(
    planner: Planners,
    model: Model = "bundled",
    task: Annotated[list[str], typer.Option("--task", "-t", help="Repeatable.")] = ["chain", "code"],  # noqa: B006
    block_length: Blocks = [32],  # noqa: B006
    num_problems: Annotated[
        str, typer.Option("--num-problems", "--limit", "-n", help="First problems of each task, or all.")
    ] = "100",
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    seeds: Annotated[int, typer.Option(help="Decode every problem with this many seeds.")] = 1,
    length: Length = 64,
    temperature: Temperature = 0.0,
    stop_at_eos: Annotated[bool, typer.Option(help="Stop a row at a settled EOS.")] = False,
    batch_size: Annotated[int, typer.Option(help="Rows per denoiser call.")] = 64,
    decoder: Decoder = "engine",
    cache: Cache = "none",
    graphs: Graphs = None,
    compiled: Compile = False,
    steps_per_sync: StepsPerSync = 1,
    device: Device = "cpu",
    device_map: DeviceMap = None,
    dtype: Dtype = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Append records to this JSONL file; goes on where it stopped.")
    ] = None,
    traces: Annotated[
        bool, typer.Option(help="Keep steps and confidences of all tokens beside --out; doubles the calls.")
    ] = False,
    alone: Annotated[
        int, typer.Option(help="Also decode this many rows one by one, and say what changes.")
    ] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a replay of the first problems here.")] = None,
) -> None:
    """Accuracy, NFE, TPF and time of planners on held-out problems.

    Under `accelerate launch -m unmask eval ...` the processes share the problems.
    """
    from unmask.eval.compare import compare, replays
    from unmask.eval.metrics import summarise
    from unmask.eval.provenance import note_launch
    from unmask.eval.replay import replay_html
    from unmask.eval.run import Conditions
    from unmask.eval.table import as_json, print_table
    from unmask.tasks.load import load_task
    from unmask.workers import PATIENCE, workers

    if traces and out is None:
        raise ValueError("--traces are kept beside the records; say where with --out FILE.jsonl")
    engine = engine_settings(
        device,
        decoder,
        cache=cache,
        graphs=graphs,
        compiled=compiled,
        steps_per_sync=steps_per_sync,
        device_map=device_map,
    )
    check_writable(out)
    check_writable(html, [] if out is None else [out])
    refuse_repeats(planner, task, block_length)
    _refuse_values(split, alone)
    group = workers(device, PATIENCE)
    if device_map is not None and group.size > 1:
        raise ValueError(f"--device-map wants all GPUs, and there are {group.size} processes; start one")
    denoiser = load_model(model, str(group.device), dtype, device_map)
    tasks = [load_task(name) for name in task]
    settings = _settings(model, denoiser, planner, block_length, cache, engine)
    conditions = Conditions(
        length=length,
        num_problems=_number(num_problems),
        seeds=range(seeds),
        temperature=temperature,
        stop_at_eos=stop_at_eos,
        split="train" if split == "train" else "test",
        batch_size=batch_size,
    )
    if out is not None and group.is_main:
        where = {"device": str(denoiser.device), "device_map": device_map, "processes": group.size}
        note_launch(out, model=model, dtype=dtype, **where)
    with Console(stderr=True).status("decoding") as status:
        records = compare(
            settings,
            tasks,
            conditions,
            out=out,
            traces=traces,
            watch=lambda now: status.update(f"{now.what}: {now.done}/{now.total}"),
            workers=group,
        )
    group.leave()
    if not group.is_main:
        return
    if html is not None:
        replay_html(replays(settings, tasks, conditions, 2), html)
    summaries = summarise(records)
    print_table(summaries)
    report: dict[str, Any] = {"summaries": as_json(summaries)}
    if alone:
        report["alone"] = _alone(settings, tasks, conditions, alone)
    end(report)


def _settings(
    model: str,
    denoiser: "Transformer",
    planners: list[str],
    block_lengths: list[int],
    cache: str,
    engine: "EngineSettings | None",
) -> "list[Setting]":
    """Every planner with every block length."""
    from unmask.eval.engine import EngineDecode
    from unmask.eval.run import Setting, loop_decode
    from unmask.planners.load import parse_planner

    decode = loop_decode if engine is None else EngineDecode(engine)
    device, dtype = str(denoiser.device), denoiser.embed.weight.dtype
    return [
        Setting(
            model,
            denoiser,
            text,
            parse_planner(text, own=model, device=device, dtype=dtype),
            block,
            cache,
            decode,
        )
        for text in planners
        for block in block_lengths
    ]


def _refuse_values(split: str, alone: int) -> None:
    if split not in ("test", "train"):
        raise ValueError(f"--split {split!r}: use test or train")
    if alone < 0 or alone == 1:
        raise ValueError(f"--alone {alone}: a row has no neighbour to depend on; use 2 or more")


def _number(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise ValueError(f"--num-problems {text!r}: give a number, or all")
    return int(text)


def _alone(
    settings: "list[Setting]", tasks: "list[Task]", conditions: "Conditions", num_rows: int
) -> list[dict[str, Any]]:
    from unmask.eval.alone import alone

    found = []
    for task in tasks:
        for setting in settings:
            one = alone(setting, task, conditions, num_rows)
            Console().print(
                f"{task.name}, {setting.label}, block {setting.block_length}: of {one.rows} rows, alone and "
                f"together, {one.same_tokens} have the same tokens and steps, {one.same_grade} the "
                f"same grade; NFE differs by {one.nfe_difference} at most",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            names = {"task": task.name, "planner": setting.label, "block_length": setting.block_length}
            found.append(names | asdict(one))
    return found
