"""Stages of an evMLP that run on any subset of their patches.

Notation: R rows (patches, in any order), I input features, C token dimensions, N patches per stage and image in nested
order (models/evmlp.py): the children of a patch in the stage below are consecutive rows.
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
from slowfast.event_driven.linear_kernels import BFLOAT16, FLOAT32, INT8, LinearKernel, make_linear, rows_dtype
from slowfast.models.evmlp import Block, EvMLP, Stage, nested_patches
from slowfast.utils.logging import warn_once
from slowfast.utils.machine import has_fast_matmul

# On CPUs with a bfloat16 matrix unit (AMX), PyTorch is faster than the compiled kernels from so many multiply-adds per
# stage on, measured with tools/benchmark.py event_driven. On other CPUs the kernels are always faster.
_MATRIX_UNIT_MACS = {FLOAT32: math.inf, BFLOAT16: 90e6, INT8: 400e6}


class PatchNetwork:
    """Stages and classifier of an evMLP in one precision; the weights are copied on construction.

    Attributes:
        stages: Stages, callable on any number of rows.
        counts: Number of patches per stage in an image.
        merges: Number of patches that form a patch of the next stage, for every stage but the last.
        order: Row-major index of each patch of the first stage in nested order, (N,).
    """

    def __init__(self, model: EvMLP, precision: str, kernels: Kernels | None = None) -> None:
        _warn_of_float32(precision, model.linear.weight.device, kernels is not None)
        self.stages = [StageRows(stage, precision, kernels) for stage in model.blks if isinstance(stage, Stage)]
        self._head = make_linear(model.linear, precision)
        self.side, self.patch = model.side, model.patch_sizes[0]
        self.merges = [side**2 for side in model.patch_sizes[1:]]
        self.counts = [math.prod(self.merges[i:]) for i in range(len(self.stages))]
        self.classes, self.head_macs = model.linear.out_features, model.linear.weight.numel()
        self.device = model.linear.weight.device
        self.sides = model.patch_sizes
        self.order = self._row_major(0)

    @property
    def dense_macs(self) -> int:
        """Multiply-adds of a frame in dense inference."""
        stages = zip(self.counts, self.stages, strict=True)
        return sum(count * stage.macs for count, stage in stages) + self.head_macs

    def _row_major(self, stage: int) -> torch.Tensor:
        """Return the row-major index of each patch of a stage in nested order: (N,)."""
        side = math.isqrt(self.counts[stage])
        indices = torch.arange(side**2, device=self.device).view(1, 1, side, side)
        return nested_patches(indices, (1, *self.sides[stage + 1 :])).flatten()

    def as_map(self, rows: torch.Tensor, stage: int) -> torch.Tensor:
        """Arrange a stage's tokens in nested order as a map: (N, C) -> (n, n, C)."""
        side = math.isqrt(len(rows))
        grid = torch.empty_like(rows)
        grid[self._row_major(stage)] = rows
        return grid.view(side, side, -1)

    def tokens_of_constant(self, value: float) -> list[torch.Tensor]:
        """Return each stage's token (C,) for an image whose pixels are all `value`; it is equal for all patches."""
        x = torch.full((1, self.patch**2 * 3), value, device=self.device)
        tokens = []
        for stage, merge in zip(self.stages, (*self.merges, 1), strict=True):
            x = stage(x)
            tokens.append(x[0])
            x = x.repeat(1, merge)
        return tokens

    def classify(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the logits of tokens of the last stage: (R, C) -> (R, classes)."""
        return self._head.linear(tokens.to(self._head.dtype)).float()

    def check(self, frame: torch.Tensor) -> None:
        """Raise ConfigError unless the frames (..., 3, H, W) are floats of the network's input size."""
        if not frame.is_floating_point():
            raise ConfigError(f"event-driven inference takes normalized float frames, not {frame.dtype}")
        if frame.shape[-3:] != (3, self.side, self.side):
            raise ConfigError(
                f"EVMLP.PATCH_SIZES {list(self.sides)}: the network takes frames of 3 x {self.side} x {self.side}, "
                f"not {' x '.join(map(str, frame.shape[-3:]))}"
            )


class StageRows:
    """Stage that runs on the faster implementation for the number of rows: float (R, I) -> float (R, C)."""

    def __init__(self, stage: Stage, precision: str, kernels: Kernels | None) -> None:
        linears = [layer for layer in stage.modules() if isinstance(layer, nn.Linear)]
        self.macs = sum(layer.weight.numel() for layer in linears)  # per row
        self.inputs, self.width = linears[0].in_features, linears[0].out_features
        self.compiled = CompiledStage(stage, precision, kernels) if kernels is not None else None
        self.limit = _max_compiled_macs(precision) if kernels is not None else 0.0
        # Do not keep the weights twice if one implementation takes any number of rows.
        self.plain = PlainStage(stage, precision) if self.limit < math.inf else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.compiled is not None and (self.plain is None or len(x) * self.macs <= self.limit):
            return self.compiled(x)
        assert self.plain is not None
        return self.plain(x)


def _max_compiled_macs(precision: str) -> float:
    """Return the multiply-adds of a stage up to which the compiled kernels are used."""
    # oneDNN may be limited to older instructions than the CPU has (ONEDNN_MAX_CPU_ISA).
    matrix_unit = has_matrix_unit() and has_fast_matmul(torch.bfloat16, torch.device("cpu"))
    return _MATRIX_UNIT_MACS[precision] if matrix_unit else math.inf


class PlainStage:
    """Stage by PyTorch's linear kernels: float (R, I) -> float (R, C)."""

    def __init__(self, stage: Stage, precision: str) -> None:
        self.embed = make_linear(stage[1], precision)
        self.dtype = self.embed.dtype
        self.blocks = [self._block(block, precision) for block in stage.blocks]
        self.typical = self.blocks[0][0] if self.blocks else self.embed

    def _block(self, block: nn.Module, precision: str) -> tuple[LinearKernel, LinearKernel, nn.LayerNorm]:
        assert isinstance(block, Block)
        norm = nn.LayerNorm(block.norm.normalized_shape, block.norm.eps, device=block.norm.weight.device)
        norm.load_state_dict(block.norm.state_dict())
        first, *_, last = block.fn
        return make_linear(first, precision), make_linear(last, precision), norm.to(self.dtype)

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


def _warn_of_float32(precision: str, device: torch.device, compiled: bool) -> None:
    """Warn once if bfloat16 weights are not multiplied in bfloat16."""
    if precision != BFLOAT16 or rows_dtype(precision, device) == torch.bfloat16:
        return
    instead = "Running in float32, without compiled kernels."
    if compiled:
        instead = "The compiled kernels multiply bfloat16 weights in float32; the classifier runs in float32."
    warn_once(
        f"EVENT.PRECISION bfloat16: PyTorch has no fast bfloat16 matrix multiplication on this CPU. {instead} "
        "Set EVENT.PRECISION to float32 or int8 to avoid this warning."
    )
