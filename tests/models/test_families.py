"""Published families: their formats, and that a row in a batch is what it is alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

import unmask
from tests.models.causal import NUM_TOKENS, VOCAB, byte_tokenizer, causal_model, saved
from tests.models.tiny import tiny_net
from unmask.models.causal import from_causal
from unmask.models.transformer import Transformer

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
LLADA: dict[str, Any] = {
    "architectures": ["LLaDAModelLM"],
    "block_type": "llama",
    "d_model": 16,
    "embedding_size": 320,
    "eos_token_id": 298,
    "include_qkv_bias": False,
    "layer_norm_type": "rms",
    "mask_token_id": 299,
    "max_sequence_length": 64,
    "mlp_hidden_size": 24,
    "model_type": "llada",
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "pad_token_id": 298,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 300,
    "weight_tying": False,
}


def write_llada(folder: Path, **settings: Any) -> Path:
    """Random weights in the layout of GSAI-ML/LLaDA-8B-Instruct."""
    config = LLADA | settings
    dim, mlp, rows = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    narrow = dim * (config["n_kv_heads"] or config["n_heads"]) // config["n_heads"]
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (rows, dim), "ln_f.weight": (dim,)}
    if not config["weight_tying"]:
        shapes["ff_out.weight"] = (rows, dim)
    for layer in range(config["n_layers"]):
        block = {"attn_norm": (dim,), "ff_norm": (dim,), "attn_out": (dim, dim), "q_proj": (dim, dim)}
        block |= {"k_proj": (narrow, dim), "v_proj": (narrow, dim)}
        block |= {"ff_proj": (mlp, dim), "up_proj": (mlp, dim), "ff_out": (dim, mlp)}
        shapes |= {f"blocks.{layer}.{name}.weight": shape for name, shape in block.items()}
        if config["include_qkv_bias"]:
            sizes = {"q_proj": dim, "k_proj": narrow, "v_proj": narrow}
            shapes |= {f"blocks.{layer}.{name}.bias": (size,) for name, size in sizes.items()}
    rng = torch.Generator().manual_seed(0)
    tensors = {
        f"model.transformer.{name}": torch.randn(shape, generator=rng) * 0.3 for name, shape in shapes.items()
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_illada(folder: Path) -> Any:
    """A tied Llama that calls itself iLLaDA and leaves its mask token to the tokenizer; the model it is."""
    model = saved(folder, "llama", tie_word_embeddings=True)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "illada",
        "resid_pdrop": 0.0,
        "layer_norm_eps": None,
    }
    config["architectures"] = ["ILLaDAForCausalLM"]
    path.write_text(json.dumps(config))
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<[MASK]>"]})
    tokenizer.save_pretrained(folder)
    return model


def seen_by_all(model: Any, tokens_BT: Tensor) -> Tensor:
    """Logits of a causal model of transformers without its causal mask."""
    mask = torch.zeros(1, 1, tokens_BT.shape[1], tokens_BT.shape[1])
    logits: Tensor = model(tokens_BT, attention_mask=mask).logits
    return logits


NETS = (
    "own",
    "llada",
    "llada grouped tied biased",
    "dultra",
    "dream",
    "illada",
    "llama",
    "qwen2",
    "qwen3",
)


def net_of(name: str, folder: Path) -> Transformer:
    if name == "own":
        return tiny_net()
    if name.startswith("llada"):
        odd = {"n_kv_heads": 2, "weight_tying": True, "include_qkv_bias": True}
        return unmask.load_denoiser(write_llada(folder, **(odd if "tied" in name else {})))
    if name in ("dultra", "dream"):
        return unmask.load_denoiser(FIXTURES / f"{name}_tiny")
    if name == "illada":
        write_illada(folder)
        return unmask.load_denoiser(folder)
    saved(folder, name)
    return from_causal(folder)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NETS)
def test_ragged_batches_of_eight_give_each_row_what_it_gets_alone(
    name: str, side: str, tmp_path: Path, rng: torch.Generator
) -> None:
    net = net_of(name, tmp_path)
    lengths = [1, 19, 7, 2, 12, 19, 4, 9]
    rows = [torch.randint(0, net.vocab_size, (length,), generator=rng) for length in lengths]
    width = max(lengths)
    gaps = [(width - n, 0) if side == "left" else (0, width - n) for n in lengths]
    tokens_BT = torch.stack([pad(row, gap, value=net.pad_id) for row, gap in zip(rows, gaps, strict=True)])
    mask_BT = torch.stack([pad(torch.ones(len(row)), gap) for row, gap in zip(rows, gaps, strict=True)])
    batch = net(tokens_BT, mask_BT)
    for index, row in enumerate(rows):
        own_T, alone = mask_BT[index].bool(), net(row[None])
        torch.testing.assert_close(batch.logits[index, own_T], alone.logits[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(batch.hidden[index, own_T], alone.hidden[0], rtol=0, atol=1e-4)


def test_llada_without_the_keys_that_published_configs_leave_out(tmp_path: Path) -> None:
    whole = unmask.load_denoiser(write_llada(tmp_path, mlp_hidden_size=32))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("embedding_size", "n_kv_heads", "mlp_hidden_size", "weight_tying", "include_qkv_bias"):
        del config[key]
    config |= {"mlp_ratio": 2, "vocab_size": 320}
    path.write_text(json.dumps(config))
    assert unmask.load_denoiser(tmp_path).config == whole.config


def test_illada_is_a_llama_that_sees_all_with_its_mask_from_the_tokenizer(
    tmp_path: Path, rng: torch.Generator
) -> None:
    model = write_illada(tmp_path)
    net = unmask.load_denoiser(tmp_path)
    assert (net.mask_id, net.tokenizer.mask_token, net.vocab_size) == (NUM_TOKENS, "<[MASK]>", VOCAB)
    tokens_BT = torch.randint(0, VOCAB, (2, 14), generator=rng)
    expected_BTV = seen_by_all(model, tokens_BT)
    torch.testing.assert_close(net(tokens_BT).logits, expected_BTV, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_dream_is_a_qwen2_that_sees_all_and_looks_one_back(
    tied: bool, tmp_path: Path, rng: torch.Generator
) -> None:
    model = saved(tmp_path, "qwen2", tie_word_embeddings=tied)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "Dream", "mask_token_id": 299}))
    tokens_BT = torch.randint(0, VOCAB, (2, 14), generator=rng)
    expected_BTV = seen_by_all(model, tokens_BT)
    logits_BTV = unmask.load_denoiser(tmp_path)(tokens_BT).logits
    torch.testing.assert_close(logits_BTV[:, 1:], expected_BTV[:, :-1], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_BTV[:, 0], expected_BTV[:, 0], rtol=0, atol=1e-4)


def test_dreams_tokenizer_of_vocabulary_and_merges_is_read(tmp_path: Path) -> None:
    saved(tmp_path, "qwen2")
    vocabulary = byte_tokenizer().get_vocab()
    del vocabulary["<|endoftext|>"], vocabulary["<|reserved|>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nd o\n")
    special = {"<|endoftext|>": 257, "<|beginoftext|>": 258, "<|mask|>": 259}
    settings = {
        "added_tokens_decoder": {str(n): {"content": text, "special": True} for text, n in special.items()},
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "bos_token": "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "DreamTokenizer",
        "chat_template": "{{ messages[0]['content'] }}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "Dream", "mask_token_id": 259}))
    tokenizer = unmask.load_denoiser(tmp_path).tokenizer
    assert tokenizer.encode("dog<|mask|>") == [*byte_tokenizer().encode("dog"), 259]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id) == (258, 257, 259)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def error_of(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        unmask.load_denoiser(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_that_the_net_does_not_have_are_refused(tmp_path: Path) -> None:
    for key, value in {
        "block_type": "sequential",
        "layer_norm_type": "default",
        "alibi": True,
        "include_bias": True,
        "input_emb_norm": True,
        "rope": False,
        "quantization_config": {"bits": 4},
    }.items():
        assert f"{key} = {value!r} is not supported" in error_of(write_llada(tmp_path, **{key: value}))


def test_a_setting_of_another_type_is_named(tmp_path: Path) -> None:
    assert "rope_theta: Input should be a valid number" in error_of(write_llada(tmp_path, rope_theta="big"))


def test_weights_of_another_shape_layout_or_family_are_refused(tmp_path: Path) -> None:
    write_llada(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLADA | {"d_model": 32}))
    assert "has shape (320, 16), the model wants (320, 32)" in error_of(tmp_path)
    path.write_text(json.dumps(LLADA | {"n_kv_heads": 2}))
    assert "k_proj.weight' has shape (16, 16), the model wants (8, 16)" in error_of(tmp_path)
    path.write_text(json.dumps(LLADA | {"n_layers": 3}))
    assert "lacks the tensor 'model.transformer.blocks.2." in error_of(tmp_path)
    path.write_text(json.dumps(LLADA | {"n_layers": 1}))
    assert "has a tensor 'model.transformer.blocks.1." in error_of(tmp_path)
    causal_model("qwen2").save_pretrained(tmp_path)
    path.write_text(json.dumps(LLADA))
    assert "lacks the tensor 'model.transformer.wte.weight'" in error_of(tmp_path)


def test_ids_that_nobody_knows_or_that_lie_outside_are_refused(tmp_path: Path) -> None:
    write_llada(tmp_path, mask_token_id=None)
    assert "has no mask_token_id, and no tokenizer beside it knows one" in error_of(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert "has no mask_token_id, and no tokenizer beside it knows one" in error_of(tmp_path)
    assert "mask_id 126336 is outside" in error_of(write_llada(tmp_path, mask_token_id=126336))


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    write_llada(tmp_path, auto_map={"AutoModel": "modeling_llada.LLaDAModelLM"})
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    code = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenizer_class": "X"}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    for name in ("modeling_llada.py", "tokenization_x.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass X: pass\n")
    assert unmask.load_denoiser(tmp_path).tokenizer.encode("dog") == tokenizer.encode("dog")
    assert not (tmp_path / "ran").exists()


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    write_llada(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    assert f"the tokenizer {tmp_path / 'tokenizer.json'} cannot be read" in error_of(tmp_path)
