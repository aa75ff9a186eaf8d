"""Measured figures, their targets, and the two forms they are given in: a table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate


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
