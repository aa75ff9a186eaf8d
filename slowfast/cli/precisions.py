"""What each precision setting does on this machine, and why."""

from __future__ import annotations

import torch

from slowfast.config.defaults import choices
from slowfast.event_driven.kernels import ISA_VARIABLE, instruction_set
from slowfast.event_driven.linear_kernels import BFLOAT16, FLOAT32, INT8, rows_dtype
from slowfast.utils.compiled_library import find_compiler
from slowfast.utils.cpu import BF16_SETS, FP16_SETS, instruction_limits, instruction_sets
from slowfast.utils.machine import has_fast_matmul

_SETS = {"bfloat16": BF16_SETS, "float16": FP16_SETS}
_CPU = torch.device("cpu")


def precision_facts() -> dict[str, str]:
    """Return for each precision setting what it does: "float32: this CPU has no bfloat16 matrix multiplication"."""
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
    kernels = instruction_set()
    if precision == BFLOAT16:
        has, activations, otherwise, needed = "bf16" in kernels, "bfloat16", "float32", "AVX512_BF16"
    else:
        has, activations, otherwise = "vnni" in kernels or "bf16" in kernels, "8-bit", "14- to 16-bit"
        needed = "AVX512_VNNI or AVX-VNNI"
    if has:
        return f"{precision} weights, {activations} activations"
    limit = instruction_limits().get(ISA_VARIABLE)
    reason = f"{ISA_VARIABLE}={limit}" if limit else f"this CPU has no {needed}"
    return f"{precision} weights, {otherwise} activations: {reason}"
