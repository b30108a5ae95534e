"""Published checkpoint formats as settings and names: what a config.json means, and what a tensor is called.

A map of names goes from ours to theirs; several of theirs are stacked along the first axis.
"""

from typing import Any

Names = dict[str, tuple[str, ...]]

LLADA_ROOT = "model.transformer."
DULTRA_CLASS = "LLaDOUModelLM"


def llada_config(description: dict[str, Any]) -> dict[str, Any]:
    """`TransformerConfig` fields for the config.json of LLaDA, LLaDA-1.5 or dUltra.

    Raises:
        ValueError: for a setting that the net does not have.
    """
    wanted = {"block_type": "llama", "layer_norm_type": "rms", "activation_type": "silu", "rope": True}
    refused = {"alibi": False, "attention_layer_norm": False, "include_bias": False, "scale_logits": False}
    for key, value in {**wanted, **refused}.items():
        if description.get(key, value) != value:
            raise ValueError(f"{key} = {description[key]!r} is not supported; only {value!r} is")
    return {
        "vocab_size": description.get("embedding_size") or description["vocab_size"],
        "mask_id": description["mask_token_id"],
        "eos_id": description["eos_token_id"],
        "pad_id": description["pad_token_id"],
        "dim": description["d_model"],
        "num_layers": description["n_layers"],
        "num_heads": description["n_heads"],
        "num_kv_heads": description.get("n_kv_heads"),
        "mlp_dim": description["mlp_hidden_size"],
        "qkv_bias": bool(description.get("include_qkv_bias")),
        "qk_norm": False,
        "tied": bool(description.get("weight_tying")),
        "rope_theta": description["rope_theta"],
        "norm_eps": description["rms_norm_eps"],
        "max_length": description["max_sequence_length"],
    }


def llada_names(num_layers: int, *, qkv_bias: bool, tied: bool) -> Names:
    """Of the denoiser."""
    names: Names = {
        "embed.weight": (f"{LLADA_ROOT}wte.weight",),
        "norm.weight": (f"{LLADA_ROOT}ln_f.weight",),
        "head.weight": (f"{LLADA_ROOT}{'wte' if tied else 'ff_out'}.weight",),
    }
    for index in range(num_layers):
        names |= _llama_block(f"blocks.{index}.", f"{LLADA_ROOT}blocks.{index}.", qkv_bias)
    return names


def dultra_head_config(description: dict[str, Any]) -> dict[str, Any]:
    """`DultraHeadConfig` fields for the config.json of a dUltra checkpoint."""
    return {
        "hidden_size": description["d_model"],
        "num_heads": description["n_heads"],
        "mlp_dim": description["mlp_hidden_size"],
        "rope_theta": description["rope_theta"],
        "norm_eps": description["rms_norm_eps"],
    }


def dultra_head_names() -> Names:
    """Of the planner head beside the denoiser."""
    names: Names = {"mask_embed.weight": ("mask_embedding.weight",)}
    for ours, theirs in (
        ("time.0", "time_embedding.mlp.0"),
        ("time.2", "time_embedding.mlp.2"),
        ("norm_in.modulation", "norm_out_1.modulation"),
        ("norm_out.modulation", "norm_out_2.modulation"),
        ("score", "mask_linear"),
    ):
        names |= {f"{ours}.{part}": (f"{theirs}.{part}",) for part in ("weight", "bias")}
    return names | _llama_block("block.", "mask_head.0.", qkv_bias=False)


def _llama_block(ours: str, theirs: str, qkv_bias: bool) -> Names:
    def weights(*parts: str, kind: str = "weight") -> tuple[str, ...]:
        return tuple(f"{theirs}{part}.{kind}" for part in parts)

    names = {
        f"{ours}attention_norm.weight": weights("attn_norm"),
        f"{ours}attention.qkv.weight": weights("q_proj", "k_proj", "v_proj"),
        f"{ours}attention.out.weight": weights("attn_out"),
        f"{ours}mlp_norm.weight": weights("ff_norm"),
        f"{ours}mlp.gate_up.weight": weights("ff_proj", "up_proj"),
        f"{ours}mlp.down.weight": weights("ff_out"),
    }
    if qkv_bias:
        names[f"{ours}attention.qkv.bias"] = weights("q_proj", "k_proj", "v_proj", kind="bias")
    return names
