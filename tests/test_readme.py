"""What the README says runs."""

import re
from pathlib import Path
from typing import Any

import pytest

import unmask

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_first_python_block_decodes_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    exec(compile(code.group(1), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "\nanswer 37" in printed  # 20 + (14 + 3)
    assert "calls for 64 positions" in printed


def test_the_other_prompt_is_answered_rightly_in_blocks_and_at_once() -> None:
    found = re.search(r"`(Write f: .*?)`\)", README)
    assert found is not None
    prompt = found.group(1).replace("\\n", "\n")
    denoiser, planner = unmask.load_denoiser("bundled/dultra"), unmask.load_planner("bundled/dultra")
    tokens = denoiser.tokenizer.encode(prompt, add_special_tokens=False)
    for block_length in (32, 64):
        row = unmask.decode(
            denoiser, [tokens], planner.tuned(mode="threshold"), length=64, block_length=block_length
        )[0]
        program = (
            prompt.splitlines()[1] + "\n" + denoiser.tokenizer.decode(row.tokens, skip_special_tokens=True)
        )
        names: dict[str, Any] = {}
        exec(program, names)
        assert names["f"]([1, 2, 3, 5]) == 4 + 6 + 8  # 4, 5, 6, 8 without the 5


def test_every_table_row_has_as_many_cells_as_its_header() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
