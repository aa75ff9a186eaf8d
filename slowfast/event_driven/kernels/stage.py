"""Stage of an evMLP that uses the compiled kernels.

Notation: R rows, I input features, O output features. *Panel*: output features whose weights are stored together.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

import torch
from torch import nn

from slowfast.event_driven.kernels import Kernels
from slowfast.event_driven.linear_kernels import BFLOAT16, INT8, int8_weights
from slowfast.models.evmlp import Block, Stage

_CACHED_BYTES = 1 << 20  # weights of a stage that stay in the cache of a core
_CACHED_GROUP, _MAX_GROUP = 48, 96  # rows per thread and pass: if the weights stay in the cache, and otherwise
_LINE = 64  # bytes of a cache line
_PADDING = 16  # padding after each row: with power-of-two strides, rows would compete for the same cache lines
# With fewer rows, the threads share the weights and synchronize after every layer.
_MIN_ROWS_PER_THREAD = 32


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "sums")),
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


class _WeightMemory:
    """Memory for weights, in huge pages if available, which need fewer address translations.

    Args:
        size: Size in bytes.
    """

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # the system's kernel may lack huge pages
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._bytes, self._used = torch.frombuffer(memory, dtype=torch.uint8), 0

    def copy(self, tensor: torch.Tensor) -> int:
        """Copy a tensor to the next multiple of a cache line and return the address."""
        size = tensor.numel() * tensor.element_size()
        place = self._bytes[self._used : self._used + size]
        place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
        self._used += -(-size // _LINE) * _LINE
        return place.data_ptr()


class CompiledStage:
    """Stage with weights in float32, bfloat16 or int8: concatenated children float (R, I) -> tokens float (R, O)."""

    def __init__(self, stage: Stage, precision: str, kernels: Kernels) -> None:
        self.kernels, self.precision = kernels, precision
        self.weight_bytes = {BFLOAT16: 2, INT8: 1}.get(precision, 4)
        embed, blocks = stage[1], stage.blocks
        assert isinstance(embed, nn.Linear)
        linears = [layer for layer in stage.modules() if isinstance(layer, nn.Linear)]
        self._weights = _WeightMemory(sum(map(self._stored_bytes, linears)))
        self._kept: list[torch.Tensor] = []  # keeps other memory alive that the structures point to
        pairs = [(first, last) for block in blocks if isinstance(block, Block) for first, *_, last in [block.fn]]
        self._first = (_Layer * len(pairs))(*(self._layer(first) for first, _ in pairs))
        self._last = (_Layer * len(pairs))(*(self._layer(last) for _, last in pairs))
        self._norms = (_Norm * len(pairs))(*(self._norm(block.norm) for block in blocks if isinstance(block, Block)))
        self.width, self.inputs = embed.out_features, embed.in_features
        self._stage = _Stage(self.width, len(pairs), self._layer(embed), self._first, self._last, self._norms)
        self._cached = sum(layer.weight.numel() for layer in linears) * self.weight_bytes <= _CACHED_BYTES

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(x), self.kernels.panel * self._stage.embed.panels + _PADDING)[:, : self.width]
        self.kernels.stage_rows(self._stage, self.weight_bytes, x.contiguous(), out, self.group(len(x)))
        return out

    def group(self, rows: int) -> int:
        """Return the rows that a thread processes at a time, or 0 if the threads share the weights."""
        threads = torch.get_num_threads()
        if not self._cached and rows < threads * _MIN_ROWS_PER_THREAD:
            return 0
        limit, tile = _CACHED_GROUP if self._cached else _MAX_GROUP, self.kernels.tile
        return min(-(-rows // (threads * tile)) * tile, limit)

    def _stored_bytes(self, layer: nn.Linear) -> int:
        """Return the bytes of the weights of a layer with complete panels and steps, in complete cache lines."""
        panel, inputs = self.kernels.panel, self.kernels.inputs_per_step(self.weight_bytes)
        padded = -(-layer.out_features // panel) * panel * -(-layer.in_features // inputs) * inputs
        return -(-padded * self.weight_bytes // _LINE) * _LINE

    def _layer(self, layer: nn.Module) -> _Layer:
        assert isinstance(layer, nn.Linear)
        weight, scale, sums = layer.weight.detach().float(), None, None
        if self.precision == INT8:
            weight, scales = int8_weights(weight)
            scale = self._keep(self._padded(scales))
            sums = self._keep(self._padded(weight.sum(1).float()))
        elif self.precision == BFLOAT16:
            weight = weight.bfloat16()
        inputs = self.kernels.inputs_per_step(self.weight_bytes)
        weight = torch.nn.functional.pad(self._padded(weight), (0, -layer.in_features % inputs))
        steps = weight.unflatten(1, (-1, inputs)).unflatten(0, (-1, self.kernels.panel))
        panels = steps.transpose(1, 2)  # panels steps P inputs
        bias = self._keep(self._padded(layer.bias.detach().float()))
        return _Layer(self._weights.copy(panels), bias, scale, sums, layer.in_features, len(panels))

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
