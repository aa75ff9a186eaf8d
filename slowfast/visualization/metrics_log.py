"""metrics.jsonl, the log of a training: writing, reading, and drawing it as curves.png."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slowfast.utils.files import atomic_write_text, disk_error
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import from_json, to_json
from slowfast.visualization.plots import BLUE, GRAY, GREEN, INK, ORANGE, new_figure, save_png, style_axes
from slowfast.visualization.results import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


METRICS = "metrics.jsonl"  # file in OUTPUT_DIR
Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a log; damaged lines are skipped with a warning, an incomplete last line silently."""
    if not path.is_file():
        return []
    rows, damaged = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        get_logger().warning(f"{path}: skipping {len(damaged)} damaged lines, the first of them line {damaged[0]}")
    return rows


def _parsed(line: str) -> Row | None:
    """Parse a line; None if it is not a row with a step number."""
    try:
        row = from_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Writer of metrics.jsonl, which keeps the rows of the run that it resumes.

    Args:
        path: File to write.
        done_steps: Steps done so far; rows of later steps are dropped, because the steps will be repeated.

    Raises:
        DiskError: If the disk is full or cannot be written to; the file then ends with the last complete row.
    """

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        atomic_write_text(path, "".join(_line(row) for row in rows), "OUTPUT_DIR")
        self._path = path
        self._file = path.open("ab", buffering=0)  # unbuffered, because closing must not repeat a failed write

    def write(self, row: Row) -> None:
        """Append a row; it has `split` (train or val), `epoch` and `step` (steps done since the start)."""
        line, size = _line(row).encode(), self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(size)
            raise disk_error(error, self._path, "OUTPUT_DIR") or error from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Row) -> str:
    return to_json(row) + "\n"


Points = dict[float, float]  # epoch -> value; NaN where the log has null


@dataclass
class Curves:
    """Curves of a training by fractional epoch."""

    loss: Points = field(default_factory=dict)
    validation_loss: Points = field(default_factory=dict)
    lr: Points = field(default_factory=dict)
    validation: Points = field(default_factory=dict)  # validation metric


def read_curves(path: Path, metric: Metric | None) -> Curves:
    """Read the curves of metrics.jsonl.

    .. code-block:: json

        {"split": "train", "epoch": 1.25, "loss": 2.5, "lr": 0.001}
        {"split": "val", "epoch": 2.0, "loss": 1.5, "top1": 81.5}

    Args:
        path: The log.
        metric: Validation metric; None for none.
    """
    curves = Curves()
    keys = {"train": {"loss": curves.loss, "lr": curves.lr}, "val": {"loss": curves.validation_loss}}
    if metric is not None:
        keys["val"][metric.key] = curves.validation
    for row in read_metrics(path):
        for key, points in keys.get(row["split"], {}).items():
            if key in row:
                value = row[key]
                points[float(row["epoch"])] = np.nan if value is None else float(value)
    return curves


def draw_curves(log: Path, path: Path, metric: Metric | None) -> None:
    """Draw metrics.jsonl as a PNG.

    Args:
        log: metrics.jsonl.
        path: File to write.
        metric: Validation metric to draw; None for none.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    curves = read_curves(log, metric)
    titles = ["Loss", "Learning rate"]
    if metric is not None:
        titles.append(f"Validation {metric.title}" + (f" ({metric.unit})" if metric.unit else ""))
    figure = new_figure(11.0, 3.4)
    loss_axes, lr_axes, *validation_axes = all_axes = figure.subplots(1, len(titles))
    last_epoch = max([0.0, *curves.loss, *curves.lr, *curves.validation_loss, *curves.validation])
    for axes, title in zip(all_axes, titles, strict=True):
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xlabel("epoch", fontsize=8, color=INK)
        axes.set_xlim(0.0, last_epoch or 1.0)
        style_axes(axes)
    _draw_loss(loss_axes, curves.loss, curves.validation_loss)
    _draw_line(lr_axes, curves.lr, ORANGE)
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    lr_axes.set_ylim(bottom=0.0)
    if metric is not None:
        _draw_validation(validation_axes[0], curves.validation, metric)
    save_png(figure, path)


def _draw_loss(axes: Axes, points: Points, validation: Points) -> None:
    epochs, losses = _in_order(points)
    _, of_validation = _in_order(validation)
    finite = np.concatenate([losses[np.isfinite(losses)], of_validation[np.isfinite(of_validation)]])
    if not len(finite):
        _mark_empty(axes)
        return
    axes.plot(epochs, losses, color=BLUE, alpha=0.3, linewidth=0.8, label="training, logged steps")
    smoothed = smooth(losses, width=max(len(losses) // 20, 1))
    axes.plot(epochs, smoothed, color=BLUE, linewidth=1.8, label="training, smoothed")
    if validation:
        _draw_line(axes, validation, ORANGE, marker="o", label="validation")
    axes.set_ylim(0.0, 1.05 * float(finite.max()))
    axes.legend(fontsize=8, frameon=False, loc="best")


def _draw_validation(axes: Axes, points: Points, metric: Metric) -> None:
    _draw_line(axes, points, GREEN, marker="o")
    if metric.unit == "%":
        axes.set_ylim(0.0, 102.0)
    if points:
        best = (max if metric.higher_is_better else min)(points, key=lambda epoch: points[epoch])
        axes.axhline(points[best], color=GREEN, linestyle=":", linewidth=1.0)
        axes.text(
            0.98,
            0.04,
            f"best {metric.text(points[best], 1 if metric.unit == '%' else None)}, epoch {best:g}",
            transform=axes.transAxes,
            ha="right",
            fontsize=8,
        )


def _draw_line(axes: Axes, points: Points, color: str, marker: str = "", label: str | None = None) -> None:
    if not points:
        _mark_empty(axes)
        return
    axes.plot(*_in_order(points), color=color, linewidth=1.8, marker=marker, markersize=4, clip_on=False, label=label)


def _mark_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color=GRAY, fontsize=9)


def _in_order(points: Points) -> tuple[np.ndarray, np.ndarray]:
    epochs = sorted(points)
    return np.array(epochs), np.array([points[epoch] for epoch in epochs])


def smooth(values: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
    """Return the mean of the finite values in a centered window of 2 width + 1 values, shorter at the ends."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    center = np.arange(len(values))
    first, last = np.maximum(center - width, 0), np.minimum(center + width + 1, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[last] - sums[first]) / (counts[last] - counts[first]))
