"""`unmask generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from unmask.cli.common import (
    Cache,
    Compile,
    Decoder,
    Device,
    DeviceMap,
    Dtype,
    Graphs,
    Length,
    Model,
    StepsPerSync,
    Temperature,
    check_writable,
    end,
    engine_settings,
    load_model,
)


def generate(
    prompts: Annotated[
        list[str], typer.Argument(help=r"Prompts in the form the model knows; \n is a line break.")
    ],
    model: Model = "bundled",
    planner: Annotated[str, typer.Option("--planner", "-p", help="As in eval.")] = "factor(1.0)",
    length: Length = 64,
    block_length: Annotated[int, typer.Option("--block-length", "-b")] = 32,
    temperature: Temperature = 0.0,
    seed: int = 0,
    stop_at_eos: Annotated[bool, typer.Option(help="Stop a row at a settled EOS.")] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Prompts are a user's turns, in the model's chat template.")
    ] = False,
    decoder: Decoder = "engine",
    cache: Cache = "none",
    graphs: Graphs = None,
    compiled: Compile = False,
    steps_per_sync: StepsPerSync = 1,
    device: Device = "cpu",
    device_map: DeviceMap = None,
    dtype: Dtype = "float32",
    html: Annotated[Path | None, typer.Option(help="Write a replay of the steps here.")] = None,
) -> None:
    """Complete prompts and say what each cost."""
    from unmask.decode.engine import Engine
    from unmask.decode.loop import decode
    from unmask.decode.text import completion_text, encode_prompts
    from unmask.eval.replay import replay_html, row_of
    from unmask.planners.load import parse_planner
    from unmask.tasks.base import Problem

    check_writable(html)
    engine = engine_settings(
        device,
        decoder,
        cache=cache,
        graphs=graphs,
        compiled=compiled,
        steps_per_sync=steps_per_sync,
        device_map=device_map,
    )
    denoiser = load_model(model, device, dtype, device_map)
    if denoiser.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer.json, so it cannot read text")
    if chat and not getattr(denoiser.tokenizer, "chat_template", None):
        raise ValueError(f"{model} has no chat template; leave out --chat, and give prompts as it knows them")
    problems = [Problem(repr(prompt), _unescape(prompt), {}, chat=chat) for prompt in prompts]
    encoded = encode_prompts(denoiser.tokenizer, problems)
    dtype_of_weights = denoiser.embed.weight.dtype
    decides = parse_planner(planner, own=model, device=str(denoiser.device), dtype=dtype_of_weights)
    settings: dict[str, Any] = {
        "length": length,
        "block_length": block_length,
        "temperature": temperature,
        "seed": seed,
        "stop_at_eos": stop_at_eos,
    }
    if engine is None:
        rows = decode(denoiser, encoded, decides, **settings)
    else:
        rows = Engine(denoiser, decides, engine).decode(encoded, **settings)
    console = Console()
    records = []
    for row in rows:
        text = completion_text(denoiser.tokenizer, row, denoiser.eos_id)
        typer.echo(text)  # as it is: programs are text too
        console.print(f"NFE {row.nfe}", style="dim")
        records.append({"completion": text, "nfe": row.nfe, "unmask_step": row.unmask_step.tolist()})
    if html is not None:
        pairs = zip(rows, prompts, strict=True)
        shown = [
            row_of(row, denoiser.tokenizer, title=prompt[:60], correct=None, eos_id=denoiser.eos_id)
            for row, prompt in pairs
        ]
        replay_html(shown, html)
    end({"planner": planner, "rows": records})


def _unescape(prompt: str) -> str:
    r"""A shell word cannot easily hold a line break: \n stands for one."""
    return prompt.replace("\\n", "\n")
