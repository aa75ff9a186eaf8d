"""Losses between logits (N, K) and labels: class numbers (N,) or shares of classes (N, K)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from slowfast.errors import ConfigError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(logits: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over N of -sum_k weights_k shares_k log softmax(logits)_k; in float32 whatever autocast does."""
    return F.cross_entropy(logits.float(), shares, weights)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over N of the labelled classes' negative log probability times weight.

    Divided by N, not by the batch's weights: parts of a batch then add up to it, whatever their labels.
    """
    return F.cross_entropy(logits.float(), labels, weights, reduction="sum") / len(labels)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": soft_cross_entropy,
}
# The losses that take shares of classes: those that label smoothing and MixUp need.
SOFT_LOSSES = frozenset({"soft_cross_entropy"})


def get_loss(name: str, weights: torch.Tensor | None = None) -> Loss:
    """The loss of that name with these weights of classes (K,); ConfigError for an unknown one."""
    if name not in LOSSES:
        raise ConfigError(f"MODEL.LOSS_FUNC {name!r} is none of {', '.join(LOSSES)}")
    return functools.partial(LOSSES[name], weights=weights)
