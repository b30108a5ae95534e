"""LLaDA (arXiv 2502.09992), LLaDA-1.5, and dUltra (arXiv 2512.21446): LLaDA with a planner head beside it."""

from typing import Any

from unmask.families.names import Names, block_names, refuse

LLADA_ROOT = "model.transformer."
DULTRA_CLASS = "LLaDOUModelLM"
DULTRA_HEAD = tuple(
    f"{part}.*"
    for part in ("mask_embedding", "time_embedding", "norm_out_1", "norm_out_2", "mask_linear", "mask_head")
)
"""Patterns of the names of the planner head's tensors."""

ONLY: dict[str, Any] = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "alibi": False,
    "attention_layer_norm": False,
    "include_bias": False,
    "scale_logits": False,
    "input_emb_norm": False,
    "quantization_config": None,
}
"""The one value of each setting that the net has; it is also the default of the published code."""


def llada_config(description: dict[str, Any]) -> dict[str, Any]:
    """`TransformerConfig` fields for the config.json of LLaDA, LLaDA-1.5 or dUltra.

    Raises:
        ValueError: for a setting that the net does not have.
        KeyError: for a key that is missing.
    """
    refuse(description, ONLY)
    heads = description["n_heads"]
    return {
        "vocab_size": description.get("embedding_size") or description["vocab_size"],
        "mask_id": description["mask_token_id"],
        "eos_id": description["eos_token_id"],
        "pad_id": description["pad_token_id"],
        "dim": description["d_model"],
        "num_layers": description["n_layers"],
        "num_heads": heads,
        "num_kv_heads": description.get(
            "n_kv_heads", 1 if description.get("multi_query_attention") else heads
        ),
        "mlp_dim": _mlp_dim(description),
        "qkv_bias": description.get("include_qkv_bias", False),
        "qk_norm": False,
        "tied": description.get("weight_tying", False),
        "rope_theta": description["rope_theta"],
        "norm_eps": description["rms_norm_eps"],
        "max_length": description["max_sequence_length"],
    }


def _mlp_dim(description: dict[str, Any]) -> Any:
    if "mlp_hidden_size" in description:
        return description["mlp_hidden_size"]
    return description["mlp_ratio"] * description["d_model"]


_NO_EFFECT = {
    "alibi_bias_max": 8.0,
    "attention_dropout": 0.0,
    "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "embedding_dropout": 0.0,
    "flash_attention": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "layer_norm_with_affine": True,
    "mlp_ratio": 4,
    "multi_query_attention": None,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rope_full_precision": True,
    "use_cache": False,
}
"""What else the published code reads, at values that change nothing in what it computes."""

_CODE = "GSAI-ML/LLaDA-8B-Base--"
"""Where transformers finds the published code, which is not copied."""


def llada_description(fields: dict[str, Any]) -> dict[str, Any]:
    """The config.json for `TransformerConfig` fields; `llada_config` undoes it."""
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "auto_map": {
            "AutoConfig": f"{_CODE}configuration_llada.LLaDAConfig",
            "AutoModel": f"{_CODE}modeling_llada.LLaDAModelLM",
            "AutoModelForCausalLM": f"{_CODE}modeling_llada.LLaDAModelLM",
        },
        **{key: value for key, value in ONLY.items() if value is not None},
        **_NO_EFFECT,
        "vocab_size": fields["vocab_size"],
        "embedding_size": fields["vocab_size"],
        "mask_token_id": fields["mask_id"],
        "eos_token_id": fields["eos_id"],
        "pad_token_id": fields["pad_id"],
        "d_model": fields["dim"],
        "n_layers": fields["num_layers"],
        "n_heads": fields["num_heads"],
        "n_kv_heads": fields["num_kv_heads"] or fields["num_heads"],
        "mlp_hidden_size": fields["mlp_dim"],
        "include_qkv_bias": fields["qkv_bias"],
        "weight_tying": fields["tied"],
        "rope_theta": fields["rope_theta"],
        "rms_norm_eps": fields["norm_eps"],
        "max_sequence_length": fields["max_length"],
    }


def dultra_description(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with a planner head beside the denoiser, for the official dUltra code."""
    description = llada_description(fields)
    del description["auto_map"]  # the class is in dUltra's repository, which transformers cannot fetch
    head = {
        "num_head_layers": 1,
        "use_adaln": True,
        "use_mask_embeddings": True,
        "use_block_embeddings": False,
    }
    return {**description, "architectures": [DULTRA_CLASS], **head}


def llada_names(fields: dict[str, Any]) -> Names:
    """Of the denoiser."""
    names: Names = {
        "embed.weight": (f"{LLADA_ROOT}wte.weight",),
        "norm.weight": (f"{LLADA_ROOT}ln_f.weight",),
        "head.weight": (f"{LLADA_ROOT}{'wte' if fields['tied'] else 'ff_out'}.weight",),
    }
    for index in range(fields["num_layers"]):
        names |= _block(f"blocks.{index}.", f"{LLADA_ROOT}blocks.{index}.", fields["qkv_bias"])
    return names


def dultra_head_config(description: dict[str, Any]) -> dict[str, Any]:
    """`DultraHeadConfig` fields for the config.json of a dUltra checkpoint."""
    return {
        "hidden_size": description["d_model"],
        "num_heads": description["n_heads"],
        "mlp_dim": _mlp_dim(description),
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
    return names | _block("block.", "mask_head.0.", qkv_bias=False)


def _block(ours: str, theirs: str, qkv_bias: bool) -> Names:
    parts = {
        "attention_norm.weight": ("attn_norm.weight",),
        "attention.qkv.weight": ("q_proj.weight", "k_proj.weight", "v_proj.weight"),
        "attention.out.weight": ("attn_out.weight",),
        "mlp_norm.weight": ("ff_norm.weight",),
        "mlp.gate_up.weight": ("ff_proj.weight", "up_proj.weight"),
        "mlp.down.weight": ("ff_out.weight",),
    }
    if qkv_bias:
        parts["attention.qkv.bias"] = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
    return block_names(ours, theirs, parts)
