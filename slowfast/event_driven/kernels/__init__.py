"""Compiles kernels/*.cpp with the machine's C++ compiler on first use and loads them; None where there is none."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from collections.abc import Sequence

import torch

from slowfast.event_driven.kernels.build import build_library
from slowfast.utils.logging import get_logger

_MAX_SIDE = 4096  # pixels of a frame's side that `find_changes` has room for


class Frames(ctypes.Structure):
    """Where frames lie."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("time", "stream", "channel", "row", "column")),
    )

    @classmethod
    def of(cls, frames: torch.Tensor) -> Frames:
        """Of float (K, S, 3, side, side)."""
        found = cls(frames.data_ptr(), *frames.stride())
        found.kept = frames
        return found


class Gate(ctypes.Structure):
    """What a changed patch is."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("side", "patch")),
        ("threshold", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("mean", "hold")),
        ("nested", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, side: int, patch: int, threshold: float, mean: bool, hold: bool, nested: torch.Tensor) -> Gate:
        """nested: the place of each patch in row-major order, int64 (N,)."""
        found = cls(side, patch, threshold, mean, hold, nested.data_ptr())
        found.kept = nested
        return found


class Tokens(ctypes.Structure):
    """A stage's new tokens and its table."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("tokens", "table")),
        *((name, ctypes.c_int64) for name in ("stride", "width", "streams", "patches")),
        ("slots", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, tokens: torch.Tensor, table: torch.Tensor, slots: torch.Tensor, patches: int) -> Tokens:
        """New tokens (R, C), the table (slots N, C), int64 slots (S,) of the streams, N."""
        sizes = tokens.stride(0), table.shape[1], len(slots), patches
        found = cls(tokens.data_ptr(), table.data_ptr(), *sizes, slots.data_ptr())
        found.kept = tokens, table, slots
        return found


class Kernels:
    """The compiled functions on tensors of this machine's memory; shapes as in kernels/*.cpp."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.panel: int = library.panel()  # output channels whose weights lie together
        self.tile: int = library.tile_rows()  # rows that are multiplied together

    def find_changes(
        self, frames: torch.Tensor, references: torch.Tensor, slots: torch.Tensor, gate: Gate, whole: torch.Tensor
    ) -> torch.Tensor:
        """Frames (K, S, 3, side, side), references (slots, 3, side, side), slots (S,), bool whole (K, S) -> (K, S, N).

        Marks the changed patches and brings the references up to date; both have the same order in memory.
        """
        k, s = whole.shape
        mask = torch.empty(k, s, (gate.side // gate.patch) ** 2, dtype=torch.bool)
        self.library.find_changes(
            ctypes.byref(Frames.of(frames)),
            ctypes.byref(Frames.of(references[None])),
            _pointer(slots),
            *map(ctypes.c_int64, (k, s)),
            ctypes.byref(gate),
            _pointer(whole),
            _pointer(mask),
            torch.get_num_threads(),
        )
        return mask

    def take_patches(self, frames: torch.Tensor, places: torch.Tensor, gate: Gate, order: torch.Tensor) -> torch.Tensor:
        """Patches of frames (K, S, 3, side, side) at places (R,) in (K, S, N) -> (R, p p 3)."""
        rows = torch.empty(len(places), gate.patch**2 * 3)
        self.library.take_patches(
            ctypes.byref(Frames.of(frames)),
            _pointer(places),
            *map(ctypes.c_int64, (len(places), frames.shape[1])),
            ctypes.byref(gate),
            _pointer(order),
            _pointer(rows),
            torch.get_num_threads(),
        )
        return rows

    def plan_stages(
        self, mask: torch.Tensor, patches: Sequence[int], merges: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Bool (K, S, N) -> each stage's places (R,), its newest rows int32 (K, S, N); active patches (K, S, stages).

        The newest row at a place is that of the last new token there, -1 where the table's still holds.
        """
        k, s, _ = mask.shape
        stages, sizes = len(patches), [k * s * n for n in patches]
        places, newest = torch.empty(sum(sizes), dtype=torch.int64), torch.empty(sum(sizes), dtype=torch.int32)
        active = torch.empty(k, s, stages, dtype=torch.int64)
        rows = (ctypes.c_int64 * stages)()
        marks = mask.clone()  # is written over
        self.library.plan_stages(
            _pointer(marks),
            *map(ctypes.c_int64, (k, s, stages)),
            (ctypes.c_int64 * stages)(*patches),
            (ctypes.c_int64 * stages)(*merges),
            _pointer(places),
            _pointer(newest),
            _pointer(active),
            rows,
        )
        each = [part[:count] for part, count in zip(places.split(sizes), rows, strict=True)]
        return each, list(newest.split(sizes)), active

    def gather(self, of: Tokens, newest: torch.Tensor, places: torch.Tensor, merge: int) -> torch.Tensor:
        """The latest tokens of `merge` patches side by side, at places (R,) in (K, S, N / merge) -> (R, merge C)."""
        out = torch.empty(len(places), merge * of.width)
        self.library.gather(
            ctypes.byref(of),
            _pointer(newest),
            _pointer(places),
            *map(ctypes.c_int64, (len(places), merge)),
            _pointer(out),
            torch.get_num_threads(),
        )
        return out

    def keep(self, of: Tokens, newest: torch.Tensor) -> None:
        """Write what holds after a chunk into the table: newest of its last frame, (S, N)."""
        self.library.keep(ctypes.byref(of), _pointer(newest))

    def stage_rows(
        self, stage: ctypes.Structure, weight_bytes: int, x: torch.Tensor, out: torch.Tensor, group: int
    ) -> None:
        """x (R, in) -> out (R, whole panels); group: rows that a thread takes through, 0: all share the weights."""
        self.library.stage_rows(
            ctypes.byref(stage),
            weight_bytes,
            _pointer(x),
            ctypes.c_int64(len(x)),
            _pointer(out),
            torch.get_num_threads(),
            ctypes.c_int64(group),
        )

    def inputs_of_a_step(self, weight_bytes: int) -> int:
        """Input channels whose weights lie together for each output channel."""
        inputs: int = self.library.inputs_of_a_step(weight_bytes)
        return inputs


def takes_frames(frames: torch.Tensor) -> bool:
    """Whether the kernels can read such frames (K, S, 3, side, side): float32 in memory, rows of whole pixels."""
    innermost = frames.stride(4) == 1 or (frames.stride(2) == 1 and frames.stride(4) == 3)
    return frames.dtype == torch.float32 and innermost and frames.shape[-1] <= _MAX_SIDE


@functools.cache
def load_kernels() -> Kernels | None:
    """Return the compiled kernels, or None, with one message, where they cannot be compiled.

    Compiling takes about 10 s, once.
    """
    try:
        return Kernels(ctypes.CDLL(str(build_library())))
    except (OSError, subprocess.SubprocessError) as error:
        get_logger().info(f"event-driven inference: no compiled kernels, inference is slower. {error}")
        return None


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
