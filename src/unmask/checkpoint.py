"""Folders of weights: found, read with clear errors, written so that a failure never costs the old ones."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BUNDLED = Path(__file__).parent / "bundled"

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
"""What is fetched: no pickles (*.bin), no code (*.py), and no folders, where other copies of weights lie."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

SettingsT = TypeVar("SettingsT")

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "vocab.json", "merges.txt"),
)
"""What tokenizers are read from, where it is there."""
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"


def fetch_folder(
    path_or_hub_id: str | Path, needed: str | None = None, *, revision: str | None = None
) -> Path:
    """The local folder of a path, "bundled", "bundled/NAME" or hub id; it holds the file `needed`.

    `revision` pins a branch, tag or commit of a hub id; "NAME/MODEL@REVISION" does so wherever a model is
    named. With HF_HUB_OFFLINE set, a hub id is the copy that an earlier fetch left here.

    Raises:
        ValueError: where there is no such folder or hub repository, or the file is not in it, or its weights
            are in a format that is not read; for two revisions, or one of what is here.
    """
    name = str(path_or_hub_id)
    fetched = False
    if name == "bundled":
        folder = BUNDLED / "base"
    elif name.startswith("bundled/"):
        folder = BUNDLED / name.removeprefix("bundled/")
        if not folder.is_dir():
            weights = sorted(BUNDLED.glob("*/*.safetensors"))
            known = ", ".join(dict.fromkeys(f"bundled/{each.parent.name}" for each in weights))
            raise ValueError(f"nothing bundled is called {name!r}; there is {known}")
    else:
        folder = Path(name).expanduser()
        if not folder.exists():
            hub_id, at, pinned = name.partition("@")
            if at and not (pinned and revision in (None, pinned)):
                raise ValueError(f"{name!r}: name one revision behind the @, and no other beside it")
            folder, fetched = _download(hub_id, pinned or revision), True
    if revision is not None and not fetched:
        raise ValueError(f"revision {revision!r} is of a hub id, and {name} is here; leave it out")
    if not any(folder.glob("*.safetensors")):
        refuse_formats(name, [each.name for each in folder.glob("*")])
    if needed is not None and not (folder / needed).is_file():
        raise ValueError(f"{folder} has no {needed}; is it the folder of a saved checkpoint?")
    return folder


def refuse_formats(origin: str, names: Sequence[str]) -> None:
    """Raise a `ValueError` where files of these names hold weights in a format that is not read."""
    stems = [name.lower().removesuffix(".index.json") for name in names]
    if any(stem.endswith(PICKLES) for stem in stems):
        raise ValueError(f"{origin} holds pickled weights only, which can run code; convert to safetensors")
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    if files:
        raise ValueError(f"{origin} holds GGUF files only; give the path of one, such as {files[0]}")


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=[*HUB_FILES], ignore_patterns=["*/*"])
        )
        if not any(found.glob("*.safetensors")):
            names: list[str] = []
            with suppress(Exception):  # out of reach, it only costs the better message
                names = HfApi().list_repo_files(hub_id, revision=revision)
            refuse_formats(hub_id, names)
        return found
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        name = hub_id if revision is None else f"{hub_id}@{revision}"
        raise ValueError(
            f"{name!r} is neither a folder here nor a hub id that can be fetched: {reason}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: naming the file, where it is missing or no JSON object.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def read_description(path: Path) -> dict[str, Any]:
    """A config.json; what is null in it is left out, which means the same.

    Raises:
        ValueError: naming the file, where it is missing or broken, or says no name where one belongs.
    """
    description = {key: value for key, value in read_json(path).items() if value is not None}
    for key, kind in (("model_type", str), ("architectures", list)):
        if not isinstance(description.get(key, kind()), kind):
            raise ValueError(f"{path}: {key} is {description[key]!r}, and has to be a {kind.__name__}")
    return description


def typed(
    kind: type[SettingsT], fields: Mapping[str, Any], path: Path, positive: Iterable[str] = ()
) -> SettingsT:
    """The dataclass `kind` with these fields, which `path` described. "2" and true are no whole numbers.

    Raises:
        ValueError: naming a field that is missing, unknown, of another type or, in `positive`, out of range.
    """
    known = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; it takes {', '.join(known)}")
    try:
        found = TypeAdapter(kind).validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for name in positive:
        value = getattr(found, name)
        if value is not None and not 0 < value < 2**31:
            raise ValueError(f"{path}: {name} is {value}, and has to be above 0 and below 2**31")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: naming the file, where it is missing, truncated or no safetensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy or download it again") from error


def load_tensors(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file that holds exactly its tensors."""
    fill(module, read_tensors(path), str(path))


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: str,
    names: Mapping[str, tuple[str, ...]] | None = None,
    others: tuple[str, ...] = (),
    rows: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Copy `tensors` into `module`, one at a time and converted to its dtype.

    Args:
        module: gets a tensor for each of its own; a parameter with two names is asked for by the first.
        tensors: by name.
        origin: what errors call the place they come from.
        names: our name -> theirs, stacked along the first axis; by default they are the same.
        others: patterns (`head.*`) of names that belong to somebody else and are passed over.
        rows: our name -> the rows of each part, where they are not all as many.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, of another shape or quantised.
    """
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if all(value is not known for known in state.values()):
            state[name] = value
    theirs = names or {name: (name,) for name in state}
    wanted = {each for name in state for each in theirs[name]}
    there = set(tensors)  # asking a lazy mapping for membership would read the tensor
    missing = [each for name in state for each in theirs[name] if each not in there]
    if missing:
        raise ValueError(f"{origin} lacks the tensor {missing[0]!r}; it belongs to another model")
    unknown = sorted(there - wanted)
    unknown = [name for name in unknown if not any(fnmatchcase(name, pattern) for pattern in others)]
    if unknown:
        raise ValueError(f"{origin} has a tensor {unknown[0]!r} that the model does not know")
    with torch.no_grad():
        for name, value in state.items():
            one = len(theirs[name]) == 1
            parts = [value] if one else value.split(_rows(name, value, theirs[name], rows or {}))
            for each, part in zip(theirs[name], parts, strict=True):
                _copy(part, tensors[each], f"{origin}: {each!r}")


def _rows(name: str, value: Tensor, theirs: Sequence[str], rows: Mapping[str, Sequence[int]]) -> list[int]:
    return list(rows.get(name, [value.shape[0] // len(theirs)] * len(theirs)))


def _copy(value: Tensor, found: Tensor, origin: str) -> None:
    """Converted where it goes, so that nothing is held twice there."""
    if found.shape != value.shape:
        shapes = tuple(found.shape), tuple(value.shape)
        raise ValueError(f"{origin} has shape {shapes[0]}, the model wants {shapes[1]}")
    if not found.is_floating_point() or found.itemsize < 2:
        dtype = str(found.dtype).removeprefix("torch.")
        raise ValueError(f"{origin} is quantised ({dtype}); take the checkpoint in bfloat16 or float32")
    value.copy_(found.to(value.dtype))


def unstack(
    tensors: Mapping[str, Tensor],
    names: Mapping[str, tuple[str, ...]],
    rows: Mapping[str, Sequence[int]],
) -> dict[str, Tensor]:
    """The inverse of `fill`: tensors by their names, as views.

    Args:
        tensors: by our names.
        names: our name -> theirs, stacked along the first axis.
        rows: our name -> the rows of each part, where they are not all as many.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        theirs = names[name]
        found |= zip(theirs, value.split(_rows(name, value, theirs, rows)), strict=True)
    return found


def in_shards(
    tensors: Mapping[str, Tensor], max_bytes: int
) -> tuple[dict[str, dict[str, Tensor]], str | None]:
    """Files of at most `max_bytes` each, unless one tensor is larger, and the index where there are several.

    Names of files and form of the index are those of transformers.
    """
    groups: list[dict[str, Tensor]] = [{}]
    room = max_bytes
    for name, value in tensors.items():
        if value.nbytes > room and groups[-1]:
            groups.append({})
            room = max_bytes
        groups[-1][name] = value
        room -= value.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}, None
    files = {
        f"model-{number:05}-of-{len(groups):05}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in tensors.values())},
        "weight_map": {name: file for file, group in files.items() for name in group},
    }
    return files, json.dumps(index, indent=2) + "\n"


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of a folder, whole or in shards, each read when it is asked for.

    Raises:
        ValueError: naming the file that is missing, unreadable or no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self._where = _shards(folder)
        self._files = {path: _open(path) for path in sorted(set(self._where.values()))}

    @property
    def files(self) -> list[Path]:
        """That hold the tensors."""
        return list(self._files)

    def __getitem__(self, name: str) -> Tensor:
        path = self._where[name]
        try:
            tensor: Tensor = self._files[path].get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read ({error}); copy or download it again") from error
        return tensor

    def dtype(self, name: str) -> torch.dtype:
        """Without reading the tensor."""
        dtype: torch.dtype = self._files[self._where[name]].get_slice(name)[:0].dtype
        return dtype

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def _shards(folder: Path) -> dict[str, Path]:
    """Tensor name -> file."""
    index = folder / INDEX
    if index.is_file():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict):
            raise ValueError(f"{index} has no weight_map; copy or download it again")
        outside = [file for file in where.values() if not isinstance(file, str) or Path(file).name != file]
        if outside:
            raise ValueError(f"{index} names a file outside its folder: {outside[0]!r}")
        return {name: folder / file for name, file in where.items()}
    path = folder / "model.safetensors"
    if not path.is_file():
        refuse_formats(str(folder), [each.name for each in folder.glob("*")])
    return dict.fromkeys(_open(path).keys(), path)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy or download it again") from error


def files_of_model(folder: Path) -> set[str]:
    """Names of the files in `folder` that `LazyTensors` reads, or would read without the others."""
    named: set[str] = {each.name for each in folder.glob(SHARDS)} | {"model.safetensors", INDEX}
    with suppress(ValueError):  # a broken index names none
        named |= {path.name for path in _shards(folder).values()}
    return {name for name in named if (folder / name).is_file()}


def write_folder(
    folder: str | Path,
    texts: Mapping[str, str],
    tensors: Mapping[str, Mapping[str, Tensor]],
    instead_of: Iterable[str] = (),
) -> None:
    """Write files into `folder`; each appears whole or not at all, and none before all could be written.

    Args:
        folder: made where it is missing.
        texts: file name -> contents.
        tensors: file name -> the tensors in it.
        instead_of: names of files that go once the new ones are there, unless they are among them.

    Raises:
        ValueError: where the disk is full or not writable. The files that were there are unchanged, but for
            those that it names as replaced.
    """
    folder = Path(folder).resolve()  # "." has no name
    partial = folder.with_name(f".{folder.name}.partial")
    replaced: list[str] = []
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(dict(group), str(partial / name))
            (partial / name).chmod(0o644)  # safetensors makes files that only their owner can read
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*tensors, *texts]:
            os.replace(partial / name, folder / name)
            replaced.append(name)
        for name in set(instead_of) - tensors.keys() - texts.keys():
            (folder / name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        but = f", but for {', '.join(replaced)}" if replaced else ""
        raise ValueError(
            f"cannot save to {folder}: {error}; what was there before is unchanged{but}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
