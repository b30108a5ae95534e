"""How the engine works."""

from dataclasses import dataclass
from typing import Literal, SupportsIndex

from unmask.trajectory import CACHES


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine works.

    With cache "none" no setting changes a result in float32, only time and memory; in half precision sums are
    rounded as rows are batched.

    Raises:
        ValueError: for numbers under 1, words where True or False is meant, and settings that do not fit
            together.
    """

    max_rows: int = 64
    """Rows decoded at a time."""
    max_tokens: int | None = None
    """Most tokens, prompts and completions, of the rows decoded at a time."""
    cache: Literal["none", "prefix", "dual"] = "none"
    """Which keys and values a step takes from the row's last whole step (Fast-dLLM, arXiv 2505.22618): none
    (exact), those before the current block, or those before and behind it (both approximate)."""
    refresh_every: int | None = None
    """With a cache: steps on a window after which the row is seen whole again; it always is when its block
    begins. None: only then."""
    compile: bool = False
    """Compile the parts of the blocks between attentions, a planner head's too, with torch.compile."""
    graphs: bool | None = None
    """Capture steps as CUDA graphs, one for each shape; steps are padded to few shapes. None: if the model is
    on one GPU, and it and the planner say that they can be, see `unmask.planners.base.is_capturable`."""
    steps_per_sync: int = 1
    """Without a cache: steps queued before the host looks who has finished. Rows that finish early idle.
    It looks after each where what a policy saw is recorded, see `Trajectory.confidence`."""
    max_logits: int = 2**26
    """Float32 logits held at a time, in elements (256 MiB)."""

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise ValueError(f"unknown cache {self.cache!r}; use one of {', '.join(CACHES)}")
        for name, given in (("compile", self.compile), ("graphs", self.graphs or False)):
            if not isinstance(given, bool):
                raise ValueError(f"{name}={given!r}: give True or False")
        for name in ("max_rows", "max_tokens", "refresh_every", "steps_per_sync", "max_logits"):
            value = getattr(self, name)
            if value is None and name in ("max_tokens", "refresh_every"):
                continue
            if not isinstance(value, SupportsIndex):
                raise ValueError(f"{name} {value!r} is no whole number")
            if int(value) < 1:
                raise ValueError(f"{name} {value} leaves nothing to do; use 1 or more")
        if self.cache == "none" and self.refresh_every is not None:
            raise ValueError("refresh_every says when a cache is filled again; name a cache, or leave it out")
        if self.cache != "none" and self.steps_per_sync > 1:
            raise ValueError("with a cache the host looks after every step; leave steps_per_sync out")
