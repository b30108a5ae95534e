"""Denoisers from a folder or a hub id, and back to a folder."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from unmask.checkpoint import LazyTensors, fetch_folder, fill, read_json, read_tensors, write_folder
from unmask.families import dultra_head_names, llada_config, llada_names
from unmask.models.transformer import Transformer, TransformerConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_denoiser(
    path_or_hub_id: str | Path, device: str | torch.device = "cpu", dtype: str = "float32"
) -> Transformer:
    """A denoiser in evaluation mode, with its tokenizer where the folder has one.

    Reads our own format, and LLaDA and dUltra checkpoints (safetensors, whole or sharded).

    Args:
        path_or_hub_id: a folder, a hub id, "bundled" (the base of the testbed) or "bundled/NAME".
        device: where to put it.
        dtype: float32, bfloat16 or float16.

    Raises:
        ValueError: in one line, for a missing or truncated file, another family or an unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    folder = fetch_folder(path_or_hub_id, "config.json")
    config = read_config(folder / "config.json")
    with torch.device("meta"):
        net = Transformer(config, tokenizer=None)
    net = net.to_empty(device=device).to(DTYPES[dtype])
    net.tie()
    _fill(net, folder)
    net.tokenizer = load_tokenizer(folder, config)
    return net.eval().requires_grad_(False)


def _fill(net: Transformer, folder: Path) -> None:
    config, path = net.config, folder / "model.safetensors"
    if read_json(folder / "config.json")["model_type"] == "llada":
        names = llada_names(config.num_layers, qkv_bias=config.qkv_bias, tied=config.tied)
        heads = tuple(theirs for group in dultra_head_names().values() for theirs in group)
        fill(net, LazyTensors(folder), str(folder), names, others=heads)
        return
    tensors = read_tensors(path)
    if config.tied:
        tensors["head.weight"] = tensors.get("embed.weight", torch.empty(0))
    fill(net, tensors, str(path))


def read_config(path: Path) -> TransformerConfig:
    """The net that a config.json describes.

    Raises:
        ValueError: for a model of another family, or a description that is incomplete.
    """
    description = read_json(path)
    family = description.pop("model_type", None)
    if family == "llada":
        try:
            return TransformerConfig(**llada_config(description))
        except KeyError as error:
            raise ValueError(f"{path} is incomplete: it lacks {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if family != "unmask":
        raise ValueError(
            f"{path}: model_type {family!r} is not supported; this version reads unmask and llada"
        )
    known = {field.name for field in fields(TransformerConfig)}
    unknown = sorted(set(description) - known)
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; it takes {', '.join(sorted(known))}")
    try:
        return TypeAdapter(TransformerConfig).validate_python(description)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def load_tokenizer(folder: Path, config: TransformerConfig) -> Any:
    """The tokenizer of a folder, or None where it has none; the config says what its special tokens are."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"{path} cannot be read ({error}); copy or download it again") from error
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=backend.id_to_token(config.eos_id),
        pad_token=backend.id_to_token(config.pad_id),
        mask_token=backend.id_to_token(config.mask_id),
        clean_up_tokenization_spaces=False,
    )


def save_denoiser(folder: Path, net: Transformer, dtype: str | None = None) -> None:
    """Write config.json, model.safetensors and tokenizer.json; the old ones stay until all are whole."""
    target = DTYPES[dtype] if dtype else None
    tensors = {
        name: value.detach().to("cpu", target).contiguous()
        for name, value in net.state_dict().items()
        if not (net.config.tied and name == "head.weight")
    }
    texts = {"config.json": json.dumps(net.describe(), indent=2) + "\n"}
    if net.tokenizer is not None:
        texts["tokenizer.json"] = net.tokenizer.backend_tokenizer.to_str()
    write_folder(folder, texts, {"model.safetensors": tensors})
