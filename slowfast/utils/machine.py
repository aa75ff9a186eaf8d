"""Properties of this machine: fast matrix multiplication, peak memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

import torch

from slowfast.utils.cpu import LIMITS
from slowfast.utils.private_ops import CPU_QUERIES, is_supported_by_onednn

# Environment variables that limit the instructions of oneDNN, PyTorch and MKL.
_LIMITS = [name for name in LIMITS if not name.startswith("SLOWFAST_")]


def matmul_conditions(threads: int) -> list[str]:
    """Return what the speed of PyTorch's matrix multiplications depends on besides the CPU and their sizes."""
    limits = [os.environ.get(name, "") for name in _LIMITS]
    return [str(torch.__version__), torch.backends.cpu.get_cpu_capability(), *limits, str(threads)]


def synchronize(device: torch.device) -> None:
    """Synchronize a GPU; no effect on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_fast_matmul(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether PyTorch has an optimized matrix multiplication for a dtype on a device.

    CPUs without the instructions multiply bfloat16 and float16 several times slower than float32, and operators that
    call oneDNN directly raise RuntimeError.
    """
    return device.type != "cpu" or dtype not in CPU_QUERIES or is_supported_by_onednn(dtype)


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory in GiB: allocated on the GPU, or resident set size of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


# glibc's mallopt: blocks above M_MMAP_THRESHOLD get pages of their own, and M_TRIM_THRESHOLD is what may lie unused.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OLD_MAX_MMAP_THRESHOLD = 1 << 25  # the largest value that older versions accept


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for reuse instead of returning it to the system at once.

    Otherwise every large CPU tensor costs a page fault per 4 KiB: 3 to 15 % of a forward pass. No effect if the C
    library has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Setting the second alone would leave the first at its small default, without adapting to the program.
        if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
            mallopt(_M_MMAP_THRESHOLD, _OLD_MAX_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
