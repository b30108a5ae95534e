"""Random streams: uniform, independent, and a function of row, step and name alone."""

import pytest
import torch

from unmask.rng import RowStreams, derive, generator, python_random, row_seeds


def streams(num_rows: int = 4, step: int = 0, seed: int = 0) -> RowStreams:
    seed_B = torch.tensor([derive(seed, row) for row in range(num_rows)])
    return RowStreams(seed_B, torch.full_like(seed_B, step))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_numbers_are_uniform_in_the_open_interval() -> None:
    numbers = streams(64).uniform("tokens", 4096)
    assert numbers.dtype == torch.float32
    assert 0 < numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    counts = torch.histc(numbers, bins=256, min=0, max=1)
    expected = numbers.numel() / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 180 < chi_square < 340  # 255 degrees of freedom, standard deviation 22.6
    assert (numbers.mean(-1) - 0.5).abs().max() < 0.02  # 4.4 standard deviations
    assert abs(float(numbers.var()) - 1 / 12) < 1e-3


def test_low_bits_are_uniform_too() -> None:
    numbers = streams(64).uniform("tokens", 4096)
    counts = torch.histc((numbers * 2**15) % 1, bins=64, min=0, max=1)
    assert (counts / (numbers.numel() / 64) - 1).abs().max() < 0.07


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    noise = streams(64).gumbel("tokens", 4096)
    assert noise.isfinite().all()
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - torch.pi**2 / 6) < 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_along_every_axis_are_uncorrelated(axis: int) -> None:
    numbers = streams(64).uniform("tokens", 64, 64)
    size = numbers.shape[axis] - 1
    assert abs(correlation(numbers.narrow(axis, 0, size), numbers.narrow(axis, 1, size))) < 0.01


def test_names_steps_and_seeds_give_unrelated_numbers() -> None:
    numbers = streams(16).uniform("tokens", 4096)
    others = [
        streams(16).uniform("subset", 4096),
        streams(16, step=1).uniform("tokens", 4096),
        streams(16, seed=1).uniform("tokens", 4096),
    ]
    for other in others:
        assert not (numbers == other).all(-1).any()
        assert abs(correlation(numbers, other)) < 0.02


def test_consecutive_seeds_and_steps_share_no_sequence() -> None:
    seed_B = torch.arange(256)
    first = RowStreams(seed_B, torch.zeros_like(seed_B)).uniform("tokens", 8)
    second = RowStreams(seed_B, torch.ones_like(seed_B)).uniform("tokens", 8)
    assert len(torch.cat([first, second]).unique()) > 0.999 * 2 * first.numel()


def test_repeated_calls_give_the_same_numbers() -> None:
    assert torch.equal(streams().uniform("tokens", 7, 3), streams().uniform("tokens", 7, 3))


def test_a_row_draws_the_same_numbers_whatever_else_is_in_the_batch(rng: torch.Generator) -> None:
    batch = streams(6, step=3)
    order = torch.randperm(6, generator=rng)[:4]
    some = RowStreams(batch.seed_B[order], batch.step_B[order])
    assert torch.equal(batch.uniform("tokens", 5, 2)[order], some.uniform("tokens", 5, 2))
    mixed = RowStreams(batch.seed_B, torch.arange(6))
    alone = RowStreams(batch.seed_B[4:5], torch.tensor([4]))
    assert torch.equal(mixed.uniform("subset", 9)[4:5], alone.uniform("subset", 9))


def test_a_longer_row_starts_with_the_numbers_of_a_shorter_one() -> None:
    assert torch.equal(streams().uniform("tokens", 9, 5)[:, :4], streams().uniform("tokens", 4, 5))


def test_positions_at_hand_get_the_numbers_that_they_get_among_all() -> None:
    position_BL = torch.tensor([[2, 3, 8]]).expand(4, 3)
    some = RowStreams(streams(4).seed_B, streams(4).step_B, position_BL)
    assert torch.equal(some.uniform("subset", 3), streams(4).uniform("subset", 9)[:, [2, 3, 8]])
    assert torch.equal(some.uniform("stop"), streams(4).uniform("stop"))
    for draw in (some.uniform, some.gumbel, some.words):
        for size in (1, 9):
            with pytest.raises(ValueError, match=f"{size} random numbers for the 3 positions of a row"):
                draw("subset", size)


def test_derived_seeds_depend_on_every_part_and_its_order() -> None:
    seeds = [derive(0), derive(1), derive(0, "a"), derive(0, "a", 1), derive(0, 1, "a")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert derive(0, "rollout", 3) == derive(0, "rollout", 3)


def test_generators_repeat_and_differ_by_name() -> None:
    draws = [torch.rand(4, generator=generator(0, name)) for name in ("head", "head", "net")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert python_random(0, "task").random() == python_random(0, "task").random()
    assert python_random(0, "task").random() != python_random(1, "task").random()


def test_a_prompt_has_the_same_seed_alone_and_among_others() -> None:
    seeds = row_seeds(7, [[1, 2], [3], [1, 2], [1, 2]])
    assert row_seeds(7, [[3]]) == [seeds[1]]
    assert row_seeds(7, [[1, 2], [1, 2]]) == [seeds[0], seeds[2]]
    assert len(set(seeds)) == 4
    assert not set(seeds) & set(row_seeds(8, [[1, 2], [3], [1, 2], [1, 2]]))


def test_one_seed_per_prompt_is_taken_as_it_is() -> None:
    assert row_seeds([5, 5], [[1], [2]]) == row_seeds([5, 5], [[3], [4]])
    assert len(set(row_seeds([5, 6], [[1], [1]]))) == 2
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        row_seeds([5], [[1], [2]])


def test_row_seeds_look_at_the_ids_not_at_their_type() -> None:
    prompt = [3, 1, 4]
    assert row_seeds(0, [prompt, prompt]) == row_seeds(0, [torch.tensor(prompt), torch.tensor(prompt)])
