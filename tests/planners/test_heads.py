"""The heads and the learned planner: sizes, modes, the speed dial, padding and files."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import unmask
from tests.planners.views import all_sets, streams, view_of
from unmask.layers import Padded
from unmask.planners.base import View
from unmask.planners.heads import ConfidencePolicy, ConfidencePolicyConfig, DultraHead
from unmask.planners.learned import LearnedPlanner, Mode
from unmask.planners.load import HEADS, load_planner, make_head, parse_planner, save_planner

CONFIGS: dict[str, dict[str, Any]] = {
    "dultra": {"hidden_size": 8, "num_heads": 2, "mlp_dim": 12},
    "confidence": {"dim": 16, "mlp_dim": 24},
    "linear": {"hidden_size": 8},
}


class Constant(nn.Module):
    """The same logits for every row."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits_L = nn.Parameter(torch.tensor(logits))

    def forward(self, view: View) -> Tensor:
        return self.logits_L.expand(view.open_BL.shape)


def some_view(rng: torch.Generator, num_rows: int = 3, length: int = 6, **settings: Any) -> View:
    logits_BLV = torch.randn(num_rows, length, 5, generator=rng) * 2
    masked_BL = torch.rand(num_rows, length, generator=rng) < 0.7
    masked_BL[:, -1] = True
    return view_of(logits_BLV, masked_BL, hidden_size=8, **settings)


def all_open(length: int, num_rows: int = 1) -> View:
    return view_of(torch.zeros(num_rows, length, 3), torch.ones(num_rows, length, dtype=torch.bool))


def randomised(kind: str, rng: torch.Generator) -> nn.Module:
    head = make_head(kind, **CONFIGS[kind])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.3)
    return head


def taken(planner: LearnedPlanner, view: View) -> list[int]:
    """What a deterministic planner takes of the first row."""
    return planner(view).sample(streams(len(view.open_BL)))[0].nonzero().squeeze(-1).tolist()


def test_configs_cover_every_head() -> None:
    assert set(CONFIGS) == set(HEADS)


def test_the_confidence_policy_has_the_published_number_of_parameters() -> None:
    policy = ConfidencePolicy(ConfidencePolicyConfig())
    assert sum(parameter.numel() for parameter in policy.parameters()) == 331_265


def test_the_confidence_policy_starts_by_unmasking_about_an_eighth(rng: torch.Generator) -> None:
    policy = make_head("confidence")
    with torch.no_grad():
        probability_BL = policy(some_view(rng, num_rows=8, length=32)).sigmoid()
    assert float(probability_BL.mean()) == pytest.approx(0.12, abs=0.06)
    assert probability_BL.max() < 0.3


def test_the_confidence_policy_sees_neither_prompt_nor_hidden_states(rng: torch.Generator) -> None:
    policy = randomised("confidence", rng)
    logits_BLV = torch.randn(2, 6, 5, generator=rng)
    masked_BL = torch.ones(2, 6, dtype=torch.bool)
    short = view_of(logits_BLV, masked_BL, num_prompt=1)
    long = view_of(logits_BLV, masked_BL, num_prompt=9)
    assert torch.equal(policy(short), policy(long))


@pytest.mark.parametrize("kind", HEADS)
def test_heads_score_completions_with_a_gradient_for_every_parameter(kind: str, rng: torch.Generator) -> None:
    head = randomised(kind, rng)
    view = some_view(rng)
    scores_BL = head(view)
    assert scores_BL.shape == view.open_BL.shape
    scores_BL.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_changes_the_scores_of_the_dultra_head(side: str, rng: torch.Generator) -> None:
    head = randomised("dultra", rng)
    assert isinstance(head, DultraHead)
    hidden_BTD = torch.randn(2, 7, 8, generator=rng)
    eligible_BT = torch.rand(2, 7, generator=rng) < 0.5
    time_B = torch.tensor([0.25, 0.5])
    by = (3, 0) if side == "left" else (0, 3)
    padded_BTD = nn.functional.pad(hidden_BTD, (0, 0, *by), value=7.0)
    mask_BT = nn.functional.pad(torch.ones(2, 7), by)
    row_BT = torch.arange(2)[:, None]
    alone, among = Padded.of(None, (2, 7), time_B.device), Padded.of(mask_BT, (2, 10), time_B.device)
    shown_BL = torch.tensor([[2, 4, 6], [9, 7, 13]])
    expected_BL = head.scores(hidden_BTD, eligible_BT, time_B, alone, row_BT.expand(2, 7), shown_BL)
    padded_eligible_BT = nn.functional.pad(eligible_BT, by)
    padded_shown_BL = mask_BT.flatten().nonzero().flatten()[shown_BL]
    padded_BL = head.scores(
        padded_BTD, padded_eligible_BT, time_B, among, row_BT.expand(2, 10), padded_shown_BL
    )
    torch.testing.assert_close(padded_BL, expected_BL, rtol=0, atol=1e-5)


def test_the_dultra_head_scores_a_token_whichever_others_are_shown(rng: torch.Generator) -> None:
    head = randomised("dultra", rng)
    assert isinstance(head, DultraHead)
    hidden_BTD = torch.randn(2, 7, 8, generator=rng)
    eligible_BT = torch.rand(2, 7, generator=rng) < 0.5
    layout, row_BT = Padded.of(None, (2, 7), hidden_BTD.device), torch.arange(2)[:, None].expand(2, 7)
    given = (hidden_BTD, eligible_BT, torch.tensor([0.25, 0.5]), layout, row_BT)
    all_BT = head.scores(*given, torch.arange(14).view(2, 7))
    shown_BL = torch.tensor([[6, 0], [7, 11]])
    torch.testing.assert_close(head.scores(*given, shown_BL), all_BT.flatten()[shown_BL], rtol=0, atol=1e-5)


def test_sampling_is_the_law_of_the_scores() -> None:
    view = all_open(3, num_rows=8)
    planner = LearnedPlanner(Constant(1.0, -1.0, 0.0))
    odds = torch.tensor([1.0, -1.0, 0.0]).sigmoid()
    expected = torch.where(all_sets(3), odds, 1 - odds).prod(-1)
    log_prob = planner(view).log_prob(all_sets(3))
    torch.testing.assert_close(log_prob[1:].exp(), expected[1:] / (1 - expected[0]))


def test_threshold_takes_all_that_are_likely_and_always_the_likeliest() -> None:
    view = all_open(4)
    assert taken(LearnedPlanner(Constant(0.1, -0.1, 2.0, 0.0), mode="threshold"), view) == [0, 2, 3]
    assert taken(LearnedPlanner(Constant(-3.0, -1.0, -2.0, -9.0), mode="threshold"), view) == [1]


def test_top_k_takes_as_many_as_the_probabilities_add_up_to() -> None:
    view = all_open(4)
    logits = torch.tensor([0.9, 0.2, 0.6, 0.8]).logit().tolist()  # 2.5 in sum
    assert taken(LearnedPlanner(Constant(*logits), mode="top_k"), view) == [0, 3]
    assert taken(LearnedPlanner(Constant(-3.0, -1.0, -2.0, -9.0), mode="top_k"), view) == [1]


def test_temperature_divides_the_scores() -> None:
    view = all_open(2, num_rows=4)
    cool = LearnedPlanner(Constant(4.0, -2.0), temperature=2.0)(view).log_prob(all_sets(2))
    half = LearnedPlanner(Constant(2.0, -1.0))(view).log_prob(all_sets(2))
    assert torch.equal(cool, half)


def test_the_factor_multiplies_the_probabilities() -> None:
    view = all_open(3, num_rows=8)
    odds = torch.tensor([0.1, 0.3, 0.2])
    scaled = LearnedPlanner(Constant(*odds.logit().tolist()), factor=2.5)
    wanted = LearnedPlanner(Constant(*(odds * 2.5).logit().tolist()))
    torch.testing.assert_close(scaled(view).log_prob(all_sets(3)), wanted(view).log_prob(all_sets(3)))


@pytest.mark.parametrize("law", ["nonempty", "fallback"])
def test_a_larger_factor_never_samples_less(law: Any, rng: torch.Generator) -> None:
    head = Constant(*(torch.randn(16, generator=rng) * 2 - 2).tolist())
    view = all_open(16, num_rows=512)
    means = []
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0, 100.0):
        chosen_BL = LearnedPlanner(head, law=law, factor=factor)(view).sample(streams(512))
        means.append(float(chosen_BL.sum(-1).float().mean()))
    assert means == sorted(means)
    assert means[-1] > 15


@pytest.mark.parametrize("mode", ["threshold", "top_k"])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 20.0])
def test_a_larger_factor_never_takes_less(mode: Mode, shift: float, rng: torch.Generator) -> None:
    head = Constant(*(torch.randn(16, generator=rng) * 2 + shift).tolist())
    factors = (0.25, 0.5, 1.0, 1.01, 2.0, 4.0, 100.0)
    sets = [set(taken(LearnedPlanner(head, mode=mode, factor=f), all_open(16))) for f in factors]
    for smaller, larger in pairwise(sets):
        assert smaller <= larger


def test_the_factor_keeps_the_order_of_unlikely_positions() -> None:
    view = all_open(2, num_rows=4)
    law = LearnedPlanner(Constant(-45.0, -40.0), factor=2.0)(view)
    assert law.log_prob(all_sets(2))[1].exp().item() > 0.99


def test_a_tuned_planner_shares_the_head_and_leaves_the_first_alone() -> None:
    planner = LearnedPlanner(Constant(1.0))
    other = planner.tuned(mode="threshold", factor=2.0)
    assert (other.mode, other.factor) == ("threshold", 2.0)
    assert (planner.mode, planner.factor) == ("sample", 1.0)
    assert other.head is planner.head
    with pytest.raises(ValueError, match="no 'speed'"):
        planner.tuned(speed=2)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"law": "gibbs"}, "nonempty, fallback"),
        ({"mode": "greedy"}, "sample, threshold or top_k"),
        ({"factor": 0.0}, "factor 0"),
        ({"temperature": -1.0}, "temperature -1"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LearnedPlanner(Constant(1.0), **setting)
    with pytest.raises(ValueError, match=match):
        LearnedPlanner(Constant(1.0)).tuned(**setting)


@pytest.mark.parametrize("kind", HEADS)
def test_a_saved_planner_comes_back_bit_for_bit(kind: str, tmp_path: Path, rng: torch.Generator) -> None:
    planner = LearnedPlanner(
        randomised(kind, rng), law="fallback", mode="top_k", factor=1.25, temperature=0.5
    )
    save_planner(tmp_path / "planner", planner)
    loaded = load_planner(tmp_path / "planner")
    assert type(loaded.head) is type(planner.head)
    assert loaded.head.config == planner.head.config
    for name, value in planner.head.state_dict().items():
        assert torch.equal(loaded.head.state_dict()[name], value)
    for name in ("law", "mode", "factor", "temperature"):
        assert getattr(loaded, name) == getattr(planner, name)
    view = some_view(rng)
    assert torch.equal(loaded.head(view), planner.head(view))


def saved(folder: Path) -> Path:
    save_planner(folder / "planner", LearnedPlanner(make_head("linear", hidden_size=8)))
    return folder / "planner"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "planner.json"
    description = json.loads(path.read_text()) | changes
    kept = {name: value for name, value in description.items() if value is not None}
    path.write_text(json.dumps(kept))


def error_of(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        load_planner(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    path = folder / "planner.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert str(path) in error_of(folder)
    path.unlink()
    assert str(path) in error_of(folder)
    (folder / "planner.json").write_text("{")
    assert "planner.json" in error_of(folder)
    (folder / "planner.json").unlink()
    assert "planner.json" in error_of(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, config={"hidden_size": 9})
    assert "'score.weight' has shape (1, 8)" in error_of(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "somebody-elses"},
        {"format": None},
        {"head": "transformer"},
        {"head": None},
        {"config": {"width": 8}},
        {"config": None},
        {"settings": {"speed": 2}},
        {"settings": None},
    ],
    ids=str,
)
def test_a_description_of_something_else_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, **changes)
    error_of(folder)


def test_saving_replaces_the_planner_that_was_there(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    head = make_head("linear", hidden_size=8)
    head.score.bias.data.fill_(3.0)  # type: ignore[union-attr, operator]
    save_planner(folder, LearnedPlanner(head))
    assert load_file(folder / "planner.safetensors")["score.bias"].item() == 3


def test_unknown_heads_name_the_choices() -> None:
    with pytest.raises(ValueError, match="dultra, confidence, linear"):
        make_head("mlp")


def test_a_head_that_has_no_name_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Constant"):
        save_planner(tmp_path / "planner", LearnedPlanner(Constant(1.0)))


def test_the_public_api_has_the_same_functions() -> None:
    assert unmask.load_planner is load_planner
    assert unmask.save_planner is save_planner


@pytest.mark.parametrize("text", ["factor(1.0, 0, 3)", "factor(1.0, factor=2)", "top_k(k=2, k=3)"])
def test_a_planner_word_that_says_too_much_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one setting too many"):
        parse_planner(text)


def test_a_learned_planner_takes_the_dtype_of_its_denoiser() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        planner = parse_planner("bundled/policy(mode=threshold)", dtype=dtype)
        assert isinstance(planner, LearnedPlanner)
        assert {each.dtype for each in planner.parameters()} == {dtype}
    assert parse_planner("factor", dtype=torch.bfloat16) == unmask.planner("factor")


def test_planner_words_take_settings_by_place_and_by_name() -> None:
    assert parse_planner("factor(0.5, 0)") == unmask.planner("factor", factor=0.5, last_pair=0)
    assert parse_planner("factor(last_pair=0)") == unmask.planner("factor", last_pair=0)
    assert parse_planner("top_k") == unmask.planner("top_k")


def test_a_base_without_a_planner_of_its_own_says_who_has_one() -> None:
    with pytest.raises(ValueError, match="--model bundled/dultra"):
        parse_planner("own", own="bundled")


def test_a_head_is_refused_beside_another_denoiser_than_its_own() -> None:
    with pytest.raises(ValueError, match="--model bundled/dultra --planner own"):
        parse_planner("bundled/dultra", own="bundled")
    assert isinstance(parse_planner("bundled/dultra", own="bundled/dultra"), LearnedPlanner)
    assert isinstance(parse_planner("bundled/policy", own="bundled/dultra"), LearnedPlanner)


@pytest.mark.parametrize("text", ["topk(2)", "facter", "threshhold(0.9)"])
def test_a_misspelt_planner_is_answered_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown planner .* use one of .*threshold"):
        parse_planner(text)
