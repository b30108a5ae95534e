"""The dUltra code as published (arXiv 2512.21446), on a tiny checkpoint in its own format.

`fixtures/dultra_tiny` holds a checkpoint of random weights as the official code saves it, and what that
code gives for it: logits (of the first row), hidden states, planner logits, decodes in its deterministic
mode, and the sets that its copies of the Fast-dLLM rules choose.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid

import unmask
from tests.planners.views import streams, view_of
from unmask.decode.sampling import token_log_prob
from unmask.layers import Padded
from unmask.models.transformer import Transformer
from unmask.planners.base import make_view

FOLDER = Path(__file__).parent / "fixtures" / "dultra_tiny"
EXPECTED = load_file(FOLDER / "expected.safetensors")
MASK, NUM_PROMPT = 299, 20


@pytest.fixture(scope="module")
def net() -> Transformer:
    return unmask.load_denoiser(FOLDER)


@pytest.fixture(scope="module")
def planner() -> unmask.LearnedPlanner:
    return unmask.load_planner(FOLDER)


def test_logits_and_hidden_states_agree(net: Transformer) -> None:
    out = net(EXPECTED["input_ids"])
    torch.testing.assert_close(out.logits[:1], EXPECTED["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(out.hidden, EXPECTED["hidden"], rtol=0, atol=1e-4)


def test_planner_logits_agree(planner: unmask.LearnedPlanner) -> None:
    eligible_BT = EXPECTED["planner_mask"].bool()
    shape = (eligible_BT.shape[0], eligible_BT.shape[1])
    row_BT = torch.arange(shape[0])[:, None].expand(shape)
    layout = Padded.of(None, shape, row_BT.device)
    everyone_BT = torch.arange(row_BT.numel()).view(shape)
    scores_BT = planner.head.scores(
        EXPECTED["hidden"], eligible_BT, EXPECTED["planner_t"], layout, row_BT, everyone_BT
    )
    torch.testing.assert_close(scores_BT, EXPECTED["planner_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("block_length", [16, 32])
def test_the_deterministic_decode_agrees_in_tokens_steps_and_nfe(
    block_length: int, net: Transformer, planner: unmask.LearnedPlanner
) -> None:
    prompts = EXPECTED["input_ids"][:, :NUM_PROMPT].tolist()
    rows = unmask.decode(net, prompts, planner.tuned(mode="top_k"), length=32, block_length=block_length)
    name = f"gen_bl{block_length}"
    for index, row in enumerate(rows):
        assert torch.equal(row.tokens, EXPECTED[name][index, NUM_PROMPT:])
        assert torch.equal(row.unmask_step.long(), EXPECTED[f"{name}_step"][index, NUM_PROMPT:])
        assert row.nfe == EXPECTED[f"{name}_nfe"][index]


@pytest.mark.parametrize("block_length", [8, 32])
def test_where_a_row_decodes_otherwise_in_a_batch_two_positions_tie(
    block_length: int, net: Transformer, rng: torch.Generator
) -> None:
    """Random weights say next to nothing: entropies of positions differ in the seventh digit."""
    prompts = [torch.randint(0, 290, (size,), generator=rng).tolist() for size in (1, 19, 7, 2, 12, 19, 4, 9)]
    planner = unmask.planner("entropy", k=1)
    settings = {"length": 32, "block_length": block_length}
    for prompt, batched in zip(prompts, unmask.decode(net, prompts, planner, **settings), strict=True):
        (alone,) = unmask.decode(net, [prompt], planner, **settings)
        differs_L = alone.unmask_step != batched.unmask_step
        if not differs_L.any():
            assert torch.equal(alone.tokens, batched.tokens)
            continue
        step = int(torch.minimum(alone.unmask_step, batched.unmask_step)[differs_L].min())
        tokens_BT = torch.cat([alone.prompt, alone.state_at(step)])[None]
        logits_LV = net(tokens_BT).logits[0, len(prompt) :].double()
        logits_LV[:, MASK] = -torch.inf
        log_prob_LV = logits_LV.log_softmax(-1)
        entropy_L = -(log_prob_LV.exp() * log_prob_LV.clamp_min(-1e9)).sum(-1)
        chosen = [float(entropy_L[row.unmask_step == step]) for row in (alone, batched)]
        assert abs(chosen[0] - chosen[1]) < 1e-5


@pytest.mark.parametrize("block_length", [16, 32])
def test_the_likelihood_of_a_decode_agrees(
    block_length: int, net: Transformer, planner: unmask.LearnedPlanner
) -> None:
    """As published: independent coins (a forced position counts as drawn) and untempered tokens.

    Made from our head, view and token likelihoods at each state of our decode; the laws that we train with
    score what they draw, and differ from it in forced steps.
    """
    prompts = EXPECTED["input_ids"][:, :NUM_PROMPT].tolist()
    rows = unmask.decode(net, prompts, planner.tuned(mode="top_k"), length=32, block_length=block_length)
    for index, row in enumerate(rows):
        step_S = torch.arange(row.nfe)
        states_SL = torch.stack([row.state_at(step) for step in range(row.nfe)])
        tokens_ST = torch.cat([row.prompt.expand(row.nfe, -1), states_SL], dim=1)
        out = net(tokens_ST)
        view = make_view(
            *out, tokens_ST, None, length=32, block_length=block_length, step_B=step_S, mask_id=MASK
        )
        chosen_SL = row.unmask_step == step_S[:, None]
        side_SL = torch.where(chosen_SL, 1.0, -1.0)
        coins_SL = torch.where(view.open_BL, logsigmoid(side_SL * planner.head(view)), 0.0)
        token_S = token_log_prob(view.logits_BLV, row.tokens.expand(row.nfe, -1), chosen_SL, 1.0)
        expected = EXPECTED[f"gen_bl{block_length}_logp"][index]
        torch.testing.assert_close(coins_SL.sum() + token_S.sum(), expected, rtol=0, atol=1e-3)


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


def test_the_published_law_is_bernoulli_with_fallback(planner: unmask.LearnedPlanner) -> None:
    assert (planner.law, planner.mode) == ("fallback", "sample")


def test_a_sharded_checkpoint_loads_the_same(net: Transformer, tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "model.safetensors")
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for number, name in enumerate(sorted(tensors)):
        parts["ab"[number % 2] + ".safetensors"][name] = tensors[name]
    for file, part in parts.items():
        save_file(part, tmp_path / file)
    where = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    shutil.copy(FOLDER / "config.json", tmp_path)
    state = unmask.load_denoiser(tmp_path).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"b\.safetensors is missing"):
        unmask.load_denoiser(tmp_path)


def test_an_index_without_a_map_is_named(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json has no weight_map"):
        unmask.load_denoiser(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="safetensors"):
        unmask.load_denoiser(tmp_path)
