"""The one net: a bidirectional transformer that predicts the token at every masked position.

B rows, T positions, D width, V symbols.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.layers import Block, BlockConfig, Layout, Padded, RMSNorm, RopeScaling, rotation
from unmask.models.base import Denoised


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Shape of the net and the ids it gives a meaning to.

    LLaDA, Dream and bidirectional Llama or Qwen are settings of these fields.
    """

    vocab_size: int
    mask_id: int
    eos_id: int
    pad_id: int
    dim: int = 256
    num_layers: int = 8
    num_heads: int = 4
    mlp_dim: int = 704
    num_kv_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = True
    tied: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    max_length: int = 512
    shift: bool = False
    """Whether the state at t - 1 predicts the token at t, as in a causal model; `encode` undoes it."""

    def block(self) -> BlockConfig:
        return BlockConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            rope_theta=self.rope_theta,
            norm_eps=self.norm_eps,
        )

    def stacked_rows(self, names: Iterable[str]) -> dict[str, list[int]]:
        """Of the queries, keys and values in each tensor of `names` that stacks them."""
        block = self.block()
        heads = (block.num_heads, block.kv_heads, block.kv_heads)
        return {name: [each * block.width for each in heads] for name in names if ".attention.qkv." in name}


class Transformer(nn.Module):
    """A `Denoiser` (see `unmask.models.base`)."""

    capturable: ClassVar[bool] = True

    def __init__(self, config: TransformerConfig, tokenizer: Any = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.recompute = False  # True: a block's activations are computed again in the backward pass
        self.mask_id, self.eos_id, self.pad_id = config.mask_id, config.eos_id, config.pad_id
        self.vocab_size, self.max_length, self.hidden_size = config.vocab_size, config.max_length, config.dim
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the output layer share the embedding, where the config says so (again after `to_empty`)."""
        if self.config.tied:
            self.head.weight = self.embed.weight

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def forward(
        self, tokens_BT: Tensor, attention_mask_BT: Tensor | None = None, ahead: int | None = None
    ) -> Denoised:
        """Every position at once.

        Args:
            tokens_BT: int64.
            attention_mask_BT: 1 for tokens, 0 for padding on either side.
            ahead: how many tokens to its right a token sees: 0 is causal, None is all.
        """
        shape = (tokens_BT.shape[0], tokens_BT.shape[1])
        layout = Padded.of(attention_mask_BT, shape, tokens_BT.device).up_to(ahead)
        hidden_BTD = self.encode(tokens_BT, layout)
        return Denoised(self.head(hidden_BTD), hidden_BTD)

    def encode(self, tokens_XT: Tensor, layout: Layout, shown_BL: Tensor | None = None) -> Tensor:
        """(X, T, D) hidden states after the final norm: what the output layer `head` reads.

        Where the net shifts, a canvas begins with the first token of a row: that token has no state before it
        and is described by its own.

        Args:
            tokens_XT: int64.
            layout: whom each token sees.
            shown_BL: where, among the X * T tokens, are those that are wanted; then the states are (B, L, D),
                and the last block computes no others.

        Raises:
            ValueError: for `shown_BL` in a padded layout whose tokens see different keys.
        """
        config = self.config
        by = rotation(layout.positions_XT, config.block().width, config.rope_theta, config.rope_scaling)
        if shown_BL is not None and isinstance(layout, Padded) and layout.has_mask_of_queries:
            raise ValueError(
                "in this layout tokens see different keys, so all must be computed; leave shown_BL out"
            )
        if shown_BL is not None and config.shift:
            shown_BL = shown_BL - (layout.positions_XT.flatten()[shown_BL] > 0).long()
        x_XTD = self.embed(tokens_XT)
        for layer, block in enumerate(self.blocks):
            wanted_BL = shown_BL if layer + 1 == len(self.blocks) else None
            if self.recompute and torch.is_grad_enabled():
                x_XTD = checkpoint(block, x_XTD, by, layout, layer, wanted_BL, use_reentrant=False)
            else:
                x_XTD = block(x_XTD, by, layout, layer, wanted_BL)
        if shown_BL is not None and not self.blocks:
            x_XTD = x_XTD.flatten(0, 1)[shown_BL]
        hidden_XTD: Tensor = self.norm(x_XTD)
        if shown_BL is not None or not config.shift:
            return hidden_XTD
        return torch.where(layout.positions_XT[..., None] == 0, hidden_XTD, hidden_XTD.roll(1, dims=1))

    def compile_blocks(self) -> None:
        """Compile what lies between the attentions of the blocks (torch.compile)."""
        for block in self.blocks:
            block.is_compiled = True  # type: ignore[assignment]

    def initialise(self, rng: torch.Generator) -> None:
        """Normal weights of std 0.02, residual outputs scaled by 1 / sqrt(2 layers) (GPT-2)."""
        residual = 0.02 / (2 * self.config.num_layers) ** 0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim < 2:
                    continue
                std = residual if name.endswith(("out.weight", "down.weight")) else 0.02
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * std)

    def describe(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {"model_type": "unmask", **asdict(self.config)}
