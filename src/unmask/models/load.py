"""Denoisers from a folder or a hub id, and back to a folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from unmask.checkpoint import (
    TOKENIZER_FILES,
    LazyTensors,
    fetch_folder,
    files_of_model,
    fill,
    read_description,
    typed,
    write_folder,
)
from unmask.device import Device, known_dtype, present_device
from unmask.families import CAUSAL, FAMILIES, Family
from unmask.layers import Padded
from unmask.models.adapters import CONFIG, base_of, is_adapter, merge_adapter
from unmask.models.gguf import is_gguf
from unmask.models.placement import DeviceMap, move_between, place
from unmask.models.tokenizer import (
    declare,
    ids_of,
    load_tokenizer,
    mask_id_of,
    tokenizer_texts,
)
from unmask.models.transformer import Transformer, TransformerConfig

POSITIVE = (
    *("vocab_size", "dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_dim", "max_length"),
    *("rope_theta", "norm_eps"),
)
NUM_PADS = 13
"""Beside the 3 tokens of the row that is padded when a net is loaded: what many pads do is seen."""


def load_denoiser(
    path_or_hub_id: str | Path,
    device: Device = "cpu",
    dtype: str = "float32",
    *,
    revision: str | None = None,
    device_map: DeviceMap | None = None,
    check_padding: bool = True,
    adapter: str | Path | None = None,
) -> Transformer:
    """A denoiser in evaluation mode, with its tokenizer where the folder has one.

    Reads our own format, LLaDA, iLLaDA, dUltra and Dream (safetensors, whole or in shards). Code in a
    checkpoint is never run.

    Args:
        path_or_hub_id: a folder, a hub id, "bundled" (the base of the testbed) or "bundled/NAME".
        device: where to put it.
        dtype: float32, bfloat16 or float16.
        revision: branch, tag or commit of a hub id.
        device_map: instead of `device`: "auto" (the fewest GPUs that hold it), "balanced" (all GPUs) or a
            device for each block, `{"": device}` for all.
        check_padding: compute two short rows to see that padding leaves them unchanged on this device.
        adapter: folder or hub id of LoRA adapters to merge into the weights. A folder of adapters alone, as
            training writes it, loads the denoiser that they were trained on.

    Raises:
        ValueError: in one line, for a missing or truncated file, another family, a device that is not there
            or an unknown dtype.
    """
    known_dtype(dtype)
    present_device(device)
    if is_gguf(path_or_hub_id):
        raise ValueError(f"{path_or_hub_id} is a causal model; make a denoiser of it with unmask convert")
    folder = fetch_folder(path_or_hub_id, revision=revision)
    if adapter is None and is_adapter(folder):
        return load_denoiser(
            base_of(folder),
            device,
            dtype,
            device_map=device_map,
            check_padding=check_padding,
            adapter=folder,
        )
    fetch_folder(folder, "config.json")
    path = folder / "config.json"
    tokenizer = load_tokenizer(folder)
    description = read_description(path)
    kind = description.get("model_type")
    names: Mapping[str, tuple[str, ...]] | None
    others: tuple[str, ...]
    if kind == "unmask":
        del description["model_type"]
        config, names, others = typed(TransformerConfig, description, path, POSITIVE), None, ()
    else:
        family = _family(path, kind)
        if description.get("mask_token_id") is None:
            description["mask_token_id"] = mask_id_of(tokenizer)
        config = family_config(family, description | ids_of(description, tokenizer), path)
        names, others = family.names(asdict(config)), family.others
    tensors = LazyTensors(folder)
    net = build(config, tokenizer, tensors, str(folder), names, others, device, dtype, device_map)
    if adapter is not None:
        merge_adapter(net, fetch_folder(adapter, CONFIG))
    if check_padding:
        assert_padding_is_ignored(net)
    return net


def _family(path: Path, kind: str | None) -> Family:
    if kind in CAUSAL:
        raise ValueError(
            f"{path}: model_type {kind!r} is autoregressive; make a denoiser of it with unmask convert"
        )
    if kind not in FAMILIES:
        known = ", ".join(["unmask", *FAMILIES])
        raise ValueError(f"{path}: model_type {kind!r} is not supported; this version reads {known}")
    return FAMILIES[kind]


def family_config(family: Family, description: dict[str, Any], path: Path) -> TransformerConfig:
    """What the description that `path` holds means.

    Raises:
        ValueError: naming the file and what it lacks, what is of another type, or what the net does not have.
    """
    for key in ("mask_token_id", "eos_token_id"):
        if description.get(key) is None:
            raise ValueError(f"{path} has no {key}, and no tokenizer beside it knows one")
    try:
        described = family.config(description)
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: it lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return typed(TransformerConfig, described, path, POSITIVE)


def build(
    config: TransformerConfig,
    tokenizer: Any,
    tensors: Mapping[str, Tensor],
    origin: str,
    names: Mapping[str, tuple[str, ...]] | None,
    others: tuple[str, ...],
    device: Device,
    dtype: str,
    device_map: DeviceMap | None = None,
) -> Transformer:
    """A net in evaluation mode with the weights `tensors` (see `fill`), read one at a time to their places.

    Its special tokens become those of the tokenizer, where there is one.

    Raises:
        ValueError: for ids out of range, an unknown dtype or device map, no room, or tensors of another net.
    """
    for name in ("mask_id", "eos_id", "pad_id"):
        if not 0 <= getattr(config, name) < config.vocab_size:
            number = getattr(config, name)
            raise ValueError(f"{origin}: {name} {number} is outside the vocabulary of {config.vocab_size}")
    for name in ("eos_id", "pad_id"):  # what is masked and what is not could not be told apart
        if getattr(config, name) == config.mask_id:
            raise ValueError(
                f"{origin}: mask_id {config.mask_id} is {name} too; give [MASK] an id of its own"
            )
    if tokenizer is not None:
        declare(tokenizer, eos_id=config.eos_id, pad_id=config.pad_id, mask_id=config.mask_id)
    with torch.device("meta"):
        net = Transformer(config, tokenizer).to(known_dtype(dtype))
    if config.tied:
        net.head.register_parameter("weight", None)  # until `tie`: no memory for a second table
    num_blocks, block_bytes = config.num_layers, _num_bytes(net.blocks[0])
    devices = [present_device(device)] * num_blocks
    if device_map is not None:
        devices = place(device_map, num_blocks, block_bytes, _num_bytes(net) - num_blocks * block_bytes)
    modules, home = [*net.blocks, net.embed, net.norm, net.head], devices[:1] * 3
    try:
        for module, where in zip(modules, [*devices, *home], strict=True):
            module.to_empty(device=where)
    except RuntimeError as error:
        where_to = ", ".join(sorted({str(each) for each in devices}))
        raise ValueError(
            f"{origin}: {_num_bytes(net) / 2**30:.1f} GiB of weights find no room on {where_to}; "
            f"use bfloat16, or device_map auto or balanced ({str(error).splitlines()[0]})"
        ) from error
    move_between(net.blocks, net.norm, devices)
    net.tie()
    fill(net, tensors, origin, names, others, config.stacked_rows(names or ()))
    return net.eval().requires_grad_(False)


def _num_bytes(module: torch.nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())


def assert_padding_is_ignored(net: Transformer) -> None:
    """Raise a `ValueError` if padding on either side changes a short row.

    Other tokens in the padding must change nothing at all: both calls have one shape, so that rounding is the
    same. Against the row alone there is rounding, and only what padding does to positions is looked for.
    """
    row_T = torch.arange(3, device=net.device) % net.vocab_size
    sides = ((NUM_PADS, 0), (0, NUM_PADS))
    mask_BT = torch.stack([pad(torch.ones_like(row_T), side) for side in sides])
    layout = Padded.of(mask_BT, (mask_BT.shape[0], mask_BT.shape[1]), net.device)
    with torch.no_grad():
        alone_TD = net.encode(row_T[None], Padded.of(None, (1, 3), net.device))[0].float()
        ours, others = (
            net.encode(torch.stack([pad(row_T, side, value=token) for side in sides]), layout)
            .float()[mask_BT.bool()]
            .unflatten(0, (2, 3))
            for token in (net.pad_id, net.mask_id)
        )
    if not alone_TD.isfinite().all():
        dtype = str(net.embed.weight.dtype).removeprefix("torch.")
        raise ValueError(
            f"hidden states in {dtype} are not finite; use bfloat16 or float32, or other weights"
        )
    exact = net.embed.weight.dtype == torch.float32
    for found, wanted, tolerance in (
        (others, ours, 1e-4 if exact else 1e-2),
        (ours, alone_TD.expand_as(ours), 1e-3 if exact else 0.1),
    ):
        off = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
        if not off <= tolerance:
            raise ValueError(
                f"padding changes a row by {off:.1e} of its size on {net.device}; report this as a bug"
            )


def save_denoiser(folder: str | Path, net: Transformer, dtype: str | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer; the old ones stay until all are whole.

    Afterwards no config, weights, tokenizer or generation settings of another denoiser are in the folder;
    what else is there stays, a planner for instance.

    Raises:
        ValueError: for an unknown dtype, or where the folder cannot be written.
    """
    target, folder = known_dtype(dtype) if dtype else None, Path(folder).expanduser()
    tensors = {
        name: value.detach().to("cpu", target).contiguous()
        for name, value in net.state_dict().items()
        if not (net.config.tied and name == "head.weight")
    }
    texts = {"config.json": json.dumps(net.describe(), indent=2) + "\n"}
    if net.tokenizer is not None:
        texts |= tokenizer_texts(net.tokenizer)
    old = [*files_of_model(folder), *TOKENIZER_FILES, "generation_config.json"]
    write_folder(folder, texts, {"model.safetensors": tensors}, old)
