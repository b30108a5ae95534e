"""The command line: a file per group of verbs; each imports what it needs when it is called."""

import sys
from pathlib import Path

import typer

from unmask.cli.bench import bench
from unmask.cli.common import fail
from unmask.cli.convert import convert
from unmask.cli.demo import demo
from unmask.cli.evaluate import evaluate
from unmask.cli.generate import generate
from unmask.cli.pareto import pareto
from unmask.cli.push import push
from unmask.cli.score import score
from unmask.cli.train import denoise, grpo, init

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
for verb in (generate, pareto, score, convert, push, demo, bench):
    app.command()(verb)
app.command(name="eval")(evaluate)
for stage in (denoise, init, grpo):
    train_app.command()(stage)


def main() -> None:
    """Run a verb; what the user can mend is one line on stderr and exit status 2."""
    try:
        status = app([_at_home(word) for word in sys.argv[1:]], standalone_mode=False)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from unmask.decode.loop import DecodeError

        if isinstance(error, DecodeError):
            fail(str(error))
        if not hasattr(error, "format_message"):  # a click usage error knows how to say what was wrong
            raise
        fail(error.format_message())
    sys.exit(status if isinstance(status, int) else 0)


def _at_home(word: str) -> str:
    """`--out=~/runs` with the home folder in it: shells put it in at the start of a word only."""
    name, _, value = word.partition("=")
    return f"{name}={Path(value).expanduser()}" if name.startswith("--") and value.startswith("~/") else word
