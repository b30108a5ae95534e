"""Training examples are a function of the step alone."""

import pytest
import torch

from tests.train.small import denoise_recipe
from unmask.tasks.load import load_task
from unmask.tasks.tokenizer import build_tokenizer
from unmask.train.data import Examples, ReferenceBatches, batches, noise_streams, random_mask

TOKENIZER = build_tokenizer()
EOS = TOKENIZER.eos_token_id


def references(rank: int = 0, size: int = 1, batch_size: int = 6) -> ReferenceBatches:
    return ReferenceBatches(
        denoise_recipe(tasks=("chain", "code"), batch_size=batch_size), TOKENIZER, rank, size
    )


def assert_same(one: Examples, other: Examples) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_row_is_a_padded_prompt_and_a_right_completion_filled_with_eos() -> None:
    data = references()
    for row in range(6):
        tokens_T, mask_T = (part[row] for part in data[2][:2])
        task = load_task(("chain", "code")[row % 2])
        problem = task.problem("train", (2 * 6 + row) // 2)
        assert TOKENIZER.decode(tokens_T[:48][mask_T[:48]]) == problem.prompt
        assert mask_T[48:].all()
        completion = TOKENIZER.decode(tokens_T[48:]).split("<|eos|>")[0]
        assert task.grade([problem], [completion])[0].correct
        assert (tokens_T[48:] == EOS).any()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_share_out_what_one_would_see(size: int) -> None:
    whole = references()[3]
    parts = [references(rank, size)[3] for rank in range(size)]
    assert_same(whole, Examples(*(torch.cat(each) for each in zip(*parts, strict=True))))


def test_a_stream_can_start_anywhere_and_be_made_by_other_processes() -> None:
    data = references(batch_size=2)
    expected = [data[step] for step in range(3, 6)]
    for num_workers in (0, 2):
        found = list(batches(data, 3, 6, num_workers))
        assert len(found) == 3
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "error", [ValueError("problem 7 is too long"), OSError(5, "Input/output error", "x")]
)
def test_a_mistake_in_the_data_is_told_as_it_was_made_whichever_process_finds_it(
    num_workers: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ReferenceBatches.__getitem__

    def fails_at_two(self: ReferenceBatches, step: int) -> Examples:
        if step == 2:
            raise error
        return made(self, step)

    monkeypatch.setattr(ReferenceBatches, "__getitem__", fails_at_two)
    stream = batches(references(batch_size=2), 0, 4, num_workers)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(type(error)) as told:
        next(stream)
    assert str(told.value) == str(error)


def test_steps_do_not_repeat_problems() -> None:
    data = references()
    assert not torch.equal(data[0].tokens_BT, data[1].tokens_BT)
    assert data[1].index_B.tolist() == list(range(6, 12))


def test_the_noise_of_a_row_does_not_depend_on_its_batch() -> None:
    index_B = torch.arange(8)
    noise_BL = noise_streams(0, "denoise", index_B).uniform("mask", 5)
    assert torch.equal(noise_streams(0, "denoise", index_B[3:4]).uniform("mask", 5), noise_BL[3:4])
    assert not torch.equal(noise_streams(1, "denoise", index_B).uniform("mask", 5), noise_BL)
    assert not torch.equal(noise_streams(0, "init", index_B).uniform("mask", 5), noise_BL)


def test_a_mask_covers_its_share_rounded_up_and_at_least_one(rng: torch.Generator) -> None:
    ratio_B = torch.tensor([0.0, 0.01, 0.125, 0.13, 0.99, 1.0])
    masked_BL = random_mask(ratio_B, torch.rand(6, 8, generator=rng))
    assert masked_BL.sum(-1).tolist() == [1, 1, 1, 2, 8, 8]


def test_every_position_is_as_likely_to_be_masked(rng: torch.Generator) -> None:
    masked_BL = random_mask(torch.full((20_000,), 0.5), torch.rand(20_000, 8, generator=rng))
    assert (masked_BL.float().mean(0) - 0.5).abs().max() < 0.02
