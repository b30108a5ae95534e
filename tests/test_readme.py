"""What the README says runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_first_python_block_decodes_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    exec(compile(code.group(1), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "\nanswer 37" in printed  # 20 + (14 + 3)
    assert "calls for 64 positions" in printed


def test_every_table_row_has_as_many_cells_as_its_header() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
