"""LoRA: adapters alone are trained and saved; loading merges them into the net they belong to."""

import json
import sys
from pathlib import Path

import pytest
import torch

import unmask
from tests.train.small import (
    ALONE,
    NET,
    assert_resuming_changes_nothing,
    denoise_recipe,
    grpo_recipe,
    metrics_of,
    tensors_of,
    train,
)
from unmask.config import DenoiseRecipe, GrpoRecipe, LoraConfig, NetConfig
from unmask.models.adapters import add_adapter, merge_adapter, restore_adapter, save_adapter
from unmask.models.load import load_denoiser
from unmask.models.transformer import Transformer
from unmask.train.stages import make_stage

LORA = LoraConfig(rank=4, alpha=8.0)


def recipe(base: Path, **changes: object) -> DenoiseRecipe:
    return denoise_recipe(**({"start": str(base), "net": NetConfig(), "lora": LORA} | changes))


def logits_of(net: Transformer, rng: torch.Generator) -> torch.Tensor:
    tokens_BT = torch.randint(0, net.vocab_size - 1, (2, 20), generator=rng)
    return net(tokens_BT).logits


def stir(adapter: torch.nn.Module) -> None:
    """Give the adapters weights that matter."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.3)


def test_only_adapters_get_gradients_and_the_rest_stays(base: Path, tmp_path: Path) -> None:
    before = tensors_of(base)["model.safetensors:blocks.0.attention.qkv.weight"]
    stage, _ = train(recipe(base, steps=2), tmp_path)
    net = stage.state.denoiser
    assert net is not None
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * 4 * NET.num_layers  # two matrices for each target of each block
    frozen = dict(net.named_parameters())["blocks.0.attention.qkv.base_layer.weight"]
    assert torch.equal(frozen, before)
    held = {id(p) for group in stage.state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters() if p.requires_grad}


def test_new_adapters_change_nothing(base: Path, rng: torch.Generator) -> None:
    state = rng.get_state()
    before = logits_of(load_denoiser(base), rng)
    net = load_denoiser(base)
    add_adapter(net, LORA, str(base), 0)
    torch.testing.assert_close(logits_of(net, rng.set_state(state)), before, rtol=0, atol=0)


def test_saved_adapters_load_to_the_same_logits_and_merge_into_them(
    base: Path, tmp_path: Path, rng: torch.Generator
) -> None:
    state = rng.get_state()
    plain = load_denoiser(base)
    net = load_denoiser(base)
    adapter = add_adapter(net, LORA, str(base), 0)
    stir(adapter)
    save_adapter(tmp_path / "adapter", adapter)
    expected = logits_of(net, rng.set_state(state))
    assert (expected - logits_of(plain, rng.set_state(state))).abs().max() > 0.01

    other = load_denoiser(base)
    restore_adapter(tmp_path / "adapter", add_adapter(other, LORA, str(base), 1))
    assert torch.equal(logits_of(other, rng.set_state(state)), expected)

    merge_adapter(plain, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(plain, rng.set_state(state)), expected, rtol=0, atol=1e-5)
    assert plain.state_dict().keys() == load_denoiser(base).state_dict().keys()

    for loaded in (load_denoiser(base, adapter=tmp_path / "adapter"), load_denoiser(tmp_path / "adapter")):
        torch.testing.assert_close(logits_of(loaded, rng.set_state(state)), expected, rtol=0, atol=1e-5)
        assert loaded.tokenizer is not None


def test_peft_itself_loads_what_was_saved(base: Path, tmp_path: Path, rng: torch.Generator) -> None:
    from peft import PeftModel

    state = rng.get_state()
    net = load_denoiser(base)
    adapter = add_adapter(net, LORA, str(base), 0)
    stir(adapter)
    save_adapter(tmp_path, adapter)
    theirs = PeftModel.from_pretrained(load_denoiser(base), str(tmp_path))
    tokens_BT = torch.randint(0, 20, (2, 20), generator=rng.set_state(state))
    assert torch.equal(theirs(tokens_BT).logits, net(tokens_BT).logits)


def test_adapters_find_their_base_from_another_working_directory(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    train(recipe(Path(base.name), steps=1), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert unmask.load_denoiser(tmp_path / "run" / "final").config == unmask.load_denoiser(base).config


def test_a_run_saves_adapters_alone_and_they_decode(base: Path, tmp_path: Path) -> None:
    train(recipe(base, steps=20), tmp_path)
    losses = [entry["loss"] for entry in metrics_of(tmp_path)]
    assert losses[-1] < losses[0]
    names = {path.name for path in (tmp_path / "final").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    net = unmask.load_denoiser(tmp_path / "final")
    (row,) = unmask.decode(net, [[3, 4]], unmask.planner("top_k", k=4), length=8, block_length=8)
    assert row.nfe == 2


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_killed_run_of_adapters_goes_on_as_if_nothing_had_happened(
    base: Path, tmp_path: Path, dropout: float
) -> None:
    lora = LoraConfig(rank=4, dropout=dropout)
    assert_resuming_changes_nothing(recipe(base, lora=lora, steps=4), tmp_path, stop=2)


def test_grpo_trains_adapters_and_a_planner(base: Path, tmp_path: Path) -> None:
    plain: GrpoRecipe = grpo_recipe(base, lora=LORA, updates=3)
    stage, _ = train(plain, tmp_path)
    assert all(entry["drift"] < 1e-4 for entry in metrics_of(tmp_path))
    names = {path.name for path in (tmp_path / "final").iterdir()}
    assert {"adapter_model.safetensors", "planner.safetensors"} <= names
    assert "model.safetensors" not in names
    moved = [p for p in stage.state.denoiser.parameters() if p.requires_grad]  # type: ignore[union-attr]
    assert any(parameter.abs().sum() > 0 for parameter in moved[1::2])  # B starts at zero
    unmask.load_planner(tmp_path / "final")


def test_adapters_of_another_net_or_shape_are_refused(base: Path, tmp_path: Path) -> None:
    net = load_denoiser(base)
    save_adapter(tmp_path / "adapter", add_adapter(net, LORA, str(base), 0))
    other = load_denoiser(base)
    adapter = add_adapter(other, LoraConfig(rank=8), str(base), 0)
    with pytest.raises(ValueError, match="is of other adapters"):
        restore_adapter(tmp_path / "adapter", adapter)
    with pytest.raises(ValueError, match="is of other adapters"):
        load_denoiser("bundled", adapter=tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="does not say what it adapts"):
        load_denoiser(tmp_path / "adapter")


def test_adapters_are_not_trained_on_adapters(base: Path, tmp_path: Path) -> None:
    train(recipe(base, steps=1), tmp_path / "first")
    first = tmp_path / "first" / "final"
    for second in (recipe(first), grpo_recipe(first, lora=LORA)):
        with pytest.raises(ValueError, match=f"{first} holds adapters; merge them first: unmask convert"):
            make_stage(second, ALONE)
    make_stage(recipe(first, lora=None), ALONE)


def test_a_target_that_no_layer_has_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="no linear layer is called 'q_proj'; use down, gate_up"):
        make_stage(recipe(base, lora=LoraConfig(targets=("qkv", "q_proj"))), ALONE)


def test_without_peft_there_is_advice(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'unmask\[peft\]'"):
        make_stage(recipe(base), ALONE)
