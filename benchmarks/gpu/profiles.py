"""Profiles: GPU kernels or CPU operators by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from tabulate import tabulate
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.cases import Values
from slowfast.utils.machine import synchronize

_MAX_KERNELS = 12  # rows of the table
_MAX_NAME = 90  # characters of a kernel's name


def profile_work(function: Callable[[], object], device: torch.device) -> Values:
    """Profile a function that has been warmed up.

    Returns:
        "busy, %": time in kernels relative to the wall-clock time; low values mean that the GPU waits for the host.
        "text": table of the most expensive kernels.
    """
    seconds = _duration(function, device)  # measured without the overhead of the profiler
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as record:
        _duration(function, device)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    kernels = [(_microseconds(event, on_gpu), event) for event in record.key_averages() if event.device_type == wanted]
    kernels = sorted((pair for pair in kernels if pair[0] > 0), key=lambda pair: -pair[0])
    total = sum(spent for spent, _ in kernels)
    if not total:
        raise RuntimeError("the profiler recorded no kernels")
    rows = [
        (event.key[:_MAX_NAME], str(event.count), f"{spent / 1e3:.3f}", f"{100 * spent / total:.1f} %")
        for spent, event in kernels[:_MAX_KERNELS]
    ]
    headers = ("kernel", "calls", "ms", "share")
    text = tabulate(rows, headers, disable_numparse=True, colalign=("left", "right", "right", "right"))
    return {"busy, %": total / seconds / 1e4, "text": text}


def _microseconds(event: Any, on_gpu: bool) -> float:
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)


def _duration(function: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start
