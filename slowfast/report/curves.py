"""Draws a training from metrics.jsonl: loss, learning rate and validation accuracy over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slowfast.report.metrics_log import read_metrics
from slowfast.report.plotting import BLUE, GREEN, GREY, INK, ORANGE, new_figure, save_png, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[float, float]  # epoch -> value; NaN where the log has null


@dataclass
class Curves:
    """What metrics.jsonl says, by fractional epoch."""

    loss: Points = field(default_factory=dict)
    lr: Points = field(default_factory=dict)
    top1: Points = field(default_factory=dict)  # validation, %


def read_curves(metrics: Path) -> Curves:
    """Read metrics.jsonl; other keys and splits than these are left alone:

    {"split": "train", "epoch": 1.25, "loss": ..., "lr": ...}    epochs done, fractional
    {"split": "val", "epoch": 2.0, "top1": ...}                  %
    """
    curves = Curves()
    for row in read_metrics(metrics):
        for key in {"train": ("loss", "lr"), "val": ("top1",)}.get(row["split"], ()):
            if key in row:
                value = row[key]
                getattr(curves, key)[float(row["epoch"])] = np.nan if value is None else float(value)
    return curves


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw metrics.jsonl as a PNG. Raises PlotsUnavailable without matplotlib."""
    figure = new_figure(11.0, 3.4)
    curves = read_curves(metrics)
    loss_axes, lr_axes, top1_axes = figure.subplots(1, 3)
    last_epoch = max([0.0, *curves.loss, *curves.lr, *curves.top1])
    for axes, title in (
        (loss_axes, "Training loss"),
        (lr_axes, "Learning rate"),
        (top1_axes, "Validation top-1 (%)"),
    ):
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xlabel("epoch", fontsize=8, color=INK)
        axes.set_xlim(0.0, last_epoch or 1.0)
        tidy(axes)
    _draw_loss(loss_axes, curves.loss)
    _draw_line(lr_axes, curves.lr, ORANGE)
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    lr_axes.set_ylim(bottom=0.0)
    _draw_top1(top1_axes, curves.top1)
    save_png(figure, picture)


def _draw_loss(axes: Axes, points: Points) -> None:
    epochs, losses = _in_order(points)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        _say_empty(axes)
        return
    axes.plot(epochs, losses, color=BLUE, alpha=0.3, linewidth=0.8, label="each logged step")
    axes.plot(epochs, smooth(losses, width=max(len(losses) // 20, 1)), color=BLUE, linewidth=1.8, label="smoothed")
    axes.set_ylim(0.0, 1.05 * float(finite.max()))
    axes.legend(fontsize=8, frameon=False, loc="best")


def _draw_top1(axes: Axes, points: Points) -> None:
    _draw_line(axes, points, GREEN, marker="o")
    axes.set_ylim(0.0, 102.0)
    if points:
        best = max(points, key=lambda epoch: points[epoch])
        axes.axhline(points[best], color=GREEN, linestyle=":", linewidth=1.0)
        axes.text(
            0.98,
            0.04,
            f"best {points[best]:.1f} %, epoch {best:g}",
            transform=axes.transAxes,
            ha="right",
            fontsize=8,
        )


def _draw_line(axes: Axes, points: Points, colour: str, marker: str = "") -> None:
    if not points:
        _say_empty(axes)
        return
    axes.plot(*_in_order(points), color=colour, linewidth=1.8, marker=marker, markersize=4, clip_on=False)


def _say_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color=GREY, fontsize=9)


def _in_order(points: Points) -> tuple[np.ndarray, np.ndarray]:
    epochs = sorted(points)
    return np.array(epochs), np.array([points[epoch] for epoch in epochs])


def smooth(values: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
    """Mean over a centred window of 2 width + 1 values, shorter at the ends, leaving out NaN and infinity."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    first, last = np.maximum(place - width, 0), np.minimum(place + width + 1, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[last] - sums[first]) / (counts[last] - counts[first]))
