"""Description of the machine and the installed packages."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import torch
from tabulate import tabulate

from slowfast import __version__
from slowfast.config.shipped import configs_folder
from slowfast.utils.machine import has_fast_matmul, usable_cores

PACKAGES = ("torch", "numpy", "opencv-python", "opencv-python-headless", "av", "fvcore", "iopath", "einops")
# Optional packages by the extra that installs them.
EXTRAS = {
    "plots": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "events": ("lz4", "scipy", "zstandard"),
    "torchcodec": ("torchcodec",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "parquet": ("pyarrow",),
}
# Flags of /proc/cpuinfo that decide which kernels are fast.
CPU_FLAGS = ("avx2", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Facts = dict[str, dict[str, str]]


def describe_environment() -> Facts:
    """Return versions and hardware as groups of named facts."""
    return {
        "software": _software(),
        "CPU": _cpu(),
        "GPU": _gpus(),
        "precisions": _precisions(),
        "optional extras": {extra: _extra(extra, packages) for extra, packages in EXTRAS.items()},
    }


def environment_table(facts: Facts) -> str:
    """Return the facts as a table with a line for the name of each group."""
    rows: list[tuple[str, str]] = []
    for group, items in facts.items():
        rows.append((group, ""))
        rows += [(f"  {name}", value) for name, value in items.items()]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _software() -> dict[str, str]:
    facts = {
        "slowfast": f"{__version__} ({Path(__file__).resolve().parents[1]})",
        "shipped configs": str(configs_folder()),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    facts |= {package: version for package in PACKAGES if (version := _version(package))}
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    facts["C++ compiler"] = (
        compiler or "none: event-driven inference on the CPU uses PyTorch operators, which is slower"
    )
    return facts


def _cpu() -> dict[str, str]:
    flags = _cpu_flags()
    return {
        "model": _cpu_model(),
        "usable cores": f"{usable_cores()} of {os.cpu_count()}",
        "PyTorch threads": str(torch.get_num_threads()),
        "PyTorch kernels": torch.backends.cpu.get_cpu_capability(),
        "instruction sets": ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "unknown",
    }


def _gpus() -> dict[str, str]:
    if not torch.cuda.is_available():
        built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is built for CPUs"
        return {"none": f"runs use the CPU ({built})"}
    facts = {"CUDA": str(torch.version.cuda)}
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        capability = f"compute capability {gpu.major}.{gpu.minor}"
        facts[f"GPU {number}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {capability}"
    return facts


def _precisions() -> dict[str, str]:
    """Return for each device which precisions have fast matrix multiplication."""
    cpu = torch.device("cpu")
    facts = {}
    for name, dtype in PRECISIONS.items():
        fast = has_fast_matmul(dtype, cpu)
        facts[f"CPU {name}"] = "fast" if fast else "no fast instructions: slower than fp32, saves memory only"
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        facts |= {"GPU fp32": "fast", "GPU fp16": "fast", "GPU bf16": "fast" if bf16 else "emulated: use float16"}
    return facts


def _extra(extra: str, packages: tuple[str, ...]) -> str:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, version in versions.items() if not version]
    if missing:
        return f'missing {", ".join(missing)}: pip install "slowfast[{extra}]"'
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu_flags() -> set[str]:
    return set(_cpuinfo("flags").split()) | set(_cpuinfo("Features").split())


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """Return a field of the first CPU in /proc/cpuinfo; "" where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == field), "")
