"""What the verbs share: options, the closing JSON line, errors in one line."""

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from unmask.decode.engine import EngineSettings
    from unmask.models.transformer import Transformer


def present_device(text: str | None) -> str | None:
    """A device that is there."""
    from unmask import device

    if text is not None:
        device.present_device(text)
    return text


Model = Annotated[
    str,
    typer.Option("--model", "-m", help='Folder, hub id (or NAME/MODEL@REV), "bundled" or "bundled/NAME".'),
]
Planners = Annotated[
    list[str],
    typer.Option("--planner", "-p", help="factor(1.0), bundled/policy(factor=1.5), own, ...; repeatable."),
]
Blocks = Annotated[list[int], typer.Option("--block-length", "-b", help="Window; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.", callback=present_device)]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="Blocks over GPUs: auto (the fewest that hold the model) or balanced (all)."),
]
Dtype = Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")]
Decoder = Annotated[
    str, typer.Option(help="engine, or loop: the reference, slower, with the same results in float32.")
]
Cache = Annotated[
    str,
    typer.Option(help="none (exact), prefix, dual; dual(2): a row is seen whole again after 2 cached steps."),
]
Graphs = Annotated[
    bool | None,
    typer.Option("--graphs/--no-graphs", help="The engine with CUDA graphs; by default where it can."),
]
Compile = Annotated[bool, typer.Option("--compile", help="The engine with compiled blocks.")]
StepsPerSync = Annotated[
    int, typer.Option(help="Without a cache: the engine's steps before the host looks who has finished.")
]
Length = Annotated[int, typer.Option(help="Completion positions.")]
Temperature = Annotated[float, typer.Option(help="Of token sampling; 0 is greedy.")]


def engine_settings(
    device: str,
    decoder: str = "engine",
    *,
    cache: str,
    graphs: bool | None,
    compiled: bool,
    steps_per_sync: int,
    device_map: str | None = None,
    max_rows: int = 64,
) -> "EngineSettings | None":
    """What the options ask of the engine; None for the reference loop.

    Raises:
        ValueError: for options that are unknown or do not go together.
    """
    from unmask.decode.engine import EngineSettings
    from unmask.trajectory import CACHES

    found = re.fullmatch(r"(\w+)(?:\(([1-9][0-9]*)\))?", cache)
    if found is None or found[1] not in CACHES or (found[2] and found[1] == "none"):
        raise ValueError(f"--cache {cache!r}: use one of {', '.join(CACHES)}, or e.g. dual(2)")
    if decoder not in ("engine", "loop"):
        raise ValueError(f"--decoder {decoder!r}: use engine or loop")
    if graphs and (device_map is not None or not device.startswith("cuda")):
        raise ValueError("--graphs are CUDA graphs on one GPU; use --device cuda, or leave them out")
    if cache != "none" and steps_per_sync != 1:
        raise ValueError(f"--steps-per-sync is for decoding without a cache; leave it or --cache {cache} out")
    if decoder == "engine":
        return EngineSettings(
            max_rows=max_rows,
            cache=cast(Any, found[1]),
            refresh_every=int(found[2]) if found[2] else None,
            compile=compiled,
            graphs=graphs,
            steps_per_sync=steps_per_sync,
        )
    if cache != "none" or graphs or compiled or steps_per_sync != 1:
        raise ValueError(
            "--decoder loop takes no --cache, --graphs, --compile or --steps-per-sync; use the engine"
        )
    return None


def load_model(model: str, device: str, dtype: str, device_map: str | None) -> "Transformer":
    """A denoiser where the options say."""
    from unmask.models.load import load_denoiser

    return load_denoiser(model, device=device, dtype=dtype, device_map=cast(Any, device_map))  # checked there


def refuse_repeats(*lists: list[str] | list[int]) -> None:
    for given in lists:
        for one in given:
            if given.count(one) > 1:  # type: ignore[arg-type]  # of its own list
                raise ValueError(f"{one} is given twice; give each once")


def fail(message: str) -> None:
    if message:  # empty where click has shown the help
        sys.stderr.write(f"unmask: {' '.join(message.split())}\n")
    sys.exit(2)


def check_writable(path: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Find out before the work, not after it, and leave no file; one that is read too would be lost."""
    if path is not None:
        if path.is_file() and any(one.is_file() and path.samefile(one) for one in inputs):
            raise ValueError(f"{path} is read here and would be overwritten; give another file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not os.path.lexists(path)
        path.open("a").close()
        if is_new and path.is_file() and not path.stat().st_size:  # other processes of a launch try it, too
            path.unlink(missing_ok=True)


def end(value: Any) -> None:
    """The one JSON line that ends stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
