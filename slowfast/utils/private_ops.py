"""Private PyTorch operators, each documented with the equivalent public computation.

They are faster than the public functions but may change in any PyTorch release: a test compares every one of them with
its public counterpart.

Notation: R rows, I input features, O output features.
"""

from __future__ import annotations

from typing import Any

import torch

# oneDNN's linear layer with fused bias and activation; None if PyTorch is built without oneDNN. PyTorch itself calls it
# only from compiled graphs.
FUSED_LINEAR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def has_fused_linear() -> bool:
    """Return whether this build of PyTorch has the fused linear layer."""
    return FUSED_LINEAR is not None


def pack_weight(weight: torch.Tensor) -> torch.Tensor:
    """Reorder a weight (O, I) on the CPU into oneDNN's blocked layout, once instead of at every call."""
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def fused_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute ``F.linear(x, weight, bias)`` with a packed or plain weight: (..., I) -> (..., O)."""
    return FUSED_LINEAR(x, weight, bias, "none", [], "")


def fused_linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute ``F.gelu(F.linear(x, weight, bias))`` with a packed or plain weight: (..., I) -> (..., O)."""
    return FUSED_LINEAR(x, weight, bias, "gelu", [], "none")


def gelu_in_place(x: torch.Tensor) -> torch.Tensor:
    """Compute ``F.gelu(x)``, overwriting x, without gradients."""
    return torch.ops.aten.gelu_(x)


def fused_linear_add(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Compute ``residual + F.linear(x, weight, bias)`` with a packed weight: (R, I), residual (R, O) -> (R, O)."""
    return FUSED_LINEAR.binary(x, residual, packed, bias, "add")


def int8_linear(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Compute ``F.linear(x, weight * scale[:, None])`` without converting the weight.

    Args:
        x: Rows (R, I), bfloat16 or float32 on the CPU; I is a multiple of 64.
        weight: int8 weight (O, I).
        scale: Scale per output feature (O,), in the dtype of `x`.
    """
    return torch._weight_int8pack_mm(x, weight, scale)


def embedding_bag_weight_gradient(
    gradient: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor, bags: torch.Tensor
) -> torch.Tensor:
    """Compute the gradient of ``per_sample_weights`` of ``F.embedding_bag(..., mode="sum")``.

    Equals ``(table[rows] * gradient[bags]).sum(1)`` without the intermediate tensors.

    Args:
        gradient: Gradient of the sums, (B, C).
        table: Embeddings (V, C).
        rows: Rows of the table in all bags, int64 (K,).
        starts: Offset of each bag in `rows`, int64 (B,).
        bags: Bag of each row, int64 (K,).
    """
    sum_mode, no_padding = 0, -1
    operator = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return operator(gradient, table, rows, starts, bags, sum_mode, no_padding)


def lerp_each(tensors: list[torch.Tensor], ends: list[torch.Tensor], weight: float) -> None:
    """Compute ``tensor.lerp_(end, weight)`` for each pair, in few kernel launches."""
    torch._foreach_lerp_(tensors, ends, weight)


# Operator that reports whether oneDNN supports a 16-bit dtype on this CPU.
CPU_QUERIES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def is_supported_by_onednn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN supports matrix multiplication in bfloat16 or float16 on this CPU."""
    query = getattr(torch.ops.mkldnn, CPU_QUERIES[dtype], None)  # None if PyTorch is built without oneDNN
    return query is not None and bool(query())
