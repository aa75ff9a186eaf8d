"""Properties of this machine: memory, fast matrix multiplication, and choices between implementations by measurement.

Which library multiplies matrices of a shape faster depends on the processor. Such a choice is measured at its first use
and stored in the private cache, so that all processes on a machine choose alike. Implementations may differ in
rounding, so training must not depend on a choice: a run must give the same result wherever it is resumed.

Example::

    choice = measured_choice(
        f"linear {rows} {inputs} {outputs}",
        ("packed", "plain"),
        lambda: fastest({"packed": lambda: fused_linear(x, packed, bias), "plain": lambda: F.linear(x, weight, bias)}),
    )
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from slowfast.utils.cpu import LIMITS, cpu_description
from slowfast.utils.private_cache import private_cache, write_private
from slowfast.utils.private_ops import CPU_QUERIES, is_supported_by_onednn
from slowfast.utils.text_files import from_json, to_json

# Environment variables that limit the instructions of oneDNN, PyTorch and MKL.
_LIMITS = [name for name in LIMITS if not name.startswith("SLOWFAST_")]


def matmul_conditions(threads: int) -> list[str]:
    """Return the settings, other than CPU and sizes, that determine the speed of PyTorch's matrix multiplications."""
    limits = [os.environ.get(name, "") for name in _LIMITS]
    return [str(torch.__version__), torch.backends.cpu.get_cpu_capability(), *limits, str(threads)]


def synchronize(device: torch.device) -> None:
    """Synchronize a GPU; no effect on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_fast_matmul(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether PyTorch has an optimized matrix multiplication for a dtype on a device.

    On CPUs without the required instructions, bfloat16 and float16 are several times slower than float32, and operators
    that call oneDNN directly raise RuntimeError.
    """
    return device.type != "cpu" or dtype not in CPU_QUERIES or is_supported_by_onednn(dtype)


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory in GiB: allocated on the GPU, or resident set size of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


# glibc's mallopt: blocks above M_MMAP_THRESHOLD get separate pages; up to M_TRIM_THRESHOLD bytes may stay unused.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OLD_MAX_MMAP_THRESHOLD = 1 << 25  # the largest value that older versions accept


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for reuse instead of returning it to the system at once.

    Otherwise every large CPU tensor costs a page fault per 4 KiB: 3 to 15 % of a forward pass. No effect if the C
    library lacks this setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Setting the second alone would leave the first at its small default, without adapting to the program.
        if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
            mallopt(_M_MMAP_THRESHOLD, _OLD_MAX_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_measuring = threading.RLock()  # a second thread waits for the measurement of the first
_chosen: dict[str, dict[str, str]] = {}  # choices of this process by machine and key


def measured_choice(key: str, choices: Sequence[str], measure: Callable[[], str]) -> str:
    """Return one of several choices, measured once per machine, version of PyTorch and number of threads.

    The choice is constant within a process. Choices in damaged cache files are measured again, and without a writable
    cache each process measures for itself. Two processes that measure the same key at once use the first result; if
    they write at the same time, other keys may be lost and are then measured again.

    Args:
        key: What is chosen, with all sizes that the result depends on.
        choices: Allowed results.
        measure: Function that measures and returns the best choice; see :func:`fastest`.
    """
    machine = _machine_digest(torch.get_num_threads())
    known = _chosen.get(machine, {}).get(key, "")  # without the lock: this is on the path of every call
    if known in choices:
        return known
    with _measuring:
        chosen = _chosen.setdefault(machine, {})
        if chosen.get(key) not in choices:
            stored = _read_choices(machine).get(key, "")
            chosen[key] = stored if stored in choices else _store_choice(machine, key, choices, measure())
        return chosen[key]


def fastest(candidates: Mapping[str, Callable[[], object]], seconds: float = 0.1, margin: float = 0.03) -> str:
    """Return the name of the fastest function on the CPU.

    The functions take turns, at least five times after a warm-up. The shortest time of each counts, because it is least
    disturbed by other processes.

    Args:
        candidates: Functions to time, by name, the preferred one first.
        seconds: Time to measure for, if that allows more than five turns.
        margin: Fraction of the time that another function must save to be chosen over the first.
    """
    for candidate in candidates.values():
        candidate()
    shortest = dict.fromkeys(candidates, float("inf"))
    spent, turns = 0.0, 0
    while turns < 5 or spent < seconds:
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            duration = time.perf_counter() - start
            shortest[name] = min(shortest[name], duration)
            spent += duration
        turns += 1
    first, best = next(iter(shortest)), min(shortest, key=lambda name: shortest[name])
    return best if shortest[best] < (1 - margin) * shortest[first] else first


@functools.cache
def _machine_digest(threads: int) -> str:
    """Return a digest of everything besides the key that affects measurements of matrix multiplications."""
    conditions = map(str.encode, matmul_conditions(threads))
    return hashlib.sha256(b"\0".join((cpu_description(), *conditions))).hexdigest()[:32]


def _choices_file(machine: str) -> Path:
    return private_cache(f"choices-{machine}.json")


def _read_choices(machine: str) -> dict[str, str]:
    """Return the stored choices of a machine; none if the file is missing or damaged."""
    try:
        stored = from_json(_choices_file(machine).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {key: choice for key, choice in stored.items() if isinstance(choice, str)}


def _store_choice(machine: str, key: str, choices: Sequence[str], choice: str) -> str:
    """Store a choice and return it, or the choice that another process has stored in the meantime."""
    stored = _read_choices(machine)
    if stored.get(key, "") in choices:
        return stored[key]
    try:
        write_private(_choices_file(machine), to_json(stored | {key: choice}, indent=0, sort_keys=True))
    except OSError:  # measured again by the next process
        pass
    return choice
