"""Models in the layout of transformers' Llama: Dream, iLLaDA, and causal Llama, Qwen2 and Qwen3.

Dream (arXiv 2508.15487; DiffuCoder and Dream-Coder have its format) began as Qwen2.5: its output at t - 1
describes the token at t. iLLaDA (arXiv 2606.25331) leaves it to its tokenizer to say which token is [MASK].
"""

from typing import Any

from unmask.families.names import Names, block_names, refuse

ONLY: dict[str, Any] = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "quantization_config": None,
    "layer_norm_eps": None,
    "logit_scale": None,
    "pretraining_tp": 1,
}
"""The one value of each setting that the net has; keys that a config.json leaves out have it."""


def dream_config(description: dict[str, Any]) -> dict[str, Any]:
    """`TransformerConfig` fields for the config.json of Dream, DiffuCoder or Dream-Coder."""
    return _config(description) | {"qkv_bias": True, "shift": True}


def dream_description(fields: dict[str, Any]) -> dict[str, Any]:
    """The config.json for `TransformerConfig` fields; `dream_config` undoes it."""
    code = "Dream-org/Dream-v0-Base-7B--"  # where transformers finds the published code, which is not copied
    return {
        "model_type": "Dream",
        "architectures": ["DreamModel"],
        "auto_map": {
            "AutoConfig": f"{code}configuration_dream.DreamConfig",
            "AutoModel": f"{code}modeling_dream.DreamModel",
        },
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rope_scaling": None,
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": fields["vocab_size"],
        "mask_token_id": fields["mask_id"],
        "eos_token_id": fields["eos_id"],
        "pad_token_id": fields["pad_id"],
        "hidden_size": fields["dim"],
        "num_hidden_layers": fields["num_layers"],
        "num_attention_heads": fields["num_heads"],
        "num_key_value_heads": fields["num_kv_heads"] or fields["num_heads"],
        "intermediate_size": fields["mlp_dim"],
        "tie_word_embeddings": fields["tied"],
        "rope_theta": fields["rope_theta"],
        "rms_norm_eps": fields["norm_eps"],
        "max_position_embeddings": fields["max_length"],
    }


def illada_config(description: dict[str, Any]) -> dict[str, Any]:
    """`TransformerConfig` fields for the config.json of iLLaDA."""
    refuse(description, {"attention_bias": False})
    return _config(description)


def causal_config(description: dict[str, Any]) -> dict[str, Any]:
    """`TransformerConfig` fields for a causal Llama, Qwen2 or Qwen3 whose ids have been filled in.

    Raises:
        ValueError: for a setting that the net does not have.
        KeyError: for a key that is missing.
    """
    refuse(description, {"attention_bias": False})
    kind = description["model_type"]
    return _config(description) | {"qkv_bias": kind == "qwen2", "qk_norm": kind == "qwen3"}


def _config(description: dict[str, Any]) -> dict[str, Any]:
    refuse(description, ONLY)
    rope = description.get("rope_parameters") or description.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"rope_scaling is {rope!r}; it has to hold settings, or be null")
    return {
        "vocab_size": description["vocab_size"],
        "mask_id": description["mask_token_id"],
        "eos_id": description["eos_token_id"],
        "pad_id": description["pad_token_id"],
        "dim": description["hidden_size"],
        "num_layers": description["num_hidden_layers"],
        "num_heads": description["num_attention_heads"],
        "num_kv_heads": description.get("num_key_value_heads"),
        "head_dim": description.get("head_dim"),
        "mlp_dim": description["intermediate_size"],
        "qkv_bias": False,
        "qk_norm": False,
        "tied": description.get("tie_word_embeddings", False),
        "rope_theta": description.get("rope_theta", rope.get("rope_theta", 10_000.0)),
        "rope_scaling": _scaling(rope),
        "norm_eps": description["rms_norm_eps"],
        "max_length": description["max_position_embeddings"],
    }


def _scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "llama3":
        return {
            "factor": rope["factor"],
            "low": rope["low_freq_factor"],
            "high": rope["high_freq_factor"],
            "length": rope["original_max_position_embeddings"],
        }
    if kind != "default":
        raise ValueError(f"rope scaling {kind!r} is not supported; only default and llama3 are")
    return None


def llama_names(fields: dict[str, Any]) -> Names:
    """Of a model in the layout of transformers' Llama."""
    names: Names = {
        "embed.weight": ("model.embed_tokens.weight",),
        "norm.weight": ("model.norm.weight",),
        "head.weight": ("model.embed_tokens.weight" if fields["tied"] else "lm_head.weight",),
    }
    parts = {
        "attention_norm.weight": ("input_layernorm.weight",),
        "attention.qkv.weight": tuple(f"self_attn.{each}_proj.weight" for each in "qkv"),
        "attention.out.weight": ("self_attn.o_proj.weight",),
        "mlp_norm.weight": ("post_attention_layernorm.weight",),
        "mlp.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "mlp.down.weight": ("mlp.down_proj.weight",),
    }
    if fields["qkv_bias"]:
        parts["attention.qkv.bias"] = tuple(f"self_attn.{each}_proj.bias" for each in "qkv")
    if fields["qk_norm"]:
        parts["attention.q_norm.weight"] = ("self_attn.q_norm.weight",)
        parts["attention.k_norm.weight"] = ("self_attn.k_norm.weight",)
    for index in range(fields["num_layers"]):
        names |= block_names(f"blocks.{index}.", f"model.layers.{index}.", parts)
    return names
