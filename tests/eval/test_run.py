from dataclasses import replace

import pytest
import torch

from tests.eval.toys import EOS, MASK, PAD, CharTokenizer, CountingDenoiser, ParityTask
from unmask.eval.records import Record
from unmask.eval.run import EvalResult, evaluate
from unmask.planners.load import planner


def run(**changes: object) -> EvalResult:
    settings: dict[str, object] = {
        "label": "random(2)",
        "model": "toy",
        "num_problems": 7,
        "length": 8,
        "block_length": 4,
        "temperature": 1.0,
    }
    denoiser = CountingDenoiser(CharTokenizer())
    chosen = planner("random", k=2)
    return evaluate(denoiser, chosen, ParityTask(), **{**settings, **changes})  # type: ignore[arg-type]


def untimed(records: list[Record]) -> list[Record]:
    return [replace(one, seconds=0.0) for one in records]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    assert untimed(run(batch_size=batch_size, seeds=(0, 4)).records) == untimed(run(seeds=(0, 4)).records)


def test_results_do_not_depend_on_the_number_of_problems_or_seeds() -> None:
    many = {(one.seed, one.id): one for one in untimed(run(num_problems=9, seeds=(5, 0)).records)}
    for one in untimed(run(num_problems=3).records):
        assert many[one.seed, one.id] == one


def test_seeds_differ_from_each_other() -> None:
    first, second = (run(seeds=(seed,)).records for seed in (0, 1))
    assert [one.completion for one in first] != [one.completion for one in second]


def test_a_record_says_what_was_run() -> None:
    records = run(seeds=(3,), num_problems=2).records
    assert [one.id for one in records] == ["test-0", "test-1"]
    one = records[1]
    assert (one.task, one.version, one.prompt, one.seed) == ("parity", 3, "11=", 3)
    assert (one.planner, one.model, one.cache, one.temperature) == ("random(2)", "toy", "none", 1.0)
    assert (one.length, one.block_length, one.nfe) == (8, 4, 4)
    assert one.seconds > 0


def test_completion_and_tokens_follow_the_trajectory() -> None:
    result = run(keep_trajectories=7)
    for one, row in zip(result.records, result.trajectories, strict=True):
        tokens = row.tokens.tolist()
        before_eos = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
        assert one.completion == CharTokenizer().decode(before_eos, skip_special_tokens=False)
        assert one.tokens == sum(token not in (EOS, PAD) for token in tokens)
        assert one.nfe == row.nfe
        assert MASK not in tokens
        assert one.correct == (one.reason == "")
    assert len({one.correct for one in result.records}) == 2


def test_the_split_is_the_one_asked_for() -> None:
    assert run(split="train", num_problems=1).records[0].id == "train-0"


@pytest.mark.parametrize("keep", [0, 3, 50])
def test_the_first_trajectories_are_kept(keep: int) -> None:
    result = run(keep_trajectories=keep, batch_size=2)
    assert len(result.trajectories) == min(keep, 7)
    for row, all_of_it in zip(result.trajectories, run(keep_trajectories=7).trajectories, strict=False):
        assert torch.equal(row.tokens, all_of_it.tokens)


def test_progress_counts_rows_up_to_all() -> None:
    seen: list[tuple[int, int]] = []
    run(batch_size=5, seeds=(0, 1), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 14), (10, 14), (14, 14)]


def test_stopping_at_eos_never_costs_calls() -> None:
    stopped, full = run(stop_at_eos=True, num_problems=20), run(num_problems=20)
    pairs = list(zip(stopped.records, full.records, strict=True))
    assert all(one.nfe <= other.nfe for one, other in pairs)
    assert any(one.nfe < other.nfe for one, other in pairs)


def test_a_denoiser_without_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"toy has no tokenizer"):
        evaluate(
            CountingDenoiser(),  # type: ignore[arg-type]
            planner("random", k=2),
            ParityTask(),
            label="random(2)",
            model="toy",
            num_problems=1,
            length=8,
            block_length=4,
        )


@pytest.mark.parametrize("nothing", [{"num_problems": 0}, {"batch_size": 0}, {"seeds": ()}])
def test_an_empty_evaluation_is_refused(nothing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        run(**nothing)
