"""A stage of an evMLP by the compiled kernels."""

from __future__ import annotations

import ctypes

import torch
from torch import nn

from slowfast.event_driven.kernels import Kernels
from slowfast.event_driven.linear_kernels import BFLOAT16, INT8, int8_weights
from slowfast.models.evmlp import Block, Stage

# Rows that a thread takes through a stage at a time: of one whose weights have so many bytes that they stay in a core's
# cache, and at most of others.
_CACHED_WEIGHTS, _FEW_ROWS, _MANY_ROWS = 1 << 20, 48, 384
_ROWS_A_THREAD = 32  # for fewer of others the threads share the weights, and wait for one another at every layer


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale")),
        *((name, ctypes.c_int64) for name in ("in", "panels")),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float))


class _Stage(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("embed", _Layer),
        ("first", ctypes.POINTER(_Layer)),
        ("last", ctypes.POINTER(_Layer)),
        ("norms", ctypes.POINTER(_Norm)),
    )


class CompiledStage:
    """Children side by side float (R, I) -> tokens float (R, O), with weights in float32, bfloat16 or int8."""

    def __init__(self, stage: Stage, precision: str, kernels: Kernels) -> None:
        self.kernels, self.precision = kernels, precision
        self.weight_bytes = {BFLOAT16: 2, INT8: 1}.get(precision, 4)
        embed, blocks = stage[1], stage.blocks
        assert isinstance(embed, nn.Linear)
        self._kept: list[torch.Tensor] = []  # what the structures point to
        pairs = [(first, last) for block in blocks if isinstance(block, Block) for first, *_, last in [block.fn]]
        self._first = (_Layer * len(pairs))(*(self._layer(first) for first, _ in pairs))
        self._last = (_Layer * len(pairs))(*(self._layer(last) for _, last in pairs))
        self._norms = (_Norm * len(pairs))(*(self._norm(block.norm) for block in blocks if isinstance(block, Block)))
        self.width, self.inputs = embed.out_features, embed.in_features
        self._stage = _Stage(self.width, len(pairs), self._layer(embed), self._first, self._last, self._norms)
        weights = sum(layer.weight.numel() for layer in stage.modules() if isinstance(layer, nn.Linear))
        self._weights_stay = weights * self.weight_bytes <= _CACHED_WEIGHTS

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(x), self.kernels.panel * self._stage.embed.panels)
        self.kernels.stage_rows(self._stage, self.weight_bytes, x.contiguous(), out, self.group(len(x)))
        return out[:, : self.width]

    def group(self, rows: int) -> int:
        """Rows that a thread takes at a time, or 0 where the threads share the weights."""
        threads = torch.get_num_threads()
        if self._weights_stay:
            return _FEW_ROWS
        if rows < threads * _ROWS_A_THREAD:
            return 0
        tile = self.kernels.tile
        return min(-(-rows // (threads * tile)) * tile, _MANY_ROWS)

    def _layer(self, layer: nn.Module) -> _Layer:
        assert isinstance(layer, nn.Linear)
        weight, scale = layer.weight.detach().float(), None
        if self.precision == INT8:
            weight, scales = int8_weights(weight)
            scale = self._keep(self._padded(scales))
        elif self.precision == BFLOAT16:
            weight = weight.bfloat16()
        inputs = self.kernels.inputs_of_a_step(self.weight_bytes)
        weight = torch.nn.functional.pad(self._padded(weight), (0, -layer.in_features % inputs))
        steps = weight.unflatten(1, (-1, inputs)).unflatten(0, (-1, self.kernels.panel))
        panels = steps.transpose(1, 2)  # panels steps P inputs
        bias = self._keep(self._padded(layer.bias.detach().float()))
        return _Layer(self._keep(panels), bias, scale, layer.in_features, len(panels))

    def _norm(self, norm: nn.LayerNorm) -> _Norm:
        return _Norm(self._keep(norm.weight.detach().float()), self._keep(norm.bias.detach().float()), norm.eps)

    def _keep(self, tensor: torch.Tensor) -> int:
        """The address of a contiguous copy, which lives as long as the stage."""
        self._kept.append(tensor.contiguous().clone())
        return self._kept[-1].data_ptr()

    def _padded(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of zeros appended, to whole panels: (O, ...) -> (O', ...)."""
        missing = -len(rows) % self.kernels.panel
        return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))
