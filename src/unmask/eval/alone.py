"""Does a row depend on the rows beside it?

In float32 it must not. In bfloat16 rounding differs from batch to batch, and this says by how much.
"""

from dataclasses import dataclass, replace

from unmask.eval.run import Conditions, Setting, decode_assignments, make_assignments, run_of
from unmask.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Alone:
    """The same rows, decoded together and each by itself."""

    rows: int
    same_tokens: int
    """Rows of equal tokens and steps."""
    same_grade: int
    nfe_difference: int
    """The largest, of any row."""
    accuracy_together: float
    accuracy_alone: float


def alone(setting: Setting, task: Task, conditions: Conditions, num_rows: int) -> Alone:
    """Decode the first rows of an evaluation together and one at a time.

    Raises:
        ValueError: unless there are at least two rows.
    """
    assignments = make_assignments(setting, task, conditions)[:num_rows]
    if len(assignments) < 2:
        raise ValueError(f"{len(assignments)} rows have no neighbours to depend on; compare 2 or more")
    run = run_of(setting, task, conditions)
    rows, records = decode_assignments(
        setting, task, replace(conditions, batch_size=len(assignments)), run, assignments
    )
    singles = [
        decode_assignments(setting, task, replace(conditions, batch_size=1), run, [each])
        for each in assignments
    ]
    lone_rows, lone_records = [row for (row,), _ in singles], [record for _, (record,) in singles]
    is_same = [
        one.tokens.equal(other.tokens) and one.unmask_step.equal(other.unmask_step)
        for one, other in zip(rows, lone_rows, strict=True)
    ]
    graded = list(zip(records, lone_records, strict=True))
    return Alone(
        rows=len(assignments),
        same_tokens=sum(is_same),
        same_grade=sum(one.correct == other.correct for one, other in graded),
        nfe_difference=max(abs(one.nfe - other.nfe) for one, other in graded),
        accuracy_together=sum(one.correct for one in records) / len(assignments),
        accuracy_alone=sum(one.correct for one in lone_records) / len(assignments),
    )
