"""Where the rows of published tasks come from, and what is refused."""

import json
from pathlib import Path

import huggingface_hub
import pyarrow
import pytest
from pyarrow import parquet

from unmask.tasks.data import Row, Source, digest, load_rows
from unmask.tasks.gsm8k import Gsm8kRow
from unmask.tasks.load import load_task

ROWS = [
    {"question": "1 + 1, as “two”\u2028?", "answer": "#### 2"},
    {"question": "2 + 2?", "answer": "#### 4"},
]
SOURCE = Source("sums/test.jsonl", Gsm8kRow, digest(ROWS), "owner/sums:main/test.parquet")


def write(folder: Path, rows: list[Row], *, ascii_only: bool = True) -> Path:
    file = folder / SOURCE.file
    file.parent.mkdir(parents=True)
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_rows_come_from_a_folder_however_the_file_writes_them(tmp_path: Path, ascii_only: bool) -> None:
    file = write(tmp_path, ROWS, ascii_only=ascii_only)
    assert list(load_rows(SOURCE, str(tmp_path))) == ROWS
    assert list(load_rows(SOURCE, str(file))) == ROWS


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ROWS)
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path))
    assert list(load_rows(SOURCE)) == ROWS


def test_a_changed_file_is_refused_by_name_unless_the_user_says_it_is_his(tmp_path: Path) -> None:
    file = write(tmp_path, [ROWS[0], {**ROWS[1], "answer": "#### 5"}])
    with pytest.raises(ValueError, match=r"sums/test.jsonl does not hold the published rows.*check=no"):
        load_rows(SOURCE, str(tmp_path))
    assert len(load_rows(SOURCE, str(file), check=False)) == 2


def test_a_parquet_file_of_the_hub_has_the_checksum_of_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pyarrow.Table.from_pylist([dict(reversed(row.items())) for row in ROWS])
    parquet.write_table(table, tmp_path / "test.parquet")
    asked = []

    def download(repo: str, name: str, *, repo_type: str) -> str:
        asked.append((repo, name, repo_type))
        return str(tmp_path / "test.parquet")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert list(load_rows(SOURCE)) == ROWS
    assert asked == [("owner/sums", "main/test.parquet", "dataset")]


def test_without_hub_and_folder_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"owner/other from the hub .*set UNMASK_DATA to .* o/t.jsonl"):
        load_rows(Source("o/t.jsonl", Gsm8kRow, "", "owner/other:t.jsonl"))


def test_a_folder_without_the_file_and_a_broken_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sums/test.jsonl does not exist"):
        load_rows(SOURCE, str(tmp_path))
    file = write(tmp_path, ROWS)
    file.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"test.jsonl, line 2 is no JSON"):
        load_rows(SOURCE, str(file))


GOOD: dict[str, Row] = {
    "gsm8k": ROWS[0],
    "math500": {"problem": "1 + 1?", "solution": "2", "answer": "2", "unique_id": "a/1"},
    "humaneval": {
        "task_id": "Own/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(f):\n    assert f(1) == 1\n",
        "canonical_solution": "    return x\n",
    },
    "mbpp": {
        "task_id": 1,
        "text": "Return x.",
        "code": "def f(x):\n    return x",
        "test_setup_code": "",
        "test_list": ["assert f(1) == 1"],
    },
    "apps": {"question": "Add.", "difficulty": "introductory", "input_output": "", "solutions": ""},
    "countdown": {"input": "1,2,3", "output": "6"},
    "sudoku4": {"puzzle": "3102200002100320", "solution": "3142243142131324"},
}


@pytest.mark.parametrize(
    ("task", "bad", "message"),
    [
        *((task, {}, ": Field required") for task in GOOD),
        *((task, dict.fromkeys(row, 5), ": Input should be a valid") for task, row in GOOD.items()),
        ("mbpp", GOOD["mbpp"] | {"test_list": ["assert g(1) == 1"]}, "its tests call no function"),
        ("mbpp", GOOD["mbpp"] | {"code": "def f(x)"}, "its code or tests are no Python"),
        ("apps", GOOD["apps"] | {"solutions": "x = 1"}, "solutions: "),
        ("countdown", GOOD["countdown"] | {"input": "1+2"}, "input: "),
        ("sudoku4", GOOD["sudoku4"] | {"puzzle": "3102"}, "puzzle: "),
    ],
)
def test_a_row_of_own_data_without_the_fields_is_named(
    tmp_path: Path, task: str, bad: Row, message: str
) -> None:
    file = tmp_path / "mine.jsonl"
    load = f"{task}(path={file})" if task == "apps" else f"{task}(path={file}, check=no)"
    file.write_text(json.dumps(GOOD[task]) + "\n")
    assert load_task(load).num_problems("test") == (0 if task == "apps" else 1)
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps(GOOD[task]) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(ValueError, match=rf"other.jsonl, row 2: .*{message}") as caught:
        load_task(load.replace("mine", "other")).num_problems("test")
    assert "\n" not in str(caught.value)


def test_apps_leaves_out_a_row_whose_tests_are_no_pairs(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [GOOD["apps"] | {"input_output": text} for text in ("[1]", '{"fn_name": "f", "inputs": [[1]]}')]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_task(f"apps(path={file})").num_problems("test") == 0
