"""Stage of an evMLP on the compiled kernels.

Notation: R rows, I input features, O output features. *Panel*: output features whose weights are stored together.
"""

from __future__ import annotations

import ctypes

import torch
from torch import nn

from slowfast.event_driven.kernels import Kernels
from slowfast.event_driven.linear_kernels import BFLOAT16, INT8, int8_weights
from slowfast.models.evmlp import Block, Stage

_CACHED_BYTES = 1 << 20  # weights of a stage that stay in the cache of a core
_CACHED_GROUP, _MAX_GROUP = 48, 384  # rows per thread and pass if the weights stay in the cache, and at most otherwise
_MIN_ROWS_PER_THREAD = 32  # with fewer, the threads share the weights and synchronize after every layer


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
    """Stage with weights in float32, bfloat16 or int8: concatenated children float (R, I) -> tokens float (R, O)."""

    def __init__(self, stage: Stage, precision: str, kernels: Kernels) -> None:
        self.kernels, self.precision = kernels, precision
        self.weight_bytes = {BFLOAT16: 2, INT8: 1}.get(precision, 4)
        embed, blocks = stage[1], stage.blocks
        assert isinstance(embed, nn.Linear)
        self._kept: list[torch.Tensor] = []  # memory that the structures point to
        pairs = [(first, last) for block in blocks if isinstance(block, Block) for first, *_, last in [block.fn]]
        self._first = (_Layer * len(pairs))(*(self._layer(first) for first, _ in pairs))
        self._last = (_Layer * len(pairs))(*(self._layer(last) for _, last in pairs))
        self._norms = (_Norm * len(pairs))(*(self._norm(block.norm) for block in blocks if isinstance(block, Block)))
        self.width, self.inputs = embed.out_features, embed.in_features
        self._stage = _Stage(self.width, len(pairs), self._layer(embed), self._first, self._last, self._norms)
        weights = sum(layer.weight.numel() for layer in stage.modules() if isinstance(layer, nn.Linear))
        self._cached = weights * self.weight_bytes <= _CACHED_BYTES

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(x), self.kernels.panel * self._stage.embed.panels)
        self.kernels.stage_rows(self._stage, self.weight_bytes, x.contiguous(), out, self.group(len(x)))
        return out[:, : self.width]

    def group(self, rows: int) -> int:
        """Return the rows that a thread processes at a time, or 0 if the threads share the weights."""
        threads = torch.get_num_threads()
        if self._cached:
            return _CACHED_GROUP
        if rows < threads * _MIN_ROWS_PER_THREAD:
            return 0
        tile = self.kernels.tile
        return min(-(-rows // (threads * tile)) * tile, _MAX_GROUP)

    def _layer(self, layer: nn.Module) -> _Layer:
        assert isinstance(layer, nn.Linear)
        weight, scale = layer.weight.detach().float(), None
        if self.precision == INT8:
            weight, scales = int8_weights(weight)
            scale = self._keep(self._padded(scales))
        elif self.precision == BFLOAT16:
            weight = weight.bfloat16()
        inputs = self.kernels.inputs_per_step(self.weight_bytes)
        weight = torch.nn.functional.pad(self._padded(weight), (0, -layer.in_features % inputs))
        steps = weight.unflatten(1, (-1, inputs)).unflatten(0, (-1, self.kernels.panel))
        panels = steps.transpose(1, 2)  # panels steps P inputs
        bias = self._keep(self._padded(layer.bias.detach().float()))
        return _Layer(self._keep(panels), bias, scale, layer.in_features, len(panels))

    def _norm(self, norm: nn.LayerNorm) -> _Norm:
        return _Norm(self._keep(norm.weight.detach().float()), self._keep(norm.bias.detach().float()), norm.eps)

    def _keep(self, tensor: torch.Tensor) -> int:
        """Return the address of a contiguous copy that lives as long as the stage."""
        self._kept.append(tensor.contiguous().clone())
        return self._kept[-1].data_ptr()

    def _padded(self, rows: torch.Tensor) -> torch.Tensor:
        """Pad with rows of zeros to complete panels: (O, ...) -> (O', ...)."""
        missing = -len(rows) % self.kernels.panel
        return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))
