"""Weights far from their initialization, for tests that compare outputs."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def randomized(model: Network) -> Network:
    """The model in evaluation mode with random weights, batch-norm statistics included."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not key.endswith("mask"):
                scale = 0.8 / value[0].numel() ** 0.5 if value.dim() > 1 else 0.3
                value.copy_(torch.randn(value.shape, generator=rng) * scale)
                if value.dim() == 1 and ("weight" in key or "var" in key):
                    value.copy_(1 + value.abs())
    return model.eval()
