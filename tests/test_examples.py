"""The examples do what they say."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_one_file_example_finds_the_two_step_order(capsys: pytest.CaptureFixture[str]) -> None:
    valid, nfe = runpy.run_path(str(EXAMPLES / "grpo_in_one_file.py"))["main"]()
    assert valid >= 0.95
    assert nfe <= 2.2
    assert "NFE" in capsys.readouterr().out
