"""Settings that every test shares."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# "repeat" finds the same examples on every run; --hypothesis-profile=explore looks further.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeat")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)
