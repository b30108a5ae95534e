"""`unmask train`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unmask.cli.common import end, present_device

if TYPE_CHECKING:
    from unmask.config import Recipe
    from unmask.progress import Progress


def _train(recipe_name: str, kind: str, overrides: list[str], out: Path, device: str | None) -> None:
    """Load the recipe, run the stage, report."""
    from unmask.config import load_recipe
    from unmask.train.loop import run
    from unmask.train.stages import make_stage
    from unmask.workers import workers

    recipe = load_recipe(recipe_name, overrides)
    if recipe.kind != kind:
        raise ValueError(f"{recipe_name} is a recipe for `unmask train {recipe.kind}`, not {kind}")
    group = workers(device)
    stage = make_stage(recipe, group)
    progress = _progress(recipe) if group.is_main else None
    try:
        finished = run(stage, recipe, out, group, progress)
    finally:
        if progress is not None:
            progress.close()
    group.leave()
    if group.is_main:
        last = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        where = out / ("final" if finished else "last")
        state = "finished" if finished else "stopped; the same command goes on from here"
        sys.stderr.write(f"{state}: {where}\n")
        end({"finished": finished, "folder": str(where), "steps": stage.state.step, "last": json.loads(last)})


def _progress(recipe: "Recipe") -> "Progress":
    """A bar with rate and time left on a terminal; a line every few seconds elsewhere."""
    from unmask.progress import Progress

    return Progress(Console(stderr=True), title=f"train {recipe.kind}")


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
Out = Annotated[Path, typer.Option(help="Run folder; an unfinished run in it goes on.")]
TrainDevice = Annotated[
    str | None,
    typer.Option(help="cpu or cuda; by default a GPU where there is one.", callback=present_device),
]


def denoise(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/denoise"),
    device: TrainDevice = None,
) -> None:
    """A denoiser, with the LLaDA objective."""
    _train(recipe, "denoise", overrides or [], out, device)


def init(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/init"),
    device: TrainDevice = None,
) -> None:
    """A planner head that imitates Fast-dLLM's factor rule."""
    _train(recipe, "init", overrides or [], out, device)


def grpo(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/grpo"),
    device: TrainDevice = None,
) -> None:
    """A planner, alone or together with its denoiser, by GRPO on its own decodes."""
    _train(recipe, "grpo", overrides or [], out, device)
