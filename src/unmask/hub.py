"""Model folders on a hub: what goes there, and the model card that goes with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from unmask.checkpoint import INDEX, TOKENIZER_FILES, LazyTensors, read_json
from unmask.families.llada import DULTRA_CLASS

BESIDE = (INDEX, "generation_config.json", *TOKENIZER_FILES)
"""What a model can have beside its description and its weights; nothing else of a folder is sent."""


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


def check_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` for what cannot be the name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository: {error}") from error
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} is no name of a repository; give NAME/MODEL")


def files_of(folder: Path) -> list[Path]:
    """The files of a whole model, planner, or both, in a folder: those that loading reads, and README.md.

    Raises:
        ValueError: where there is none, or weights are missing.
    """
    has_model, has_planner = ((folder / name).is_file() for name in ("config.json", "planner.json"))
    if (folder / "adapter_config.json").is_file() and not has_model:
        raise ValueError(f"{folder} holds adapters without their net; merge them with unmask convert first")
    if not has_model and not has_planner:
        raise ValueError(f"{folder} has neither config.json nor planner.json; give a folder of a saved model")
    names = ["README.md"]
    if has_model:
        weights = [path.name for path in LazyTensors(folder).files]  # complains of a file that is missing
        names += ["config.json", *weights, *BESIDE]
    if has_planner:
        if not (folder / "planner.safetensors").is_file():
            raise ValueError(f"{folder / 'planner.safetensors'} is missing")
        names += ["planner.json", "planner.safetensors"]
    return sorted(folder / name for name in names if (folder / name).is_file())


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

    Raises:
        ValueError: for a license or base model where there is a README.md, which says them itself.
    """
    own = folder / "README.md"
    if own.is_file():
        if license_id is not None or base_model is not None:
            raise ValueError(f"{own} is the model card; write license and base_model there, or take it away")
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
    denoiser = repo_id if has_model else base_model or "BASE MODEL"
    has_tokenizer = not has_model or any(
        (folder / name).is_file() for name in ("tokenizer.json", "vocab.json")
    )
    most = 32 * (description.get("max_length", 512) // 64)  # half of a row
    length = recipe.get("length") or min(256, most)
    parts += [
        "",
        "## Use",
        "",
        *_use(denoiser, repo_id if has_planner else None, has_tokenizer, length, recipe),
    ]
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
    denoiser: str, planner: str | None, has_tokenizer: bool, length: int, recipe: dict[str, Any]
) -> list[str]:
    blocks = recipe.get("block_lengths") or [32]
    made = 'unmask.planner("factor", factor=1.0)' if planner is None else f'unmask.load_planner("{planner}")'
    tokens, shown = "[0, 1, 2]  # ids: there is no tokenizer here", "row.tokens"
    if has_tokenizer:
        tokens = 'denoiser.tokenizer.encode("PROMPT", add_special_tokens=False)'
        shown = "denoiser.tokenizer.decode(row.tokens, skip_special_tokens=True)"
    return [
        "```python",
        "import unmask",
        "",
        f'denoiser = unmask.load_denoiser("{denoiser}")',
        f"planner = {made}",
        f"tokens = {tokens}",
        f"settings = dict(length={length}, block_length={blocks[0]})",
        "row = unmask.decode(denoiser, [tokens], planner, **settings)[0]",
        f"print({shown}, row.nfe)",
        "```",
    ]


def _training(run: Path, recipe: dict[str, Any]) -> list[str]:
    parts = [f"`unmask train {recipe.get('kind')} recipe.yaml`, with this recipe:", "", "```yaml"]
    parts += [yaml.safe_dump(recipe, sort_keys=False).strip(), "```"]
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if lines:
        try:
            last = json.loads(lines[-1])
        except ValueError as error:
            raise ValueError(f"{path}, line {len(lines)} is no JSON: {error}") from error
        parts += ["", f"Metrics of the last step, on the training problems ({last.pop('step')}, from 0):", ""]
        parts += ["| metric | value |", "| --- | --- |"]
        parts += [f"| {name} | {value:.4g} |" for name, value in last.items()]
    return parts
