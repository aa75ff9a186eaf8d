"""evMLP's stages on any selection of their patches.

R rows (patches, in any order), N patches of a stage in an image in nested order (models/evmlp.py): a patch's
children in the stage below are consecutive rows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.event_driven.kernels import Kernels
from slowfast.event_driven.kernels.build import has_matrix_unit
from slowfast.event_driven.kernels.stage import CompiledStage
from slowfast.event_driven.linear_kernels import BFLOAT16, FLOAT32, INT8, Product, make_product, rows_dtype
from slowfast.models.evmlp import Block, EvMLP, Stage, nested_patches
from slowfast.utils.logging import warn_once
from slowfast.utils.machine import has_fast_matmul


class PlainStage:
    """One stage by PyTorch's products: children side by side float (R, I) -> tokens float (R, C)."""

    def __init__(self, stage: Stage, precision: str) -> None:
        self.embed = make_product(stage[1], precision)
        self.dtype = self.embed.dtype
        self.blocks = [self._block(block, precision) for block in stage.blocks]
        self.typical = self.blocks[0][0] if self.blocks else self.embed

    def _block(self, block: nn.Module, precision: str) -> tuple[Product, Product, nn.LayerNorm]:
        assert isinstance(block, Block)
        norm = nn.LayerNorm(block.norm.normalized_shape, block.norm.eps, device=block.norm.weight.device)
        norm.load_state_dict(block.norm.state_dict())
        first, *_, last = block.fn
        return make_product(first, precision), make_product(last, precision), norm.to(self.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = len(x)
        if self.typical.takes_onednn(rows):
            # oneDNN writes code for every new number of rows, which takes longer than the product.
            x = F.pad(x, (0, 0, 0, few_sizes(rows, 16, 4) - rows))
        x = self.embed.linear(x.to(self.dtype))
        for first, last, norm in self.blocks:
            x = F.layer_norm(last.plus(first.gelu(x), x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return x[:rows].float()


def few_sizes(rows: int, least: int, bits: int) -> int:
    """`rows` or up to a part in 2^(bits - 1) more, or `least` - 1 more: one of few numbers, multiples of `least`."""
    step = max(least, 1 << max((rows - 1).bit_length() - bits, 0))
    return -(-rows // step) * step


class StageRows:
    """One stage, run by the faster implementation for the number of rows: float (R, I) -> float (R, C)."""

    def __init__(self, stage: Stage, precision: str, kernels: Kernels | None) -> None:
        linears = [layer for layer in stage.modules() if isinstance(layer, nn.Linear)]
        self.macs = sum(layer.weight.numel() for layer in linears)  # of a row
        self.inputs, self.width = linears[0].in_features, linears[0].out_features
        self.compiled = CompiledStage(stage, precision, kernels) if kernels is not None else None
        self.limit = _most_compiled_macs(precision) if kernels is not None else 0.0
        # Weights are not held twice where one implementation takes any number of rows.
        self.plain = PlainStage(stage, precision) if self.limit < math.inf else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.compiled is not None and (self.plain is None or len(x) * self.macs <= self.limit):
            return self.compiled(x)
        assert self.plain is not None
        return self.plain(x)


# Multiply-adds of a stage from which PyTorch is faster than the compiled kernels on CPUs with a matrix unit for
# bfloat16 (AMX), measured with tools/benchmark.py event_driven. On other CPUs the kernels are faster for any number.
_MATRIX_UNIT_MACS = {FLOAT32: math.inf, BFLOAT16: 90e6, INT8: 400e6}


def _most_compiled_macs(precision: str) -> float:
    """Return the multiply-adds of a stage up to which the compiled kernels are used."""
    # oneDNN may be limited to older instructions than the CPU has (ONEDNN_MAX_CPU_ISA).
    matrix_unit = has_matrix_unit() and has_fast_matmul(torch.bfloat16, torch.device("cpu"))
    return _MATRIX_UNIT_MACS[precision] if matrix_unit else math.inf


class PatchNetwork:
    """The stages of an evMLP in one precision, and what belongs where; weights are taken when it is made.

    counts: patches of each stage in an image; merges: patches of a stage that one of the next is made of.
    """

    def __init__(self, model: EvMLP, precision: str, kernels: Kernels | None = None) -> None:
        _warn_of_float32(precision, model.linear.weight.device, kernels is not None)
        self.stages = [StageRows(stage, precision, kernels) for stage in model.blks if isinstance(stage, Stage)]
        self._head = make_product(model.linear, precision)
        self.side, self.patch = model.side, model.patch_sizes[0]
        self.merges = [side**2 for side in model.patch_sizes[1:]]
        self.counts = [math.prod(self.merges[i:]) for i in range(len(self.stages))]
        self.classes, self.head_macs = model.linear.out_features, model.linear.weight.numel()
        self.device = model.linear.weight.device
        self.sides = model.patch_sizes
        self.order = self._places(0)

    def _places(self, stage: int) -> torch.Tensor:
        """The place in row-major order of each patch of a stage in nested order: (N,)."""
        side = math.isqrt(self.counts[stage])
        numbers = torch.arange(side**2, device=self.device).view(1, 1, side, side)
        return nested_patches(numbers, (1, *self.sides[stage + 1 :])).flatten()

    def as_map(self, rows: torch.Tensor, stage: int) -> torch.Tensor:
        """A stage's tokens in nested order as a map: (N, C) -> (n, n, C)."""
        side = math.isqrt(len(rows))
        grid = torch.empty_like(rows)
        grid[self._places(stage)] = rows
        return grid.view(side, side, -1)

    def tokens_of_constant(self, value: float) -> list[torch.Tensor]:
        """Each stage's token for an image whose pixels are all `value`: (C,) each; it is the same for all patches."""
        x = torch.full((1, self.patch**2 * 3), value, device=self.device)
        tokens = []
        for stage, merge in zip(self.stages, (*self.merges, 1), strict=True):
            x = stage(x)
            tokens.append(x[0])
            x = x.repeat(1, merge)
        return tokens

    def classify(self, tokens: torch.Tensor) -> torch.Tensor:
        """The last stage's tokens (R, C) -> logits (R, classes)."""
        return self._head.linear(tokens.to(self._head.dtype)).float()

    def check(self, frame: torch.Tensor) -> None:
        """Raise ConfigError unless the frames (..., 3, H, W) are normalized and of the network's size."""
        if not frame.is_floating_point():
            raise ConfigError(f"event-driven inference takes normalized float frames, not {frame.dtype}")
        if frame.shape[-3:] != (3, self.side, self.side):
            raise ConfigError(
                f"EVMLP.PATCH_SIZES {list(self.sides)}: the network is for frames of 3 x {self.side} x {self.side}, "
                f"not {' x '.join(map(str, frame.shape[-3:]))}"
            )


def _warn_of_float32(precision: str, device: torch.device, compiled: bool) -> None:
    """Warn once where bfloat16 weights are not multiplied in bfloat16."""
    if precision != BFLOAT16 or rows_dtype(precision, device) == torch.bfloat16:
        return
    instead = "Running in float32, without compiled kernels."
    if compiled:
        instead = "The compiled kernels multiply bfloat16 weights in float32; the classifier runs in float32."
    warn_once(
        f"EVENT.PRECISION bfloat16: PyTorch has no fast bfloat16 matrix multiplication on this CPU. {instead} "
        "Set EVENT.PRECISION to float32 or int8 to avoid this warning."
    )
