"""A page that replays decodes: one HTML file, no network, several rows side by side on one clock.

Python writes every token into the page, escaped; the script only hides those that a step has not
unmasked yet. Without JavaScript the page shows the finished rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from unmask.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One decoded row; `row_of` makes it from a trajectory."""

    title: str
    """Usually the planner."""
    prompt: str
    pieces: list[str]
    """The text of each completion token."""
    unmask_step: list[int]
    """The row's own step, from 0, that unmasked each; -1 for what an EOS settled: shown at the end."""
    nfe: int
    correct: bool | None
    """None where nobody graded it."""
    block_length: int
    eos: str = ""
    """The piece to show faint."""

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.unmask_step) or not self.pieces:
            raise ValueError(
                f"{self.title}: {len(self.pieces)} pieces and {len(self.unmask_step)} steps; "
                "give one step per piece"
            )
        if not all(-1 <= step < self.nfe for step in self.unmask_step):
            raise ValueError(f"{self.title}: steps must lie between -1 and nfe - 1 = {self.nfe - 1}")


def row_of(
    trajectory: Trajectory, tokenizer: Any, *, title: str, correct: bool | None, eos_id: int
) -> ReplayRow:
    """A replay row of a trajectory, each token decoded alone."""

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=False))

    return ReplayRow(
        title=title,
        prompt=text(trajectory.prompt.tolist()),
        pieces=[text([token]) for token in trajectory.tokens.tolist()],
        unmask_step=trajectory.unmask_step.tolist(),
        nfe=trajectory.nfe,
        correct=correct,
        block_length=trajectory.block_length,
        eos=text([eos_id]),
    )


def replay_html(rows: Sequence[ReplayRow], path: Path | str) -> None:
    """Write the page. Rows share the clock and the colours: give it rows of one problem.

    Raises:
        ValueError: without rows.
    """
    if not rows:
        raise ValueError("nothing to replay; give at least one row")
    num_steps = max(row.nfe for row in rows)
    template = files("unmask.eval").joinpath("replay_template.html").read_text(encoding="utf-8")
    panels = "\n".join(_panel(row, num_steps) for row in rows)
    page = Template(template).substitute(num_steps=num_steps, panels=panels)
    Path(path).write_text(page, encoding="utf-8")


def _panel(row: ReplayRow, num_steps: int) -> str:
    verdicts = {True: ("correct", "✓ correct"), False: ("wrong", "✗ wrong"), None: ("", "")}
    verdict = verdicts[row.correct]
    boxes = "".join(_box(row, position, num_steps) for position in range(len(row.pieces)))
    return (
        f'<section class="row" data-nfe="{row.nfe}" data-tokens="{len(row.pieces)}">\n'
        f'<h2>{escape(row.title)} <span class="verdict {verdict[0]}">{verdict[1]}</span></h2>\n'
        f'<p class="clock"><b class="step">{row.nfe}</b> of {row.nfe} NFE · '
        f'<span class="count">{len(row.pieces)}</span> of {len(row.pieces)} tokens '
        '<span class="done">finished</span></p>\n'
        '<div class="bar"><i></i></div>\n'
        f'<pre class="prompt">{escape(row.prompt)}</pre>\n'
        f'<div class="completion">{boxes}</div>\n'
        "</section>"
    )


def _box(row: ReplayRow, position: int, num_steps: int) -> str:
    """One token; `data-step` is the clock's reading from which it shows."""
    piece, step = row.pieces[position], row.unmask_step[position]
    is_faint = step < 0 or (row.eos != "" and piece == row.eos)
    shown_from = row.nfe if step < 0 else step + 1
    told = "settled by the EOS before it" if step < 0 else f"unmasked in step {step}"
    classes = "token"
    classes += " eos" if is_faint else ""
    classes += " edge" if position and position % row.block_length == 0 else ""
    hue = 265 - 235 * (shown_from - 1) / max(1, num_steps - 1)
    text = escape(piece).replace("\r", "␍").replace("\n", "↵") or " "
    line_break = "<br>" if "\n" in piece else ""
    return (
        f'<span class="{classes}" data-step="{shown_from}" style="--hue:{hue:.0f}" '
        f'title="position {position}, {told}">{text}</span>{line_break}'
    )
