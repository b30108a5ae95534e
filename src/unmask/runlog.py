"""A run folder: the resolved recipe, one JSON line of metrics a step, and checkpoints."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder.

    Raises:
        ValueError: where one is under way in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"a run is under way in {folder}; wait for it, or give another --out") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # else it lives on in processes that were forked meanwhile


class RunLog:
    """Writes `recipe.json` and `metrics.jsonl` into a folder; a resumed run goes on where it stopped."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.json"
        has_run = self.metrics_path.exists() or (folder / "last").exists()  # else it failed before a step
        if has_run and path.is_file() and _read(path) != recipe:
            raise ValueError(
                f"{folder} holds a run of another recipe; "
                f"give another --out, or the recipe in {path} to resume"
            )
        partial = folder / f"recipe.json.{os.getpid()}"  # every process of a run writes it
        partial.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that a resumed run will do again."""
        if self.metrics_path.is_file():
            lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _step(line) < step]
            if len(kept) < len(lines):
                self._replace("".join(kept))

    def _replace(self, text: str) -> None:
        partial = self.metrics_path.with_suffix(".partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.metrics_path)
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> ValueError:
        return ValueError(f"cannot write {self.metrics_path} ({error}){advice(error)}")

    def last(self, key: str, count: int) -> list[float]:
        """The last `count` values logged for `key`."""
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines()[-count:]
        return [float(entry[key]) for entry in map(json.loads, lines) if key in entry]

    def write(self, step: int, **metrics: float) -> None:
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        except OSError as error:
            raise self._unwritten(error) from error


def advice(error: BaseException) -> str:
    """What to do where the disk is full, whoever says so; nothing where it is not."""
    is_full = os.strerror(errno.ENOSPC) in str(error)
    return "; free space and run the same command again" if is_full else ""


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}; give another --out, or mend it to resume") from error


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):  # the line that a kill cut short
        return 2**62
