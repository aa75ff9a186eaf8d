"""Losses between logits (N, K) and labels: class numbers (N,) or shares of classes (N, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from slowfast.errors import ConfigError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Mean over N of -sum_k shares_k log softmax(logits)_k; in float32 whatever autocast does."""
    return F.cross_entropy(logits.float(), shares)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log probability of the labelled classes."""
    return F.cross_entropy(logits.float(), labels)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "soft_cross_entropy": soft_cross_entropy}
# The losses that take shares of classes: those that label smoothing and MixUp need.
SOFT_LOSSES = frozenset({"soft_cross_entropy"})


def get_loss(name: str) -> Loss:
    """The loss of that name; ConfigError for an unknown one."""
    if name not in LOSSES:
        raise ConfigError(f"MODEL.LOSS_FUNC {name!r} is none of {', '.join(LOSSES)}")
    return LOSSES[name]
