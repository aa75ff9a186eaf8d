"""Name of the machine and its matrix-multiplication rates, which the other results are compared with."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.gpu.cases import Cases
from benchmarks.gpu.processes import ROOT
from benchmarks.measure import describe_machine, time_interleaved
from slowfast.utils.machine import has_fast_matmul

_MODULES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}  # distributions with other names
MATRIX_SIDE = {"cuda": 8192, "cpu": 512}
WARM_UP = 2  # untimed runs; a GPU's clocks rise and libraries choose kernels meanwhile
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def describe(cases: Cases) -> None:
    """Run the part: names and versions, matrix-multiplication rates, packages that are missing."""
    cases.run("machine", lambda: {"summary": _summary(cases)})


def _summary(cases: Cases) -> str:
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in matmul_rates(cases).items())
    parts = [*_names(cases.device), f"matmul {rates} TFLOP/s"]
    if missing := missing_packages():
        parts.append(f"missing packages: {', '.join(missing)}")
    return " | ".join(parts)


def _names(device: torch.device) -> list[str]:
    described = describe_machine(device)
    cores = f"{described['cores']} cores of {described['CPU']}"
    versions = [f"Python {described['python']}", f"torch {described['torch']}"]
    if device.type == "cpu":
        return ["no GPU", cores, *versions]
    gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    gpu = [f"{described['GPU']}, {gib:.0f} GiB", f"driver {_driver()}"]
    return [*gpu, *versions, f"CUDA {torch.version.cuda}", cores]


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.split("\n")[0].strip()


def matmul_rates(cases: Cases, side: int | None = None) -> dict[str, float]:
    """Return the median FLOP/s of multiplying square matrices, by name of the number format."""
    side, rates = side or MATRIX_SIDE[cases.device.type], {}
    for name in DTYPES:
        if not can_run(name, cases.device):
            continue
        with precision(name):
            product = matmul_case(DTYPES[name], side, cases.device)
            timings = time_interleaved({name: product}, cases.runs, cases.device, WARM_UP)
        rates[name] = 2 * side**3 / timings.median(name)
    return rates


def can_run(name: str, device: torch.device) -> bool:
    """Return whether a number format of DTYPES is worth measuring on a device."""
    return has_fast_matmul(DTYPES[name], device) and (name != "tf32" or device.type == "cuda")


def matmul_case(dtype: torch.dtype, side: int, device: torch.device) -> Callable[[], Any]:
    """Return a function that multiplies two random matrices (side, side)."""
    one, other = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: torch.mm(one, other)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Let float32 operators of a GPU use TF32 inside the block unless `name` is "fp32"."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def missing_packages() -> list[str]:
    """Return the dependencies of the project that are not installed, and what its tests need besides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=!~\[; ]", line)[0] for line in [*project["dependencies"], "pytest", "hypothesis"]]
    modules = {name: _MODULES.get(name.lower(), name) for name in names}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]
