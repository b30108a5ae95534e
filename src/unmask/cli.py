"""The command line: verbs only; each imports what it needs when it is called."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from unmask.config import Recipe
    from unmask.progress import Progress

app = typer.Typer(
    help="Make masked diffusion language models fast by learning what to unmask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(
    help="Train a denoiser, a planner, or both. RECIPE is a YAML file or the name of a bundled one.",
    no_args_is_help=True,
)
app.add_typer(train_app, name="train")


def _device(text: str | None) -> str | None:
    """A device that is there."""
    import torch

    try:
        kind = torch.device(text).type if text else "cpu"
    except RuntimeError as error:
        raise ValueError(f"unknown device {text!r}; use cpu or cuda") from error
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device {text!r} is not available here; use cpu")
    return text


Model = Annotated[str, typer.Option("--model", "-m", help='Folder, hub id, "bundled" or "bundled/NAME".')]
Planners = Annotated[
    list[str],
    typer.Option("--planner", "-p", help="factor(1.0), bundled/policy(factor=1.5), own, ...; repeatable."),
]
Blocks = Annotated[list[int], typer.Option("--block-length", "-b", help="Window; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.", callback=_device)]
Length = Annotated[int, typer.Option(help="Completion positions.")]
Temperature = Annotated[float, typer.Option(help="Of token sampling; 0 is greedy.")]


def main() -> None:
    """Run a verb; what the user can mend is one line on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a click usage error knows how to say what was wrong
            raise
        _fail(error.format_message())
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str) -> None:
    if message:  # empty where click has shown the help
        sys.stderr.write(f"unmask: {' '.join(message.split())}\n")
    sys.exit(2)


def _check_writable(path: Path | None) -> None:
    """Find out before the work, not after it."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()


def _end(value: Any) -> None:
    """The one JSON line that ends stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


@app.command()
def generate(
    prompts: Annotated[
        list[str], typer.Argument(help=r"Prompts in the form the model knows; \n is a line break.")
    ],
    model: Model = "bundled",
    planner: Annotated[str, typer.Option("--planner", "-p", help="As in eval.")] = "factor(1.0)",
    length: Length = 64,
    block_length: Annotated[int, typer.Option("--block-length", "-b")] = 32,
    temperature: Temperature = 0.0,
    seed: int = 0,
    stop_at_eos: Annotated[bool, typer.Option(help="Stop a row at a settled EOS.")] = False,
    device: Device = "cpu",
    html: Annotated[Path | None, typer.Option(help="Write a replay of the steps here.")] = None,
) -> None:
    """Complete prompts and say what each cost."""
    from unmask.decode.loop import decode
    from unmask.decode.text import completion_text
    from unmask.eval.replay import replay_html, row_of
    from unmask.models.load import load_denoiser
    from unmask.planners.load import parse_planner

    _check_writable(html)
    denoiser = load_denoiser(model, device=device)
    if denoiser.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer.json, so it cannot read text")
    encoded = [_encode(denoiser.tokenizer, _unescape(prompt)) for prompt in prompts]
    rows = decode(
        denoiser,
        encoded,
        parse_planner(planner, own=model, device=device),
        length=length,
        block_length=block_length,
        temperature=temperature,
        seed=seed,
        stop_at_eos=stop_at_eos,
    )
    console = Console()
    records = []
    for row in rows:
        text = completion_text(denoiser.tokenizer, row, denoiser.eos_id)
        console.print(text, markup=False, highlight=False)
        console.print(f"NFE {row.nfe}", style="dim")
        records.append({"completion": text, "nfe": row.nfe, "unmask_step": row.unmask_step.tolist()})
    if html is not None:
        pairs = zip(rows, prompts, strict=True)
        shown = [
            row_of(row, denoiser.tokenizer, title=prompt[:60], correct=None, eos_id=denoiser.eos_id)
            for row, prompt in pairs
        ]
        replay_html(shown, html)
    _end({"planner": planner, "rows": records})


def _encode(tokenizer: Any, prompt: str) -> list[int]:
    try:
        ids: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"prompt {prompt!r} cannot be encoded: {error}; use other characters") from error
    return ids


def _unescape(prompt: str) -> str:
    r"""A shell word cannot easily hold a line break: \n stands for one."""
    return prompt.replace("\\n", "\n")


@app.command(name="eval")
def evaluate_command(
    planner: Planners,
    model: Model = "bundled",
    task: Annotated[list[str], typer.Option("--task", "-t", help="Repeatable.")] = ["chain", "code"],  # noqa: B006
    block_length: Blocks = [32],  # noqa: B006
    num_problems: Annotated[
        int, typer.Option("--num-problems", "-n", help="Held-out problems a task.")
    ] = 100,
    seeds: Annotated[int, typer.Option(help="Decode every problem with this many seeds.")] = 1,
    length: Length = 64,
    temperature: Temperature = 0.0,
    batch_size: Annotated[int, typer.Option(help="Rows per denoiser call.")] = 64,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Append records to this JSONL file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a replay of the first problems here.")] = None,
) -> None:
    """Accuracy, NFE, TPF and time of planners on held-out problems."""
    from unmask.eval.compare import Setting, compare
    from unmask.eval.metrics import summarise
    from unmask.eval.records import append_records
    from unmask.eval.replay import replay_html
    from unmask.eval.table import as_json, print_table
    from unmask.models.load import load_denoiser
    from unmask.planners.load import parse_planner
    from unmask.tasks.load import load_task

    for path in (out, html):
        _check_writable(path)
    denoiser = load_denoiser(model, device=device)
    tasks = [load_task(name) for name in task]
    settings = [
        Setting(model, denoiser, text, parse_planner(text, own=model, device=device), block)
        for text in planner
        for block in block_length
    ]
    with Console(stderr=True).status("decoding") as status:
        result = compare(
            settings,
            tasks,
            num_problems=num_problems,
            seeds=range(seeds),
            length=length,
            temperature=temperature,
            batch_size=batch_size,
            watch=lambda what, done, total: status.update(f"{what}: {done}/{total}"),
            save=None if out is None else lambda records: append_records(out, records),
        )
    if html is not None:
        replay_html(result.replays, html)
    summaries = summarise(result.records)
    print_table(summaries)
    _end({"summaries": as_json(summaries)})


@app.command()
def pareto(
    files: Annotated[list[Path], typer.Argument(help="JSONL records of eval.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("pareto.png"),
) -> None:
    """The accuracy-NFE frontier of any number of runs: table, PNG and JSON."""
    from unmask.eval.metrics import summarise
    from unmask.eval.pareto import frontier, point_of
    from unmask.eval.plots import pareto_png
    from unmask.eval.records import read_records
    from unmask.eval.table import as_json, print_table

    summaries = summarise([record for path in files for record in read_records(path)])
    if not summaries:
        raise ValueError("no records in the files given; write some with `unmask eval --out FILE.jsonl`")
    _check_writable(out)
    print_table(summaries)
    pareto_png(summaries, out)
    best = {
        task: [
            {"label": point.label, "nfe": point.nfe, "accuracy": point.accuracy}
            for point in frontier(point_of(each) for each in summaries if each.task == task)
        ]
        for task in sorted({each.task for each in summaries})
    }
    Console().print(f"plot: {out}", highlight=False)
    _end({"frontier": best, "summaries": as_json(summaries), "png": str(out)})


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="JSONL with completion and id on each line.")],
    task: Annotated[str, typer.Option("--task", "-t")],
) -> None:
    """Grade existing generations."""
    from unmask.eval.score import score_file
    from unmask.tasks.load import load_task

    result = score_file(file, load_task(task))
    low, high = result.interval
    Console().print(
        f"{task}: {result.accuracy:.1%} of {result.n} right (95 % interval {low:.1%} to {high:.1%})"
    )
    _end({"task": task, "n": result.n, "accuracy": result.accuracy, "interval": [low, high]})


def _train(recipe_name: str, kind: str, overrides: list[str], out: Path, device: str | None) -> None:
    """Load the recipe, run the stage, report."""
    from unmask.config import load_recipe
    from unmask.train.loop import run
    from unmask.train.parallel import workers
    from unmask.train.stages import make_stage

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
    if group.is_main:
        last = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        where = out / ("final" if finished else "last")
        state = "finished" if finished else "stopped; the same command goes on from here"
        sys.stderr.write(f"{state}: {where}\n")
        _end(
            {"finished": finished, "folder": str(where), "steps": stage.state.step, "last": json.loads(last)}
        )


def _progress(recipe: "Recipe") -> "Progress":
    """A bar with rate and time left on a terminal; a line every few seconds elsewhere."""
    from unmask.progress import Progress

    return Progress(Console(stderr=True), title=f"train {recipe.kind}")


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
Out = Annotated[Path, typer.Option(help="Run folder; an unfinished run in it goes on.")]
TrainDevice = Annotated[
    str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.", callback=_device)
]


@train_app.command()
def denoise(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/denoise"),
    device: TrainDevice = None,
) -> None:
    """A denoiser, with the LLaDA objective."""
    _train(recipe, "denoise", overrides or [], out, device)


@train_app.command()
def init(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/init"),
    device: TrainDevice = None,
) -> None:
    """A planner head that imitates Fast-dLLM's factor rule."""
    _train(recipe, "init", overrides or [], out, device)


@train_app.command()
def grpo(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs/grpo"),
    device: TrainDevice = None,
) -> None:
    """A planner, alone or together with its denoiser, by GRPO on its own decodes."""
    _train(recipe, "grpo", overrides or [], out, device)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the plot, the replay and the records go.")] = Path(
        "runs/demo"
    ),
    num_problems: Annotated[int, typer.Option("--num-problems", "-n", help="Held-out problems a task.")] = 48,
) -> None:
    """Five minutes: watch a planner learn what to unmask, and what that buys."""
    from unmask.demo.show import show

    _end(show(out, num_problems, Console()))
