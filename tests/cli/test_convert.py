"""`unmask convert`: what goes to another format and back is the same, bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file
from torch import Tensor

import unmask
from tests.models import causal
from tests.models.test_gguf import write_gguf
from tests.models.tiny import tiny_net
from tests.train.small import assert_same_tensors, denoise_recipe, tensors_of, train
from unmask.config import LoraConfig
from unmask.models.adapters import add_adapter, save_adapter
from unmask.models.load import save_denoiser
from unmask.models.transformer import Transformer
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import make_head, save_planner

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
DULTRA, DREAM = FIXTURES / "dultra_tiny", FIXTURES / "dream_tiny"
LLADA = {"qk_norm": False, "num_kv_heads": 1, "qkv_bias": True}
"""All that LLaDA's format can express beside the usual."""


def weights(folder: Path) -> dict[str, Tensor]:
    """Of a folder as it was published, or written here, in any number of files."""
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.name != "expected.safetensors"]
    return {name: value for path in files for name, value in load_file(path).items()}


def saved(folder: Path, net: Transformer, head: str | None = None, **settings: Any) -> Path:
    """A model folder of our own."""
    save_denoiser(folder, net)
    if head is not None:
        config = net.config
        shape = {"hidden_size": config.dim, "num_heads": config.num_heads, "mlp_dim": config.mlp_dim}
        save_planner(
            folder, LearnedPlanner(make_head(head, **({} if head != "dultra" else shape | settings)))
        )
    return folder


@pytest.fixture
def convert(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*words: object) -> Any:
        status, out, err = call("convert", *words)
        assert status == 0, err
        return json.loads(out.splitlines()[-1])

    return run


@pytest.mark.parametrize(("folder", "to"), [(DULTRA, "dultra"), (DREAM, "dream")])
@pytest.mark.parametrize("size", ["1GB", "100KB"])
def test_a_published_checkpoint_comes_back_as_it_was(
    folder: Path, to: str, size: str, convert: Callable[..., Any], tmp_path: Path
) -> None:
    own = convert(folder, tmp_path / "own", "--max-shard-size", size)
    back = convert(tmp_path / "own", tmp_path / "back", "--to", to, "--max-shard-size", size)
    assert_same_tensors(weights(tmp_path / "back"), weights(folder))
    assert back["bytes"] == sum(value.nbytes for value in weights(folder).values())
    assert own["planner"] is back["planner"] is (to == "dultra")
    assert (back["files"] > 1) is (size == "100KB")
    ours, theirs = (json.loads((each / "config.json").read_text()) for each in (tmp_path / "back", folder))
    assert ours.keys() <= theirs.keys() | {"auto_map"}, "only what the published code writes too"
    with_other_values = {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
    assert with_other_values <= {"auto_map", "init_device", "precision", "vocab_size"}
    assert to != "dultra" or ours["embedding_size"] == theirs["embedding_size"]
    for_generation = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert for_generation["mask_token_id"] == ours["mask_token_id"] == 299


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("to", "settings"),
    [
        ("unmask", {}),
        ("llada", LLADA),
        ("llada", {"qk_norm": False, "tied": True}),
        ("dultra", {"qk_norm": False}),
        ("dream", {"qk_norm": False, "qkv_bias": True, "shift": True, "num_kv_heads": 1}),
        ("dream", {"qk_norm": False, "qkv_bias": True, "shift": True, "tied": True}),
    ],
)
def test_our_own_models_come_back_as_they_were(
    to: str, settings: dict[str, Any], dtype: str, convert: Callable[..., Any], tmp_path: Path
) -> None:
    net = tiny_net(**settings).to(getattr(torch, dtype))
    own = saved(tmp_path / "own", net, "dultra" if to == "dultra" else None)
    there = convert(own, tmp_path / "there", "--to", to)
    back = convert(tmp_path / "there", tmp_path / "back")
    assert there["dtype"] == back["dtype"] == dtype
    assert_same_tensors(tensors_of(tmp_path / "back"), tensors_of(own))
    loaded = unmask.load_denoiser(tmp_path / "back", dtype=dtype)
    filled = {"num_kv_heads": net.config.block().kv_heads, "head_dim": net.config.block().width}
    found, wanted = loaded.describe(), net.describe()
    assert found | filled == wanted | filled


def test_a_dultra_checkpoint_in_bfloat16_comes_back_in_bfloat16(
    convert: Callable[..., Any], tmp_path: Path
) -> None:
    convert(DULTRA, tmp_path / "own", "--dtype", "bfloat16")
    convert(tmp_path / "own", tmp_path / "float32 head", "--to", "dultra")
    half = {name: value.bfloat16() for name, value in weights(DULTRA).items()}
    (tmp_path / "half").mkdir()
    save_file(half, tmp_path / "half" / "model.safetensors")
    shutil.copy(DULTRA / "config.json", tmp_path / "half")
    convert(tmp_path / "half", tmp_path / "half own")
    convert(tmp_path / "half own", tmp_path / "back", "--to", "dultra")
    assert_same_tensors(weights(tmp_path / "back"), half)
    mixed = weights(tmp_path / "float32 head")
    assert mixed["mask_linear.weight"].dtype == torch.float32, "a head is not rounded unless asked to"
    assert torch.equal(mixed["mask_linear.weight"], weights(DULTRA)["mask_linear.weight"])


def test_a_planner_can_come_from_elsewhere_and_is_left_out_where_it_has_no_place(
    convert: Callable[..., Any], tmp_path: Path
) -> None:
    own = saved(tmp_path / "own", tiny_net(qk_norm=False))
    other = saved(tmp_path / "other", tiny_net(qk_norm=False), "dultra")
    assert convert(own, tmp_path / "with", "--to", "dultra", "--planner", other)["planner"]
    head = unmask.load_planner(tmp_path / "with").head.state_dict()
    assert_same_tensors(head, unmask.load_planner(other).head.state_dict())
    assert not convert(other, tmp_path / "without", "--to", "llada")["planner"]
    assert not any(name.startswith("mask") for name in weights(tmp_path / "without"))


def test_a_trained_net_goes_out_with_its_tokenizer(convert: Callable[..., Any], tmp_path: Path) -> None:
    recipe = denoise_recipe(steps=1)
    recipe = recipe.model_copy(update={"net": recipe.net.model_copy(update={"qk_norm": False})})
    train(recipe, tmp_path / "run")
    convert(tmp_path / "run" / "final", tmp_path / "llada", "--to", "llada")
    before, after = (unmask.load_denoiser(tmp_path / each) for each in ("run/final", "llada"))
    tokens_BT = torch.tensor([before.tokenizer.encode("Ann has 14.", add_special_tokens=False)])
    assert after.tokenizer.encode("Ann has 14.", add_special_tokens=False) == tokens_BT[0].tolist()
    assert torch.equal(after(tokens_BT).logits, before(tokens_BT).logits)
    assert after.tokenizer.mask_token_id == before.mask_id


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_causal_model_becomes_a_denoiser(kind: str, convert: Callable[..., Any], tmp_path: Path) -> None:
    causal.saved(tmp_path / "causal", kind, tokenizer=True)
    convert(tmp_path / "causal", tmp_path / "out", "--mask-token", causal.RESERVED, "--no-shift")
    expected = unmask.from_causal(tmp_path / "causal", mask_token=causal.RESERVED, shift=False)
    found = unmask.load_denoiser(tmp_path / "out")
    assert found.config == expected.config
    assert found.tokenizer.mask_token == causal.RESERVED
    assert_same_tensors(found.state_dict(), expected.state_dict())


def test_a_qwen2_can_go_to_the_format_of_dream(convert: Callable[..., Any], tmp_path: Path) -> None:
    causal.saved(tmp_path / "causal", "qwen2", tokenizer=True)
    convert(tmp_path / "causal", tmp_path / "dream", "--to", "dream")
    expected = unmask.from_causal(tmp_path / "causal").state_dict()
    assert_same_tensors(unmask.load_denoiser(tmp_path / "dream").state_dict(), expected)


def test_a_gguf_file_becomes_a_denoiser(convert: Callable[..., Any], tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "net.gguf", type_=Type.Q8_0)
    assert convert(path, tmp_path / "auto")["dtype"] == "float32"
    assert convert(path, tmp_path / "half", "--dtype", "bfloat16")["dtype"] == "bfloat16"
    for name, dtype in (("auto", "float32"), ("half", "bfloat16")):
        found = unmask.load_denoiser(tmp_path / name, dtype=dtype)
        assert_same_tensors(found.state_dict(), unmask.from_causal(path, dtype=dtype).state_dict())


def test_adapters_are_merged_into_what_they_were_trained_on(
    convert: Callable[..., Any], tmp_path: Path
) -> None:
    save_denoiser(tmp_path / "base", tiny_net(qk_norm=False))
    adapter = add_adapter(tiny_net(qk_norm=False), LoraConfig(rank=2), str(tmp_path / "base"), 0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 if parameter.requires_grad else 0.0)
    save_adapter(tmp_path / "adapter", adapter)
    convert(tmp_path / "adapter", tmp_path / "llada", "--to", "llada")
    merged = unmask.load_denoiser(tmp_path / "adapter").state_dict()
    assert_same_tensors(unmask.load_denoiser(tmp_path / "llada").state_dict(), merged)
    name = "blocks.0.attention.qkv.weight"
    assert not torch.equal(merged[name], tiny_net(qk_norm=False).state_dict()[name])


def test_adapters_on_bfloat16_weights_keep_what_they_learned(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    """Near 1 a step of bfloat16 is 0.008; here the adapters moved every weight by a tenth of that."""
    net = tiny_net(qk_norm=False)
    with torch.no_grad():
        net.blocks[0].attention.out.weight.fill_(1.0)
    save_denoiser(tmp_path / "base", net, "bfloat16")
    lora = LoraConfig(rank=2, alpha=2.0, targets=("out",))
    adapter = add_adapter(net, lora, str(tmp_path / "base"), 0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.fill_(0.02)
    save_adapter(tmp_path / "adapter", adapter)
    learned = {}
    for dtype in ("auto", "bfloat16"):
        status, out, _ = call("convert", tmp_path / "adapter", tmp_path / dtype, "--dtype", dtype)
        assert status == 0
        assert ("in bfloat16, what the adapters learned is rounded" in out) is (dtype == "bfloat16")
        learned[json.loads(out.splitlines()[-1])["dtype"]] = (
            unmask.load_denoiser(tmp_path / dtype).blocks[0].attention.out.weight - 1
        )
    torch.testing.assert_close(learned["float32"], torch.full((16, 16), 8e-4), rtol=0, atol=1e-6)
    assert not learned["bfloat16"].any()


def test_no_weight_changes_where_a_checkpoint_has_several_dtypes(
    convert: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    mixed = {name: value if "norm" in name else value.bfloat16() for name, value in weights(DREAM).items()}
    shutil.copytree(DREAM, tmp_path / "mixed", ignore=shutil.ignore_patterns("expected*"))
    save_file(mixed, tmp_path / "mixed" / "model.safetensors")
    assert convert(tmp_path / "mixed", tmp_path / "own")["dtype"] == "float32"
    convert(tmp_path / "own", tmp_path / "back", "--to", "dream")
    assert_same_tensors(weights(tmp_path / "back"), {name: each.float() for name, each in mixed.items()})
    save_file({name: each.double() for name, each in mixed.items()}, tmp_path / "mixed" / "model.safetensors")
    assert "say --dtype float32 to round" in refused("convert", tmp_path / "mixed", tmp_path / "wide")
    assert convert(tmp_path / "mixed", tmp_path / "wide", "--dtype", "float32")["dtype"] == "float32"


@pytest.mark.parametrize(
    ("settings", "to", "says"),
    [
        ({}, "llada", "has only qk_norm=False, and this net has qk_norm=True"),
        ({}, "dultra", "has only qk_norm=False"),
        ({"qk_norm": False, "head_dim": 6}, "llada", "has only head_dim=8, and this net has head_dim=6"),
        ({"qk_norm": False, "shift": True}, "llada", "has only shift=False"),
        ({"qk_norm": False}, "dream", "has only qkv_bias=True"),
        ({"qk_norm": False}, "dultra", "has no planner, which dultra needs"),
        ({"qk_norm": False}, "gguf", "unknown format 'gguf'; use one of unmask, llada, dultra, dream"),
    ],
)
def test_what_a_format_cannot_hold_is_named(
    settings: dict[str, Any], to: str, says: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    saved(tmp_path / "own", tiny_net(**settings))
    assert says in refused("convert", tmp_path / "own", tmp_path / "out", "--to", to)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("net", "head", "settings", "says"),
    [
        ({}, "confidence", {}, "this planner is a ConfidencePolicy"),
        ({}, "dultra", {"mlp_dim": 7}, "the denoiser's mlp_dim=24, and this one has 7"),
        ({"num_kv_heads": 1}, "dultra", {}, "the denoiser's n_kv_heads=1, and this one has 2"),
        ({"qkv_bias": True}, "dultra", {}, "the denoiser's qkv_bias=True"),
    ],
)
def test_a_head_that_the_official_code_would_not_build_is_named(
    net: dict[str, Any],
    head: str,
    settings: dict[str, Any],
    says: str,
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    saved(tmp_path / "own", tiny_net(qk_norm=False, **net), head, **settings)
    assert says in refused("convert", tmp_path / "own", tmp_path / "out", "--to", "dultra")


def test_mistakes_are_found_before_anything_is_written(refused: Callable[..., str], tmp_path: Path) -> None:
    own = saved(tmp_path / "own", tiny_net())
    assert "is not empty" in refused("convert", own, own)
    assert "max_shard_size 'big' is no size" in refused("convert", own, "x", "--max-shard-size", "big")
    assert "unknown dtype 'int8'" in refused("convert", own, tmp_path / "out", "--dtype", "int8")
    assert "neither a folder here nor a hub id" in refused("convert", "no/such/folder", tmp_path / "out")
    for words in (["--no-shift"], ["--mask-token", "<mine>"]):
        assert "are for causal models" in refused("convert", own, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()
