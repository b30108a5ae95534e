"""The model `unmask` of lm-evaluation-harness (extra `lm-eval`).

The harness knows its own models only, so this module registers ours and then runs its command line:
`python -m unmask.eval.lm_eval --model unmask --model_args pretrained=bundled,planner=factor(1.0) --tasks
...`, with all of its options. In Python, import this module before calling `lm_eval.simple_evaluate`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from unmask.decode.engine import EngineSettings
from unmask.eval.engine import EngineDecode
from unmask.eval.harness import Answering, Harness
from unmask.models.load import load_denoiser
from unmask.planners.load import parse_planner
from unmask.workers import PATIENCE, workers


@register_model("unmask")
class UnmaskLM(LM):  # type: ignore[misc]
    """A denoiser with a planner.

    Args:
        pretrained: folder, hub id or "bundled".
        planner: as in `unmask eval -p`; quote one that has commas in it.
        dtype: float32, bfloat16 or float16.
        device: cpu or cuda; each process of `accelerate launch` gets its own.
        batch_size: rows per denoiser call.
        max_batch_size: of the harness; not used.
        cache: what a step takes from an earlier one; prefix and dual are approximate.
        graphs, compile: of the engine, see `EngineSettings`.
        device_map: spreads the model over the GPUs of one process, see `load_denoiser`.
        log: JSONL file to append completion, NFE, tokens and seconds of each answer to.
        answering: fields of `Answering`: length, block_length, temperature, stop_at_eos, seed, num_draws (or
            mc_num, as LLaDA calls it), check_greedy.
    """

    def __init__(
        self,
        pretrained: str = "bundled",
        planner: str = "factor(1.0)",
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        cache: Literal["none", "prefix", "dual"] = "none",
        graphs: bool | None = None,
        compile: bool = False,
        device_map: Literal["auto", "balanced"] | None = None,
        log: str | None = None,
        **answering: Any,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ValueError(f"batch_size {batch_size!r}: give a number")
        settings = EngineSettings(cache=cache, graphs=graphs, compile=compile)  # refused before a model loads
        if "mc_num" in answering:
            answering["num_draws"] = answering.pop("mc_num")
        self.group = workers(device, PATIENCE)
        self._rank, self._world_size = self.group.rank, self.group.size
        self._device = self.group.device
        if device_map is not None and self.group.size > 1:
            raise ValueError("device_map takes all GPUs for one process; leave it or accelerate launch out")
        denoiser = load_denoiser(pretrained, device=self.group.device, dtype=dtype, device_map=device_map)
        self.tokenizer = denoiser.tokenizer
        self.pretrained = pretrained
        self.harness = Harness(
            denoiser,
            parse_planner(
                planner,
                own=pretrained,
                device=str(self.group.device),
                dtype=denoiser.embed.weight.dtype,
            ),
            Answering(batch_size=int(batch_size), **answering),
            decode=EngineDecode(settings),
            log=None if log is None else Path(log),
        )

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """A completion of each context."""
        if not requests:
            return []
        completions = self.harness.generate([request.args for request in requests])
        nfe, tokens = (sum(each) for each in zip(*self.harness.costs, strict=True))
        logging.getLogger("lm_eval.unmask").info(
            "%d completions: %.2f NFE each, %.2f tokens per forward (no EOS, no padding)",
            len(self.harness.costs),
            nfe / len(self.harness.costs),
            tokens / nfe,
        )
        return completions

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Monte-Carlo bounds, see `unmask.eval.likelihood`."""
        return self.harness.log_likelihoods([request.args for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Refused: a masked diffusion model has no next-token factors to roll over a long text."""
        raise ValueError(
            "unmask has no rolling log-likelihood: a masked diffusion model bounds the likelihood of a whole "
            "text only; choose tasks with generate_until or loglikelihood requests"
        )

    @property
    def tokenizer_name(self) -> str:
        return self.pretrained.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What the harness notes down."""
        return str(self.tokenizer.chat_template or "") if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Turns as one text, in the checkpoint's own template.

        Raises:
            ValueError: where the checkpoint has none.
        """
        if not self.tokenizer.chat_template:
            raise ValueError(f"{self.pretrained} has no chat template; leave out --apply_chat_template")
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of one number of each process."""
        parts = [torch.zeros_like(tensor) for _ in range(self._world_size)]
        if self._world_size > 1:
            dist.all_gather(parts, tensor)
        else:
            parts = [tensor]
        return torch.stack(parts)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Of every process, on `dst`."""
        found = self.group.gather([obj])
        return found if self._rank == dst else None

    def barrier(self) -> None:
        self.group.wait()


if __name__ == "__main__":
    cli_evaluate()
    if dist.is_initialized():
        dist.destroy_process_group()
