"""Stages and their linear layers implemented with PyTorch, with weights in float32, bfloat16 or int8.

Notation: R rows, I input features, O output features, C token dimensions.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.evmlp import Block, Stage
from slowfast.models.linear import FUSED_ROWS
from slowfast.utils.machine import has_fast_matmul
from slowfast.utils.private_ops import (
    fused_linear,
    fused_linear_add,
    fused_linear_gelu,
    has_fused_linear,
    int8_linear,
    pack_weight,
)

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
_MAX_SUM = 128  # times 255 fits int16
_INT8_ROWS = 12  # up to this many rows, the int8 kernel is faster than converting the weight
# Weights of at most this many elements stay in the cache; with few rows, oneDNN's call overhead dominates there.
_SMALL_WEIGHT = 1 << 17


class LinearKernel(Protocol):
    """Linear layer whose weight was copied on construction."""

    dtype: torch.dtype  # dtype of inputs and outputs

    def uses_onednn(self, rows: int) -> bool:
        """Return whether oneDNN generates code for this number of rows."""

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer: (R, I) -> (R, O)."""

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer and the exact GELU."""

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Apply the layer and add the residual (R, O)."""


class PlainLinear:
    """Linear layer that uses :func:`torch.nn.functional.linear`, on any device."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight, self.bias = weight.to(dtype), bias.to(dtype)

    def uses_onednn(self, rows: int) -> bool:
        return False

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.linear(x))

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.linear(x).add_(residual)


class FusedLinear(PlainLinear):
    """Linear layer that uses oneDNN with a packed weight, on CPUs; for few rows it uses PyTorch, which is faster."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__(weight, bias, dtype)
        self.packed = pack_weight(self.weight)
        small = self.weight.numel() <= _SMALL_WEIGHT
        self.min_rows = FUSED_ROWS if dtype == torch.float32 or small else 0

    def uses_onednn(self, rows: int) -> bool:
        return rows >= self.min_rows

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        return fused_linear(x, self.packed, self.bias) if self.uses_onednn(len(x)) else super().linear(x)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return fused_linear_gelu(x, self.packed, self.bias) if self.uses_onednn(len(x)) else super().gelu(x)

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        if not self.uses_onednn(len(x)):
            return super().add(x, residual)
        return fused_linear_add(x, self.packed, self.bias, residual)


class Int8Linear:
    """Linear layer with int8 weights and one scale per output feature (the largest weight is 127).

    Few bfloat16 rows use PyTorch's int8 kernel, which reads half as much memory as bfloat16 weights. For many rows, and
    for float32 rows, the weights are converted to the dtype of the rows at each call.

    Args:
        layer: Layer to copy the weights from.
        dtype: Dtype of the rows, bfloat16 or float32.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight, scale = int8_weights(layer.weight.detach().float())
        self.scale, self.bias = scale.to(dtype), layer.bias.detach().to(dtype)
        # The kernel reads full vectors only, and it is slow in float32.
        suitable = layer.in_features % 64 == 0 and self.weight.device.type == "cpu" and dtype == torch.bfloat16
        self.max_rows = _INT8_ROWS if suitable else 0  # limit of the int8 kernel

    def uses_onednn(self, rows: int) -> bool:
        return rows > self.max_rows

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        if self.uses_onednn(len(x)):
            y = F.linear(x, self.weight.to(self.dtype)).mul_(self.scale)
        else:
            y = int8_linear(x, self.weight, self.scale)
        return y.add_(self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.linear(x))

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.linear(x).add_(residual)


def int8_weights(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a float32 weight (O, I) symmetrically per output feature.

    Returns:
        The int8 weight (O, I) and the scale (O,); their product equals the weight to half a scale.
    """
    scale = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def bounded_int8_weights(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a float32 weight (O, I) like :func:`int8_weights`, with products that can be added up in int16.

    The kernels add up the products of four inputs and uint8 values: of the first two of four consecutive inputs, or the
    last two, and those of the next four. Among such weights, the positive ones sum to at most 128, the negative ones to
    at least -128, so that the products fit. The scale of an output feature is the finest of three with which they do.

    Returns:
        The int8 weight (O, I) and the scale (O,).
    """
    largest, sums = weight.abs().amax(1), _sums_of_a_sign(weight)
    found = weight.new_empty(weight.shape), weight.new_empty(len(weight))
    for steps in (_MAX_SUM - 2, _MAX_SUM - 1, _MAX_SUM):  # the first always fits: four roundings add 2 at most
        scale = torch.maximum(largest / 127, sums / steps).clamp_min(torch.finfo(torch.float32).tiny)
        quantized = (weight / scale[:, None]).round()
        fits = _sums_of_a_sign(quantized) <= _MAX_SUM
        found = torch.where(fits[:, None], quantized, found[0]), torch.where(fits, scale, found[1])
    return found[0].to(torch.int8), found[1]


def _sums_of_a_sign(weight: torch.Tensor) -> torch.Tensor:
    """Return the largest sum of positive weights, or negative ones, added up in int16: (O, I) -> (O,)."""
    together = F.pad(weight, (0, -weight.shape[1] % 8)).unflatten(1, (-1, 2, 2, 2))  # O, groups, steps, pairs, 2
    sums = torch.stack((together.clamp_min(0), -together.clamp_max(0))).sum((3, 5))
    return sums.amax((0, 2, 3))


def rows_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the rows that PyTorch multiplies with weights of a precision.

    It is bfloat16 for bfloat16 and int8 weights, and float32 where the device has no optimized bfloat16 matrix
    multiplication.
    """
    half = precision != FLOAT32 and has_fast_matmul(torch.bfloat16, device)
    return torch.bfloat16 if half else torch.float32


def make_linear(layer: nn.Module, precision: str, rounded: bool = False) -> LinearKernel:
    """Build the fastest kernel available for a linear layer.

    Args:
        layer: The :class:`torch.nn.Linear`.
        precision: Precision of the weights: float32, bfloat16 or int8. bfloat16 becomes float32 where the device has
            no optimized bfloat16 matrix multiplication.
        rounded: Round the weights to bfloat16 there, too, as the compiled kernels do.
    """
    assert isinstance(layer, nn.Linear)
    device = layer.weight.device
    dtype = rows_dtype(precision, device)
    if precision == INT8:
        return Int8Linear(layer, dtype)
    weight = layer.weight.detach()
    if rounded and precision == BFLOAT16:
        weight = weight.bfloat16()
    kernel = FusedLinear if device.type == "cpu" and has_fused_linear() else PlainLinear
    return kernel(weight, layer.bias.detach(), dtype)


class PyTorchStage:
    """Stage that uses PyTorch's linear kernels: float (R, I) -> float (R, C).

    Args:
        stage: Stage to copy the weights from.
        precision: Precision of the weights.
        rounded: See :func:`make_linear`.
    """

    def __init__(self, stage: Stage, precision: str, rounded: bool = False) -> None:
        self._make = partial(make_linear, precision=precision, rounded=rounded)
        self.embed = self._make(stage[1])
        self.dtype = self.embed.dtype
        self.blocks = [self._block(block) for block in stage.blocks]
        self.typical = self.blocks[0][0] if self.blocks else self.embed

    def _block(self, block: nn.Module) -> tuple[LinearKernel, LinearKernel, nn.LayerNorm]:
        assert isinstance(block, Block)
        norm = nn.LayerNorm(block.norm.normalized_shape, block.norm.eps, device=block.norm.weight.device)
        norm.load_state_dict(block.norm.state_dict())
        first, *_, last = block.fn
        return self._make(first), self._make(last), norm.to(self.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = len(x)
        if self.typical.uses_onednn(rows):
            # oneDNN generates code for every new number of rows, which takes longer than the multiplication.
            x = F.pad(x, (0, 0, 0, round_up(rows, 16, 4) - rows))
        x = self.embed.linear(x.to(self.dtype))
        for first, last, norm in self.blocks:
            x = F.layer_norm(last.add(first.gelu(x), x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return x[:rows].float()


def round_up(rows: int, step: int, bits: int) -> int:
    """Round up to one of few sizes: multiples of `step`, at most 1 / 2^(bits - 1) more or `step` - 1 more."""
    step = max(step, 1 << max((rows - 1).bit_length() - bits, 0))
    return -(-rows // step) * step
