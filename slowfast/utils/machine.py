"""This machine: usable cores, fast instructions, memory in use."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

import torch


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Query of PyTorch for each dtype of fewer than 32 bits: whether oneDNN multiplies matrices of it on this CPU.
_CPU_QUERIES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def synchronize(device: torch.device) -> None:
    """Wait for all pending work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_fast_matmul(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether PyTorch has an optimized matrix multiplication for a dtype on a device.

    CPUs without the instructions multiply bfloat16 and float16 several times slower than float32, and operators that
    call oneDNN directly raise RuntimeError.
    """
    if device.type != "cpu" or dtype not in _CPU_QUERIES:
        return True
    query = getattr(torch.ops.mkldnn, _CPU_QUERIES[dtype], None)  # None where PyTorch is built without oneDNN
    return query is not None and bool(query())


def peak_memory_gib(device: torch.device) -> float:
    """Most memory so far in GiB: allocated on the GPU, or resident of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


# glibc's mallopt: blocks above M_MMAP_THRESHOLD get pages of their own, and M_TRIM_THRESHOLD is what may lie unused.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the C library use freed memory again instead of giving it back to the system at once.

    Every large CPU tensor otherwise costs a page fault for each 4 KiB of it: 5 to 15 % of a forward pass.
    Does nothing where the C library has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
