"""Python interface of the compiled CPU kernels, kernels/*.cpp.

Notation: K frames per stream, S streams, N patches per stage in nested order (models/evmlp.py) of p x p pixels, C token
dimensions, R changed patches in total. *Patch index*: position in (K, S, N).
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from collections.abc import Sequence

import torch

from slowfast.event_driven.kernels.build import build_library
from slowfast.utils.logging import get_logger

_MAX_SIDE = 4096  # largest frame side that `find_changes` has a buffer for


class Frames(ctypes.Structure):
    """Address and strides of frames."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("time", "stream", "channel", "row", "column")),
    )

    @classmethod
    def of(cls, frames: torch.Tensor) -> Frames:
        """Describe float frames (K, S, 3, side, side)."""
        found = cls(frames.data_ptr(), *frames.stride())
        found.kept = frames
        return found


class Gate(ctypes.Structure):
    """Settings of the change detector."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("side", "patch")),
        ("threshold", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("mean", "hold")),
        ("nested", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, side: int, patch: int, threshold: float, mean: bool, hold: bool, nested: torch.Tensor) -> Gate:
        """Describe the settings.

        Args:
            side: Side of a frame in pixels.
            patch: Side of a patch in pixels.
            threshold: Threshold in units of the normalized frame.
            mean: Compare the mean absolute difference of a patch instead of the maximum.
            hold: Compare with the patch as it was when last computed instead of the previous frame.
            nested: Index in nested order of each patch in row-major order, int64 (N,).
        """
        found = cls(side, patch, threshold, mean, hold, nested.data_ptr())
        found.kept = nested
        return found


class Tokens(ctypes.Structure):
    """New tokens of a stage and its token table."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tokens", "table")),
        *((name, ctypes.c_int64) for name in ("stride", "width", "streams", "patches")),
        ("slots", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, tokens: torch.Tensor, table: torch.Tensor, slots: torch.Tensor, patches: int) -> Tokens:
        """Describe new tokens (R, C), the table (slots N, C), the slots of the streams (S,) as int64, and N."""
        sizes = tokens.stride(0), table.shape[1], len(slots), patches
        found = cls(tokens.data_ptr(), table.data_ptr(), *sizes, slots.data_ptr())
        found.kept = tokens, table, slots
        return found


class Kernels:
    """Compiled functions on CPU tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.panel: int = library.panel()  # output features whose weights are interleaved
        self.tile: int = library.tile_rows()  # rows multiplied at a time
        self.quantized_unsigned = bool(library.quantized_unsigned())  # rows for int8 weights are uint8, not int8

    def find_changes(
        self, frames: torch.Tensor, references: torch.Tensor, slots: torch.Tensor, gate: Gate, full: torch.Tensor
    ) -> torch.Tensor:
        """Mark the changed patches and update the references.

        Args:
            frames: Frames (K, S, 3, side, side).
            references: Reference frames (slots, 3, side, side), with the memory format of the frames.
            slots: Slots of the streams, int64 (S,).
            gate: Settings of the change detector.
            full: Frames that are computed in full, bool (K, S).

        Returns:
            Mask of the changed patches, bool (K, S, N).
        """
        k, s = full.shape
        mask = torch.empty(k, s, (gate.side // gate.patch) ** 2, dtype=torch.bool)
        self.library.find_changes(
            ctypes.byref(Frames.of(frames)),
            ctypes.byref(Frames.of(references[None])),
            _pointer(slots),
            *map(ctypes.c_int64, (k, s)),
            ctypes.byref(gate),
            _pointer(full),
            _pointer(mask),
            torch.get_num_threads(),
        )
        return mask

    def take_patches(
        self, frames: torch.Tensor, indices: torch.Tensor, gate: Gate, order: torch.Tensor
    ) -> torch.Tensor:
        """Gather patches of frames (K, S, 3, side, side) by patch index (R,) -> (R, p p 3)."""
        rows = torch.empty(len(indices), gate.patch**2 * 3)
        self.library.take_patches(
            ctypes.byref(Frames.of(frames)),
            _pointer(indices),
            *map(ctypes.c_int64, (len(indices), frames.shape[1])),
            ctypes.byref(gate),
            _pointer(order),
            _pointer(rows),
            torch.get_num_threads(),
        )
        return rows

    def plan_stages(
        self, mask: torch.Tensor, patches: Sequence[int], merges: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Find what each stage has to compute.

        Args:
            mask: Changed patches of the first stage, bool (K, S, N).
            patches: Number of patches per stage.
            merges: Number of patches that form a patch of the next stage, per stage.

        Returns:
            For each stage the indices of the changed patches, int64 (R,); for each stage the number of the latest new
            token of every patch, int32 (K, S, N), or -1 if the table is up to date; and the number of changed patches,
            int64 (K, S, stages).
        """
        k, s, _ = mask.shape
        stages, sizes = len(patches), [k * s * n for n in patches]
        indices, newest = torch.empty(sum(sizes), dtype=torch.int64), torch.empty(sum(sizes), dtype=torch.int32)
        active = torch.empty(k, s, stages, dtype=torch.int64)
        rows = (ctypes.c_int64 * stages)()
        marks = mask.clone()  # the kernel overwrites its input
        self.library.plan_stages(
            _pointer(marks),
            *map(ctypes.c_int64, (k, s, stages)),
            (ctypes.c_int64 * stages)(*patches),
            (ctypes.c_int64 * stages)(*merges),
            _pointer(indices),
            _pointer(newest),
            _pointer(active),
            rows,
        )
        each = [part[:count] for part, count in zip(indices.split(sizes), rows, strict=True)]
        return each, list(newest.split(sizes)), active

    def gather(self, of: Tokens, newest: torch.Tensor, indices: torch.Tensor, merge: int) -> torch.Tensor:
        """Concatenate the latest tokens of `merge` patches, by index (R,) in (K, S, N / merge) -> (R, merge C)."""
        out = torch.empty(len(indices), merge * of.width)
        self.library.gather(
            ctypes.byref(of),
            _pointer(newest),
            _pointer(indices),
            *map(ctypes.c_int64, (len(indices), merge)),
            _pointer(out),
            torch.get_num_threads(),
        )
        return out

    def store(self, of: Tokens, newest: torch.Tensor) -> None:
        """Write the latest tokens after a chunk to the table; `newest` is that of its last frame, (S, N)."""
        self.library.store(ctypes.byref(of), _pointer(newest))

    def stage_rows(
        self, stage: ctypes.Structure, weight_bytes: int, x: torch.Tensor, out: torch.Tensor, group: int
    ) -> None:
        """Run a stage: x (R, I) -> out (R, O), whose rows have space for the features of complete panels.

        Args:
            stage: Weights, a structure of kernels/stage.py.
            weight_bytes: Bytes per weight: 4, 2 or 1.
            x: Input rows.
            out: Output rows, overwritten.
            group: Rows that a thread processes at a time; 0 if the threads share the weights.
        """
        self.library.stage_rows(
            ctypes.byref(stage),
            weight_bytes,
            _pointer(x),
            ctypes.c_int64(len(x)),
            _pointer(out),
            ctypes.c_int64(out.stride(0)),
            torch.get_num_threads(),
            ctypes.c_int64(group),
        )

    def inputs_per_step(self, weight_bytes: int) -> int:
        """Return the number of consecutive input features stored together for each output feature."""
        inputs: int = self.library.inputs_per_step(weight_bytes)
        return inputs

    def largest_quantized(self, inputs: int) -> int:
        """Return the largest quantized value of rows with this many features that are multiplied by int8 weights."""
        largest: int = self.library.largest_quantized(ctypes.c_int64(inputs))
        return largest


def takes_frames(frames: torch.Tensor) -> bool:
    """Return whether the kernels can read frames (K, S, 3, side, side): float32 with contiguous rows or pixels."""
    innermost = frames.stride(4) == 1 or (frames.stride(2) == 1 and frames.stride(4) == 3)
    return frames.dtype == torch.float32 and innermost and frames.shape[-1] <= _MAX_SIDE


@functools.cache
def load_kernels() -> Kernels | None:
    """Load the kernels, compiled on first use (about 10 s).

    Returns:
        The kernels, or None, with one message, if they cannot be compiled.
    """
    try:
        return Kernels(ctypes.CDLL(str(build_library())))
    except (OSError, subprocess.SubprocessError) as error:
        get_logger().info(
            f"event-driven inference: compiled kernels are not available, inference will be slower. {error}"
        )
        return None


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
