import io
import json

import pytest
from rich.console import Console

from tests.eval.toys import record
from unmask.eval.metrics import summarise
from unmask.eval.table import as_json, print_table

HEADER = "task run n accuracy % NFE TPF tokens/s"


@pytest.mark.parametrize("width", [20, 200])
def test_the_table_holds_every_number_even_in_a_narrow_pipe(width: int) -> None:
    records = [record(id=f"{index}", correct=index % 4 > 0, nfe=10 + index % 2) for index in range(40)]
    (summary,) = summarise(records)
    out = io.StringIO()
    print_table([summary], Console(file=out, width=width))
    header, line = out.getvalue().splitlines()
    assert header.split() == HEADER.split()
    bar = f"{100 * summary.accuracy.half_width:.1f}"
    expected = f"parity top_k(2) on toy, block 4 40 75.0 ±{bar} 10.5 ± 0.2 0.19 4"
    assert line.split() == expected.split()


def test_several_samples_of_a_problem_get_a_table_of_pass_at_k_and_diversity() -> None:
    texts = ["a b", "a b", "c d", "e"]
    records = [
        record(id=f"{index}", seed=seed, completion=text, correct=seed == 2)
        for index in range(5)
        for seed, text in enumerate(texts)
    ]
    out = io.StringIO()
    print_table(summarise(records), Console(file=out, width=200))
    _, _, _, header, line = (" ".join(each.split()) for each in out.getvalue().splitlines())
    assert header == "task run pass@2 % pass@4 % samples different different and right distinct-2"
    assert line.startswith("parity top_k(2) on toy, block 4 50.0 ±")
    assert line.endswith(" 4 3.00 1.00 0.667")


def test_a_narrow_terminal_wraps_labels_and_keeps_numbers() -> None:
    out = io.StringIO()
    summaries = summarise([record(planner="a-planner-with-a-long-name" * 3)])
    print_table(summaries, Console(file=out, width=80, force_terminal=True, color_system=None))
    assert "tokens/s" in out.getvalue()
    assert "100.0 ±" in out.getvalue()
    assert "…" not in out.getvalue()


def test_labels_are_not_read_as_markup() -> None:
    out = io.StringIO()
    print_table(summarise([record(planner="[red]a[/red]")]), Console(file=out, width=200))
    assert "[red]a[/red]" in out.getvalue()


def test_summaries_become_strict_json() -> None:
    (one,) = as_json(summarise([record()]))
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert one["nfe"] == {"value": 4.0, "low": None, "high": None}
    assert one["accuracy"]["value"] == 1.0
    assert one["num_records"] == 1
