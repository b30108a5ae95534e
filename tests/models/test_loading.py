"""Loading costs no second copy of the weights, is pinned and works offline; saved tokenizers come back."""

import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from tests.models.causal import CHAT, byte_tokenizer
from tests.models.tiny import tiny_config, tiny_net
from unmask.checkpoint import LazyTensors, in_shards
from unmask.layers import Padded, attention
from unmask.models import load
from unmask.models.export import stored_dtype
from unmask.models.load import assert_padding_is_ignored
from unmask.models.tokenizer import ids_of
from unmask.models.transformer import Transformer

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"


@pytest.mark.parametrize("tied", [False, True])
def test_no_more_than_one_parameter_is_held_beside_the_net(
    tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmask.save_denoiser(tmp_path, tiny_net(num_layers=6, tied=tied))
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Watched(LazyTensors):
        def __getitem__(self, name: str) -> Tensor:
            nonlocal most
            tensor = super().__getitem__(name)
            alive.append(weakref.ref(tensor))
            most = max(most, sum(each.numel() for ref in alive if (each := ref()) is not None))
            return tensor

    monkeypatch.setattr(load, "LazyTensors", Watched)
    net = unmask.load_denoiser(tmp_path)
    assert len(alive) == len(list(net.parameters()))
    assert most == max(parameter.numel() for parameter in net.parameters())


class Allocations(TorchDispatchMode):
    """Numbers of elements that operations made, by dtype, off the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        new = isinstance(out, Tensor) and not out.is_meta and out._base is None and "empty" in str(func)
        if new:
            self.made[out.dtype] = self.made.get(out.dtype, 0) + out.numel()
        return out


@pytest.mark.parametrize("tied", [False, True])
def test_memory_is_asked_for_once_and_in_the_dtype_that_is_wanted(tied: bool, tmp_path: Path) -> None:
    net = tiny_net(tied=tied)
    unmask.save_denoiser(tmp_path, net, dtype="bfloat16")
    with Allocations() as allocations:
        unmask.load_denoiser(tmp_path, dtype="bfloat16", check_padding=False)
    wanted = sum(parameter.numel() for parameter in net.parameters())
    assert allocations.made.get(torch.float32, 0) == 0
    assert allocations.made[torch.bfloat16] == wanted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_padding_that_is_seen_is_noticed_when_loading(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmask.save_denoiser(tmp_path, tiny_net())
    sources = (tmp_path, "bundled", FIXTURES / "dream_tiny", FIXTURES / "dultra_tiny")
    nets = [unmask.load_denoiser(source, dtype=dtype) for source in sources]

    def attend(self: Padded, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, None)

    monkeypatch.setattr(Padded, "attend", attend)
    for net in nets:
        with pytest.raises(ValueError, match=r"padding changes a row by ([4-9].*e-01|.*e\+00) of its size"):
            assert_padding_is_ignored(net)
    with pytest.raises(ValueError, match="padding changes a row"):
        unmask.load_denoiser(tmp_path, dtype=dtype)
    unmask.load_denoiser(tmp_path, dtype=dtype, check_padding=False)


def test_weights_that_overflow_their_dtype_are_noticed(tmp_path: Path) -> None:
    net = tiny_net()
    with torch.no_grad():
        net.embed.weight.mul_(1e6)
    unmask.save_denoiser(tmp_path, net)
    unmask.load_denoiser(tmp_path, dtype="bfloat16")
    with pytest.raises(ValueError, match="hidden states in float16 are not finite; use bfloat16"):
        unmask.load_denoiser(tmp_path, dtype="float16")


def test_a_revision_is_passed_on_and_neither_code_nor_pickles_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmask.save_denoiser(tmp_path / "net", tiny_net())
    asked: dict[str, Any] = {}

    def snapshot_download(hub_id: str, **settings: Any) -> str:
        asked.update(settings, hub_id=hub_id)
        return str(tmp_path / "net")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    unmask.load_denoiser("somebody/net", revision="abc123")
    assert (asked["hub_id"], asked["revision"]) == ("somebody/net", "abc123")
    unmask.save_planner(tmp_path / "net", unmask.load_planner("bundled/policy"))
    unmask.load_planner("somebody/planner", revision="def456")
    assert (asked["hub_id"], asked["revision"]) == ("somebody/planner", "def456")
    assert asked["ignore_patterns"] == ["*/*"]
    fetched = {pattern.rpartition(".")[2] for pattern in asked["allow_patterns"]}
    assert not fetched & {"*", "bin", "pt", "pth", "py"}


def test_offline_a_hub_id_is_the_copy_that_was_fetched_before(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--somebody--net"
    unmask.save_denoiser(cache / "snapshots" / commit, tiny_net())
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    code = (
        "import unmask\n"
        "print(unmask.load_denoiser('somebody/net').vocab_size)\n"
        f"print(unmask.load_denoiser('somebody/net', revision={commit!r}).vocab_size)\n"
        "try: unmask.load_denoiser('somebody/net', revision='other')\n"
        "except ValueError as error: print(str(error).count(chr(10)), error)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == second == str(tiny_config().vocab_size)
    assert third.startswith("0 'somebody/net@other' is neither a folder here nor a hub id that")


def test_a_saved_tokenizer_keeps_its_special_tokens_and_chat_template(tmp_path: Path) -> None:
    end = byte_tokenizer().eos_token_id
    net = Transformer(replace(tiny_config(), vocab_size=300, eos_id=end, pad_id=end), byte_tokenizer())
    unmask.save_denoiser(tmp_path, net)
    tokenizer = unmask.load_denoiser(tmp_path).tokenizer
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|endoftext|>", CHAT)
    assert tokenizer.encode("dogs and cats") == byte_tokenizer().encode("dogs and cats")
    texts = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert str(tmp_path) not in texts


def test_our_own_format_can_lie_in_shards(tmp_path: Path) -> None:
    net = tiny_net()
    unmask.save_denoiser(tmp_path, net)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    where = {name: f"{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for file in ("0.safetensors", "1.safetensors"):
        save_file({name: tensors[name] for name in tensors if where[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    state = unmask.load_denoiser(tmp_path).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    first, second = list(tensors)[:2]
    index.write_text(json.dumps({"weight_map": where | {first: where[second]}}))
    assert "1.safetensors cannot be read" in error_of(tmp_path)
    index.write_text(json.dumps({"weight_map": where | {first: "../0.safetensors"}}))
    assert "names a file outside its folder" in error_of(tmp_path)
    index.write_text(json.dumps({"weight_map": where | {first: 3}}))
    assert "names a file outside its folder: 3" in error_of(tmp_path)
    index.write_text(json.dumps({"weight_map": where}))
    (tmp_path / "1.safetensors").write_bytes((tmp_path / "1.safetensors").read_bytes()[:-9])
    assert "1.safetensors cannot be read" in error_of(tmp_path)
    (tmp_path / "1.safetensors").unlink()
    assert "1.safetensors is missing" in error_of(tmp_path)


@pytest.mark.parametrize("named", ["as transformers does", "otherwise"])
def test_what_is_saved_over_shards_is_what_loads(named: str, tmp_path: Path) -> None:
    net = tiny_net()
    net.tokenizer = None
    unmask.save_denoiser(tmp_path, Transformer(replace(tiny_config(), vocab_size=300), byte_tokenizer()))
    (tmp_path / "model.safetensors").unlink()
    files, index = in_shards(dict(net.state_dict()), 4000)
    assert index is not None
    if named == "otherwise":
        index = index.replace("model-0", "part-0")
        files = {name.replace("model-0", "part-0"): group for name, group in files.items()}
    for name, group in files.items():
        save_file(group, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    unmask.save_planner(str(tmp_path), unmask.load_planner("bundled/policy"))
    with torch.no_grad():
        net.embed.weight.add_(1)
    unmask.save_denoiser(str(tmp_path), net)
    loaded = unmask.load_denoiser(tmp_path)
    assert torch.equal(loaded.embed.weight, net.embed.weight)
    assert loaded.tokenizer is None
    own = {"config.json", "model.safetensors", "planner.json", "planner.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == own


def test_the_folder_that_one_stands_in_can_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    unmask.save_denoiser(".", tiny_net())
    assert unmask.load_denoiser(tmp_path / "here").config == tiny_config()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def error_of(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        unmask.load_denoiser(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("family", "key", "value", "says"),
    [
        ("dultra", "n_heads", -1, "num_heads is -1, and has to be above 0"),
        ("dultra", "d_model", 0, "dim is 0"),
        ("dultra", "rope_theta", -1, "rope_theta is -1"),
        ("dream", "num_attention_heads", 0, "num_heads is 0"),
        ("dream", "num_key_value_heads", -2, "num_kv_heads is -2"),
        ("dream", "rope_scaling", 2.5, "rope_scaling is 2.5"),
    ],
)
def test_a_setting_that_no_net_has_is_named_with_its_file(
    family: str, key: str, value: float, says: str, tmp_path: Path
) -> None:
    fixture = FIXTURES / f"{family}_tiny" / "config.json"
    description = json.loads(fixture.read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert f"{tmp_path / 'config.json'}: {says}" in error_of(tmp_path)


def test_the_tokenizer_ends_texts_with_the_token_that_decoding_looks_for(tmp_path: Path) -> None:
    """A release of transformers took the beginning of a chat turn in a GGUF file for its end."""
    tokenizer = byte_tokenizer()
    net = Transformer(replace(tiny_config(), vocab_size=300), tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(net.config.eos_id + 1)
    unmask.save_denoiser(tmp_path, net)
    loaded = unmask.load_denoiser(tmp_path)
    for name in ("eos", "pad", "mask"):
        assert getattr(loaded.tokenizer, f"{name}_token_id") == getattr(loaded, f"{name}_id")


def test_a_home_in_a_path_is_the_same_for_saving_and_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    net = tiny_net()
    for value in (1.0, 2.0):
        with torch.no_grad():
            net.norm.weight.fill_(value)
        unmask.save_denoiser("~/net", net)
        unmask.save_planner("~/net", unmask.load_planner("bundled/policy"))
        assert (unmask.load_denoiser("~/net").norm.weight == value).all()
        assert unmask.load_planner("~/net").head is not None
    assert (tmp_path / "net/model.safetensors").is_file()


def test_padding_minus_one_is_none() -> None:
    assert ids_of({"eos_token_id": 2, "pad_token_id": -1}, None) == {"eos_token_id": 2, "pad_token_id": 2}


def test_tensors_that_no_net_takes_say_nothing_about_its_dtype(tmp_path: Path) -> None:
    unmask.save_denoiser(tmp_path, tiny_net(), dtype="bfloat16")
    tensors = load_file(tmp_path / "model.safetensors")
    description = json.loads((tmp_path / "config.json").read_text())
    assert stored_dtype(tmp_path) == "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(description | {"model_type": "llama"}))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2, dtype=torch.float64)
    save_file(tensors, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == "bfloat16"
