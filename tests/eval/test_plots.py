import math
import random
import struct
from pathlib import Path

import pytest

from tests.eval.toys import record
from unmask.eval.metrics import Summary, summarise
from unmask.eval.plots import pareto_png


def some_summaries() -> list[Summary]:
    rng = random.Random(0)
    records = []
    for task, top in (("chain", 0.9), ("code", 0.7)):
        for name, bend in (("top_k", 9), ("factor", 4), ("learned", 1.5)):
            for nfe in (2, 5, 12, 30):
                skill = top * (1 - math.exp(-nfe / bend))
                records += [
                    record(
                        task=task,
                        id=f"{index}",
                        planner=f"{name}({nfe})",
                        nfe=nfe + rng.randint(-1, 1),
                        correct=rng.random() < skill,
                    )
                    for index in range(100)
                ]
    return summarise(records)


def test_the_plot_is_a_png_with_a_panel_per_task(tmp_path: Path) -> None:
    both = some_summaries()
    pareto_png(both, tmp_path / "both.png")
    pareto_png([one for one in both if one.run.task == "chain"], tmp_path / "one.png")
    widths = []
    for name in ("one.png", "both.png"):
        data = (tmp_path / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        widths.append(struct.unpack(">I", data[16:20])[0])
    assert widths[1] == 2 * widths[0]


def test_one_point_is_enough_to_plot_and_none_is_refused(tmp_path: Path) -> None:
    pareto_png(summarise([record()]), tmp_path / "point.png")
    assert (tmp_path / "point.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="nothing to plot"):
        pareto_png([], tmp_path / "none.png")
