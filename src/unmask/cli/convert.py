"""`unmask convert`."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unmask.cli.common import end

if TYPE_CHECKING:
    from unmask.planners.learned import LearnedPlanner

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="As --model of eval; or a causal model: folder, hub id, GGUF file.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="DST", help="A new folder.")],
    to: Annotated[str, typer.Option(help="unmask, llada, dultra or dream.")] = "unmask",
    planner: Annotated[
        str | None, typer.Option(help="The planner to put beside it; by default the one in SRC, if any.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16; auto changes no weight.")
    ] = "auto",
    max_shard_size: Annotated[str, typer.Option(help="Of a file of weights, as in 500MB.")] = "5GB",
    mask_token: Annotated[
        str | None, typer.Option(help="Of a causal model: a token that it reserves; by default a new one.")
    ] = None,
    shift: Annotated[
        bool, typer.Option(help="Of a causal model: the state before a token goes on predicting it.")
    ] = True,
) -> None:
    """Write a denoiser, and the planner beside it, in another format.

    A causal Llama, Qwen2 or Qwen3 becomes a denoiser that has yet to be trained; LoRA adapters are merged.
    """
    from unmask.checkpoint import INDEX, fetch_folder, in_shards, write_folder
    from unmask.models.causal import MASK_TOKEN, from_causal, is_causal, local
    from unmask.models.export import LAYOUTS, in_layout
    from unmask.models.load import load_denoiser
    from unmask.models.tokenizer import tokenizer_texts
    from unmask.planners.export import published_head
    from unmask.planners.load import save_planner

    max_bytes = _bytes(max_shard_size)
    if to not in LAYOUTS:
        raise ValueError(f"unknown format {to!r}; use one of {', '.join(LAYOUTS)}")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder")
    folder = local(source)
    dtype = _dtype(dtype, folder)
    if is_causal(folder):
        net = from_causal(
            folder, mask_token=MASK_TOKEN if mask_token is None else mask_token, shift=shift, dtype=dtype
        )
    elif mask_token is not None or not shift:
        raise ValueError(f"{source} is a denoiser; --mask-token and --no-shift are for causal models")
    else:
        net = load_denoiser(folder, dtype=dtype)
    learned = _planner_of(folder if planner is None else fetch_folder(planner), planner is not None)
    descriptions, tensors = in_layout(net, to)
    if to == "dultra":
        if learned is None:
            raise ValueError(
                f"{source} has no planner, which dultra needs; give --planner, or use --to llada"
            )
        tensors |= published_head(learned, descriptions["config.json"])
    files, index = in_shards(tensors, max_bytes)
    texts = {name: json.dumps(each, indent=2) + "\n" for name, each in descriptions.items()}
    texts |= {} if index is None else {INDEX: index}
    texts |= {} if net.tokenizer is None else tokenizer_texts(net.tokenizer)
    write_folder(out, texts, files)
    if to == "unmask" and learned is not None:
        save_planner(out, learned)
    has_planner = learned is not None and to in ("unmask", "dultra")
    report = {
        "folder": str(out),
        "format": to,
        "dtype": str(net.embed.weight.dtype).removeprefix("torch."),
        "bytes": sum(value.nbytes for value in tensors.values()),
        "files": len(files),
        "planner": has_planner,
    }
    Console().print(
        f"{out}: {to}, {report['dtype']}, {report['bytes']:,} bytes in {len(files)} file(s), "
        f"{'with' if has_planner else 'without'} a planner",
        highlight=False,
    )
    end(report)


def _dtype(asked: str, folder: Path) -> str:
    from unmask.models.adapters import is_adapter
    from unmask.models.export import stored_dtype

    if asked == "auto":
        return stored_dtype(folder)
    if asked != "float32" and is_adapter(folder):
        Console().print(f"in {asked}, what the adapters learned is rounded with the weights it is added to")
    return asked


def _planner_of(folder: Path, must: bool) -> "LearnedPlanner | None":
    from unmask.checkpoint import read_json
    from unmask.families.llada import DULTRA_CLASS
    from unmask.planners.load import load_planner

    if must or (folder / "planner.json").is_file():
        return load_planner(folder)
    description = folder / "config.json"  # a GGUF file and adapters have none
    architectures = read_json(description).get("architectures") if description.is_file() else None
    return load_planner(folder) if DULTRA_CLASS in (architectures or []) else None


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip().upper())
    number = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if number < 1:
        raise ValueError(f"max_shard_size {text!r} is no size; use one such as 5GB or 500MB")
    return number
