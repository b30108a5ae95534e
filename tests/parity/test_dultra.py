"""The dUltra code as published (arXiv 2512.21446), on a tiny checkpoint in its own format.

`fixtures/dultra_tiny` holds a checkpoint of random weights as the official code saves it, and what that
code gives for it: logits (of the first row), hidden states, planner logits, decodes in its deterministic
mode, and the sets that its copies of the Fast-dLLM rules choose.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import unmask
from tests.planners.views import streams, view_of
from unmask.models.transformer import Transformer, TransformerConfig
from unmask.planners.heads import DultraHead, DultraHeadConfig

FOLDER = Path(__file__).parent / "fixtures" / "dultra_tiny"
THEIRS = load_file(FOLDER / "model.safetensors")
EXPECTED = load_file(FOLDER / "expected.safetensors")
MASK, EOS, NUM_PROMPT = 299, 298, 20


def block(prefix: str) -> dict[str, Tensor]:
    """Their names of the parts of a block -> ours."""
    part = {name: THEIRS[f"{prefix}.{name}.weight"] for name in (
        "attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm", "ff_proj", "up_proj", "ff_out"
    )}  # fmt: skip
    return {
        "attention_norm.weight": part["attn_norm"],
        "attention.qkv.weight": torch.cat([part["q_proj"], part["k_proj"], part["v_proj"]]),
        "attention.out.weight": part["attn_out"],
        "mlp_norm.weight": part["ff_norm"],
        "mlp.gate_up.weight": torch.cat([part["ff_proj"], part["up_proj"]]),
        "mlp.down.weight": part["ff_out"],
    }


@pytest.fixture(scope="module")
def net() -> Transformer:
    config = TransformerConfig(
        vocab_size=320,
        mask_id=MASK,
        eos_id=EOS,
        pad_id=EOS,
        dim=64,
        num_layers=2,
        num_heads=4,
        mlp_dim=96,
        qk_norm=False,
        rope_theta=500_000.0,
        max_length=256,
    )
    ours = {
        "embed.weight": THEIRS["model.transformer.wte.weight"],
        "norm.weight": THEIRS["model.transformer.ln_f.weight"],
        "head.weight": THEIRS["model.transformer.ff_out.weight"],
    }
    for index in range(config.num_layers):
        named = block(f"model.transformer.blocks.{index}")
        ours |= {f"blocks.{index}.{name}": value for name, value in named.items()}
    net = Transformer(config)
    net.load_state_dict(ours)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def head() -> DultraHead:
    names = {"time.0": "time_embedding.mlp.0", "time.2": "time_embedding.mlp.2"}
    names |= {"norm_in.modulation": "norm_out_1.modulation", "score": "mask_linear"}
    names |= {"norm_out.modulation": "norm_out_2.modulation"}
    ours = {"mask_embed.weight": THEIRS["mask_embedding.weight"]}
    for name, other in names.items():
        ours |= {f"{name}.{part}": THEIRS[f"{other}.{part}"] for part in ("weight", "bias")}
    ours |= {f"block.{name}": value for name, value in block("mask_head.0").items()}
    config = DultraHeadConfig(hidden_size=64, num_heads=4, mlp_dim=96, rope_theta=500_000.0)
    head = DultraHead(config)
    head.load_state_dict(ours)
    return head.eval().requires_grad_(False)


def test_logits_and_hidden_states_agree(net: Transformer) -> None:
    out = net(EXPECTED["input_ids"])
    torch.testing.assert_close(out.logits[:1], EXPECTED["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(out.hidden, EXPECTED["hidden"], rtol=0, atol=1e-4)


def test_planner_logits_agree(head: DultraHead) -> None:
    scores_BT = head.scores(EXPECTED["hidden"], EXPECTED["planner_mask"].bool(), EXPECTED["planner_t"], None)
    torch.testing.assert_close(scores_BT, EXPECTED["planner_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("block_length", [16, 32])
def test_the_deterministic_decode_agrees_in_tokens_steps_and_nfe(
    block_length: int, net: Transformer, head: DultraHead
) -> None:
    planner = unmask.LearnedPlanner(head, mode="top_k")
    prompts = EXPECTED["input_ids"][:, :NUM_PROMPT].tolist()
    rows = unmask.decode(net, prompts, planner, length=32, block_length=block_length)
    name = f"gen_bl{block_length}"
    for index, row in enumerate(rows):
        assert torch.equal(row.tokens, EXPECTED[name][index, NUM_PROMPT:])
        assert torch.equal(row.unmask_step.long(), EXPECTED[f"{name}_step"][index, NUM_PROMPT:])
        assert row.nfe == EXPECTED[f"{name}_nfe"][index]


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("factor", "factor", 0.5),
        ("factor", "factor", 1.0),
        ("factor", "factor", 2.0),
        ("threshold", "tau", 0.5),
        ("threshold", "tau", 0.9),
    ],
)
def test_fast_dllm_rules_choose_the_same_sets(name: str, setting: str, value: float) -> None:
    view = view_of(EXPECTED["sel_logits"], EXPECTED["sel_x"] == MASK)
    chosen_BL = unmask.planner(name, **{setting: value})(view).sample(streams(4))
    assert torch.equal(chosen_BL, EXPECTED[f"sel_{name}_{value}"].bool())
