"""A denoiser to start from, trained for two steps."""

from pathlib import Path

import pytest

from tests.train.small import denoise_recipe, train


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train(denoise_recipe(steps=2), folder)
    return folder / "final"
