"""Compilation of kernels/*.cpp with the machine's C++ compiler."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from slowfast.errors import ConfigError
from slowfast.utils.cpu import cpu_description
from slowfast.utils.private_cache import compiled_library

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
        OSError: If there is no compiler, or it fails.
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
