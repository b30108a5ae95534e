"""`unmask pareto`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from unmask.cli.common import check_writable, end

if TYPE_CHECKING:
    from unmask.eval.metrics import Summary
    from unmask.eval.report import Report
    from unmask.eval.stats import Estimate


def pareto(
    files: Annotated[list[Path], typer.Argument(help="JSONL records of eval.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("pareto.png"),
    html: Annotated[
        Path | None, typer.Option(help="Interactive page to write: one file, no network.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Planner that the others are paired with; by default the most accurate run.")
    ] = "",
    margin: Annotated[
        float,
        typer.Option(help="Accuracy that a run may lose and still dominate a slower one: 0.01 is a point."),
    ] = 0.0,
    intervals: Annotated[str, typer.Option(help="Of accuracies: wilson or bootstrap.")] = "wilson",
    reference: Annotated[
        str,
        typer.Option(
            help="Planner of one token a step: AUP begins with it, and --traces of eval are held against it."
        ),
    ] = "top_k(1)",
) -> None:
    """Any number of runs: accuracy against NFE, the frontier, paired tests, and which run dominates which."""
    from unmask.eval.page import pareto_html
    from unmask.eval.plots import pareto_png
    from unmask.eval.report import make_report
    from unmask.eval.table import print_table

    report = make_report(files, interval=intervals, margin=margin, reference=reference)
    for path in (out, html):
        check_writable(path, files)
    print_table(report.summaries)
    baselines = {task: _baseline(report, task, against) for task in report.tasks}
    _print_pairs(report, baselines)
    _print_curves(report)
    _print_traced(report)
    pareto_png(report.summaries, out)
    Console().print(f"plot: {out}", highlight=False)
    if html is not None:
        pareto_html(report, html)
        Console().print(f"page: {html}", highlight=False)
    end(_as_json(report, baselines) | {"png": str(out), "html": None if html is None else str(html)})


def _baseline(report: "Report", task: str, against: str) -> int:
    places = report.of_task(task)
    if against:
        named = [
            place for place in places if against in (report.summaries[place].run.planner, report.names[place])
        ]
        if not named:
            known = ", ".join(dict.fromkeys(report.summaries[place].run.planner for place in places))
            raise ValueError(f"--against {against!r}: {task} has no such planner; it has {known}")
        places = named
    return max(
        places,
        key=lambda place: (
            report.summaries[place].accuracy.value,
            -report.summaries[place].nfe.value,
            -place,
        ),
    )


def _print_pairs(report: "Report", baselines: dict[str, int]) -> None:
    from unmask.eval.table import make_table, print_whole

    for task, baseline in baselines.items():
        rows = [(place, report.versus(place, baseline)) for place in report.of_task(task)]
        if not any(one for _, one in rows):
            continue
        title = f"{task}: against {report.names[baseline]}"
        table = make_table([title], ["accuracy, points", "p", "NFE, times", "pairs"])
        table.add_column("dominated by", justify="right")
        for place, one in rows:
            if one is not None:
                table.add_row(
                    Text(report.names[place]),
                    _interval(one.difference.estimate, 100, "+.1f"),
                    f"{one.test.p:.3g}",
                    _interval(one.nfe_ratio.estimate, 1, ".2f"),
                    str(one.difference.num_pairs),
                    Text("; ".join(report.names[other] for other in report.dominated_by[place]) or "-"),
                )
        Console().print()
        print_whole(table)


def _print_curves(report: "Report") -> None:
    from unmask.eval.table import make_table, print_whole

    table = make_table(["task", "curve"], ["runs", "area under frontier", "AUP"])
    for one in report.curves:
        aup = "-" if one.aup is None else f"{one.aup:.1f}"
        table.add_row(Text(one.task), Text(one.name), str(len(one.summaries)), f"{one.area:.3f}", aup)
    Console().print()
    print_whole(table)


def _print_traced(report: "Report") -> None:
    from unmask.eval.table import make_table, print_whole

    if not any(report.traced):
        return
    orders = ["tokens a step", "single", "left to right", "within block"]
    table = make_table(["task", "run"], [*orders, "ECE tokens", "ECE answers"])
    for one, name, traced in zip(report.summaries, report.names, report.traced, strict=True):
        if traced is not None:
            order = traced.order
            told = (order.left_to_right, order.within_block)
            errors = [each and each.error for each in (traced.tokens, traced.answers)]
            table.add_row(
                Text(one.run.task),
                Text(name),
                f"{order.tokens_a_step:.2f}",
                f"{order.single_steps:.0%}",
                *("-" if each is None else f"{each:+.2f}" for each in told),
                *("-" if each is None else f"{each:.3f}" for each in errors),
            )
    Console().print()
    print_whole(table)


def _interval(estimate: "Estimate", scale: float, form: str) -> str:
    value, low, high = (scale * one for one in (estimate.value, estimate.low, estimate.high))
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def _as_json(report: "Report", baselines: dict[str, int]) -> dict[str, Any]:
    from unmask.eval.table import as_json, known

    summaries = as_json(report.summaries)
    for place, entry in enumerate(summaries):
        entry["is_on_frontier"] = report.frontier[place]
        entry["dominated_by"] = [report.names[other] for other in report.dominated_by[place]]
        traced = report.traced[place]
        entry["traced"] = None if traced is None else asdict(traced)
    frontier = {
        task: [
            {"label": report.names[place], "nfe": one.nfe.value, "accuracy": one.accuracy.value}
            for place, one in _by_nfe(report, task)
            if report.frontier[place]
        ]
        for task in report.tasks
    }
    pairs = [
        {"task": task, "run": report.names[place], "against": report.names[baseline], **known(asdict(one))}
        for task, baseline in baselines.items()
        for place in report.of_task(task)
        if (one := report.versus(place, baseline)) is not None
    ]
    curves = [
        {"task": one.task, "name": one.name, "runs": len(one.summaries), "area": one.area, "aup": one.aup}
        for one in report.curves
    ]
    return {"frontier": frontier, "summaries": summaries, "pairs": pairs, "curves": curves}


def _by_nfe(report: "Report", task: str) -> "list[tuple[int, Summary]]":
    held = [(place, report.summaries[place]) for place in report.of_task(task)]
    return sorted(held, key=lambda pair: pair[1].nfe.value)
