"""What nobody can mean is refused in one line that says what to do, and before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import unmask
from tests.models.causal import EOS, RESERVED, byte_tokenizer, saved
from tests.models.tiny import EOS as EOS_ID
from tests.models.tiny import tiny_config, tiny_net
from unmask.models.adapters import merge_adapter

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
DREAM, DULTRA = FIXTURES / "dream_tiny", FIXTURES / "dultra_tiny"


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(folder: Path, source: Path = DREAM, **description: Any) -> Path:
    """A copy of a checkpoint with other settings."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("expected*"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | description))
    return folder


@pytest.mark.parametrize("device", ["cuda", "cuda:5", "tpu", "", 0, "meta", None])
def test_a_device_that_is_not_there_is_refused_before_anything_is_fetched(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for load in (unmask.load_denoiser, unmask.from_causal, unmask.load_planner):
        message = error_of(lambda load=load: load("no/such/hub-id", device=device))
        assert "device" in message
        assert "use cpu" in message


@pytest.mark.parametrize("dtype", ["bf16", "int8", "", 16])
def test_an_unknown_dtype_is_refused_before_anything_is_fetched_or_saved(dtype: Any, tmp_path: Path) -> None:
    says = f"unknown dtype {dtype!r}; use one of float32, bfloat16, float16"
    for load in (unmask.load_denoiser, unmask.from_causal):
        assert says in error_of(lambda load=load: load("no/such/hub-id", dtype=dtype))
    if dtype:
        assert says in error_of(lambda: unmask.save_denoiser(tmp_path / "x", tiny_net(), dtype))


@pytest.mark.parametrize(
    ("source", "settings", "says"),
    [
        (DREAM, {"num_hidden_layers": "2"}, "num_layers: Input should be a valid integer"),
        (DREAM, {"mask_token_id": True}, "mask_id: Input should be a valid integer"),
        (DREAM, {"mask_token_id": "299"}, "mask_id: Input should be a valid integer"),
        (DREAM, {"eos_token_id": []}, "has no eos_token_id"),
        (DREAM, {"eos_token_id": ["298"]}, "eos_id: Input should be a valid integer"),
        (DREAM, {"model_type": ["Dream"]}, "model_type is ['Dream'], and has to be a str"),
        (DREAM, {"architectures": 3}, "architectures is 3, and has to be a list"),
        (DREAM, {"rope_theta": 0}, "rope_theta is 0.0, and has to be above 0"),
        (DREAM, {"tie_word_embeddings": "false"}, "tied: Input should be a valid boolean"),
        (DREAM, {"hidden_size": 10**30}, "has to be above 0 and below 2**31"),
        (DREAM, {"hidden_size": None}, "is incomplete: it lacks 'hidden_size'"),
        (DREAM, {"rope_scaling": {"rope_type": "llama3", "factor": "8"}}, "it lacks 'low_freq_factor'"),
        (DREAM, {"mask_token_id": 298}, "mask_id 298 is eos_id too"),
        (DREAM, {"pad_token_id": 299}, "mask_id 299 is pad_id too"),
        (DULTRA, {"n_kv_heads": 0}, "num_kv_heads is 0, and has to be above 0"),
        (DULTRA, {"mlp_hidden_size": None, "mlp_ratio": "4", "d_model": "64"}, "can't multiply"),
        (DULTRA, {"rms_norm_eps": "1e-5"}, "norm_eps: Input should be a valid number"),
    ],
)
def test_a_setting_of_another_type_or_range_is_named_with_its_file(
    source: Path, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = changed(tmp_path / "net", source, **settings)
    message = error_of(lambda: unmask.load_denoiser(folder))
    assert message.startswith(str(folder))
    assert says in message


def test_a_net_of_our_own_format_takes_no_number_in_quotes(tmp_path: Path) -> None:
    unmask.save_denoiser(tmp_path / "own", tiny_net())
    folder = changed(tmp_path / "net", tmp_path / "own", num_heads="2")
    assert "num_heads: Input should be a valid integer" in error_of(lambda: unmask.load_denoiser(folder))


def test_a_planner_head_is_described_as_strictly(tmp_path: Path) -> None:
    for number, (settings, says) in enumerate(
        [
            ({"mlp_hidden_size": "96"}, "mlp_dim: Input should be a valid integer"),
            ({"mlp_hidden_size": None, "mlp_ratio": None}, "is incomplete: it lacks 'mlp_ratio'"),
            ({"n_heads": 0}, "num_heads is 0, and has to be above 0"),
        ]
    ):
        folder = changed(tmp_path / str(number), DULTRA, **settings)
        assert says in error_of(lambda folder=folder: unmask.load_planner(folder))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("head", "mlp", "is incomplete or of another version: 'mlp'"),
        ("head", ["dultra"], "is incomplete or of another version"),
        ("config", ["dim"], "is incomplete or of another version"),
        ("config", {"dim": -1}, "dim is -1, and has to be above 0"),
        ("config", {"num_heads": True}, "num_heads: Input should be a valid integer"),
        ("config", {"time_period": "1"}, "time_period: Input should be a valid number"),
        ("config", {"width": 8}, "unknown key 'width'; it takes dim, num_heads, mlp_dim, time_period, bias"),
        ("settings", {"law": "nonempty", "colour": 1}, "is incomplete or of another version"),
    ],
)
def test_a_saved_planner_is_described_as_strictly(key: str, value: Any, says: str, tmp_path: Path) -> None:
    unmask.save_planner(tmp_path, unmask.load_planner("bundled/policy"))
    path = tmp_path / "planner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    message = error_of(lambda: unmask.load_planner(tmp_path))
    assert message.startswith(str(path))
    assert says in message


def test_a_causal_model_without_the_size_of_its_vocabulary_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "causal", "llama")
    for value, says in ((None, "it lacks 'vocab_size'"), ("300", "vocab_size: Input should be a valid")):
        folder = changed(tmp_path / str(value), tmp_path / "causal", vocab_size=value)
        assert says in error_of(lambda folder=folder: unmask.from_causal(folder))


def test_adapters_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    assert "adapters of type 'IA3'; only LORA" in error_of(lambda: merge_adapter(tiny_net(), tmp_path))


@pytest.mark.parametrize("key", ["eos_token_id", "pad_token_id"])
@pytest.mark.parametrize("value", [-2, 10**30, {"a": 1}, "257"])
def test_ids_that_are_none_are_refused_with_a_tokenizer_beside_them(
    key: str, value: Any, tmp_path: Path
) -> None:
    saved(tmp_path / "causal", "llama", tokenizer=True)
    folder = changed(tmp_path / "net", tmp_path / "causal", **{key: value})
    assert key.removesuffix("_token_id") in error_of(lambda: unmask.from_causal(folder))


def test_a_net_without_room_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_empty(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 14.00 GiB")

    unmask.save_denoiser(tmp_path, tiny_net())
    monkeypatch.setattr("torch.nn.Module.to_empty", to_empty)
    message = error_of(lambda: unmask.load_denoiser(tmp_path))
    assert "0.0 GiB of weights find no room on cpu; use bfloat16, or device_map auto or balanced" in message
    assert message.endswith("(CUDA out of memory.)")


def with_weights(folder: Path, **tensors: torch.Tensor) -> Path:
    path = changed(folder) / "model.safetensors"
    save_file(load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}, path)
    return folder


def test_each_part_of_a_stacked_tensor_has_its_own_shape(tmp_path: Path) -> None:
    layer = "model__layers__0__"
    odd = {"k_proj": torch.ones(40, 64), "v_proj": torch.ones(24, 64)}
    for name, value in odd.items():
        odd_one = {f"{layer}self_attn__{name}__weight": value}
        folder = with_weights(tmp_path / name, **odd_one)
        says = f"{name}.weight' has shape {tuple(value.shape)}, the model wants (32, 64)"
        assert says in error_of(lambda folder=folder: unmask.load_denoiser(folder))
    swapped = {f"{layer}self_attn__{name}__weight": value for name, value in odd.items()}
    folder = with_weights(tmp_path / "both", **swapped)
    assert "k_proj.weight' has shape (40, 64)" in error_of(lambda: unmask.load_denoiser(folder))
    folder = with_weights(tmp_path / "scalar", model__norm__weight=torch.tensor(1.0))
    says = "'model.norm.weight' has shape (), the model wants (64,)"
    assert says in error_of(lambda: unmask.load_denoiser(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    value = load_file(DREAM / "model.safetensors")[name].to(dtype)
    folder = with_weights(tmp_path / "net", **{name.replace(".", "__"): value})
    message = error_of(lambda: unmask.load_denoiser(folder))
    assert f"{name!r} is quantised ({str(dtype).removeprefix('torch.')})" in message


def test_a_mask_token_that_means_something_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "causal", "llama", tokenizer=True, eos_token_id=[257, 258])
    for token, says in (
        (EOS, "has a meaning already; use a new one, such as <|mask|>"),
        (RESERVED, "has a meaning already"),
        ("do", "is ordinary text"),
        ("hello", "is ordinary text"),
        ("", "is ordinary text"),
    ):
        message = error_of(lambda token=token: unmask.from_causal(tmp_path / "causal", mask_token=token))
        assert f"mask token {token!r} {says}" in message
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|free|>"]})
    tokenizer.bos_token = RESERVED
    tokenizer.save_pretrained(tmp_path / "causal")
    message = error_of(lambda: unmask.from_causal(tmp_path / "causal", mask_token=RESERVED))
    assert message.endswith("use a new one, such as <|mask|>, or <|free|>")
    assert unmask.from_causal(tmp_path / "causal", mask_token="<|free|>").mask_id == 259
    tokenizer.chat_template = "<|free|>{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "causal")
    message = error_of(lambda: unmask.from_causal(tmp_path / "causal", mask_token="<|free|>"))
    assert "mask token '<|free|>' has a meaning already" in message
    assert unmask.from_causal(tmp_path / "causal", mask_token="<|mine|>").mask_id == 260


def test_a_mask_token_needs_a_tokenizer(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    message = error_of(lambda: unmask.from_causal(tmp_path, mask_token="<|mine|>"))
    assert "has no tokenizer that could have '<|mine|>'; leave mask_token out" in message


def test_a_revision_of_what_lies_here_is_refused(tmp_path: Path) -> None:
    unmask.save_denoiser(tmp_path / "own", tiny_net())
    (tmp_path / "net.gguf").write_bytes(b"")
    for load, source in (
        (unmask.load_denoiser, tmp_path / "own"),
        (unmask.load_denoiser, "bundled"),
        (unmask.load_planner, "bundled/policy"),
        (unmask.from_causal, tmp_path / "own"),
        (unmask.from_causal, tmp_path / "net.gguf"),
    ):
        message = error_of(lambda load=load, source=source: load(source, revision="abc"))
        assert message.startswith("revision 'abc' is of a hub id")


def test_a_folder_of_other_formats_says_which(tmp_path: Path) -> None:
    for number, (names, says) in enumerate(
        [
            (["config.json", "pytorch_model.bin.index.json"], "holds pickled weights only"),
            (["pytorch_model.bin"], "holds pickled weights only"),
            (["b.GGUF", "a-Q4.gguf"], "holds GGUF files only; give the path of one, such as a-Q4.gguf"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_text("{}")
        for load in (unmask.load_denoiser, unmask.from_causal, unmask.load_planner):
            assert says in error_of(lambda load=load, folder=folder: load(folder))


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["config.json", "pytorch_model-00001-of-00002.bin"], "somebody/net holds pickled weights only"),
        (["config.json", "net-Q4_0.gguf"], "somebody/net holds GGUF files only"),
        (None, "model.safetensors is missing"),
    ],
)
def test_a_hub_repository_of_other_formats_says_which(
    listed: list[str] | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such files are not fetched: their names are asked for, and where they cannot be, the rest stands."""
    shutil.copy(DREAM / "config.json", tmp_path)

    def list_repo_files(_api: Any, _hub_id: str, revision: str | None) -> list[str]:
        if listed is None:
            raise ConnectionError("offline")
        assert revision == "v1"
        return listed

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", list_repo_files)
    assert says in error_of(lambda: unmask.load_denoiser("somebody/net", revision="v1"))


def test_the_mask_of_our_own_nets_is_no_end(tmp_path: Path) -> None:
    unmask.save_denoiser(tmp_path / "own", tiny_net())
    assert tiny_config().eos_id == EOS_ID
    folder = changed(tmp_path / "net", tmp_path / "own", mask_id=EOS_ID)
    assert f"mask_id {EOS_ID} is eos_id too" in error_of(lambda: unmask.load_denoiser(folder))
