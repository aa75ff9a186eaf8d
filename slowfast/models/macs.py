"""Multiply-adds of a network, counted by PyTorch's FLOP counter."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, inputs: Any, samples: int) -> float:
    """Multiply-adds of the matrix products and convolutions in a forward pass over `inputs`, for one of its samples.

    Counted on a copy on the meta device, in evaluation: nothing is computed, and no operator is fused with others,
    which the counter would not see (as attention on CPUs).
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), inputs))
    return counter.get_total_flops() / 2 / samples
