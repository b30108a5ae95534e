"""AdamW and its learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from unmask.config import OptimConfig


def adamw(groups: Iterable[tuple[float, nn.Module]], config: OptimConfig) -> torch.optim.AdamW:
    """One optimiser over (learning rate, module) pairs; matrices decay, vectors do not."""
    parameter_groups: list[dict[str, Any]] = []
    for lr, module in groups:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decay, wanted in ((config.weight_decay, True), (0.0, False)):
            chosen = [parameter for parameter in trained if (parameter.ndim >= 2) == wanted]
            if chosen:
                parameter_groups.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay})
    fused = any(p.is_cuda for group in parameter_groups for p in group["params"])
    return torch.optim.AdamW(parameter_groups, betas=(config.beta1, config.beta2), fused=fused or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, total: int) -> None:
    """Give every group its rate for `step` of `total`."""
    scale = rate(config, step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * scale


def rate(config: OptimConfig, step: int, total: int) -> float:
    """The fraction of the peak learning rate, in (0, 1]: warm-up, then constant or cosine."""
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "constant":
        return warm
    progress = min(1.0, max(0, step - config.warmup) / max(1, total - config.warmup))
    return warm * (0.5 + 0.5 * math.cos(math.pi * progress))


def clip_and_step(optimizer: torch.optim.Optimizer, config: OptimConfig) -> float:
    """One update with clipped gradients; returns the gradient norm before clipping.

    A norm that is not finite skips the update, so one bad batch does not destroy the weights.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(parameters, config.grad_clip))
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
