"""Denoisers in our format and in those of others, whose code then loads them."""

from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.checkpoint import LazyTensors, read_description, unstack
from unmask.device import DTYPES
from unmask.families import CAUSAL, FAMILIES
from unmask.families.llada import DULTRA_HEAD, dultra_description
from unmask.models.adapters import is_adapter
from unmask.models.transformer import Transformer, TransformerConfig

LAYOUTS = {"unmask": None, "llada": "llada", "dultra": "llada", "dream": "Dream"}
"""Name -> the family; None is our own format."""


def in_layout(net: Transformer, layout: str) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The JSON files and the tensors of a net in one of `LAYOUTS`; the tensors share its memory.

    Raises:
        ValueError: naming the setting that the layout cannot express.
    """
    state = {name: value.detach() for name, value in net.state_dict().items()}
    kind = LAYOUTS[layout]
    if kind is None:
        tied = "head.weight" if net.config.tied else None
        return {"config.json": net.describe()}, {name: each for name, each in state.items() if name != tied}
    family, fields = FAMILIES[kind], asdict(net.config)
    assert family.describe is not None
    description = dultra_description(fields) if layout == "dultra" else family.describe(fields)
    ours, theirs = _explicit(net.config), _explicit(TransformerConfig(**family.config(description)))
    for name, value in asdict(ours).items():
        if value != getattr(theirs, name):
            raise ValueError(
                f"the {layout} layout has only {name}={getattr(theirs, name)!r}, and this net has "
                f"{name}={value!r}; convert it to unmask, or train a net with the layout's setting"
            )
    description["torch_dtype"] = str(net.embed.weight.dtype).removeprefix("torch.")
    names = family.names(fields)
    tensors = unstack(state, names, net.config.stacked_rows(names))
    ids = {key: description[key] for key in ("eos_token_id", "pad_token_id", "mask_token_id")}
    # Dream's loader wants this file, and its sampler takes the mask id from it.
    return {
        "config.json": description,
        "generation_config.json": {"_from_model_config": True, **ids},
    }, tensors


def _explicit(config: TransformerConfig) -> TransformerConfig:
    """The same with nothing left to a default."""
    block = config.block()
    return replace(config, num_kv_heads=block.kv_heads, head_dim=block.width)


def stored_dtype(folder: Path) -> str:
    """The dtype in which no weight of a denoiser changes: the one it is stored in; of several, float32.

    A GGUF file is dequantised to float32. So are adapters merged: a trained change is mostly smaller than the
    steps of bfloat16 near the weight that it is added to, and would be rounded away.

    Raises:
        ValueError: where float32 would round.
    """
    if not folder.is_dir() or is_adapter(folder):
        return "float32"
    tensors = LazyTensors(folder)
    kind = str(read_description(folder / "config.json").get("model_type"))
    family = FAMILIES.get(kind) or CAUSAL.get(kind)
    others = (*DULTRA_HEAD, *(family.others if family else ()))
    of_net = [name for name in tensors if not any(fnmatchcase(name, each) for each in others)]
    found = {tensors.dtype(name) for name in of_net}
    if torch.float64 in found:
        raise ValueError(f"{folder} holds float64 weights; say --dtype float32 to round them")
    return next((name for name, dtype in DTYPES.items() if found == {dtype}), "float32")
