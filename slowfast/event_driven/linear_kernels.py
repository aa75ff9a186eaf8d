"""Linear kernels of a stage: PyTorch's matrix multiplications in each precision, and the compiled kernels."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.linear import FUSED_PRODUCT, FUSED_ROWS
from slowfast.utils.machine import has_fast_matmul

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
# Up to so many rows PyTorch's product with int8 weights is faster than turning them into bfloat16 first.
_INT8_ROWS = 12


class Product(Protocol):
    """A Linear layer whose weight was taken when it was made."""

    dtype: torch.dtype  # of what goes in and out

    def takes_onednn(self, rows: int) -> bool:
        """Whether so many rows are multiplied by code that oneDNN writes for their number."""

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """(R, I) -> (R, O)."""

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """The exact GELU of linear(x)."""

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """residual + linear(x)."""


class PlainProduct:
    """PyTorch's own product, on any device."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight, self.bias = layer.weight.detach().to(dtype), layer.bias.detach().to(dtype)

    def takes_onednn(self, rows: int) -> bool:
        return False

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.linear(x))

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.linear(x).add_(residual)


class FusedProduct(PlainProduct):
    """oneDNN's product with the weight in its own order, on CPUs; PyTorch's where that is faster: for a few rows."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(layer, dtype)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        small = self.weight.numel() <= _SMALL_WEIGHT
        self.rows = FUSED_ROWS if dtype == torch.float32 or small else 0

    def takes_onednn(self, rows: int) -> bool:
        return rows >= self.rows

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        if not self.takes_onednn(len(x)):
            return super().linear(x)
        return FUSED_PRODUCT(x, self.packed, self.bias, "none", [], "")

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        if not self.takes_onednn(len(x)):
            return super().gelu(x)
        return FUSED_PRODUCT(x, self.packed, self.bias, "gelu", [], "none")

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        if not self.takes_onednn(len(x)):
            return super().plus(x, residual)
        return FUSED_PRODUCT.binary(x, residual, self.packed, self.bias, "add")


# Weights of so few numbers stay in the cache, and starting oneDNN takes longer than the product.
_SMALL_WEIGHT = 1 << 17


class Int8Product:
    """Linear layer with int8 weights and one scale per output channel (the largest weight is 127).

    Few bfloat16 rows take PyTorch's int8 kernel, which reads half as much as bfloat16 weights. For many rows, and for
    float32 rows, the weights are converted to the dtype of the rows at each call.

    Args:
        layer: Layer to copy the weights from.
        dtype: Dtype of the rows, bfloat16 or float32.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight, scale = int8_weights(layer.weight.detach().float())
        self.scale, self.bias = scale.to(dtype), layer.bias.detach().to(dtype)
        # PyTorch's kernel reads whole vectors; it is slow in float32.
        fits = layer.in_features % 64 == 0 and self.weight.device.type == "cpu" and dtype == torch.bfloat16
        self.rows = _INT8_ROWS if fits else 0

    def takes_onednn(self, rows: int) -> bool:
        return rows > self.rows

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        return self._scaled(x).add_(self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.linear(x))

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.linear(x).add_(residual)

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        if not self.takes_onednn(len(x)):
            return torch._weight_int8pack_mm(x, self.weight, self.scale)
        return F.linear(x, self.weight.to(self.dtype)).mul_(self.scale)


def int8_weights(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (O, I) as int8 and each output channel's scale (O,): weight = int8 * scale, to half a scale."""
    scale = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def rows_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the rows that PyTorch multiplies with weights of a precision.

    It is bfloat16 for bfloat16 and int8 weights, and float32 where the device has no optimized bfloat16 matrix
    multiplication.
    """
    half = precision != FLOAT32 and has_fast_matmul(torch.bfloat16, device)
    return torch.bfloat16 if half else torch.float32


def make_product(layer: nn.Module, precision: str) -> Product:
    """Build the fastest kernel available for a Linear layer.

    Args:
        layer: The :class:`torch.nn.Linear`.
        precision: Precision of the weights: float32, bfloat16 or int8. bfloat16 becomes float32 where the device has
            no optimized bfloat16 matrix multiplication.
    """
    assert isinstance(layer, nn.Linear)
    device = layer.weight.device
    dtype = rows_dtype(precision, device)
    if precision == INT8:
        return Int8Product(layer, dtype)
    fused: Any = FusedProduct if device.type == "cpu" and FUSED_PRODUCT is not None else PlainProduct
    product: Product = fused(layer, dtype)
    return product
