"""Low-rank adapters (LoRA) through PEFT: added to any net, saved in PEFT's format, loaded, merged.

PEFT is an extra: pip install 'unmask[peft]'.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unmask.checkpoint import read_json, read_tensors, write_folder
from unmask.config import LoraConfig
from unmask.models.transformer import Transformer
from unmask.rng import seeded

Adapter = Any
"""A `peft.PeftModel` around the net, which it changed in place: calling the net uses the adapters."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def add_adapter(net: Transformer, settings: LoraConfig, base: str, seed: int) -> Adapter:
    """Freeze `net` and give its layers adapters, which change nothing until they are trained.

    Args:
        net: changed in place.
        settings: their size and the layers that get one.
        base: folder or hub id of the net, noted down for loading.
        seed: of their initial weights.

    Raises:
        ValueError: where PEFT is missing, the net has no layer of a name in `settings.targets`, or `base` is
            adapters: what is saved names one net, which has to be found whole.
    """
    peft = _peft()
    if Path(base).is_dir() and is_adapter(Path(base)):
        raise ValueError(f"{base} holds adapters; merge them first: unmask convert {base} NEW_FOLDER")
    linear = {name.rpartition(".")[2] for name, each in net.named_modules() if isinstance(each, nn.Linear)}
    unknown = sorted(set(settings.targets) - linear)
    if unknown:
        raise ValueError(
            f"lora.targets: no linear layer is called {unknown[0]!r}; use {', '.join(sorted(linear))}"
        )
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
    )
    with seeded(net.device, seed, "lora"):
        adapter = peft.get_peft_model(net, config)
    # PEFT knows only where nets of transformers came from; a folder is found from anywhere.
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    return adapter


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write adapter_config.json and adapter_model.safetensors; the old ones stay until both are whole."""
    description = adapter.peft_config["default"].to_dict()
    text = json.dumps(description, indent=2, sort_keys=True, default=sorted) + "\n"
    tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(adapter).items()}
    write_folder(folder, {CONFIG: text}, {WEIGHTS: tensors})


def restore_adapter(folder: Path, adapter: Adapter) -> None:
    """Fill the adapters from a folder that `save_adapter` wrote.

    Raises:
        ValueError: naming the file that is missing, unreadable or of other adapters.
    """
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    shapes, found = ({name: t.shape for name, t in each.items()} for each in (_tensors(adapter), tensors))
    if found != shapes:
        odd = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        raise ValueError(f"{path} is of other adapters: {odd[0]!r} is missing, unknown or of another shape")
    _peft().set_peft_model_state_dict(adapter, tensors)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters and no denoiser."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The denoiser that the adapters in a folder were trained on."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise ValueError(f"{folder / CONFIG} does not say what it adapts (base_model_name_or_path)")
    return base


def merge_adapter(net: Transformer, folder: Path) -> None:
    """Add the adapters in `folder` to the weights of `net`, in place; it is an ordinary net afterwards.

    Raises:
        ValueError: where PEFT is missing, or the adapters are of another net or unreadable.
    """
    peft = _peft()
    kind = read_json(folder / CONFIG).get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{folder / CONFIG} is of adapters of type {kind!r}; only LORA can be merged")
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.base_model_name_or_path = None
        adapter = peft.get_peft_model(net, config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit the net: {error}") from error
    restore_adapter(folder, adapter)
    adapter.merge_and_unload()
    net.eval().requires_grad_(False)


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Of the adapters alone, under PEFT's names."""
    found: dict[str, Tensor] = _peft().get_peft_model_state_dict(adapter, save_embedding_layers=False)
    return found


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("adapters need PEFT; pip install 'unmask[peft]'") from error
    return peft
