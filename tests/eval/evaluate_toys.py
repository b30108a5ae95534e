"""A program: evaluate the toys as one of the processes that the environment describes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.eval.toys import CharTokenizer, CountingDenoiser, ParityTask
from unmask.eval.run import Conditions, Setting, evaluate
from unmask.planners.load import planner
from unmask.workers import workers


def main(folder: Path) -> None:
    group = workers("cpu")
    setting = Setting(
        "toy", CountingDenoiser(CharTokenizer()), "random(2)", planner("random", k=2), block_length=4
    )
    conditions = Conditions(length=8, num_problems=13, seeds=(0, 1), temperature=1.0, batch_size=3)
    for name, out in (("written", folder / "records.jsonl"), ("gathered", None)):
        records = evaluate(setting, ParityTask(), conditions, out=out, traces=out is not None, workers=group)
        if group.is_main:
            (folder / f"{name}.json").write_text(json.dumps([asdict(one) for one in records]))
    group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
