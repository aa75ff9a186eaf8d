"""Private PyTorch operators, each with the public computation that it equals.

They are faster than the public functions but may change in any PyTorch release: a test compares every one of them with
its public counterpart.

Notation: R rows, I input features, O output features.
"""

from __future__ import annotations

from typing import Any

import torch

# oneDNN's linear layer with fused bias and activation; None if PyTorch is built without oneDNN. PyTorch itself calls it
# only from compiled graphs.
_FUSED_LINEAR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def has_fused_linear() -> bool:
    """Check if the fused linear layer is available in this build of PyTorch."""
    return _FUSED_LINEAR is not None


def pack_weight(weight: torch.Tensor) -> torch.Tensor:
    """Reorder a weight (O, I) on the CPU into oneDNN's blocked layout, once instead of at every call."""
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def fused_linear(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute ``F.linear(x, weight, bias)`` with a packed weight: (R, I) -> (R, O)."""
    return _FUSED_LINEAR(x, packed, bias, "none", [], "")


def fused_linear_gelu(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute ``F.gelu(F.linear(x, weight, bias))`` with a packed weight: (R, I) -> (R, O)."""
    return _FUSED_LINEAR(x, packed, bias, "gelu", [], "none")


def fused_linear_add(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Compute ``residual + F.linear(x, weight, bias)`` with a packed weight: (R, I), residual (R, O) -> (R, O)."""
    return _FUSED_LINEAR.binary(x, residual, packed, bias, "add")


def int8_linear(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Compute ``F.linear(x, weight * scale[:, None])`` without converting the weight.

    Args:
        x: Rows (R, I), bfloat16 or float32 on the CPU; I is a multiple of 64.
        weight: int8 weight (O, I).
        scale: Scale per output feature (O,), in the dtype of `x`.
    """
    return torch._weight_int8pack_mm(x, weight, scale)
