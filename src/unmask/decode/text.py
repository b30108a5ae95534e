"""From a decoded row to text."""

from typing import Any

from unmask.trajectory import Trajectory


def completion_text(tokenizer: Any, row: Trajectory, eos_id: int) -> str:
    """The text before the first EOS."""
    tokens = row.tokens.tolist()
    end = tokens.index(eos_id) if eos_id in tokens else len(tokens)
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=False))
