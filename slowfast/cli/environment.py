"""Description of the machine, the installed packages and the effect of each precision setting on this machine."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from slowfast import __version__
from slowfast.config.defaults import choices
from slowfast.config.parse import configs_folder
from slowfast.event_driven.kernels import ISA_VARIABLE, Kernels, build_library, instruction_set
from slowfast.event_driven.linear_kernels import BFLOAT16, FLOAT32, INT8, rows_dtype
from slowfast.utils.cpu import (
    BF16_SETS,
    FP16_SETS,
    LIMITS,
    cpu_family,
    cpu_model,
    instruction_limits,
    instruction_sets,
    known_sets,
    usable_cores,
)
from slowfast.utils.machine import has_fast_matmul
from slowfast.utils.private_cache import find_compiler

PACKAGES = ("torch", "numpy", "opencv-python", "opencv-python-headless", "av", "fvcore", "iopath", "einops")
# Optional packages, by the extra that installs them.
EXTRAS = {
    "plots": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow-skinny",),
    "events": ("h5py", "lz4", "scikit-learn", "scipy", "zstandard"),
    "ros": ("rosbags",),
    "demo": ("gradio",),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "torchcodec": ("torchcodec",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "parquet": ("pyarrow",),
    "hub": ("huggingface_hub",),
    "s3": ("boto3",),
    "safetensors": ("safetensors",),
}
Facts = dict[str, dict[str, str]]
_SETS = {"bfloat16": BF16_SETS, "float16": FP16_SETS}
_CPU = torch.device("cpu")


def describe_environment(compile_kernels: bool = False) -> Facts:
    """Return versions and hardware as groups of named facts.

    Args:
        compile_kernels: Compile the kernels of event-driven inference if needed, and load them.
    """
    return {
        "software": _software(),
        "CPU": _cpu() | {"compiled kernels": _kernels(compile_kernels)},
        "GPU": _gpus(),
        "what precisions do": precision_facts(),
        "optional extras": {extra: _extra(extra, packages) for extra, packages in EXTRAS.items()},
    }


def environment_table(facts: Facts) -> str:
    """Return the facts as lines under the name of each group."""
    width = max(len(name) for items in facts.values() for name in items)
    lines: list[str] = []
    for group, items in facts.items():
        lines += [group, *(f"  {name:<{width}}  {value}" for name, value in items.items())]
    return "\n".join(lines)


def _software() -> dict[str, str]:
    facts = {
        "slowfast": f"{__version__} ({Path(__file__).resolve().parents[1]})",
        "shipped configs": str(configs_folder()),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    facts |= {package: version for package in PACKAGES if (version := _version(package))}
    facts["C++ compiler"] = find_compiler() or "none. Install one (g++) or set CXX"
    return facts


def _cpu() -> dict[str, str]:
    has = instruction_sets()
    missing = [name for name in known_sets().values() if name not in has]
    limits = [f"{name}={value} ({LIMITS[name]})" for name, value in instruction_limits().items()]
    return {
        "model": " ".join(filter(None, (cpu_model(), cpu_family() and f"({cpu_family()})"))),
        "usable cores": f"{usable_cores()} of {os.cpu_count()}",
        "PyTorch threads": str(torch.get_num_threads()),
        "instruction sets": ", ".join(has) or "unknown",
        "instruction sets it lacks": ", ".join(missing) or "none",
        "limited by": ", ".join(limits) or f"nothing ({', '.join(LIMITS)} are not set)",
        "PyTorch kernels": torch.backends.cpu.get_cpu_capability(),
    }


def _kernels(load: bool) -> str:
    """Return whether the compiled kernels of event-driven inference are available."""
    slower = "event-driven inference uses PyTorch's operators, which is slower"
    if not find_compiler():
        return f"not available, no C++ compiler: {slower}"
    if not load:
        return f"compiled for {instruction_set()} on first use (slowfast env --kernels does it now)"
    try:
        Kernels(ctypes.CDLL(str(build_library())))
    except (OSError, subprocess.SubprocessError) as error:
        return f"not available, {error}: {slower}"
    return f"available, compiled for {instruction_set()}"


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


def precision_facts() -> dict[str, str]:
    """Return the effect of each precision, such as "float32: this CPU has no bfloat16 matrix multiplication"."""
    facts = {f"TRAIN.MIXED_PRECISION, {name}": _autocast(name) for name in map(str, choices("TRAIN.AMP_DTYPE"))}
    facts |= {f"EVENT.PRECISION {name}": _event_driven(name) for name in (FLOAT32, BFLOAT16, INT8)}
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        emulated = "bfloat16, emulated: this GPU has no bfloat16 instructions. Use float16"
        facts |= {"on the GPU, bfloat16": "bfloat16" if bf16 else emulated, "on the GPU, float16": "float16"}
    return facts


def _autocast(name: str) -> str:
    if not has_fast_matmul(getattr(torch, name), _CPU):
        return f"float32: {_why_not(name)}"
    has_instructions = bool(_SETS[name] & set(instruction_sets()))
    return name if has_instructions else f"{name}, converted to float32 in registers: saves memory, not time"


def _why_not(name: str) -> str:
    """Return why PyTorch has no fast matrix multiplication of a 16-bit data type on this CPU."""
    if not _SETS[name] & set(instruction_sets()):
        return f"this CPU has no {name} matrix multiplication"
    if limit := instruction_limits().get("ONEDNN_MAX_CPU_ISA"):
        return f"ONEDNN_MAX_CPU_ISA={limit} excludes the {name} instructions"
    return f"this PyTorch has no {name} kernels for CPUs"


def _event_driven(precision: str) -> str:
    """Return how event-driven inference multiplies weights of a precision on the CPU (docs/EVENT_DRIVEN.md)."""
    if precision == FLOAT32:
        return FLOAT32
    if not find_compiler():
        dtype = str(rows_dtype(precision, _CPU)).removeprefix("torch.")
        return f"{precision} weights, multiplied in {dtype} by PyTorch: there is no C++ compiler for the kernels"
    kernels, without = instruction_set(), ""
    if precision == BFLOAT16:
        has, activations, otherwise, needed = "bf16" in kernels, "bfloat16", "float32", "AVX512_BF16"
    else:
        has, activations, otherwise = "vnni" in kernels or "bf16" in kernels, "8-bit", "14- to 16-bit"
        needed = "AVX512_VNNI or AVX-VNNI"
        if kernels == "avx2":
            without, otherwise = " of about 7 bits", activations
    if has:
        return f"{precision} weights, {activations} activations"
    limit = instruction_limits().get(ISA_VARIABLE)
    reason = f"{ISA_VARIABLE}={limit}" if limit else f"this CPU has no {needed}"
    return f"{precision} weights{without}, {otherwise} activations: {reason}"
