"""CPU cores of this machine, without PyTorch."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_description() -> bytes:
    """Return the model and the instruction sets of the CPU: two CPUs with the same description run the same code."""
    about = Path("/proc/cpuinfo")
    lines = about.read_bytes().splitlines() if about.exists() else []
    names = (b"model name", b"flags", b"Features")
    return platform.machine().encode() + b"".join(sorted({line for line in lines if line.startswith(names)}))
