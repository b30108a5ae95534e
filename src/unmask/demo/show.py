"""What `unmask demo` shows, in three parts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from unmask.demo import closed_form
from unmask.demo.policy import START, UPDATES, learn_policy
from unmask.eval.compare import Status, compare, replays
from unmask.eval.metrics import summarise
from unmask.eval.page import pareto_html
from unmask.eval.plots import pareto_png
from unmask.eval.records import append_records
from unmask.eval.replay import replay_html
from unmask.eval.report import make_report
from unmask.eval.run import Conditions, Setting
from unmask.eval.table import as_json, print_table
from unmask.models.exact import EXACT
from unmask.models.load import load_denoiser
from unmask.planners.heuristics import TopK
from unmask.planners.load import load_planner, planner
from unmask.tasks.load import load_task
from unmask.train.loop import Metrics

LENGTH, BLOCK = 64, 32


def show(out: Path, num_problems: int, console: Console) -> dict[str, Any]:
    """Run the three parts; the plot, the replay and the records go to `out`. Returns the figures."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "closed_form": _closed_form(console),
        "policy": _policy(console),
        "comparison": _compare(out, num_problems, console),
    }
    written = ("pareto.png", "pareto.html", "replay.html", "records.jsonl")
    console.print(f"\nwritten: {', '.join(str(out / name) for name in written)}", highlight=False)
    return {**figures, "seconds": round(time.perf_counter() - started, 1)}


def _bar(console: Console, total: int, title: str) -> tuple[Progress, Callable[[int, str], None]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
    )
    row = progress.add_task(title, total=total, text="")

    def update(done: int, text: str) -> None:
        progress.update(row, completed=done, text=text)
        if not console.is_terminal and done % max(1, total // 6) == 0:
            console.print(f"  {title} {done}/{total} {text}", highlight=False)

    return progress, update


def _closed_form(console: Console) -> dict[str, Any]:
    console.rule("1. Known answers: GRPO finds the best order")
    console.print(
        "Denoisers in closed form, so the best number of calls is known. A head of 9 numbers starts blind.",
        highlight=False,
    )
    found = {}
    for name in EXACT:
        updates = 120
        progress, update = _bar(console, updates, f"{name:<12}")

        def watch(index: int, metrics: Metrics, update: Callable[[int, str], None] = update) -> None:
            update(index + 1, f"valid {metrics['accuracy']:4.0%}  NFE {metrics['nfe']:5.2f}")

        with progress:
            denoiser, learned = closed_form.learn(name, updates=updates, watch=watch)
        reached = closed_form.measure(denoiser, learned)
        one, four = (closed_form.measure(denoiser, TopK(k), num_rows=200) for k in (1, 4))
        console.print(
            f"  {name}: learned {reached.accuracy:.1%} valid at {reached.nfe:.2f} NFE (best possible "
            f"{reached.optimal_nfe}); top_k(1) {one.accuracy:.0%} at {one.nfe:.0f}; "
            f"top_k(4) {four.accuracy:.0%} at {four.nfe:.0f}",
            highlight=False,
        )
        found[name] = {"accuracy": reached.accuracy, "nfe": reached.nfe, "optimal_nfe": reached.optimal_nfe}
    return found


def _policy(console: Console) -> dict[str, Any]:
    console.rule("2. A policy learns on the bundled net, base frozen")
    console.print(
        "331,265 parameters that see confidences, mask and time. It starts as a copy of Fast-dLLM's rule; "
        "GRPO with reward = correct × speed repairs it first; speed takes more updates (bundled/policy).",
        highlight=False,
    )
    rewards: list[float] = []
    progress, update = _bar(console, UPDATES, "policy")

    def watch(done: int, metrics: Metrics) -> None:
        rewards.append(metrics["score"])
        right, nfe = metrics["accuracy"], metrics["nfe"]
        update(done, f"reward {metrics['score']:.3f}  right {right:4.0%}  NFE {nfe:4.1f}")

    with progress:
        learned = learn_policy(watch)
    figures: dict[str, Any] = {"rewards": [round(reward, 4) for reward in rewards]}
    base, task = load_denoiser("bundled"), load_task("chain")
    for name, policy in (("before", load_planner(START)), ("after", learned)):
        setting = Setting("base", base, name, policy, BLOCK)
        (found,) = summarise(compare([setting], [task], Conditions(length=LENGTH, num_problems=32)))
        console.print(
            f"  {name}: {found.accuracy.value:.0%} of 32 held-out problems right, {found.nfe.value:.1f} NFE",
            highlight=False,
        )
        figures[name] = {"accuracy": found.accuracy.value, "nfe": found.nfe.value}
    return figures


def _compare(out: Path, num_problems: int, console: Console) -> list[dict[str, Any]]:
    console.rule("3. Held-out problems: Fast-dLLM and the bundled learned planners")
    base, tuned = load_denoiser("bundled"), load_denoiser("bundled/dultra")
    settings = [
        Setting("base", base, "factor(1.0)", planner("factor", factor=1.0), BLOCK),
        Setting("base", base, "threshold(0.9)", planner("threshold", tau=0.9), BLOCK),
        Setting("base", base, "policy", load_planner("bundled/policy"), BLOCK),
        Setting("dultra", tuned, "dultra", load_planner("bundled/dultra"), BLOCK),
    ]
    tasks = [load_task("chain"), load_task("code")]
    progress, update = _bar(console, len(settings) * len(tasks), "decoding")
    finished = 0

    def watch(now: Status) -> None:
        nonlocal finished
        finished += now.done == now.total
        update(finished, now.what)

    conditions = Conditions(length=LENGTH, num_problems=num_problems)
    with progress:
        records = compare(settings, tasks, conditions, watch=watch)
    summaries = summarise(records)
    (out / "records.jsonl").unlink(missing_ok=True)
    append_records(out / "records.jsonl", records)
    pareto_png(summaries, out / "pareto.png")
    pareto_html(make_report([out / "records.jsonl"]), out / "pareto.html")
    replay_html(replays(settings, tasks, conditions, 1), out / "replay.html")
    print_table(summaries, console)
    return as_json(summaries)
