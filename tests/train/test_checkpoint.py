"""A checkpoint is whole or absent, whatever happens while it is written."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.models.tiny import tiny_net
from tests.train.learners import shaken
from unmask.config import OptimConfig
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import make_head
from unmask.train.checkpoint import TrainState, restore, save, save_models
from unmask.train.optim import adamw

FILES = ("model.safetensors", "planner.safetensors", "optimizer.safetensors", "progress.json")


def new_state(step: int = 0) -> TrainState:
    """A net and a planner; weights and moments depend on `step`."""
    net = tiny_net(seed=step).requires_grad_(True)
    planner = LearnedPlanner(shaken(make_head("confidence", dim=16, mlp_dim=24), seed=step))
    state = TrainState(adamw([(0.1, net), (0.2, planner)], OptimConfig()), net, planner, step, step / 7)
    if step:
        for parameter in [*net.parameters(), *planner.parameters()]:
            parameter.grad = torch.full_like(parameter, step / 10)
        state.optimizer.step()
        state.optimizer.zero_grad()
    return state


def assert_same(one: TrainState, other: TrainState) -> None:
    assert (one.step, one.best) == (other.step, other.best)
    for ours, theirs in ((one.denoiser, other.denoiser), (one.planner, other.planner)):
        assert ours is not None
        assert theirs is not None
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    mine, yours = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert mine.keys() == yours.keys()
    for index, entry in mine.items():
        assert entry.keys() == yours[index].keys()
        assert all(torch.equal(value, yours[index][key]) for key, value in entry.items())


def assert_holds(folder: Path, expected: TrainState) -> None:
    found = new_state()
    assert restore(folder, found)
    assert_same(found, expected)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    for step in (3, 4):
        save(folder, new_state(step))
        assert_holds(folder, new_state(step))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_restored_optimiser_goes_on_as_the_old_one(tmp_path: Path) -> None:
    one, other = new_state(3), new_state()
    save(tmp_path / "last", one)
    restore(tmp_path / "last", other)
    for state in (one, other):
        assert state.denoiser is not None
        for parameter in state.denoiser.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        state.optimizer.step()
    assert_same(one, other)


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path: Path) -> None:
    state = new_state()
    assert not restore(tmp_path / "last", state)
    assert_same(state, new_state())


@pytest.mark.parametrize("good", range(3))
def test_a_disk_that_fills_up_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    folder = tmp_path / "last"
    save(folder, new_state(3))
    import unmask.checkpoint

    write, written = unmask.checkpoint.save_file, []

    def fill_up(tensors: dict[str, torch.Tensor], path: str) -> None:
        if len(written) == good:
            Path(path).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        written.append(path)
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr("unmask.checkpoint.save_file", fill_up)
        with pytest.raises(ValueError, match="No space left") as caught:
            save(folder, new_state(4))
    assert "\n" not in str(caught.value)
    assert_holds(folder, new_state(3))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    save(folder, new_state(4))
    assert_holds(folder, new_state(4))


def test_a_denoiser_never_stands_beside_the_planner_of_another_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "best"
    save_models(folder, new_state(3))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unmask.train.checkpoint.save_planner", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_models(folder, new_state(4))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_kill_between_the_two_renames_costs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    save(folder, new_state(3))
    folder.rename(tmp_path / "last.old")
    (tmp_path / "last.partial").mkdir()
    assert_holds(folder, new_state(3))
    save(folder, new_state(4))
    assert_holds(folder, new_state(4))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_failure_after_such_a_kill_costs_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "last"
    save(folder, new_state(3))
    folder.rename(tmp_path / "last.old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(ValueError, match="Input/output error"):
            save(folder, new_state(4))
    assert_holds(folder, new_state(3))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 100, None], ids=["empty", "cut", "missing"])
def test_a_damaged_checkpoint_is_an_error_of_one_line(tmp_path: Path, name: str, keep: int | None) -> None:
    folder = tmp_path / "last"
    save(folder, new_state(3))
    path = folder / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: min(keep, 20 if name.endswith("json") else keep)])
    with pytest.raises(ValueError, match=name) as caught:
        restore(folder, new_state())
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "last", new_state(3))
    net = tiny_net(dim=32)
    state = TrainState(adamw([(0.1, net.requires_grad_(True))], OptimConfig()), net, None)
    with pytest.raises(ValueError, match="shape"):
        restore(tmp_path / "last", state)
    shutil.rmtree(tmp_path / "last")
    assert not restore(tmp_path / "last", state)
