"""Causal models in GGUF files (llama.cpp), in the words of transformers: config.json keys and tensor names.

Weights are dequantised, and the rows of queries and keys put back into the order that half-split rotary
positions want: llama.cpp interleaves them for Llama. Needs the package `gguf` (the extra of that name).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ARCHITECTURES = ("llama", "qwen2", "qwen3")

_TABLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_TABLE["output.weight"] = "lm_head.weight"
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_LONG = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: dict[str, str | None] = {
    "llama-bpe": rf"{_WORDS}\p{{N}}{{1,3}}{_REST}",
    "qwen2": rf"{_WORDS}\p{{N}}{_REST}",
    "smollm": r"\p{N}",
    "gpt-2": None,
    "default": None,
}
"""Where text is split before merges, by `tokenizer.ggml.pre`: the one thing that transformers leaves out."""


def is_gguf(path: str | Path) -> bool:
    return str(path).lower().endswith(".gguf")


def read_gguf(path: Path) -> tuple[dict[str, Any], Mapping[str, Tensor], Any]:
    """What config.json would say, the tensors, and the tokenizer of a GGUF file.

    Raises:
        ValueError: without the package `gguf`; for a file that cannot be read, or another architecture.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ValueError("reading GGUF files needs the package gguf; pip install 'unmask[gguf]'") from error
    try:
        reader = GGUFReader(str(path))
    except Exception as error:  # the library raises whatever it stumbles over
        raise ValueError(f"{path} is no whole GGUF file ({error}); copy or download it again") from error
    fields = {name: field.contents() for name, field in reader.fields.items() if name not in _LONG}
    description = _describe(path, fields)
    tensors = GgufTensors(path, reader, description)
    if "rope_freqs.weight" in set(tensors):  # how llama.cpp keeps the scaling of Llama 3.1
        raise ValueError(f"{path}: scaled rotary positions are not read from GGUF; start from the hub folder")
    description["tie_word_embeddings"] = "lm_head.weight" not in set(tensors)
    description["vocab_size"] = tensors.num_rows("model.embed_tokens.weight")
    return description, tensors, _tokenizer(path, description["split"])


def _describe(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"{path} holds a model of the architecture {kind!r}; this version reads {known}")
    scaling = fields.get(f"{kind}.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(
            f"{path}: rope scaling {scaling!r} is not supported; start from the hub folder if it is llama3"
        )
    pre = fields.get("tokenizer.ggml.pre", "default")
    if pre not in SPLITS:
        raise ValueError(
            f"{path}: tokenizer of type {pre!r} is not supported; start from the hub folder instead"
        )
    try:
        return {
            "model_type": kind,
            "hidden_size": fields[f"{kind}.embedding_length"],
            "num_hidden_layers": fields[f"{kind}.block_count"],
            "num_attention_heads": fields[f"{kind}.attention.head_count"],
            "num_key_value_heads": fields.get(f"{kind}.attention.head_count_kv"),
            "head_dim": fields.get(f"{kind}.attention.key_length"),
            "intermediate_size": fields[f"{kind}.feed_forward_length"],
            "rope_theta": fields.get(f"{kind}.rope.freq_base", 10_000.0),
            "rms_norm_eps": fields[f"{kind}.attention.layer_norm_rms_epsilon"],
            "max_position_embeddings": fields[f"{kind}.context_length"],
            "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
            "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
            "split": SPLITS[pre],
        }
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: it lacks {error}") from error


class GgufTensors(Mapping[str, Tensor]):
    """Tensors by the names that transformers gives them, float32, each dequantised when it is asked for."""

    def __init__(self, path: Path, reader: Any, description: Mapping[str, Any]) -> None:
        self._path = path
        self._found = {_name(each.name): each for each in reader.tensors}
        heads = description["num_attention_heads"]
        self._heads = {"q_proj": heads, "k_proj": description["num_key_value_heads"] or heads}
        self._interleaved = description["model_type"] == "llama"

    def num_rows(self, name: str) -> int:
        if name not in self._found:
            raise ValueError(f"{self._path} lacks the tensor {name!r}")
        return int(self._found[name].shape[-1])

    def __getitem__(self, name: str) -> Tensor:
        from gguf.quants import dequantize

        found = self._found[name]
        try:
            values: Tensor = torch.tensor(dequantize(found.data, found.tensor_type))
        except (NotImplementedError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self._path}: {found.tensor_type.name} weights cannot be read: {error}"
            ) from error
        part = name.split(".")[-2]
        if self._interleaved and part in self._heads:
            pairs = values.unflatten(0, (self._heads[part], -1, 2))
            values = pairs.transpose(1, 2).flatten(0, 2)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _name(theirs: str) -> str:
    """A name that is unknown stays, so that the net will complain of it."""
    if theirs in _TABLE:
        return _TABLE[theirs]
    parts = theirs.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _BLOCK:
        return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{parts[3]}"
    return theirs


def _tokenizer(path: Path, split: str | None) -> Any:
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except Exception as error:  # the library raises nothing more precise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"the tokenizer in {path} cannot be read: {reason[0]}") from error
    if split is not None:
        by_letter = split == SPLITS["smollm"]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_letter),
            ]
        )
    return tokenizer
