"""Published problems: from a folder where one is given, else from the package, else from the hub.

A folder holds `TASK/SPLIT.jsonl`, one JSON object a line with the publisher's fields. The checksum is over
the content and not over the bytes, so a Parquet file of the hub and a JSONL file of the same rows agree.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

Row = dict[str, Any]
_PACKED = Path(__file__).parents[1] / "bundled" / "data"


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of one split of a published data set."""

    file: str
    """Inside a folder of data: "gsm8k/test.jsonl"."""
    fields: type[BaseModel]
    """What each row holds; it may hold more."""
    sha256: str
    """`digest` of the rows."""
    hub: str = ""
    """Data set and file on the hub, "owner/name:path.parquet"; empty for what the package holds itself."""


def load_rows(source: Source, path: str | None = None, *, check: bool = True) -> tuple[Row, ...]:
    """The rows of a split, read once.

    Args:
        source: what to read.
        path: a folder of data, or one file; by default the folder in the environment variable UNMASK_DATA,
            where it has the file.
        check: refuse rows that are not the published ones; else they only have to have the fields.

    Raises:
        ValueError: naming the file that is missing, unreadable or not the published one, and the row that
            lacks a field or has one of another type.
    """
    given = path or os.environ.get("UNMASK_DATA")
    return _load(source, given, path is not None, check)


@cache
def _load(source: Source, folder: str | None, must_exist: bool, check: bool) -> tuple[Row, ...]:
    file = _find(source, folder, must_exist)
    rows = _read_parquet(file) if file.suffix == ".parquet" else _read_lines(file)
    if not check:
        _check_fields(file, rows, source.fields)
    elif digest(rows) != source.sha256:
        raise ValueError(
            f"{file} does not hold the published rows of {source.file}: its {len(rows)} rows have checksum "
            f"{digest(rows)[:12]}, not {source.sha256[:12]}; restore it, or say check=no to use your own"
        )
    return tuple(rows)


def _check_fields(file: Path, rows: Iterable[Row], fields: type[BaseModel]) -> None:
    for number, row in enumerate(rows, 1):
        try:
            fields.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "the row"
            raise ValueError(f"{file}, row {number}: {name}: {first['msg']}") from error


def row_of(rows: tuple[Row, ...], task: str, split: str, index: int) -> Row:
    """Row `index`.

    Raises:
        ValueError: beyond the end.
    """
    if not 0 <= index < len(rows):
        raise ValueError(f"{task} has {len(rows)} {split} problems; there is no {split}-{index}")
    return rows[index]


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows as JSON lines in ASCII with sorted keys."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update((json.dumps(row, sort_keys=True) + "\n").encode())
    return sha.hexdigest()


def _find(source: Source, folder: str | None, must_exist: bool) -> Path:
    if folder is not None:
        given = Path(folder)
        file = given if given.is_file() else given / source.file
        if file.is_file():
            return file
        if must_exist:
            raise ValueError(f"{file} does not exist; give a folder with {source.file}, or a file of rows")
    return _download(source) if source.hub else _PACKED / source.file


def _download(source: Source) -> Path:
    from huggingface_hub import hf_hub_download

    repo, _, name = source.hub.partition(":")
    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset"))
    except Exception as error:  # the library raises many kinds, and all of them mean this
        raise ValueError(
            f"cannot get {name} of {repo} from the hub ({type(error).__name__}); set UNMASK_DATA to a folder "
            f"with {source.file}"
        ) from error


def _read_lines(file: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number} is no JSON object")
        rows.append(row)
    return rows


def _read_parquet(file: Path) -> list[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{file.name} is a Parquet file: pip install 'unmask[data]' to read it") from error
    rows: list[Row] = parquet.read_table(file).to_pylist()
    return rows
