"""Stages of an evMLP that use the compiled kernels, one by one or all of a network in one call.

Notation: K frames per stream, S streams, N patches per stage; R rows, I input features, O output features, C token
dimensions. *Panel*: output features whose weights are stored together.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Sequence

import torch
from torch import nn

from slowfast.event_driven.kernels import Kernels, pointer_to
from slowfast.event_driven.linear_kernels import BFLOAT16, INT8
from slowfast.models.evmlp import Block, Stage

_CACHED_BYTES = 1 << 20  # weights of a stage that stay in the cache of a core
_LINE = 64  # bytes of a cache line
_PADDING = 16  # padding after each row: with power-of-two strides, rows would compete for the same cache lines


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
        ("cached", ctypes.c_int64),
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
    """Stage with weights in float32, bfloat16 or int8: concatenated children float (R, I) -> tokens float (R, O).

    Attributes:
        group: Rows that a thread processes at a time; 0 if the threads share the weights, -1 to choose the faster.
    """

    group = -1

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
        cached = sum(layer.weight.numel() for layer in linears) * self.weight_bytes <= _CACHED_BYTES
        layers = self._layer(embed), self._first, self._last, self._norms
        self.structure = _Stage(self.width, len(pairs), cached, *layers)
        self.stride = kernels.panel * self.structure.embed.panels + _PADDING  # of output rows

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(x), self.stride)[:, : self.width]
        self.kernels.stage_rows(self.structure, self.weight_bytes, x.contiguous(), out, self.group)
        return out

    def _stored_bytes(self, layer: nn.Linear) -> int:
        """Return the bytes of the weights of a layer with complete panels and steps, in complete cache lines."""
        panel, inputs = self.kernels.panel, self.kernels.inputs_per_step(self.weight_bytes)
        padded = -(-layer.out_features // panel) * panel * -(-layer.in_features // inputs) * inputs
        return -(-padded * self.weight_bytes // _LINE) * _LINE

    def _layer(self, layer: nn.Module) -> _Layer:
        assert isinstance(layer, nn.Linear)
        weight, scale, sums = layer.weight.detach().float(), None, None
        if self.precision == INT8:
            weight, scales = self.kernels.int8_weights(weight)
            scale = self._keep(self._padded(scales))
            sums = self._keep(self._padded(weight.sum(1).float()))
        elif self.precision == BFLOAT16:
            weight = weight.bfloat16()
        inputs = self.kernels.inputs_per_step(self.weight_bytes)
        weight = torch.nn.functional.pad(self._padded(weight), (0, -layer.in_features % inputs))
        segments = self.kernels.segments(self.weight_bytes, layer.in_features)
        parts = weight.unflatten(1, (segments, -1, inputs)).unflatten(0, (-1, self.kernels.panel))
        stored = parts.permute(2, 0, 3, 1, 4)  # segments panels steps P inputs
        bias = self._keep(self._padded(layer.bias.detach().float()))
        return _Layer(self._weights.copy(stored), bias, scale, sums, layer.in_features, len(parts))

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


class _Level(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("stage", "table")),
        *((name, ctypes.c_int64) for name in ("width", "stride", "patches", "merge")),
    )


class CompiledNetwork:
    """All stages of a network and its classifier, which update the token tables of a chunk in one call.

    Args:
        stages: Stages; the last one is the classifier.
        counts: Number of patches per stage, without the classifier.
        merges: Number of patches that form a patch of the next stage, for every stage except the last.
    """

    def __init__(self, stages: Sequence[CompiledStage], counts: Sequence[int], merges: Sequence[int]) -> None:
        self.stages, self.classes = list(stages), stages[-1].width
        sizes = zip(stages, (*counts, 1), (*merges, 1, 1), strict=True)
        levels = [
            _Level(ctypes.addressof(stage.structure), None, stage.width, stage.stride, patches, merge)
            for stage, patches, merge in sizes
        ]
        self._levels = (_Level * len(levels))(*levels)

    def update(
        self, tables: Sequence[torch.Tensor], mask: torch.Tensor, pixels: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the changed patches stage by stage.

        Args:
            tables: Token table of each stage (slots N, C), and that of the logits; updated.
            mask: Changed patches of the first stage, bool (K, S, N).
            pixels: Changed patches, (R, p p 3).
            slots: Slots of the streams, int64 (S,).

        Returns:
            Logits (K, S, classes), and the number of computed patches, int64 (K, S, stages).
        """
        for level, table in zip(self._levels, tables, strict=True):
            level.table = table.data_ptr()
        logits = torch.empty(*mask.shape[:2], self.classes)
        active = torch.empty(*mask.shape[:2], len(self.stages) - 1, dtype=torch.int64)
        marks, pixels = mask.clone(), pixels.contiguous()  # marks are overwritten
        first = self.stages[0]
        first.kernels.library.update_network(
            self._levels,
            ctypes.c_int64(len(self._levels)),
            first.weight_bytes,
            pointer_to(marks),
            *map(ctypes.c_int64, mask.shape[:2]),
            pointer_to(slots),
            pointer_to(pixels),
            pointer_to(logits),
            pointer_to(active),
            torch.get_num_threads(),
        )
        return logits, active
