"""A causal model becomes the starting point of a masked diffusion model (as in arXiv 2410.17891 and Dream).

Attention becomes bidirectional, everything that was learned is kept, and [MASK] gets a row in the embedding:
the mean of all others. What comes out is a denoiser that has to be trained; see docs/checkpoints.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.checkpoint import LazyTensors, fetch_folder, read_description
from unmask.device import Device, known_dtype, present_device
from unmask.families import CAUSAL
from unmask.models.adapters import is_adapter
from unmask.models.gguf import is_gguf, read_gguf
from unmask.models.load import assert_padding_is_ignored, build, family_config
from unmask.models.tokenizer import add_mask, ids_of, load_tokenizer
from unmask.models.transformer import Transformer

MASK_TOKEN = "<|mask|>"
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


def from_causal(
    path_or_hub_id: str | Path,
    *,
    mask_token: str = MASK_TOKEN,
    shift: bool = True,
    device: Device = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> Transformer:
    """A bidirectional net with the weights of a causal Llama, Qwen2 or Qwen3.

    Args:
        path_or_hub_id: a folder or hub id as transformers writes it, or a GGUF file.
        mask_token: a token that the tokenizer has (one that it reserves), or a new one.
        shift: keep that the state at t - 1 predicts the token at t, as Dream does: called with `ahead=0`, the
            net is still the causal model. False makes every state predict its own token.
        device: where to put it.
        dtype: float32, bfloat16 or float16.
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: in one line, for another architecture, a setting that the net does not have, a missing or
            broken file, or a mask token that means something else.
    """
    known_dtype(dtype)
    present_device(device)
    origin = folder = local(path_or_hub_id, revision)
    tensors: Mapping[str, Tensor]
    if is_gguf(folder):
        description, tensors, tokenizer = read_gguf(folder)
    else:
        origin = folder / "config.json"
        description, tokenizer = read_description(origin), load_tokenizer(folder)
        if description.get("model_type") not in CAUSAL:
            kind, known = description.get("model_type"), ", ".join(CAUSAL)
            raise ValueError(f"{origin}: model_type {kind!r} cannot be turned into a denoiser; {known} can")
        tensors = LazyTensors(folder)
    family = CAUSAL[description["model_type"]]
    config = family_config(family, _with_ids(description, tokenizer, mask_token, folder), origin)
    rows = config.vocab_size
    config = replace(config, vocab_size=max(rows, config.mask_id + 1), shift=shift)
    num_known = min(rows, config.mask_id) if tokenizer is None else min(rows, len(tokenizer))
    tensors = WithMask(tensors, config.mask_id, num_known)
    names = family.names(asdict(config))
    net = build(config, tokenizer, tensors, str(origin), names, family.others, device, dtype)
    assert_padding_is_ignored(net)
    return net


def local(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The folder or GGUF file of a path or hub id.

    Raises:
        ValueError: where there is none.
    """
    if not is_gguf(path_or_hub_id):
        return fetch_folder(path_or_hub_id, revision=revision)
    if revision is not None:
        raise ValueError(
            f"revision {revision!r} is of a hub id, and {path_or_hub_id} is a file; leave it out"
        )
    path = Path(path_or_hub_id).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    return path


def is_causal(path: Path) -> bool:
    """Whether the model at a `local` path is one for `from_causal`."""
    if is_gguf(path):
        return True
    return not is_adapter(path) and read_description(path / "config.json").get("model_type") in CAUSAL


def _with_ids(description: dict[str, Any], tokenizer: Any, mask_token: str, origin: Path) -> dict[str, Any]:
    """The description with the ids of [MASK], end and padding, which the tokenizer learns too."""
    ids = ids_of(description, tokenizer)
    if tokenizer is not None:
        ends = description.get("eos_token_id")
        taken = [*ids.values(), *(ends if isinstance(ends, list) else ())]
        return description | ids | {"mask_token_id": add_mask(tokenizer, mask_token, taken)}
    if mask_token != MASK_TOKEN:
        raise ValueError(f"{origin} has no tokenizer that could have {mask_token!r}; leave mask_token out")
    return description | ids | {"mask_token_id": description.get("vocab_size", 0)}


class WithMask(Mapping[str, Tensor]):
    """The same tensors with a row for [MASK] in the tables: the mean of the other known rows."""

    def __init__(self, tensors: Mapping[str, Tensor], mask_id: int, num_known: int) -> None:
        self._tensors, self._mask_id, self._num_known = tensors, mask_id, num_known

    def __getitem__(self, name: str) -> Tensor:
        table_VD = self._tensors[name]
        if name not in TABLES:
            return table_VD
        row, num = self._mask_id, self._num_known
        total_D = table_VD[:num].sum(0, dtype=torch.float32)
        if row < num:
            total_D, num = total_D - table_VD[row], num - 1
        mean_1D = (total_D / num).to(table_VD.dtype)[None]
        # A tokenizer may have more tokens than the table has rows: the ones between get the mean too.
        between_XD = mean_1D.expand(max(0, row - len(table_VD)), -1)
        return torch.cat([table_VD[:row], between_XD, mean_1D, table_VD[row + 1 :]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
