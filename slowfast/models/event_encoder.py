"""Encoder of versions 2 and 3 of Event2Vec (arXiv 2504.15371): post-norm layers that skip invalid events.

Notation: B recordings, L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.checkpointing import run_blocks
from slowfast.models.layers import DropPath

EPS = 1e-5  # added to counts of tokens, as published
Attention = Callable[[], nn.Module]  # builds a module of tokens (B, L, C) and valid (B, L)


class FeedForward(nn.Module):
    """Linear, ReLU and Linear without biases: (..., C) -> same."""

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, mlp_dim, bias=False)
        self.linear2 = nn.Linear(mlp_dim, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x).relu_())


class EncoderLayer(nn.Module):
    """Post-norm layer of attention and MLP with stochastic depth."""

    def __init__(self, attention: nn.Module, dim: int, mlp_dim: int, drop_path: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"attention": attention})  # named as published
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, mlp_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        x = self.norm1(self.drop_path(x, self.attention["attention"](x, valid)))
        return self.norm2(self.drop_path(x, self.ffn(x)))


class Encoder(nn.Module):
    """Layers and a final norm.

    Args:
        attention: Function that builds the attention of a layer.
        dim: Channels of a token.
        mlp_dim: Hidden channels of the MLPs.
        layers: Number of layers.
        drop_path: Rate of stochastic depth of the last layer; it rises linearly from 0.
    """

    def __init__(self, attention: Attention, dim: int, mlp_dim: int, layers: int, drop_path: float = 0.0) -> None:
        super().__init__()
        rates = [drop_path * layer / max(layers - 1, 1) for layer in range(layers)]
        self.layers = nn.ModuleList(EncoderLayer(attention(), dim, mlp_dim, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, valid: torch.Tensor, recompute: bool | int = False) -> torch.Tensor:
        """Return tokens (B, L, C) -> same.

        Args:
            x: Tokens.
            valid: True for tokens that take part, bool (B, L).
            recompute: Activation checkpointing, see :func:`~slowfast.models.checkpointing.run_blocks`.
        """
        return self.norm(run_blocks([_OnValid(layer, valid) for layer in self.layers], x, recompute))


class _OnValid(nn.Module):
    """Layer as a function of the tokens alone; a module, so that recomputation repeats its random numbers."""

    def __init__(self, layer: nn.Module, valid: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.valid = layer, valid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, self.valid)


def mean_of_pairs(x: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average neighboring pairs over their valid tokens: (B, L, C) -> (B, L / 2, C), and which have any, (B, L / 2)."""
    if x.shape[1] % 2:
        x, valid = F.pad(x, (0, 0, 0, 1)), F.pad(valid, (0, 1))
    pairs, kept = x.unflatten(1, (-1, 2)), valid.unflatten(1, (-1, 2))
    return masked_mean(pairs, kept), kept.any(2)


def masked_mean(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average tokens (..., L, C) over the valid ones (..., L): (..., C), 0 if there are none."""
    return (x * valid[..., None]).sum(-2) / (valid.sum(-1, keepdim=True) + EPS)
