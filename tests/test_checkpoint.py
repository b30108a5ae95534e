"""Reading and writing folders of weights: errors are one line, failures cost nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unmask.checkpoint import fetch_folder, fill, load_tensors, read_json, read_tensors, write_folder


def one_line_error(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_found_only_with_the_file_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert fetch_folder(tmp_path, "config.json") == tmp_path
    assert fetch_folder(str(tmp_path), "config.json") == tmp_path
    assert "has no planner.json" in one_line_error(lambda: fetch_folder(tmp_path, "planner.json"))
    assert "config.json" in one_line_error(lambda: fetch_folder(tmp_path / "config.json", "config.json"))


def test_a_missing_folder_is_named() -> None:
    assert "/no/such/folder" in one_line_error(lambda: fetch_folder("/no/such/folder", "config.json"))


def test_a_revision_can_stand_behind_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(hub_id: str, *, revision: str | None, **settings: Any) -> str:
        asked.append((hub_id, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (tmp_path / "model.safetensors").touch()  # else the hub is asked what else it has
    fetch_folder("somebody/net@v2")
    fetch_folder("somebody/net@v2", revision="v2")
    fetch_folder("somebody/net", revision="v2")
    fetch_folder("somebody/net")
    assert asked == [("somebody/net", "v2")] * 3 + [("somebody/net", None)]
    (tmp_path / "net@home").mkdir()
    assert fetch_folder(tmp_path / "net@home") == tmp_path / "net@home", "a folder is a folder"
    for name in ("somebody/net@", "somebody/net@v1"):
        assert "one revision" in one_line_error(lambda name=name: fetch_folder(name, revision="v2"))
    assert len(asked) == 4


def test_json_that_is_missing_broken_or_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert "is missing" in one_line_error(lambda: read_json(path))
    path.write_text('{"dim": ')
    assert "is no JSON" in one_line_error(lambda: read_json(path))
    path.write_bytes(b"\xff\xfe")
    assert "is no JSON" in one_line_error(lambda: read_json(path))
    path.write_text("[1]")
    assert "holds a list" in one_line_error(lambda: read_json(path))
    path.write_text('{"dim": 8}')
    assert read_json(path) == {"dim": 8}


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_tensors_are_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    assert "is missing" in one_line_error(lambda: read_tensors(path))
    save_file({"weight": torch.ones(8)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in one_line_error(lambda: read_tensors(path))


def test_tensors_must_be_exactly_those_of_the_module(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    tensors = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    save_file(tensors, tmp_path / "layer.safetensors")
    load_tensors(layer, tmp_path / "layer.safetensors")
    assert layer.weight.eq(1).all()
    assert "'bias'" in one_line_error(lambda: fill(layer, {"weight": tensors["weight"]}, "here"))
    wrong = tensors | {"weight": torch.ones(2, 2)}
    assert "(2, 2)" in one_line_error(lambda: fill(layer, wrong, "here"))
    extra = tensors | {"scale": torch.ones(1)}
    assert "'scale'" in one_line_error(lambda: fill(layer, extra, "here"))


def test_tensors_are_converted_to_the_dtype_of_the_module() -> None:
    layer = nn.Linear(2, 3).to(torch.bfloat16)
    fill(layer, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "here")
    assert layer.weight.dtype == torch.bfloat16


def test_a_written_folder_holds_just_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "checkpoint"
    for value in (1.0, 2.0):
        tensors = {"model.safetensors": {"weight": torch.full((2,), value)}}
        write_folder(folder, {"config.json": json.dumps({"value": value})}, tensors)
        assert load_file(folder / "model.safetensors")["weight"].tolist() == [value, value]
        assert read_json(folder / "config.json") == {"value": value}
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    tensors = {"model.safetensors": {"weight": torch.ones(2)}}
    write_folder(folder, {"config.json": "{}"}, tensors)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unmask.checkpoint.save_file", fail)
    message = one_line_error(lambda: write_folder(folder, {"config.json": "new"}, tensors))
    assert "No space left" in message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_was_replaced_before_a_failure_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.txt" / "inside").mkdir(parents=True)
    message = one_line_error(lambda: write_folder(tmp_path, {"a.txt": "new", "b.txt": "new"}, {}))
    assert message.endswith("what was there before is unchanged, but for a.txt")


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot save" in one_line_error(lambda: write_folder(tmp_path / "file" / "x", {}, {}))
