"""`unmask push`, against a hub that remembers what it was sent."""

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.models.tiny import tiny_net
from tests.train.small import assert_same_tensors, denoise_recipe, policy_recipe, train
from unmask.hub import hub_api
from unmask.models.load import load_denoiser, save_denoiser
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import make_head, save_planner


class FakeHub:
    """Stands in for `HfApi`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[Any, ...]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("repo", repo_id, private, exist_ok))

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.calls.append(("branch", repo_id, branch, exist_ok))

    def create_commit(
        self, repo_id: str, operations: Sequence[Any], *, commit_message: str, revision: str | None
    ) -> Any:
        self.calls.append(("commit", repo_id, revision))
        for each in operations:
            with each.as_file() as file:
                self.files[each.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr("unmask.hub.hub_api", lambda: fake)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_denoiser(tmp_path / "model", tiny_net())
    save_planner(tmp_path / "model", LearnedPlanner(make_head("confidence")))
    return tmp_path / "model"


def front_matter(card: str) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return matter


def test_a_folder_goes_in_one_commit_with_a_card(
    folder: Path, hub: FakeHub, call: Callable[..., Any]
) -> None:
    others = ["optimizer.safetensors", "progress.json", "expected.safetensors", "model-1.safetensors"]
    for name in [*others, ".env.json", "secrets.json", "notes.txt", "notes.py", "planner.txt"]:
        (folder / name).write_bytes(b"{}")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, out, _ = call("push", folder, "me/model")
    assert status == 0
    assert hub.calls == [("repo", "me/model", None, True), ("commit", "me/model", None)]
    weights = {"config.json", "model.safetensors", "planner.json", "planner.safetensors"}
    assert hub.files.keys() == weights | {"README.md"}
    assert all(hub.files[name] == before[name] for name in weights)
    report = json.loads(out.splitlines()[-1])
    assert report["url"] == "https://hub/me/model/commit/1"
    assert report["bytes"] == sum(map(len, hub.files.values()))
    assert {path.name for path in folder.iterdir()} == before.keys(), "the folder itself stays as it is"
    card = hub.files["README.md"].decode()
    assert front_matter(card)["library_name"] == "unmask"
    assert "unmasking-planner" in front_matter(card)["tags"]
    assert 'unmask.load_denoiser("me/model")' in card
    assert 'unmask.load_planner("me/model")' in card


def test_a_model_in_shards_goes_with_its_index_and_tokenizer(
    model: Path, hub: FakeHub, call: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("convert", model, out, "--max-shard-size", "40KB")[0] == 0
    (out / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (out / "model-00009-of-00009.safetensors").write_bytes(b"of another model")
    assert call("push", out, "me/model")[0] == 0
    weights = {path.name for path in out.glob("model-*")} - {"model-00009-of-00009.safetensors"}
    assert len(weights) > 1
    beside = {"config.json", "model.safetensors.index.json", "chat_template.jinja", "README.md"}
    assert hub.files.keys() == weights | beside | {path.name for path in out.glob("tokenizer*.json")}
    for name, content in hub.files.items():
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    assert_same_tensors(*(load_denoiser(each).state_dict() for each in (tmp_path / "there", model)))


def test_what_is_bundled_can_go_too(hub: FakeHub, call: Callable[..., Any]) -> None:
    assert call("push", "bundled/policy", "me/policy")[0] == 0
    assert hub.files.keys() == {"planner.json", "planner.safetensors", "README.md"}


def test_the_example_of_a_card_runs(
    model: Path, folder: Path, hub: FakeHub, call: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """With a tokenizer and without."""
    for source in (model, folder):
        assert call("push", source, "me/model")[0] == 0
        code = hub.files["README.md"].decode().split("```python\n")[1].split("```")[0]
        exec(code.replace("me/model", str(source)).replace("PROMPT", "Ann has 14."), {})
        assert capfd.readouterr().out.split()[-1].isdecimal()


@pytest.mark.parametrize("name", ["bad name!!/x/y", "bad name", "a/b/c", "a..b/c", "model", ""])
def test_a_name_that_no_repository_can_have_is_refused_before_the_hub_is_asked(
    name: str, folder: Path, hub: FakeHub, refused: Callable[..., str]
) -> None:
    assert f"{name!r} is no name of a repository" in refused("push", folder, name, "--dry-run")
    assert f"{name!r} is no name of a repository" in refused("push", folder, name)
    assert hub.calls == []


def test_privacy_branch_license_and_base_are_passed_on(
    folder: Path, hub: FakeHub, call: Callable[..., Any]
) -> None:
    words = ["--private", "--revision", "v2", "--license", "mit", "--base-model", "GSAI-ML/LLaDA-8B-Base@v1"]
    assert call("push", folder, "me/model", *words)[0] == 0
    assert hub.calls[0] == ("repo", "me/model", True, True)
    assert hub.calls[1:] == [("branch", "me/model", "v2", True), ("commit", "me/model", "v2")]
    matter = front_matter(hub.files["README.md"].decode())
    assert (matter["license"], matter["base_model"]) == ("mit", "GSAI-ML/LLaDA-8B-Base")


def test_the_card_of_a_run_has_its_recipe_and_metrics(
    hub: FakeHub, call: Callable[..., Any], tmp_path: Path
) -> None:
    train(denoise_recipe(steps=2), tmp_path / "base")
    recipe = policy_recipe(tmp_path / "base/final", updates=1)
    train(recipe, tmp_path / "run")
    assert call("push", tmp_path / "run/final", "me/policy")[0] == 0
    card = hub.files["README.md"].decode()
    written = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert type(recipe).model_validate(written) == recipe
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert f"| nfe | {last['nfe']:.4g} |" in card
    assert f'unmask.load_denoiser("{tmp_path / "base/final"}")' in card, "a policy alone needs its denoiser"
    assert "length=32, block_length=16" in card
    assert "base_model" not in front_matter(card), "a local folder is no hub id"


def test_a_torn_line_of_metrics_is_named(folder: Path, hub: FakeHub, refused: Callable[..., str]) -> None:
    (folder / "recipe.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1, "lo')
    assert "metrics.jsonl, line 2 is no JSON" in refused("push", folder, "me/model")


def test_a_dultra_checkpoint_has_its_planner_inside(hub: FakeHub, call: Callable[..., Any]) -> None:
    folder = Path(__file__).parents[1] / "parity" / "fixtures" / "dultra_tiny"
    assert call("push", folder, "me/dultra")[0] == 0
    card = hub.files["README.md"].decode()
    assert "in the format of llada and a planner (dultra head)" in card
    assert 'unmask.load_planner("me/dultra")' in card


def test_a_card_that_is_there_is_kept(folder: Path, hub: FakeHub, call: Callable[..., Any]) -> None:
    (folder / "README.md").write_text("# Mine\n")
    call("push", folder, "me/model")
    assert hub.files["README.md"] == b"# Mine\n"


@pytest.mark.parametrize("words", [["--license", "mit"], ["--base-model", "GSAI-ML/LLaDA-8B-Base"]])
def test_a_card_that_is_there_says_license_and_base_itself(
    words: list[str], folder: Path, hub: FakeHub, refused: Callable[..., str]
) -> None:
    (folder / "README.md").write_text("# Mine\n")
    assert "README.md is the model card" in refused("push", folder, "me/model", *words)
    assert hub.calls == []


def test_a_dry_run_sends_nothing_and_needs_no_token(
    folder: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.hub.hub_api", lambda: pytest.fail("asked for the hub"))
    status, out, _ = call("push", folder, "me/model", "--dry-run")
    assert status == 0
    assert "library_name: unmask" in out
    report = json.loads(out.splitlines()[-1])
    assert report["dry_run"]
    assert "model.safetensors" in report["files"]


def test_without_a_token_it_says_how_to_get_one(
    folder: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in refused("push", folder, "me/model")


def test_with_a_token_the_hub_is_that_of_huggingface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    assert isinstance(hub_api(), HfApi)
    for name in ("create_repo", "create_branch", "create_commit"):
        theirs, ours = (inspect.signature(getattr(kind, name)).parameters for kind in (HfApi, FakeHub))
        assert set(ours) <= set(theirs)


def test_what_the_hub_refuses_is_one_line(folder: Path, hub: FakeHub, refused: Callable[..., str]) -> None:
    response: Any = SimpleNamespace(headers={}, status_code=403, request=None)
    hub.error = HfHubHTTPError("403 Forbidden: no rights\nmore", response=response)
    assert "the hub did not take you/model: 403 Forbidden: no rights" in refused("push", folder, "you/model")


def test_an_incomplete_folder_is_refused(folder: Path, hub: FakeHub, refused: Callable[..., str]) -> None:
    assert "neither config.json nor planner.json" in refused("push", folder.parent, "me/model")
    (folder.parent / "adapter_config.json").write_text("{}")
    assert "merge them with unmask convert" in refused("push", folder.parent, "me/model")
    shutil.move(folder / "planner.safetensors", folder.parent)
    assert "planner.safetensors is missing" in refused("push", folder, "me/model")
    (folder / "planner.json").unlink()
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused("push", folder, "me/model")
    assert hub.calls == []
