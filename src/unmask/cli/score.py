"""`unmask score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from unmask.cli.common import check_writable, end

if TYPE_CHECKING:
    from unmask.eval.score import Score


def score(
    files: Annotated[
        list[Path], typer.Argument(help="Records, or generations of d1, dUltra, lm-eval or your own.")
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="gsm8k, humaneval, gsm8k(style=llada), ...")],
    skip_bad: Annotated[bool, typer.Option(help="Leave out entries that cannot be read or placed.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write each grade and its reason to this JSONL file.")
    ] = None,
) -> None:
    """Grade existing generations, whoever made them."""
    import json

    from unmask.eval.score import score_files
    from unmask.tasks.load import load_task

    check_writable(out, files)
    result = score_files(files, load_task(task), skip_bad=skip_bad)
    runs = result.by_run()
    console = Console()
    for name, one in runs:
        accuracy = one.accuracy
        partial = "" if one.partial is None else f"; mean partial credit {one.partial:.1%}"
        console.print(
            f"{name or task}: {accuracy.value:.1%} of {len(one.graded)} right "
            f"(95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}){partial}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    formats = ", ".join(f"{count} in format {name}" for name, count in result.formats.items())
    console.print(f"read: {formats}", highlight=False)
    for why in result.skipped[:5]:
        console.print(f"skipped: {why}", highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        lines = (
            {
                "where": one.generation.where,
                "run": name,
                "id": one.problem.id,
                "completion": one.generation.text,
                "correct": one.grade.correct,
                "reason": one.grade.reason,
                "score": one.grade.score,
            }
            for name, group in runs
            for one in group.graded
        )
        out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    whole = _figures(result) if len(runs) == 1 else {"n": len(result.graded)}  # no average over runs
    end(
        {
            "task": task,
            **whole,
            "runs": [{"run": name, **_figures(one)} for name, one in runs],
            "format": "+".join(sorted(result.formats)),
            "skipped": len(result.skipped),
            "of_other_tasks": result.num_other,
        }
    )


def _figures(score: "Score") -> dict[str, Any]:
    accuracy = score.accuracy
    return {
        "n": len(score.graded),
        "accuracy": accuracy.value,
        "interval": [accuracy.low, accuracy.high],
        "problems": len({one.problem.id for one in score.graded}),
        "partial": score.partial,
    }
