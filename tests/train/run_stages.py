"""A program: run recipes one after another, as one of the processes that the environment describes."""

import json
import sys
from pathlib import Path

from unmask.config import KINDS
from unmask.train.loop import run
from unmask.train.stages import make_stage
from unmask.workers import workers


def main(recipes: Path, out: Path) -> None:
    group = workers("cpu")
    for name, content in json.loads(recipes.read_text()).items():
        recipe = KINDS[content["kind"]].model_validate(content)
        run(make_stage(recipe, group), recipe, out / name, group)
    group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
