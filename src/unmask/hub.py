"""Model folders on a hub: what goes there, and the model card that goes with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from unmask.checkpoint import HUB_FILES, LazyTensors, read_json
from unmask.families.llada import DULTRA_CLASS

NOT_PUSHED = ("optimizer.safetensors", "progress.json")
"""What a training run keeps to go on."""


class HubApi(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any: ...

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> Any: ...

    def create_commit(
        self, repo_id: str, operations: Sequence[Any], *, commit_message: str, revision: str | None
    ) -> Any: ...


def hub_api() -> HubApi:
    """The hub of huggingface_hub, HF_ENDPOINT included.

    Raises:
        ValueError: where there is no token.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ValueError("there is no hub token; run `hf auth login`, or set HF_TOKEN")
    api: HubApi = HfApi()
    return api


def files_of(folder: Path) -> list[Path]:
    """The files of a whole model, planner, or both, in a folder.

    Raises:
        ValueError: where there is none, or weights are missing.
    """
    has_model, has_planner = ((folder / name).is_file() for name in ("config.json", "planner.json"))
    if (folder / "adapter_config.json").is_file() and not has_model:
        raise ValueError(f"{folder} holds adapters without their net; merge them with unmask convert first")
    if not has_model and not has_planner:
        raise ValueError(f"{folder} has neither config.json nor planner.json; give a folder of a saved model")
    if has_model:
        list(LazyTensors(folder))  # complains of a file that is missing
    if has_planner and not (folder / "planner.safetensors").is_file():
        raise ValueError(f"{folder / 'planner.safetensors'} is missing")
    found = {path for pattern in (*HUB_FILES, "README.md") for path in folder.glob(pattern)}
    return sorted(path for path in found if path.name not in NOT_PUSHED)


def push(
    api: HubApi,
    repo_id: str,
    files: Sequence[Path],
    card: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """One commit with the files and the card; returns its address.

    Raises:
        ValueError: in one line, where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    others = [path for path in files if path.name != "README.md"]
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in others]
    operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode()))
    try:
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        done = api.create_commit(
            repo_id, operations, commit_message="Upload with unmask push", revision=revision
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"the hub did not take {repo_id}: {reason}") from error
    return str(done.commit_url)


def model_card(
    folder: Path, repo_id: str, *, license_id: str | None = None, base_model: str | None = None
) -> str:
    """The README.md of a model folder: its own if it has one, else one made from what lies there.

    Recipe and metrics are read from the folder or, as in `runs/NAME/final`, from the one above it.
    """
    own = folder / "README.md"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    description, planner = (_described(folder / name) for name in ("config.json", "planner.json"))
    if DULTRA_CLASS in description.get("architectures", []):
        planner = planner or {"head": "dultra"}
    has_model, has_planner = bool(description), bool(planner)
    run = next((each for each in (folder, folder.resolve().parent) if (each / "recipe.json").is_file()), None)
    recipe = read_json(run / "recipe.json") if run is not None else {}
    base_model = base_model or recipe.get("denoiser")
    tags = ["masked-diffusion", "diffusion-language-model", *(["unmasking-planner"] if has_planner else [])]
    front = {
        "library_name": "unmask",
        "pipeline_tag": "text-generation",
        "tags": tags,
        "license": license_id,
        "base_model": base_model.partition("@")[0] if base_model and _is_hub_id(base_model) else None,
    }
    kept = {key: value for key, value in front.items() if value is not None}
    parts = ["---", yaml.safe_dump(kept, sort_keys=False).strip(), "---", "", f"# {repo_id.split('/')[-1]}"]
    parts += ["", _what(description, planner, base_model)]
    parts += ["", "## Use", "", *_use(repo_id, has_model, has_planner, base_model, recipe)]
    if run is not None:
        parts += ["", "## Training", "", *_training(run, recipe)]
    return "\n".join(parts) + "\n"


def _is_hub_id(text: str) -> bool:
    return (
        text.count("/") == 1 and not text.startswith(("bundled/", ".", "/", "~")) and not Path(text).exists()
    )


def _described(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _what(description: dict[str, Any], planner: dict[str, Any], base_model: str | None) -> str:
    pieces = []
    if description:
        kind = description.get("model_type")
        format_name = "" if kind == "unmask" else f" in the format of {kind}"
        pieces.append(f"a masked diffusion language model{format_name}")
    if planner:
        pieces.append(f"a planner ({planner.get('head')} head) that decides which positions to unmask")
    from_where = "Training began from" if description else "It belongs to the denoiser"
    start = f" {from_where} `{base_model}`." if base_model else ""
    text = " and ".join(pieces)
    return f"{text[0].upper()}{text[1:]}.{start} Made with `unmask`."


def _use(
    repo_id: str, has_model: bool, has_planner: bool, base_model: str | None, recipe: dict[str, Any]
) -> list[str]:
    blocks = recipe.get("block_lengths") or [32]
    planner = f'unmask.load_planner("{repo_id}")' if has_planner else 'unmask.planner("factor", factor=1.0)'
    return [
        "```python",
        "import unmask",
        "",
        f'denoiser = unmask.load_denoiser("{repo_id if has_model else base_model or "BASE MODEL"}")',
        f"planner = {planner}",
        'tokens = denoiser.tokenizer.encode("PROMPT", add_special_tokens=False)',
        f"settings = dict(length={recipe.get('length', 256)}, block_length={blocks[0]})",
        "row = unmask.decode(denoiser, [tokens], planner, **settings)[0]",
        "print(denoiser.tokenizer.decode(row.tokens, skip_special_tokens=True), row.nfe)",
        "```",
    ]


def _training(run: Path, recipe: dict[str, Any]) -> list[str]:
    parts = [f"`unmask train {recipe.get('kind')} recipe.yaml`, with this recipe:", "", "```yaml"]
    parts += [yaml.safe_dump(recipe, sort_keys=False).strip(), "```"]
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if lines:
        last = json.loads(lines[-1])
        parts += ["", f"Metrics of the last step, on the training problems ({last.pop('step')}, from 0):", ""]
        parts += ["| metric | value |", "| --- | --- |"]
        parts += [f"| {name} | {value:.4g} |" for name, value in last.items()]
    return parts
