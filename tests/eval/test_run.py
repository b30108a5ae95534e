"""What an evaluation writes, and what changes nothing about it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.eval.toys import EOS, MASK, PAD, CharTokenizer, CountingDenoiser, ParityTask
from unmask.eval.alone import alone
from unmask.eval.compare import replays
from unmask.eval.provenance import fingerprint, note_launch, read_launches
from unmask.eval.records import Record, append_records, read_records
from unmask.eval.run import Conditions, Setting, evaluate, loop_decode, make_assignments
from unmask.eval.traces import read_traces, traces_path
from unmask.planners.load import make_head, planner
from unmask.tasks.base import Split
from unmask.trajectory import Trajectory


def setting(**changes: Any) -> Setting:
    denoiser = CountingDenoiser(CharTokenizer())
    return replace(Setting("toy", denoiser, "random(2)", planner("random", k=2), 4), **changes)


def run(out: Path | None = None, traces: bool = False, **changes: Any) -> list[Record]:
    conditions = Conditions(length=8, num_problems=7, temperature=1.0)
    return evaluate(setting(), ParityTask(), replace(conditions, **changes), out=out, traces=traces)


def untimed(records: Sequence[Record]) -> list[Record]:
    return [replace(one, seconds=0.0) for one in records]


def by_sample(records: Sequence[Record]) -> list[Record]:
    return sorted(untimed(records), key=lambda one: one.sample)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    assert untimed(run(batch_size=batch_size, seeds=(0, 4))) == untimed(run(seeds=(0, 4)))


def test_rows_may_finish_in_any_order() -> None:
    def backwards(*words: Any, **settings: Any) -> Any:
        return reversed(list(loop_decode(*words, **settings)))

    conditions = Conditions(length=8, num_problems=7, temperature=1.0, batch_size=3)
    assert untimed(evaluate(setting(decode=backwards), ParityTask(), conditions)) == untimed(run())


def test_results_do_not_depend_on_the_number_of_problems_or_seeds() -> None:
    many = {(one.seed, one.id): one for one in untimed(run(num_problems=9, seeds=(5, 0)))}
    for one in untimed(run(num_problems=3)):
        assert many[one.seed, one.id] == one


def test_seeds_differ_from_each_other() -> None:
    first, second = (run(seeds=(seed,)) for seed in (0, 1))
    assert [one.completion for one in first] != [one.completion for one in second]


def test_a_record_says_what_was_run() -> None:
    records = run(seeds=(3,), num_problems=2, stop_at_eos=True)
    assert [one.id for one in records] == ["test-0", "test-1"]
    one = records[1]
    assert (one.task, one.version, one.prompt, one.seed) == ("parity", 3, "11=", 3)
    assert (one.planner, one.model, one.cache, one.temperature) == ("random(2)", "toy", "none", 1.0)
    assert (one.length, one.block_length, one.stop_at_eos) == (8, 4, True)
    assert (one.dtype, one.weights) == ("float32", "")
    assert one.seconds > 0


def test_completion_and_tokens_follow_the_trajectory() -> None:
    rows: dict[int, Trajectory] = {}

    def watched(denoiser: Any, prompts: Sequence[Sequence[int]], *words: Any, **settings: Any) -> Any:
        for place, row in loop_decode(denoiser, prompts, *words, **settings):
            rows[settings["seed"][place]] = row
            yield place, row

    one_by_one = Conditions(length=8, num_problems=7, temperature=1.0, batch_size=1)
    records = evaluate(setting(decode=watched), ParityTask(), one_by_one)
    assert len(rows) == 7
    wrong = 0
    for one in records:
        (row,) = [
            row for row in rows.values() if CharTokenizer().decode(row.prompt.tolist(), False) == one.prompt
        ]
        tokens = row.tokens.tolist()
        before_eos = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
        assert one.completion == CharTokenizer().decode(before_eos, skip_special_tokens=False)
        assert one.tokens == sum(token not in (EOS, PAD) for token in tokens)
        assert one.nfe == row.nfe
        assert MASK not in tokens
        assert one.correct == (one.reason == "")
        wrong += not one.correct
    assert 0 < wrong < 7


def test_the_split_is_the_one_asked_for() -> None:
    assert run(split="train", num_problems=1)[0].id == "train-0"


@pytest.mark.parametrize("wanted", [None, 1000])
def test_a_finite_task_ends(wanted: int | None) -> None:
    assert len(run(num_problems=wanted)) == 40


def test_all_of_an_endless_task_is_refused() -> None:
    class Endless(ParityTask):
        def num_problems(self, split: Split) -> int | None:
            return None

    with pytest.raises(ValueError, match="parity never ends"):
        evaluate(setting(), Endless(), Conditions(length=8))


def test_progress_counts_rows_up_to_all() -> None:
    seen: list[tuple[int, int]] = []
    conditions = Conditions(length=8, num_problems=7, seeds=(0, 1), batch_size=5)
    evaluate(setting(), ParityTask(), conditions, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(5, 14), (10, 14), (14, 14)]


def test_the_longest_prompts_go_first_and_like_lengths_together() -> None:
    lengths: list[int] = []

    def watched(denoiser: Any, prompts: Sequence[Sequence[int]], *words: Any, **settings: Any) -> Any:
        lengths.extend(map(len, prompts))
        return loop_decode(denoiser, prompts, *words, **settings)

    evaluate(setting(decode=watched), ParityTask(), Conditions(length=8, num_problems=12, batch_size=3))
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 2


def test_stopping_at_eos_never_costs_calls() -> None:
    pairs = list(zip(run(stop_at_eos=True, num_problems=20), run(num_problems=20), strict=True))
    assert all(one.nfe <= other.nfe for one, other in pairs)
    assert any(one.nfe < other.nfe for one, other in pairs)


def test_a_denoiser_without_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"toy has no tokenizer"):
        evaluate(setting(denoiser=CountingDenoiser()), ParityTask(), Conditions(length=8, num_problems=1))


@pytest.mark.parametrize("nothing", [{"num_problems": 0}, {"batch_size": 0}, {"seeds": ()}])
def test_an_empty_evaluation_is_refused(nothing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        run(**nothing)


class Killed(Exception):
    pass


def killed_after(num_rows: int) -> Callable[..., Any]:
    def decode_until(*words: Any, **settings: Any) -> Any:
        yield from islice(loop_decode(*words, **settings), num_rows)
        raise Killed

    return decode_until


@pytest.mark.parametrize("torn", [0, 30])
def test_a_resumed_evaluation_equals_an_unbroken_one(tmp_path: Path, torn: int) -> None:
    out = tmp_path / "records.jsonl"
    conditions = Conditions(length=8, num_problems=9, seeds=(0, 1), temperature=1.0, batch_size=4)
    with pytest.raises(Killed):
        evaluate(setting(decode=killed_after(14)), ParityTask(), conditions, out=out)
    assert len(read_records(out)) == 12
    out.write_bytes(out.read_bytes()[: len(out.read_bytes()) - torn])
    calls: list[int] = []

    def counted(denoiser: Any, prompts: Sequence[Sequence[int]], *words: Any, **settings: Any) -> Any:
        calls.append(len(prompts))
        return loop_decode(denoiser, prompts, *words, **settings)

    if torn:  # a torn last line is an error to a reader, until a writer has mended it
        with pytest.raises(ValueError, match="line 12"):
            read_records(out)
    resumed = evaluate(setting(decode=counted), ParityTask(), conditions, out=out)
    unbroken = evaluate(setting(), ParityTask(), conditions)
    assert untimed(resumed) == untimed(unbroken)
    assert by_sample(read_records(out)) == by_sample(unbroken)
    assert sum(calls) == 6 + bool(torn)


def test_a_finished_evaluation_decodes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    first = run(out)
    again = evaluate(
        setting(decode=lambda *_, **__: iter(())),
        ParityTask(),
        Conditions(length=8, num_problems=7, temperature=1.0),
        out=out,
    )
    assert again == first


def test_more_problems_or_seeds_go_on_in_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run(out, num_problems=3)
    run(out, num_problems=5, seeds=(0, 1))
    assert by_sample(read_records(out)) == by_sample(run(num_problems=5, seeds=(0, 1)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 0.5}, "temperature 1.0, not 0.5"),
        ({"length": 16}, "length 8, not 16"),
        ({"stop_at_eos": True}, "stop_at_eos False, not True"),
    ],
)
def test_a_file_of_other_settings_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    out = tmp_path / "records.jsonl"
    run(out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=says):
        run(out, **changes)
    assert out.read_bytes() == before


def test_a_file_of_another_split_or_of_other_problems_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run(out, split="train")
    with pytest.raises(ValueError, match=r"holds train-\d, of another split than test"):
        run(out)
    other = tmp_path / "other.jsonl"
    append_records(other, [replace(one, prompt="another") for one in run()])
    with pytest.raises(ValueError, match=r"holds another problem under the id test-\d"):
        run(other)


def test_other_planners_share_a_file(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run(out)
    other = setting(label="top_k(2)", planner=planner("top_k", k=2))
    evaluate(other, ParityTask(), Conditions(length=16, num_problems=2), out=out)
    assert len(read_records(out)) == 9


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    append_records(out, [replace(one, weights="0badcafe") for one in run()])
    with pytest.raises(ValueError, match="weights '0badcafe'"):
        run(out)


def test_a_fingerprint_changes_with_any_tensor() -> None:
    head = make_head("confidence")
    before = fingerprint(head)
    assert before == fingerprint(head)
    assert len(before) == 8
    for parameter in head.parameters():
        with torch.no_grad():
            parameter += 0.01
        assert fingerprint(head) != before
        before = fingerprint(head)
    assert fingerprint(CountingDenoiser()) == ""


def test_traces_lie_beside_the_records_and_hold_the_steps(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    records = run(out, traces=True, stop_at_eos=True)
    assert traces_path(out).name == "records.traces.jsonl"
    held = read_traces(out)[records[0].run]
    assert held.keys() == {one.sample for one in records}
    for one in records:
        trace = held[one.sample]
        assert max(trace.unmask_step) + 1 == one.nfe
        assert [step < 0 for step in trace.unmask_step] == [told is None for told in trace.confidence]
        assert EOS not in trace.tokens[: trace.content - 1]


def test_traced_confidences_are_what_the_denoiser_said_at_that_step(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    (one,) = run(out, traces=True, num_problems=1)
    trace = read_traces(out)[one.run][one.sample]
    denoiser = CountingDenoiser()
    prompt = CharTokenizer().encode(one.prompt, add_special_tokens=False)
    for position, (token, step) in enumerate(zip(trace.tokens, trace.unmask_step, strict=True)):
        state = [
            MASK if when >= step else other
            for other, when in zip(trace.tokens, trace.unmask_step, strict=True)
        ]
        logits = denoiser(torch.tensor([prompt + state])).logits[0, len(prompt) + position]
        logits[MASK] = -torch.inf
        assert trace.confidence[position] == pytest.approx(float(logits.softmax(-1)[token]), abs=1e-5)


def test_traces_of_records_made_without_them_are_asked_for_in_another_file(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run(out)
    with pytest.raises(ValueError, match="without traces; give another --out"):
        run(out, traces=True)


def test_rows_alone_and_together_are_the_same_in_float32() -> None:
    found = alone(setting(), ParityTask(), Conditions(length=8, temperature=1.0), 6)
    assert (found.rows, found.same_tokens, found.same_grade, found.nfe_difference) == (6, 6, 6, 0)
    with pytest.raises(ValueError, match="2 or more"):
        alone(setting(), ParityTask(), Conditions(length=8), 1)


def test_rows_that_depend_on_their_neighbours_are_counted() -> None:
    def leaky(denoiser: Any, prompts: Any, *words: Any, **settings: Any) -> Any:
        settings["seed"] = [seed + len(prompts) for seed in settings["seed"]]
        return loop_decode(denoiser, prompts, *words, **settings)

    found = alone(setting(decode=leaky), ParityTask(), Conditions(length=8, temperature=1.0), 6)
    assert found.same_tokens < 6


def test_launches_are_noted_beside_the_records(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    note_launch(out, model="toy")
    note_launch(out, model="other")
    first, second = read_launches(out)
    assert (first["model"], second["model"]) == ("toy", "other")
    assert first["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert first["hardware"]["threads"] == torch.get_num_threads()
    json.dumps(first)
    assert read_launches(tmp_path / "none.jsonl") == []
    (tmp_path / "records.jsonl.meta.json").write_text("[")
    with pytest.raises(ValueError, match=r"records\.jsonl\.meta\.json is no list of launches"):
        note_launch(out)


def test_replays_put_the_settings_of_a_problem_side_by_side() -> None:
    other = setting(label="top_k(2)", planner=planner("top_k", k=2))
    rows = replays([setting(), other], [ParityTask()], Conditions(length=8, num_problems=5), 2)
    assert [row.title.split()[0] for row in rows] == ["random(2)", "top_k(2)"] * 2
    assert [row.prompt for row in rows] == ["0="] * 2 + ["11="] * 2


def test_make_assignments_goes_seed_by_seed() -> None:
    assignments = make_assignments(
        setting(), ParityTask(), Conditions(length=8, num_problems=2, seeds=(4, 1))
    )
    assert [(each.seed, each.problem.id) for each in assignments] == [
        (4, "test-0"),
        (4, "test-1"),
        (1, "test-0"),
        (1, "test-1"),
    ]
