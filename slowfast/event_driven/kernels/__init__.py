"""Python interface of the compiled CPU kernels, kernels/*.cpp, and their compilation on first use.

Notation: K frames per stream, S streams, N patches per stage in nested order (models/evmlp.py) of p x p pixels, C token
dimensions, R changed patches in total. *Patch index*: position in (K, S, N).
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from slowfast.errors import ConfigError
from slowfast.event_driven.linear_kernels import bounded_int8_weights, int8_weights
from slowfast.utils.cpu import cpu_description
from slowfast.utils.logging import get_logger
from slowfast.utils.private_cache import compiled_library

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
        self.steps_together: int = library.steps_together()  # of int8 weights; their products are added up in int16
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
            pointer_to(slots),
            *map(ctypes.c_int64, (k, s)),
            ctypes.byref(gate),
            pointer_to(full),
            pointer_to(mask),
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
            pointer_to(indices),
            *map(ctypes.c_int64, (len(indices), frames.shape[1])),
            ctypes.byref(gate),
            pointer_to(order),
            pointer_to(rows),
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
            pointer_to(marks),
            *map(ctypes.c_int64, (k, s, stages)),
            (ctypes.c_int64 * stages)(*patches),
            (ctypes.c_int64 * stages)(*merges),
            pointer_to(indices),
            pointer_to(newest),
            pointer_to(active),
            rows,
        )
        each = [part[:count] for part, count in zip(indices.split(sizes), rows, strict=True)]
        return each, list(newest.split(sizes)), active

    def gather(self, of: Tokens, newest: torch.Tensor, indices: torch.Tensor, merge: int) -> torch.Tensor:
        """Concatenate the latest tokens of `merge` patches, by index (R,) in (K, S, N / merge) -> (R, merge C)."""
        out = torch.empty(len(indices), merge * of.width)
        self.library.gather(
            ctypes.byref(of),
            pointer_to(newest),
            pointer_to(indices),
            *map(ctypes.c_int64, (len(indices), merge)),
            pointer_to(out),
            torch.get_num_threads(),
        )
        return out

    def store(self, of: Tokens, newest: torch.Tensor) -> None:
        """Write the latest tokens after a chunk to the table; `newest` is that of its last frame, (S, N)."""
        self.library.store(ctypes.byref(of), pointer_to(newest))

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
            pointer_to(x),
            ctypes.c_int64(len(x)),
            pointer_to(out),
            ctypes.c_int64(out.stride(0)),
            torch.get_num_threads(),
            ctypes.c_int64(group),
        )

    def inputs_per_step(self, weight_bytes: int) -> int:
        """Return the number of consecutive input features stored together for each output feature."""
        inputs: int = self.library.inputs_per_step(weight_bytes)
        return inputs

    def segments(self, weight_bytes: int, inputs: int) -> int:
        """Return the number of segments in which the weights for so many input features are stored."""
        count: int = self.library.segments(weight_bytes, ctypes.c_int64(inputs))
        return count

    def int8_weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantize a float32 weight (O, I) to int8 with a scale (O,), as the kernels need it."""
        return int8_weights(weight) if self.steps_together == 1 else bounded_int8_weights(weight)

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


def pointer_to(tensor: torch.Tensor) -> ctypes.c_void_p:
    """Return the address of a tensor's first element."""
    return ctypes.c_void_p(tensor.data_ptr())


_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")

ISA_VARIABLE = "SLOWFAST_MAX_CPU_ISA"
# Instruction sets of x86-64 for which the kernels have code, by the CPU features (as Linux names them) that they need.
_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq")
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": _AVX2,
    "avx2_vnni": (*_AVX2, "avx_vnni"),
    "avx512": _AVX512,
    "avx512_vnni": (*_AVX512, "avx512_vnni"),
    "avx512_bf16": (*_AVX512, "avx512_vnni", "avx512_bf16"),
}


def build_library() -> Path:
    """Return the shared library for these sources, flags, compiler and CPU; compile it if it is not in the cache.

    Raises:
        ConfigError: If the environment limits the instructions to an unknown set.
        OSError: If there is no compiler or compilation fails.
    """
    sources = sorted(_SOURCES.glob("*.[ch]*"))
    return compiled_library("kernels", sources, [*_FLAGS, *_target_flags(), *_threads_of_pytorch()], cpu_description())


def instruction_set() -> str:
    """Return the instruction set that the kernels are compiled for: the best one of this CPU up to the limit.

    Raises:
        ConfigError: If the environment limits it to an unknown set.
    """
    names = list(INSTRUCTION_SETS)
    limit = _limit()
    allowed = names[: names.index(limit) + 1] if limit else names
    return next(name for name in reversed(allowed) if _cpu_features().issuperset(INSTRUCTION_SETS[name]))


def _limit() -> str:
    """Return the instruction set named by the environment, or an empty string."""
    limit = os.environ.get(ISA_VARIABLE, "").lower()
    if limit and limit not in INSTRUCTION_SETS:
        raise ConfigError(f"{ISA_VARIABLE}: unknown value {limit!r}. Choices: {', '.join(INSTRUCTION_SETS)}")
    return limit


def _target_flags() -> list[str]:
    """Return compiler flags for the instructions of this CPU up to the limit."""
    if not _limit():
        return ["-march=native"]
    features = INSTRUCTION_SETS[instruction_set()]
    return ["-mtune=native", *(f"-m{feature.replace('_', '')}" for feature in features)]


def _threads_of_pytorch() -> list[str]:
    """Return flags to link PyTorch's OpenMP library, because two OpenMP libraries would compete for the cores."""
    folder = Path(torch.__file__).parent / "lib"
    return [flag for file in sorted(folder.glob("libgomp*")) for flag in (f"-L{folder}", f"-l:{file.name}")]


def _cpu_features() -> set[str]:
    """Return the features of this CPU under the names of the Linux kernel."""
    return set(cpu_description().decode().split())
