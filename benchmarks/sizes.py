"""Nets of random weights, made where they run: the shape of LLaDA-8B, and a tiny one for tests."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unmask.checkpoint import INDEX
from unmask.families.llada import llada_names
from unmask.models.transformer import Transformer, TransformerConfig
from unmask.planners.heads import DultraHead, DultraHeadConfig
from unmask.planners.learned import LearnedPlanner
from unmask.rng import derive

SIZES = {
    "8b": TransformerConfig(
        vocab_size=126_464,
        mask_id=126_463,  # any will do where weights are random
        eos_id=126_462,
        pad_id=126_462,
        dim=4096,
        num_layers=32,
        num_heads=32,
        mlp_dim=12_288,
        qk_norm=False,
        rope_theta=500_000.0,
        max_length=4096,
    ),
    "tiny": TransformerConfig(
        vocab_size=320,
        mask_id=299,
        eos_id=298,
        pad_id=298,
        dim=64,
        num_layers=2,
        num_heads=4,
        mlp_dim=96,
        qk_norm=False,
        rope_theta=500_000.0,
        max_length=1024,
    ),
}


def fill_randomly(module: nn.Module, seed: int) -> None:
    """Matrices of std 0.02, drawn on the device that holds them; vectors stay as they are."""
    rng = torch.Generator(device=next(module.parameters()).device).manual_seed(derive(seed, "weights"))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02, generator=rng)


def random_net(config: TransformerConfig, device: str, dtype: torch.dtype, seed: int = 0) -> Transformer:
    with torch.device("meta"):
        net = Transformer(config)
    net = net.to(dtype).to_empty(device=device)
    net.tie()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1)
    fill_randomly(net, seed)
    return net.eval().requires_grad_(False)


def random_planner(net: Transformer, probability: float, seed: int = 1) -> LearnedPlanner:
    """A dUltra head of full cost that gives every open position the same probability.

    Random scores would make an arbitrary number of steps; with equal ones a schedule is chosen by one number
    and is the same for everybody who runs this head.
    """
    ours = net.config
    head = DultraHead(
        DultraHeadConfig(ours.dim, ours.num_heads, ours.mlp_dim, ours.rope_theta, ours.norm_eps)
    )
    head = head.to(net.device, net.embed.weight.dtype)
    fill_randomly(head, seed)
    with torch.no_grad():
        head.score.weight.zero_()
        head.score.bias.fill_(math.log(probability / (1 - probability)))
    return LearnedPlanner(head, law="fallback").eval().requires_grad_(False)


def write_checkpoint(
    folder: Path, config: TransformerConfig, device: str, dtype: torch.dtype, shard_bytes: int = 4 << 30
) -> int:
    """A sharded checkpoint of random weights in LLaDA's layout; returns the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    total, size = 0, 0

    def flush() -> None:
        file = folder / f"model-{len(set(where.values())) + 1:05}.safetensors"
        save_file(shard, file)
        where.update(dict.fromkeys(shard, file.name))
        shard.clear()

    for name, tensor in _llada_tensors(config, device, dtype):
        bytes_of = tensor.numel() * tensor.element_size()
        if shard and size + bytes_of > shard_bytes:
            flush()
            size = 0
        shard[name] = tensor.cpu()
        total, size = total + bytes_of, size + bytes_of
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(_llada_description(config)))
    return total


def _llada_tensors(
    config: TransformerConfig, device: str, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"):
        net = Transformer(config)
    rng = torch.Generator(device=device).manual_seed(derive(0, "checkpoint"))
    names = llada_names(asdict(config))
    for name, empty in net.state_dict().items():
        theirs = names[name]
        tensor = torch.empty(empty.shape, device=device, dtype=dtype)
        tensor = tensor.normal_(0, 0.02, generator=rng) if empty.ndim > 1 else tensor.fill_(1)
        yield from zip(theirs, (part.clone() for part in tensor.chunk(len(theirs))), strict=True)


def _llada_description(config: TransformerConfig) -> dict[str, object]:
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "block_type": "llama",
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "rope": True,
        "vocab_size": config.vocab_size,
        "embedding_size": config.vocab_size,
        "mask_token_id": config.mask_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "d_model": config.dim,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_heads,
        "mlp_hidden_size": config.mlp_dim,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "max_sequence_length": config.max_length,
    }


def forget_cached(folder: Path) -> None:
    """Write the files out and drop them from the page cache, so that reading them means reading the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
