"""Fresh processes to measure in: one like a loader's worker on one core, and one whose peak memory is its own."""

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
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

import av
import cv2
import psutil
import torch
from tabulate import tabulate

from slowfast.datasets.loader import start_worker
from slowfast.utils.machine import synchronize, usable_cores


@dataclass(frozen=True)
class Target:
    """What a figure should reach: at least `limit`, or at most."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether the value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.limit:g}"


SHARE_OF_WHOLE, OVER_WHOLE = "share of the whole network's time", "speed-up over the whole network"

_BOTTLES = "event-driven, fixed_camera_bottles.mp4, chunks of 16 frames"  # a known clip of a fixed camera

# Set for MorphMLP-S with 16 frames on 2 CPU cores, and for 10 s clips of 256 lines: 16 frames at stride 4, 2 samples a
# video, full augmentation. Elsewhere they are shown for comparison.
TARGETS: dict[tuple[str, str], Target] = {
    ("load, files as given", "clips a second"): Target(22, at_least=True),
    ("load, prepared files", "clips a second"): Target(32, at_least=True),
    ("test, 10x3 views", "ratio to decoding once + resizing"): Target(1.3, at_least=False),
    ("network, float32", "forward, share of the matrix product's rate"): Target(65, at_least=True),
    ("network, bfloat16", "forward, speed-up over float32"): Target(1.8, at_least=True),
    ("network, float32", "checkpointing, activation memory"): Target(45, at_least=False),
    ("network, float32", "checkpointing, time of a train step"): Target(1.35, at_least=False),
    **{
        (f"events, {embed}, forward{training}{batch}", "times as fast"): Target(2, at_least=True)
        for embed in ("neighbor1d-naive-2-1", "neighbor1d-naive2d-2-1", "neighbor2d-naive-2-1")
        for training in ("", " + backward")
        for batch in ("", ", one recording")
    },
    ("event-driven, every patch changes", f"float32, {SHARE_OF_WHOLE}"): Target(105, at_least=False),
    ("event-driven, nothing changes", f"float32, {SHARE_OF_WHOLE}"): Target(3, at_least=False),
    **{
        (f"event-driven, {activity}", f"{precision}, {OVER_WHOLE}"): Target(limit, at_least=True)
        for activity, limits in {
            "1 % in one region, frame by frame": {"float32": 1.8, "bfloat16": 3.3, "int8": 5},
            "1 % scattered, frame by frame": {"float32": 1.8, "bfloat16": 3.3, "int8": 5},
            "5 % in one region, 16 streams": {"float32": 5.5, "bfloat16": 10},
            "5 % in one region, chunks of 16 frames": {"float32": 5.5, "bfloat16": 10},
        }.items()
        for precision, limit in limits.items()
    },
    (_BOTTLES, f"float32, {OVER_WHOLE}"): Target(3, at_least=True),
    (_BOTTLES, "float32"): Target(6, at_least=False),  # milliseconds a frame: a tenth of the published routine's
}
TARGETS_ARE_FOR = "targets: MorphMLP-S 16x4 on 2 CPU cores, 10 s clips of 256 lines; evMLP at 224"


@dataclass(frozen=True)
class Figure:
    """One measured value: the median over `runs`, or what does not vary (runs 1)."""

    group: str
    name: str
    value: float
    unit: str
    runs: int

    @property
    def target(self) -> Target | None:
        """What it should reach, where that is laid down."""
        return TARGETS.get((self.group, self.name))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {"group": self.group, "name": self.name, "value": self.value, "unit": self.unit, "runs": self.runs}
        if self.target is not None:
            plain |= {"target": str(self.target), "met": self.target.met(self.value)}
        return plain


def figures_table(figures: Sequence[Figure]) -> str:
    """A line a figure, under its group's name."""
    rows: list[tuple[str, ...]] = []
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            rows.append((group, "", "", "", "", ""))
        target = figure.target
        verdict = ("", "") if target is None else (str(target), "met" if target.met(figure.value) else "NOT MET")
        rows.append((f"  {figure.name}", f"{figure.value:.4g}", figure.unit, str(figure.runs), *verdict))
    headers = ("figure", "median", "unit", "runs", "target", "")
    aligned = ("left", "right", "left", "right", "left", "left")
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=aligned)
    return f"{table}\n({TARGETS_ARE_FOR})"


def machine_table(machine: Mapping[str, Any]) -> str:
    """What was measured on."""
    return tabulate([(name, str(value)) for name, value in machine.items()], tablefmt="plain", disable_numparse=True)


@dataclass(frozen=True)
class Timings:
    """Seconds of each case, one value a run; the runs of a place in the lists followed one another directly."""

    seconds: dict[str, list[float]]

    def summed(self, count: int) -> Timings:
        """Runs of so many consecutive ones each."""
        parts = {
            case: [sum(seconds[start : start + count]) for start in range(0, len(seconds), count)]
            for case, seconds in self.seconds.items()
        }
        return Timings(parts)

    def median(self, case: str) -> float:
        """The median over runs, seconds."""
        return median(self.seconds[case])

    def ratio(self, case: str, other: str) -> float:
        """The median over runs of `case` / `other`: what slows the machine for a while slows both."""
        pairs = zip(self.seconds[case], self.seconds[other], strict=True)
        return median(one / two for one, two in pairs)


def time_interleaved(
    cases: Mapping[str, Callable[[], object]], runs: int, device: torch.device, warm_up: int = 1
) -> Timings:
    """Run all cases one after another, `warm_up` times untimed and then `runs` times. A GPU's work is waited for."""
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
    """Seconds spent in each of several named pieces of code; time in a piece inside another counts for it alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]  # seconds spent in pieces inside those now open, outermost first

    @contextmanager
    def measure(self, piece: str) -> Iterator[None]:
        """Add the time of the block to `piece`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[piece] += spent - self._inner.pop()
            self._inner[-1] += spent


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, memory, versions, how busy the machine is, and the GPU where one is used."""
    described = {
        "processor": _processor(),
        "cores": usable_cores(),
        "threads of torch": torch.get_num_threads(),
        "memory (GiB)": round(psutil.virtual_memory().total / 2**30, 1),
        "load average before": round(psutil.getloadavg()[0], 2),  # above 0 others are at work and slow it down
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "cv2": cv2.__version__,
    }
    if device.type == "cuda":
        described["GPU"] = torch.cuda.get_device_name(device)
    return described


def _processor() -> str:
    """The processor's name; Linux tells it in a file of its own."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """The function's result, computed in a process that has done nothing else; its exception is raised here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def on_one_core(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """The same in a process set up like a worker of the loader, held to one core where the system allows that."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_start) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _start() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    start_worker(0)
