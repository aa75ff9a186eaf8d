"""Measurements: timing, targets, tables, the machine, and fresh processes to measure in."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, ParamSpec, TypeVar

import av
import cv2
import psutil
import torch
from tabulate import tabulate

from slowfast.cli.environment import precision_facts
from slowfast.datasets.loader import start_worker
from slowfast.utils.cpu import cpu_family, cpu_model, instruction_limits, instruction_sets, usable_cores
from slowfast.utils.machine import synchronize
from slowfast.utils.signals import end_with_parent


@dataclass(frozen=True)
class Target:
    """Target of a measurement.

    Args:
        limit: Limit of the value.
        at_least: The value should be at least the limit, otherwise at most.
    """

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Return whether a value meets the target."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.limit:g}"


SHARE_OF_DENSE, OVER_DENSE = "share of the time of dense inference", "speed-up over dense inference"

# Targets for MorphMLP-S 16x4 on 2 CPU cores and 10 s clips of 256 lines: 2 samples per video, full augmentation. For
# other settings they are shown for comparison.
TARGETS: dict[tuple[str, str], Target] = {
    ("load, files as given", "clips/s"): Target(22, at_least=True),
    ("load, prepared files", "clips/s"): Target(32, at_least=True),
    ("test, 10x3 views", "ratio to decoding once + resizing"): Target(1.3, at_least=False),
    ("network, float32", "forward, share of the matrix multiplication rate"): Target(65, at_least=True),
    ("network, bfloat16", "forward, speed-up over float32"): Target(1.8, at_least=True),
    ("network, float32", "checkpointing, activation memory"): Target(45, at_least=False),
    ("network, float32", "checkpointing, time of a training step"): Target(1.35, at_least=False),
    **{
        (f"events, {embed}, forward{training}{batch}", "speed-up"): Target(2, at_least=True)
        for embed in ("neighbor1d-naive-2-1", "neighbor1d-naive2d-2-1", "neighbor2d-naive-2-1")
        for training in ("", " + backward")
        for batch in ("", ", one recording")
    },
    **{
        (f"event-driven, every patch changes{batch}", f"{precision}, {SHARE_OF_DENSE}"): Target(103, at_least=False)
        for batch in ("", ", 16 streams", ", chunks of 16 frames")
        for precision in ("float32", "bfloat16", "int8")
    },
    ("event-driven, nothing changes", f"float32, {SHARE_OF_DENSE}"): Target(3, at_least=False),
    # On 2 cores with AVX2, against the faster dense inference.
    **{
        (f"event-driven, {activity}", f"{precision}, {OVER_DENSE}"): Target(limit, at_least=True)
        for activity, limits in {
            "1 % in one region, frame by frame": {"float32": 3.0, "bfloat16": 5.0, "int8": 7.0},
            "1 % scattered, frame by frame": {"float32": 3.0, "bfloat16": 5.0, "int8": 7.0},
            "5 % in one region, 16 streams": {"float32": 7.5, "int8": 12.0},
            "5 % in one region, chunks of 16 frames": {"float32": 7.5, "int8": 12.0},
            "fixed_camera_bottles.mp4, chunks of 16 frames": {"float32": 3.3, "int8": 5.0},
            # Moving cameras, on which a third to a half of the multiply-adds are saved.
            "pancake.mkv, chunks of 16 frames": {"float32": 1.2, "bfloat16": 1.2, "int8": 1.2},
            "eat.mkv, chunks of 16 frames": {"float32": 1.2, "bfloat16": 1.2, "int8": 1.2},
        }.items()
        for precision, limit in limits.items()
    },
}
TARGETS_ARE_FOR = "targets: MorphMLP-S 16x4 on 2 CPU cores, 10 s clips of 256 lines; evMLP at 224"


@dataclass(frozen=True)
class Measurement:
    """Measured value.

    Args:
        group: Heading in the table.
        name: Name within the group.
        value: Median over runs.
        unit: Unit of the value.
        runs: Number of runs; 1 for values that do not vary.
    """

    group: str
    name: str
    value: float
    unit: str
    runs: int

    @property
    def target(self) -> Target | None:
        """Return the target; None if there is none."""
        return TARGETS.get((self.group, self.name))

    def as_json(self) -> dict[str, Any]:
        """Return the measurement as JSON values."""
        plain = {"group": self.group, "name": self.name, "value": self.value, "unit": self.unit, "runs": self.runs}
        if self.target is not None:
            plain |= {"target": str(self.target), "met": self.target.met(self.value)}
        return plain


def measurements_table(measurements: Sequence[Measurement]) -> str:
    """Return a table with the measurements of each group under its name."""
    rows: list[tuple[str, ...]] = []
    group = ""
    for measurement in measurements:
        if measurement.group != group:
            group = measurement.group
            rows.append((group, "", "", "", "", ""))
        target = measurement.target
        verdict = ("", "") if target is None else (str(target), "met" if target.met(measurement.value) else "NOT MET")
        rows.append(
            (f"  {measurement.name}", f"{measurement.value:.4g}", measurement.unit, str(measurement.runs), *verdict)
        )
    headers = ("measurement", "median", "unit", "runs", "target", "")
    aligned = ("left", "right", "left", "right", "left", "left")
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=aligned)
    return f"{table}\n({TARGETS_ARE_FOR})"


def machine_table(machine: Mapping[str, Any]) -> str:
    """Return the description of a machine as a table."""
    rows = [(name, _words(value)) for name, value in machine.items() if value not in ({}, [], "")]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _words(value: Any) -> str:
    """Return a fact as text: several values in one line, named values in a line each."""
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {fact}" for name, fact in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Timings:
    """Seconds of each case and run; values of the same run were measured directly after each other."""

    seconds: dict[str, list[float]]

    def summed(self, count: int) -> Timings:
        """Combine `count` consecutive runs into one."""
        parts = {
            case: [sum(seconds[start : start + count]) for start in range(0, len(seconds), count)]
            for case, seconds in self.seconds.items()
        }
        return Timings(parts)

    def median(self, case: str) -> float:
        """Return the median over runs in seconds."""
        return median(self.seconds[case])

    def ratio(self, case: str, other: str) -> float:
        """Return the median over runs of the ratio of two cases, which cancels slow phases of the machine."""
        pairs = zip(self.seconds[case], self.seconds[other], strict=True)
        return median(one / two for one, two in pairs)


def time_interleaved(
    cases: Mapping[str, Callable[[], object]], runs: int, device: torch.device, warm_up: int = 1
) -> Timings:
    """Time several cases, which take turns.

    Args:
        cases: Functions to time, by name.
        runs: Number of timed runs.
        device: Device that is synchronized before and after each call.
        warm_up: Number of untimed runs before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(warm_up + runs):
        for name, case in cases.items():
            synchronize(device)
            start = time.perf_counter()
            case()
            synchronize(device)
            if run >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return Timings(seconds)


class Stopwatch:
    """Timer of named, nested pieces of code; the time of an inner piece does not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]  # seconds of inner pieces of those now open, outermost first

    @contextmanager
    def measure(self, piece: str) -> Iterator[None]:
        """Time the block as `piece`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[piece] += spent - self._inner.pop()
            self._inner[-1] += spent


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return CPU, instruction sets and their limits, cores, memory, versions, load, and the GPU if one is used."""
    described: dict[str, Any] = {
        "CPU": cpu_model(),
        "CPU family": cpu_family(),
        "instruction sets": instruction_sets(),
        "limits": instruction_limits(),
        "cores": usable_cores(),
        "PyTorch threads": torch.get_num_threads(),
        "memory (GiB)": round(psutil.virtual_memory().total / 2**30, 1),
        "load average before": round(psutil.getloadavg()[0], 2),  # other processes that slow down the benchmark
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "cv2": cv2.__version__,
        "precisions": precision_facts(),
    }
    if device.type == "cuda":
        described["GPU"] = torch.cuda.get_device_name(device)
    return described


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call a function in a fresh process and return its result or raise its exception."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def on_one_core(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call a function in a fresh process set up like a loader worker and pinned to one core if possible."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_start) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _start() -> None:
    end_with_parent()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    start_worker(0)
