"""Compiles kernels.cpp with the machine's C++ compiler on first use and loads it; None where there is none."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from slowfast.runtime.logging import get_logger

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
_MAX_SIDE = 4096  # pixels of a frame's side that `changed_patches` has room for


class _Frames(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("frame", "channel", "row", "column")))


class Kernels:
    """The compiled functions on tensors of this machine's memory; shapes as in kernels.cpp."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def changed_patches(
        self,
        frames: torch.Tensor,
        references: torch.Tensor,
        patch: int,
        mean: bool,
        threshold: float,
        nested: torch.Tensor,
    ) -> torch.Tensor:
        """float (B, 3, side, side) twice -> bool (B, N); nested: the place of each patch in row-major order, (N,)."""
        mask = torch.empty(len(frames), len(nested), dtype=torch.bool)
        self.library.changed_patches(
            ctypes.byref(_frames(frames)),
            ctypes.byref(_frames(references)),
            ctypes.c_int64(len(frames)),
            ctypes.c_int64(frames.shape[-1]),
            ctypes.c_int64(patch),
            int(mean),
            ctypes.c_float(threshold),
            _pointer(nested),
            _pointer(mask),
            torch.get_num_threads(),
        )
        return mask

    def take_patches(
        self, frames: torch.Tensor, held: torch.Tensor | None, places: torch.Tensor, patch: int
    ) -> torch.Tensor:
        """Patches of frames (B, 3, side, side) at places (R,), row-major -> (R, p p 3); written to `held` too."""
        rows = torch.empty(len(places), patch * patch * 3)
        self.library.take_patches(
            ctypes.byref(_frames(frames)),
            None if held is None else ctypes.byref(_frames(held)),
            _pointer(places),
            ctypes.c_int64(len(places)),
            ctypes.c_int64(frames.shape[-1]),
            ctypes.c_int64(patch),
            _pointer(rows),
            torch.get_num_threads(),
        )
        return rows

    def stage_rows(
        self,
        stage: ctypes.Structure,
        weight_bytes: int,
        x: torch.Tensor,
        out: torch.Tensor,
        hidden: torch.Tensor,
        share_rows: bool,
    ) -> None:
        """x (R, in) -> out (R, panels * 64); `hidden` is room for the widest layer's rows."""
        self.library.stage_rows(
            ctypes.byref(stage),
            weight_bytes,
            _pointer(x),
            ctypes.c_int64(len(x)),
            _pointer(out),
            _pointer(hidden),
            int(share_rows),
            torch.get_num_threads(),
        )


def takes_frames(frames: torch.Tensor) -> bool:
    """Whether the kernels can read such frames (B, 3, side, side): float32 in memory, columns or channels innermost."""
    innermost = frames.stride(3) == 1 or (frames.stride(1) == 1 and frames.stride(3) == 3)
    small = frames.shape[-1] <= _MAX_SIDE
    return frames.device.type == "cpu" and frames.dtype == torch.float32 and innermost and small


@functools.cache
def load_kernels() -> Kernels | None:
    """The compiled kernels; None, with one message, where they cannot be had. Compiling takes some seconds, once."""
    try:
        return Kernels(ctypes.CDLL(str(_build())))
    except (OSError, subprocess.SubprocessError) as error:
        get_logger().info(f"event-driven inference without compiled kernels, which is slower: {error}")
        return None


def _build() -> Path:
    """The library of this source, these flags, this compiler and this CPU, compiled unless it is there."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        raise OSError("no C++ compiler found; install one (g++), or set CXX")
    command = [compiler, *_FLAGS, *_threads_of_pytorch()]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    what = b"\0".join((_SOURCE.read_bytes(), " ".join(command).encode(), version, _cpu()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slowfast"
    library = folder / f"kernels-{hashlib.sha256(what).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as own:  # another process may compile it as well
            made = Path(own) / library.name
            result = subprocess.run([*command, str(_SOURCE), "-o", str(made)], capture_output=True, text=True)
            if result.returncode:
                raise OSError(f"{compiler} failed: {result.stderr.strip().splitlines()[-1:]}")
            made.replace(library)
    return library


def _threads_of_pytorch() -> list[str]:
    """Link flags for the OpenMP library that PyTorch brings: two of them would fight for the cores."""
    folder = Path(torch.__file__).parent / "lib"
    return [flag for file in sorted(folder.glob("libgomp*")) for flag in (f"-L{folder}", f"-l:{file.name}")]


def _cpu() -> bytes:
    """What -march=native depends on."""
    about = Path("/proc/cpuinfo")
    lines = about.read_bytes().splitlines() if about.exists() else []
    names = (b"model name", b"flags", b"Features")
    return platform.machine().encode() + b"".join(sorted({line for line in lines if line.startswith(names)}))


def _frames(frames: torch.Tensor) -> _Frames:
    return _Frames(frames.data_ptr(), *frames.stride())


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
