"""Planners from a name, a folder or a hub id, and back to a folder."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.checkpoint import (
    LazyTensors,
    fetch_folder,
    fill,
    load_tensors,
    read_description,
    read_json,
    typed,
    write_folder,
)
from unmask.config import split_call
from unmask.device import Device, present_device
from unmask.families.llada import DULTRA_CLASS, LLADA_ROOT, dultra_head_config, dultra_head_names
from unmask.planners.base import Planner
from unmask.planners.heads import (
    ConfidencePolicy,
    ConfidencePolicyConfig,
    DultraHead,
    DultraHeadConfig,
    LinearHead,
    LinearHeadConfig,
)
from unmask.planners.heuristics import HEURISTICS
from unmask.planners.learned import LearnedPlanner

HEADS: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "dultra": (DultraHead, DultraHeadConfig),
    "confidence": (ConfidencePolicy, ConfidencePolicyConfig),
    "linear": (LinearHead, LinearHeadConfig),
}


def planner(name: str, **settings: float | str) -> Planner:
    """A heuristic planner by name.

    Names and settings: `top_k(k)`, `threshold(tau)`, `factor(factor, last_pair)`, `entropy_bound(gamma)`,
    `margin(k)`, `entropy(k)`, `random(k)`, `left_to_right(k)`, `schedule(steps, by, among)`. Rules, defaults
    and sources: `unmask.planners.heuristics`, and docs/evaluate.md.

    Raises:
        ValueError: for an unknown name or setting, or a value out of range.
    """
    if name not in HEURISTICS:
        raise ValueError(f"unknown planner {name!r}; use one of {', '.join(sorted(HEURISTICS))}")
    kind: Any = HEURISTICS[name]
    unknown = set(settings) - set(kind.__slots__)
    if unknown:
        raise ValueError(f"{name} has no {sorted(unknown)[0]!r}; it takes {', '.join(kind.__slots__)}")
    made: Planner = kind(**settings)
    return made


def parse_planner(
    text: str,
    *,
    own: str | Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Planner:
    """A planner from one word of a command line.

    `factor`, `factor(1.0)`, `top_k(k=2)`: a heuristic. `bundled/policy`, a folder or a hub id: a learned
    planner, with settings as in `bundled/policy(mode=top_k, factor=1.5)`. `own`: the one in the folder of the
    model, `own`. `dtype` is that of a learned planner's weights; None keeps float32.

    Raises:
        ValueError: for what cannot be read, loaded or set, and for a head that was saved with another
            denoiser than `own`.
    """
    name, arguments = split_call(text, "planner")
    if name not in HEURISTICS and name != "own" and "/" not in name and not Path(name).exists():
        known = ", ".join(sorted(HEURISTICS))
        raise ValueError(f"unknown planner {name!r}; use one of {known}, own, a folder or a hub id")
    settings: dict[str, Any] = {}
    names = HEURISTICS[name].__slots__ if name in HEURISTICS else ()
    for place, (said, value) in enumerate(arguments):
        key = said or (names[place] if place < len(names) else "")
        if not key or key in settings:
            raise ValueError(f"planner {text!r}: {value!r} is one setting too many, or lacks its name")
        settings[key] = _number(value)
        if isinstance(settings[key], str) and key not in ("law", "mode", "by"):
            raise ValueError(f"planner {text!r}: {value!r} is no number")
    if name in HEURISTICS:
        return planner(name, **settings)
    if name == "own":
        if own is None:
            raise ValueError("planner 'own' is the one beside a model, and there is no model")
        if not (fetch_folder(own) / "planner.json").is_file() and str(own).startswith("bundled"):
            raise ValueError(
                f"{own} has no planner of its own; use --model bundled/dultra, or another planner"
            )
        name = str(own)
    learned = load_planner(name, device=device)
    if own is not None and not isinstance(learned.head, ConfidencePolicy):
        folder = fetch_folder(name)
        if (folder / "config.json").is_file() and folder.resolve() != fetch_folder(own).resolve():
            raise ValueError(f"{name} reads its own denoiser, not {own}; use --model {name} --planner own")
    return learned.to(dtype=dtype).tuned(**settings)


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def make_head(kind: str, **settings: Any) -> nn.Module:
    """An untrained head of a kind in `HEADS`; the settings are fields of its config.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in HEADS:
        raise ValueError(f"unknown head {kind!r}; use one of {', '.join(HEADS)}")
    module, config = HEADS[kind]
    return module(config(**settings))


def load_planner(
    path_or_hub_id: str | Path, *, device: Device = "cpu", revision: str | None = None
) -> LearnedPlanner:
    """A learned planner from a folder, a hub id or "bundled/NAME".

    Reads our own format (`planner.json`, `planner.safetensors`) and the head inside a dUltra checkpoint.
    `revision` pins a branch, tag or commit of a hub id.

    Raises:
        ValueError: naming the file that is missing, unreadable or of another kind.
    """
    device = present_device(device)
    folder = fetch_folder(path_or_hub_id, revision=revision)
    if not (folder / "planner.json").is_file():
        return _load_dultra(folder).to(device).eval()
    path = folder / "planner.json"
    description = read_json(path)
    if description.get("format") != "unmask-planner":
        raise ValueError(f"{path} is no planner description: format {description.get('format')!r}")
    try:
        module, config = HEADS[description["head"]]
        positive = config.__dataclass_fields__.keys() - {"bias"}
        head = module(typed(config, {**description["config"]}, path, positive))
        learned = LearnedPlanner(head, **description["settings"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is incomplete or of another version: {error}") from error
    load_tensors(head, folder / "planner.safetensors")
    return learned.to(device).eval()


def _load_dultra(folder: Path) -> LearnedPlanner:
    """The head inside a published dUltra checkpoint, with the published law."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has neither planner.json nor config.json; is it a saved planner?")
    path = folder / "config.json"
    description = read_description(path)
    if DULTRA_CLASS not in description.get("architectures", []):
        raise ValueError(f"{folder} has no planner.json, and is no dUltra checkpoint ({DULTRA_CLASS}) either")
    try:
        described = dultra_head_config(description)
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: it lacks {error}") from error
    head = DultraHead(typed(DultraHeadConfig, described, path, positive=described))
    fill(head, LazyTensors(folder), str(folder), dultra_head_names(), others=(f"{LLADA_ROOT}*",))
    return LearnedPlanner(head, law="fallback")


def save_planner(folder: str | Path, learned: LearnedPlanner) -> None:
    """Write `planner.json` and `planner.safetensors`; the old ones stay until both are whole.

    Raises:
        ValueError: for a head of one's own, which could not be read back.
    """
    kind = next((name for name, (module, _) in HEADS.items() if type(learned.head) is module), None)
    if kind is None:
        raise ValueError(f"a {type(learned.head).__name__} cannot be saved; use a head of {', '.join(HEADS)}")
    description = {
        "format": "unmask-planner",
        "head": kind,
        "config": asdict(learned.head.config),  # type: ignore[call-overload]
        "settings": {
            "law": learned.law,
            "mode": learned.mode,
            "factor": learned.factor,
            "temperature": learned.temperature,
        },
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in learned.head.state_dict().items()}
    texts = {"planner.json": json.dumps(description, indent=2) + "\n"}
    write_folder(Path(folder).expanduser(), texts, {"planner.safetensors": tensors})
