"""The rules about the code itself, as docs/architecture.md states them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
RECIPES = sorted((SOURCE / "unmask" / "recipes").glob("*.yaml"))
TEXT_SUFFIXES = {".json", ".jsonl", ".md", ".py", ".svg", ".toml", ".txt", ".yaml", ".yml"}
MAX_LINES = 400


def text_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in TEXT_SUFFIXES and path.is_file():
                yield path


def where_is_rows() -> list[str]:
    """The body rows of the README's "Where is ...?" table; [] where there is none."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = re.search(r"^(?:#+|\|) *Where is\b", text, re.MULTILINE)
    if start is None:
        return []
    table = re.search(r"^\|[ :|-]+\|\n((?:\|.*(?:\n|\Z))+)", text[start.start() :], re.MULTILINE)
    return table.group(1).splitlines() if table else []


def defined_names(path: Path) -> set[str]:
    """Names that a module defines, dotted inside classes: `Trajectory.state_at`."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def unresolved(row: str) -> list[str]:
    """The references of one row that lead nowhere; a row without a reference is one itself."""
    references = re.findall(r"`([^`\s]+)`", row.rstrip(" |").rpartition("|")[2])
    missing = [] if references else [row]
    for reference in references:
        path, _, name = reference.partition("::")
        if not (ROOT / path).exists() or (name and name not in defined_names(ROOT / path)):
            missing.append(reference)
    return missing


def test_the_readme_table_says_where_everything_is() -> None:
    rows = where_is_rows()
    assert rows, 'README.md has no "Where is ...?" table'
    assert [reference for row in rows for reference in unresolved(row)] == []


def test_source_files_keep_to_the_budget() -> None:
    num_lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in text_files("src", "tests", "benchmarks", "examples")
        if path.suffix in {".py", ".yaml"}
    }
    assert num_lines
    assert {path: num for path, num in num_lines.items() if num > MAX_LINES} == {}


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_validates(path: Path) -> None:
    from unmask.config import load_recipe

    load_recipe(path)


def test_only_a_familys_adapter_knows_its_mask_id() -> None:
    mask_id = re.compile(r"\b(126_?336|151_?666)\b")
    offenders = [
        str(path.relative_to(ROOT))
        for path in text_files("src", "examples", "benchmarks")
        if path.suffix in {".py", ".yaml"}
        and path.parent.name != "families"
        and mask_id.search(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []


def test_importing_the_package_stays_light() -> None:
    code = "import sys, unmask; print(*{'transformers', 'matplotlib', 'typer'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    folders = "home|mnt|opt|root|scratch|tmp|Users|work|workspace"
    machine_path = re.compile(rf"(?<![\w.~/-])/(?:{folders})/")
    top_level = [path for path in ROOT.iterdir() if path.suffix in TEXT_SUFFIXES]
    offenders = [
        str(path.relative_to(ROOT))
        for path in [*top_level, *text_files("src", "docs", "examples", "benchmarks")]
        if machine_path.search(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []
