"""Training curves, and the style of all plots."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from slowfast.utils.files import atomic_path
from slowfast.utils.text import sanitize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slowfast.visualization.metrics_log import read_metrics
from slowfast.visualization.results import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


BLUE, ORANGE, GREEN, RED = "#2f6db3", "#e08214", "#2e8b57", "#c43c39"
INK, GRAY, FAINT = "#222222", "#777777", "#dddddd"


class PlotsUnavailable(ImportError):
    """Raised if matplotlib, which only plots need, cannot be imported."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure, without changing the state of pyplot.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        PlotsUnavailable: If matplotlib cannot be imported.
    """
    try:
        figure = _figure_class()
    except Exception as error:  # a broken matplotlibrc raises various exceptions
        raise PlotsUnavailable(
            f'plots need matplotlib, which cannot be imported ({error}). Run pip install "slowfast[plots]"'
        ) from error
    return figure(figsize=(width, height), facecolor="white", layout="constrained")


def _figure_class() -> type[Figure]:
    """Import matplotlib's Figure even if MPLBACKEND names a backend that is not installed.

    A command started from a notebook inherits such a value, and matplotlib then refuses to be imported. The backend
    does not matter here, since a Figure without pyplot is always drawn by Agg. A valid value is kept.
    """
    first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None) if first else None
    try:
        with _quiet():
            from matplotlib import rcParams
            from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            rcParams["backend"] = backend
    return Figure


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress matplotlib's warnings about missing glyphs, read-only folders and fonts."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def style_axes(axes: Axes) -> None:
    """Apply the common style: no top and right spines, a faint grid, small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK)


def even_indices(length: int, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced indices from 0 to length - 1, int64 and ascending."""
    return np.rint(np.linspace(0, length - 1, min(most, length))).astype(np.int64)


def label_text(name: str, length: int = 40) -> str:
    """Prepare a name for a plot: one printable line of at most `length` characters, without math markup."""
    line = sanitize(" ".join(name.split()))
    if len(line) > length:
        line = line[: length - 3].rstrip() + "..."
    return line.replace("$", r"\$")


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure, completely or not at all."""
    with atomic_path(path) as partial, _quiet():
        figure.savefig(partial, format="png", dpi=dpi)


def image_of(figure: Figure, dpi: int = 130) -> np.ndarray:
    """Draw a figure as an image uint8 (H, W, 3) RGB."""
    file = io.BytesIO()
    with _quiet():
        figure.savefig(file, format="png", dpi=dpi)
    image = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1]


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
