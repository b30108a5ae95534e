"""A run folder keeps one line of metrics a step, however often the run is resumed."""

import json
from pathlib import Path

import pytest

from unmask.runlog import RunLog, only_run

RECIPE = {"kind": "denoise", "steps": 3}


def steps_in(log: RunLog) -> list[int]:
    return [json.loads(line)["step"] for line in log.metrics_path.read_text().splitlines()]


def test_a_folder_is_made_and_holds_the_recipe(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "deep/run", RECIPE)
    assert [path.name for path in log.folder.iterdir()] == ["recipe.json"]
    assert json.loads((log.folder / "recipe.json").read_text()) == RECIPE
    RunLog(log.folder, RECIPE)


def test_a_run_of_another_recipe_is_not_mixed_in(tmp_path: Path) -> None:
    RunLog(tmp_path, RECIPE).write(0, loss=1.0)
    with pytest.raises(
        ValueError, match=r"another recipe; give another --out, or the recipe in .*recipe\.json"
    ):
        RunLog(tmp_path, RECIPE | {"steps": 4})
    assert json.loads((tmp_path / "recipe.json").read_text()) == RECIPE


def test_a_run_that_failed_before_its_first_step_keeps_no_folder(tmp_path: Path) -> None:
    RunLog(tmp_path, RECIPE)
    RunLog(tmp_path, RECIPE | {"steps": 4})
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 4


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"kind"')
    (tmp_path / "last").mkdir()
    with pytest.raises(ValueError, match=r"recipe\.json is no JSON"):
        RunLog(tmp_path, RECIPE)


def test_metrics_are_one_line_a_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RECIPE)
    for step in range(3):
        log.write(step, loss=step / 2, score=1.0)
    lines = [json.loads(line) for line in log.metrics_path.read_text().splitlines()]
    assert lines == [{"step": step, "loss": step / 2, "score": 1.0} for step in range(3)]


def test_what_a_resumed_run_does_again_is_forgotten(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RECIPE)
    log.forget_after(0)
    for step in range(5):
        log.write(step, loss=0.0)
    with log.metrics_path.open("a") as file:
        file.write('{"step": 5, "lo')  # a kill cut it short
    log.forget_after(3)
    assert steps_in(log) == [0, 1, 2]
    log.write(3, loss=0.0)
    assert steps_in(log) == [0, 1, 2, 3]


def test_the_last_values_of_a_metric_can_be_read_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RECIPE)
    assert log.last("score", 2) == []
    for step in range(4):
        log.write(step, score=step / 4)
    assert log.last("score", 2) == [0.5, 0.75]
    assert log.last("score", 9) == [0.0, 0.25, 0.5, 0.75]
    assert log.last("loss", 2) == []


def test_a_full_disk_costs_no_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, {})
    for step in range(4):
        log.write(step, loss=1.0)
    before = log.metrics_path.read_text()

    def full(self: Path, *args: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ValueError, match="free space"):
        log.forget_after(2)
    assert log.metrics_path.read_text() == before


def test_space_is_asked_for_where_it_lacks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, {})

    def deny(self: Path, *args: object, **settings: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ValueError, match=r"Permission denied\)$"):
        log.write(0, loss=1.0)


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        only_run(folder),
        pytest.raises(ValueError, match=r"under way in .*run; wait for it, or give another --out"),
        only_run(folder),
    ):
        pass
    with only_run(folder):
        pass
