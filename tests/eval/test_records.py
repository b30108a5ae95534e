from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eval.toys import record
from unmask.eval.records import append_records, read_records


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [
        record(id="a"),
        record(id="b", correct=False, reason="odd", seconds=1e-7, seed=2, usage={"cpu_seconds": 0.5}),
    ]
    append_records(tmp_path / "new" / "records.jsonl", records)
    read = read_records(tmp_path / "new" / "records.jsonl")
    assert read == records
    assert [one.usage for one in read] == [{}, {"cpu_seconds": 0.5}]


@given(st.text(), st.floats(0, 1e6))
def test_any_text_survives_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, seconds: float
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    one = record(completion=text, prompt=text, seconds=seconds)
    append_records(path, [one])
    assert path.read_bytes().count(b"\n") == 1
    assert read_records(path) == [one]


def test_appending_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record(id="a")])
    append_records(path, [record(id="b"), record(id="c")])
    assert [one.id for one in read_records(path)] == ["a", "b", "c"]


def test_each_record_is_on_disk_before_the_next_is_made(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    on_disk = []

    def made() -> object:
        for name in "abc":
            on_disk.append(len(read_records(path)))
            yield record(id=name)

    append_records(path, made())  # type: ignore[arg-type]
    assert on_disk == [0, 1, 2]


def test_appending_after_a_killed_run_drops_only_the_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record(id="a"), record(id="b")])
    path.write_bytes(path.read_bytes()[:-20])
    append_records(path, [record(id="c")])
    assert [one.id for one in read_records(path)] == ["a", "c"]


def test_a_whole_last_line_without_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record(id="a")])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_records(path, [record(id="b")])
    assert [one.id for one in read_records(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda line: line[:40], "Invalid JSON"),
        (lambda line: line.replace('"nfe": 4', '"nfe": "four"'), "nfe: "),
        (lambda line: line.replace('"nfe": 4', '"nfe": 4.5'), "nfe: "),
        (lambda line: line.replace('"nfe": 4, ', ""), "nfe: "),
        (lambda line: line.replace('"nfe"', '"steps"'), "nfe: "),
        (lambda line: line.replace('"cache"', '"cash"'), "cash: "),
        (lambda line: "[1, 2]", "object"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, spoil: object, told: str) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record(id="a"), record(id="b")])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n\n{spoil(second)}\n")  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"records\.jsonl, line 3: ") as caught:
        read_records(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_of_the_first_version_can_be_read(tmp_path: Path) -> None:
    line = (
        '{"task": "chain", "version": 1, "id": "test-0", "prompt": "?", "completion": "answer 3", '
        '"correct": true, "reason": "", "nfe": 8, "tokens": 3, "length": 64, "block_length": 32, '
        '"seconds": 0.1, "seed": 0, "planner": "top_k(8)", "temperature": 0.0, '
        '"model": "bundled", "cache": "none"}'
    )
    (tmp_path / "old.jsonl").write_text(line + "\n")
    (one,) = read_records(tmp_path / "old.jsonl")
    assert (one.nfe_full, one.nfe_block, one.nfe_planner, one.cache_exact) == (8, 0, 0, True)
    assert (one.stop_at_eos, one.dtype, one.weights) == (False, "float32", "")


def test_records_cannot_change() -> None:
    with pytest.raises(AttributeError):
        record().nfe = 1  # type: ignore[misc]
