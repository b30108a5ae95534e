"""Evaluation by the engine: a row that finishes is graded and makes room for the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from unmask.decode.engine import Engine, EngineSettings
from unmask.models.base import Denoiser
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner
from unmask.trajectory import Trajectory


@dataclass(slots=True)
class EngineDecode:
    """A `Decode` that keeps its engine from call to call.

    Without a cache the results are those of `unmask.decode`, token for token in float32.
    """

    settings: EngineSettings = field(default_factory=EngineSettings)
    _engine: Engine | None = field(default=None, repr=False)

    def __call__(
        self,
        denoiser: Denoiser,
        prompts: Sequence[Sequence[int]],
        planner: Planner,
        *,
        length: int,
        block_length: int,
        temperature: float,
        seed: Sequence[int],
        stop_at_eos: bool,
        batch_size: int,
    ) -> Iterator[tuple[int, Trajectory]]:
        """See `Engine.stream`.

        Raises:
            ValueError: for a denoiser that the engine cannot run.
        """
        if not isinstance(denoiser, Transformer):
            raise ValueError(f"the engine cannot run a {type(denoiser).__name__}; use --decoder loop")
        settings, held = replace(self.settings, max_rows=batch_size), self._engine
        if held is None or (held.denoiser, held.planner, held.settings) != (denoiser, planner, settings):
            self._engine = held = Engine(denoiser, planner, settings)
        return held.stream(
            prompts,
            length=length,
            block_length=block_length,
            temperature=temperature,
            seed=seed,
            stop_at_eos=stop_at_eos,
        )
