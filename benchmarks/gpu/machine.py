"""Description of the machine, and its matrix-multiplication rates as reference for the other results."""

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

_MODULES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}  # distribution name: module name
MATRIX_SIDE = {"cuda": 8192, "cpu": 512}
WARM_UP = 2  # untimed runs: the clock rate of the GPU rises and libraries choose kernels
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def describe(cases: Cases) -> None:
    """Run the part: hardware, versions, matrix-multiplication rates and missing packages."""
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
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.split("\n")[0].strip()


def matmul_rates(cases: Cases, side: int | None = None) -> dict[str, float]:
    """Return the median rate of multiplying square matrices in FLOP/s, by name in DTYPES."""
    side, rates = side or MATRIX_SIDE[cases.device.type], {}
    for name in DTYPES:
        if not can_run(name, cases.device):
            continue
        with precision(name):
            multiply = matmul_case(DTYPES[name], side, cases.device)
            timings = time_interleaved({name: multiply}, cases.runs, cases.device, WARM_UP)
        rates[name] = 2 * side**3 / timings.median(name)
    return rates


def can_run(name: str, device: torch.device) -> bool:
    """Return whether a device has a fast matrix multiplication for a name in DTYPES."""
    return has_fast_matmul(DTYPES[name], device) and (name != "tf32" or device.type == "cuda")


def matmul_case(dtype: torch.dtype, side: int, device: torch.device) -> Callable[[], Any]:
    """Return a function that multiplies two random matrices (side, side)."""
    one, other = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: torch.mm(one, other)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Allow TF32 in float32 operators of a GPU inside the block, unless `name` is "fp32"."""
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


def missing_packages() -> list[str]:
    """Return the dependencies of the project and its tests that are not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=!~\[; ]", line)[0] for line in [*project["dependencies"], "pytest", "hypothesis"]]
    modules = {name: _MODULES.get(name.lower(), name) for name in names}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]
