"""Two processes, over gloo, evaluate what one does. They run `evaluate_toys.py`."""

import json
from pathlib import Path

import pytest

from tests.launch import side_by_side
from unmask.eval.records import read_records
from unmask.eval.traces import read_traces
from unmask.workers import Workers, workers


def launch(folder: Path, size: int) -> None:
    folder.mkdir(exist_ok=True)
    side_by_side(size, "-m", "tests.eval.evaluate_toys", folder)


def untimed(path: Path) -> list[dict[str, object]]:
    return [{**one, "seconds": 0} for one in json.loads(path.read_text())]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One process; two; two that go on where one was killed."""
    base = tmp_path_factory.mktemp("processes")
    found = {name: base / name for name in ("one", "two", "resumed")}
    launch(found["one"], 1)
    launch(found["two"], 2)
    found["resumed"].mkdir()
    for name in ("records.jsonl", "records.traces.jsonl"):
        lines = (found["one"] / name).read_bytes().splitlines(keepends=True)
        (found["resumed"] / name).write_bytes(b"".join(lines[:7]) + lines[7][:50])
    launch(found["resumed"], 2)
    return found


@pytest.mark.parametrize("name", ["two", "resumed"])
def test_two_processes_make_the_records_of_one(folders: dict[str, Path], name: str) -> None:
    for file in ("written.json", "gathered.json"):
        one, other = (untimed(folders[each] / file) for each in ("one", name))
        assert len(one) == 26
        assert other == one


@pytest.mark.parametrize("name", ["two", "resumed"])
def test_they_write_each_record_and_trace_once_into_one_file(folders: dict[str, Path], name: str) -> None:
    records = read_records(folders[name] / "records.jsonl")
    assert len(records) == len({one.sample for one in records}) == 26
    one, other = (read_traces(folders[each] / "records.jsonl") for each in ("one", name))
    assert other == one


def test_processes_find_each_other_when_no_device_is_named() -> None:
    """Without a GPU, too."""
    program = "from unmask.workers import workers; g = workers(); print(g.rank, g.size); g.leave()"
    assert side_by_side(2, "-c", program) == ["0 2\n", "1 2\n"]


def test_a_process_is_alone_where_no_launch_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert (workers("cpu").rank, workers("cpu").size) == (0, 1)
    with pytest.raises(ValueError, match="unknown device"):
        workers("tpu")


def test_shares_are_disjoint_and_even() -> None:
    shares = [Workers(rank, 3).deal(range(11)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(11))
    assert {len(share) for share in shares} == {3, 4}
