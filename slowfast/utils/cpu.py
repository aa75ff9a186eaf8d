"""CPU of this machine: usable cores, model, instruction sets and their limits by environment, without PyTorch."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
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


# Instruction sets that decide which kernels are fast, by their flag in /proc/cpuinfo; weakest first.
X86_SETS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512F",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx512_fp16": "AVX512_FP16",
    "amx_int8": "AMX_INT8",
    "amx_bf16": "AMX_BF16",
}
ARM_SETS = {"asimd": "NEON", "sve": "SVE", "i8mm": "I8MM", "bf16": "BF16"}
BF16_SETS = frozenset({"AVX512_BF16", "AMX_BF16", "BF16"})
FP16_SETS = frozenset({"AVX512_FP16"})

# Environment variables that restrict libraries to fewer instructions than the CPU has, and whose code they restrict.
LIMITS = {
    "ONEDNN_MAX_CPU_ISA": "oneDNN",
    "DNNL_MAX_CPU_ISA": "oneDNN (older name)",
    "ATEN_CPU_CAPABILITY": "PyTorch's own operators",
    "MKL_ENABLE_INSTRUCTIONS": "MKL",
    "SLOWFAST_MAX_CPU_ISA": "compiled kernels of event-driven inference",
}


def cpu_model() -> str:
    """Return the name of the CPU."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_family() -> str:
    """Return vendor, family and model number, such as "AuthenticAMD 25/1"; "" if the system does not report them.

    Virtual machines often hide the product name but not the family, which identifies the generation.
    """
    vendor, family, model = map(_cpuinfo, ("vendor_id", "cpu family", "model"))
    return f"{vendor} {family}/{model}" if vendor and family else ""


def known_sets() -> dict[str, str]:
    """Return the instruction sets that matter on CPUs of this kind, by flag; weakest first."""
    return X86_SETS if platform.machine() in ("x86_64", "AMD64", "i686") else ARM_SETS


def instruction_sets() -> list[str]:
    """Return the instruction sets of this CPU that matter for speed, weakest first."""
    flags = {*_cpuinfo("flags").split(), *_cpuinfo("Features").split()}
    return [name for flag, name in known_sets().items() if flag in flags]


def instruction_limits(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of `LIMITS` that are set, with their values."""
    return {name: environment[name] for name in LIMITS if environment.get(name)}


def _cpuinfo(field: str) -> str:
    """Return a field of the first CPU in /proc/cpuinfo; "" where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == field), "")
