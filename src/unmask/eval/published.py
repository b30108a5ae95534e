"""Decoding by published code, from a checkout that the user has, on the very tensors of our net.

Nothing of it is in this package: it is imported from the folder given, unchanged, and patched while it runs
where a newer `transformers` lacks what it expects. Only code that the user points to is run.

B rows, C completion positions, T = prompt + C.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from unmask.decode.loop import left_pad
from unmask.families.llada import dultra_head_names, llada_names
from unmask.families.names import Names
from unmask.models.transformer import Transformer
from unmask.planners.base import Planner
from unmask.planners.heads import DultraHead
from unmask.planners.heuristics import Threshold, TopK
from unmask.planners.learned import LearnedPlanner


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a published `generate` did with a batch."""

    tokens_BC: Tensor
    nfe: list[int]
    """For each row, the calls made while it had masks."""
    calls: int
    """Of the model, on however many rows."""
    block_nfe: int = 0
    """Of all rows: those in `nfe` that computed only a part of the row, from a cache."""


Published = Callable[[Sequence[Sequence[int]]], Decoded]
"""A published `generate` as a function of the prompts."""


@dataclass(frozen=True, slots=True)
class Dultra:
    """dUltra's `generate` (github.com/chinsengi/dUltra-os, model/inference/inference_lladou.py).

    Prompts are padded on the left, as its trainer does; its model looks at the padding.
    """

    model: nn.Module
    generate: Callable[..., Any]
    mask_id: int
    pad_id: int
    length: int
    block_length: int
    temperature: float
    mode: str
    record: bool
    """Keep log-probabilities, the trajectory and the history of predictions, as its trainer does."""
    known: dict[str, list[int]] = field(default_factory=dict)
    """NFE of the rows of prompts that were decoded before, where they contain no chance."""

    def __call__(self, prompts: Sequence[Sequence[int]]) -> Decoded:
        if self.record:
            return self._decode(prompts, record=True)
        done = self._decode(prompts, record=False)
        if self.mode == "inference" and self.temperature == 0:
            if str(prompts) not in self.known:
                self.known[str(prompts)] = self._decode(prompts, record=True).nfe
            return replace(done, nfe=self.known[str(prompts)])
        return done

    @torch.no_grad()
    def _decode(self, prompts: Sequence[Sequence[int]], record: bool) -> Decoded:
        device = next(self.model.parameters()).device
        tokens_BT, mask_BT = left_pad(prompts, self.length, self.mask_id, self.pad_id)
        mask_BT = torch.ones_like(tokens_BT) if mask_BT is None else mask_BT.long()
        prompt_BP, mask_BP = (each[:, : -self.length].to(device) for each in (tokens_BT, mask_BT))
        tokens_BT, _, _, steps, calls = self.generate(
            self.model,
            {"input_ids": prompt_BP, "attention_mask": mask_BP},
            gen_length=self.length,
            block_length=self.block_length,
            temperature=self.temperature,
            mask_id=self.mask_id,
            mode=self.mode,
            return_sequence_logp=record,
            return_sampling_traj=record,
            return_x0_hist=record,
            return_num_steps=True,
        )
        # Rows wait for the slowest one at the end of each block: calls in which a row has nothing to unmask
        # are no NFE of it. Where draws were not recorded nobody knows, and all calls count.
        nfe = [sum(map(bool, row)) for row in steps] if steps else [calls] * len(prompts)
        return Decoded(tokens_BT[:, -self.length :], nfe, calls)


@dataclass(frozen=True, slots=True)
class FastDllm:
    """Fast-dLLM's `generate` (github.com/NVlabs/Fast-dLLM, llada/generate.py), one row after another."""

    model: nn.Module
    generate: Callable[..., Any]
    mask_id: int
    length: int
    block_length: int
    temperature: float
    cached: bool
    tokens_per_step: int
    threshold: float | None
    """Replaces the fixed number of tokens a step."""

    def __call__(self, prompts: Sequence[Sequence[int]]) -> Decoded:
        device = next(self.model.parameters()).device
        rows, nfe = [], []
        for prompt in prompts:
            tokens_1T, calls = self.generate(
                self.model,
                torch.tensor([prompt], device=device),
                steps=self.length // self.tokens_per_step,
                gen_length=self.length,
                block_length=self.block_length,
                temperature=self.temperature,
                mask_id=self.mask_id,
                threshold=self.threshold,
            )
            rows.append(tokens_1T[0, -self.length :])
            nfe.append(calls)
        num_blocks = len(prompts) * self.length // self.block_length  # each begins with one whole call
        block_nfe = sum(nfe) - num_blocks if self.cached else 0
        return Decoded(torch.stack(rows), nfe, sum(nfe), block_nfe)


FAST_DLLM = {
    "none": "generate",
    "prefix": "generate_with_prefix_cache",
    "dual": "generate_with_dual_cache",
}
DULTRA_MODES = {"sample": "training", "top_k": "inference"}


def load_published(
    text: str,
    denoiser: Transformer,
    planner: Planner,
    *,
    length: int,
    block_length: int,
    temperature: float,
    cache: str = "none",
    record: bool = False,
) -> Published:
    """Published code on our weights, deciding as our planner does.

    Args:
        text: `dultra=FOLDER` or `fast-dllm=FOLDER`, with a clone of the repository.
        denoiser: a net of the LLaDA family.
        planner: for dUltra one with its head, in the mode sample or top_k; for Fast-dLLM top_k or threshold.
        length: completion positions.
        block_length: semi-autoregressive window.
        temperature: of token sampling.
        cache: none, prefix or dual; dUltra has none.
        record: keep what training needs; Fast-dLLM has nothing to keep.

    Raises:
        ValueError: for a folder of something else, or a net, planner or cache that the code does not have.
    """
    loaders: dict[str, Callable[..., Published]] = {"dultra": _load_dultra, "fast-dllm": _load_fast_dllm}
    name, _, folder = text.partition("=")
    if name not in loaders or not folder:
        raise ValueError(f"cannot compare with {text!r}; use dultra=FOLDER or fast-dllm=FOLDER")
    if denoiser.config.qk_norm or denoiser.config.shift:
        raise ValueError("published code runs nets of the LLaDA family, and this net is another")
    shared = {"length": length, "block_length": block_length, "temperature": temperature}
    try:
        return loaders[name](Path(folder), denoiser, planner, cache, record, shared)
    except AttributeError as error:
        raise ValueError(f"the code in {folder} is of another version than is known here: {error}") from error


def caches_of(text: str) -> tuple[str, ...]:
    """Caches of the published code that `load_published` would load."""
    return tuple(FAST_DLLM) if text.startswith("fast-dllm=") else ("none",)


def _load_dultra(
    checkout: Path, denoiser: Transformer, planner: Planner, cache: str, record: bool, shared: dict[str, Any]
) -> Dultra:
    if not isinstance(planner, LearnedPlanner) or not isinstance(planner.head, DultraHead):
        raise ValueError("dUltra's code needs a planner with its head: --planner own, beside its model")
    if planner.mode not in DULTRA_MODES or planner.factor != 1 or planner.temperature != 1:
        raise ValueError(f"dUltra's code decides by mode={' or mode='.join(DULTRA_MODES)}, with no factor")
    if cache != "none":
        raise ValueError("dUltra's code has no cache; use --cache none")
    code, modeling = _import(checkout, "model.inference.inference_lladou", "model.llada.modeling_llada")
    switches = {"num_head_layers": 1, "use_adaln": True}
    switches |= {"use_mask_embeddings": True, "use_block_embeddings": False}
    with torch.device("meta"):
        model = code.LLaDOUModelLM(*_empty(modeling, denoiser, switches))
        width = denoiser.hidden_size  # the published code writes 4096 here
        model.mask_linear, model.mask_embedding = nn.Linear(width, 1), nn.Embedding(2, width)
    _share(model, (denoiser, llada_names(asdict(denoiser.config))), (planner.head, dultra_head_names()))
    return Dultra(
        model,
        code.generate,
        denoiser.mask_id,
        denoiser.pad_id,
        mode=DULTRA_MODES[planner.mode],
        record=record,
        **shared,
    )


def _load_fast_dllm(
    checkout: Path, denoiser: Transformer, planner: Planner, cache: str, record: bool, shared: dict[str, Any]
) -> FastDllm:
    if cache not in FAST_DLLM:
        raise ValueError(f"Fast-dLLM has no cache {cache!r}; use {', '.join(FAST_DLLM)}")
    if not isinstance(planner, TopK | Threshold):
        raise ValueError("Fast-dLLM's code decides by top_k(k) or threshold(tau); use one of them")
    if isinstance(planner, TopK) and shared["block_length"] % planner.k:
        raise ValueError(f"Fast-dLLM's code needs a k that divides the block length, {planner.k} does not")
    code, modeling = _import(checkout / "llada", "generate", "model.modeling_llada")
    with torch.device("meta"):
        model = code.LLaDAModelLM(*_empty(modeling, denoiser, {}))
    _share(model, (denoiser, llada_names(asdict(denoiser.config))))
    return FastDllm(
        model,
        getattr(code, FAST_DLLM[cache]),
        denoiser.mask_id,
        cached=cache != "none",
        tokens_per_step=planner.k if isinstance(planner, TopK) else 1,
        threshold=planner.tau if isinstance(planner, Threshold) else None,
        **shared,
    )


def _empty(modeling: Any, denoiser: Transformer, switches: dict[str, Any]) -> tuple[Any, nn.Module]:
    """Their configuration for the shape of our net, and their net of that shape without memory."""
    ours = denoiser.config
    config = modeling.LLaDAConfig(
        **switches,
        block_type="llama",
        layer_norm_type="rms",
        activation_type="silu",
        attention_layer_norm=False,
        flash_attention=True,
        rope=True,
        include_bias=False,
        include_qkv_bias=ours.qkv_bias,
        bias_for_layer_norm=False,
        weight_tying=ours.tied,
        d_model=ours.dim,
        n_layers=ours.num_layers,
        n_heads=ours.num_heads,
        n_kv_heads=ours.num_kv_heads or ours.num_heads,
        mlp_hidden_size=ours.mlp_dim,
        vocab_size=ours.vocab_size,
        embedding_size=ours.vocab_size,
        max_sequence_length=ours.max_length,
        rope_theta=ours.rope_theta,
        rms_norm_eps=ours.norm_eps,
        attention_dropout=0.0,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        mask_token_id=ours.mask_id,
        eos_token_id=ours.eos_id,
        pad_token_id=ours.pad_id,
    )
    config.use_cache = False  # transformers 5 keeps it elsewhere
    shape = modeling.create_model_config_from_pretrained_config(config)
    shape.init_device = "meta"
    return config, modeling.LLaDAModel(shape, init_params=False)


def _share(theirs: nn.Module, *parts: tuple[nn.Module, Names]) -> None:
    """Give their net views of our tensors: no copy, and no difference."""
    state = theirs.state_dict()
    shared: dict[str, Tensor] = {}
    for module, names in parts:
        for name, tensor in module.state_dict().items():
            sizes = [state[each].shape[0] for each in names[name]]
            shared |= zip(names[name], tensor.split(sizes), strict=True)
    theirs.load_state_dict(shared, assign=True)
    theirs.eval().requires_grad_(False)


def _import(folder: Path, *names: str) -> list[Any]:
    """Modules of a checkout, found there and nowhere else, and afterwards known to nobody else."""
    file = (folder / names[0].replace(".", "/")).with_suffix(".py")
    if not file.is_file():
        raise ValueError(f"{folder} is not the checkout that was named: it has no {file.relative_to(folder)}")
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    roots = {name.partition(".")[0] for name in names}
    absent = {name: stand_in for name, stand_in in _stand_ins().items() if not _is_installed(name)}
    verbosity = logging.get_verbosity()
    sys.modules.update(absent)
    sys.path.insert(0, str(folder))
    try:
        with patch.object(AutoConfig, "register"), patch.object(AutoModel, "register"):  # all say "llada"
            return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise ValueError(f"the code in {folder} cannot be imported: {error}") from error
    finally:
        sys.path.remove(str(folder))
        logging.set_verbosity(verbosity)
        for name in [each for each in sys.modules if each in absent or each.partition(".")[0] in roots]:
            del sys.modules[name]  # the next checkout has other modules of these names


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def _stand_ins() -> dict[str, ModuleType]:
    """What the published files import and their `generate` uses little of, for where it is not installed."""
    modules = {name: ModuleType(name) for name in ("einops", "trl", "trl.trainer", "trl.trainer.utils")}
    modules["einops"].rearrange = None  # type: ignore[attr-defined]
    modules["trl.trainer.utils"].selective_log_softmax = _selective_log_softmax  # type: ignore[attr-defined]
    return modules


def _selective_log_softmax(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """(B, T) log-probabilities of the tokens, a row at a time and in the dtype of the logits, as in TRL."""
    rows = zip(logits_BTV, tokens_BT, strict=True)
    return torch.stack([row.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1) for row, tokens in rows])
