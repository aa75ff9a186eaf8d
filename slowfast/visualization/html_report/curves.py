"""Curves of metrics.jsonl for the report, downsampled to the resolution of a screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from slowfast.visualization.metrics_log import Row, smooth
from slowfast.visualization.results import LOSS, Metric

MAX_POINTS = 600  # per curve
DIGITS = 6  # significant digits


@dataclass(frozen=True)
class Series:
    """Line of a chart; None marks a gap.

    Attributes:
        name: Name in the legend.
        x: Positions, ascending.
        y: Values.
        style: ``line``, ``dots`` (a line with markers) or ``faint``.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "line"


@dataclass(frozen=True)
class Chart:
    """Chart of one quantity.

    Attributes:
        title: Heading.
        unit: Unit of the values; "" for none.
        x_title: Heading of the horizontal axis, with its unit.
        series: Lines.
        note: Text below the chart, such as the best value.
        low: Lower end of the vertical axis; None to fit the data.
        high: Upper end of the vertical axis; None to fit the data.
    """

    title: str
    unit: str
    x_title: str
    series: Sequence[Series] = field(default_factory=list)
    note: str = ""
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content for the page."""
        return asdict(self)


def training_charts(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Chart]:
    """Return the charts of a training: loss, metrics, learning rate and the time of a step.

    Args:
        rows: Rows of metrics.jsonl.
        metrics: Metrics of the task, for training steps and validations.
    """
    train, val = ([row for row in rows if row.get("split") == split] for split in ("train", "val"))
    charts = [_metric_chart(metric, train, val) for metric in (LOSS, *metrics)]
    charts.append(Chart("learning rate", "", "epoch", _series(train, {"lr": "learning rate", **_lr_range(train)})))
    steps = {"data_s": "waiting for data", "compute_s": "computing"}
    charts.append(Chart("time per step", "s", "epoch", _series(train, steps), low=0.0))
    return [chart for chart in charts if chart.series]


def _metric_chart(metric: Metric, train: Sequence[Row], val: Sequence[Row]) -> Chart:
    series, (epochs, values) = [], _points(train, metric.key)
    if len(values):
        smoothed = smooth(values, width=max(len(values) // 50, 1))
        raw = thin("training, logged steps", epochs, values, "faint")
        series += [raw, thin("training, smoothed", epochs, smoothed)]
    epochs, values = _points(val, metric.key)
    if len(values):
        series.append(thin("validation", epochs, values, "dots"))
    percent = metric.unit == "%" and metric.higher_is_better
    note = _best(metric, epochs, values)
    low, high = (0.0, 100.0) if percent else (0.0 if metric.unit == "%" else None, None)
    return Chart(metric.title, metric.unit, "epoch", series, note, low, high)


def _best(metric: Metric, epochs: np.ndarray, values: np.ndarray) -> str:
    """Describe the best validation; "" if there is none."""
    best: int | None = None
    for at, value in enumerate(values.tolist()):
        if metric.is_better(value, None if best is None else float(values[best])):
            best = at
    return "" if best is None else f"best validation: {metric.text(float(values[best]))} at epoch {epochs[best]:g}"


def _lr_range(train: Sequence[Row]) -> dict[str, str]:
    """Return the smallest and largest learning rate of the layers, if they differ from that of the schedule."""
    keys = {"lr_min": "smallest of the layers", "lr_max": "largest of the layers"}
    differ = {key for key in keys for row in train if row.get(key, row.get("lr")) != row.get("lr")}
    return {key: name for key, name in keys.items() if key in differ}


def _series(rows: Sequence[Row], names: dict[str, str]) -> list[Series]:
    found = [(name, *_points(rows, key)) for key, name in names.items()]
    return [thin(name, epochs, values) for name, epochs, values in found if len(values)]


def _points(rows: Sequence[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and values, float64 (N,), of the rows with a key, in order; NaN for values that are not numbers."""
    points = sorted(
        ((_number(row.get("epoch")), _number(row[key])) for row in rows if key in row), key=lambda point: point[0]
    )
    epochs, values = np.array(points, np.float64).reshape(-1, 2).T
    return epochs[np.isfinite(epochs)], values[np.isfinite(epochs)]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def thin(name: str, x: np.ndarray, y: np.ndarray, style: str = "line") -> Series:
    """Return a line of at most MAX_POINTS points, means over equally many consecutive points each.

    Args:
        name: Name in the legend.
        x: Positions (N,).
        y: Values (N,); NaN values are excluded from the means, and a mean of no values is a gap.
        style: Style of the line.
    """
    size = max(-(-len(x) // MAX_POINTS), 1)
    starts = np.arange(0, len(x), size)
    known = np.isfinite(y)
    counts = np.add.reduceat(known, starts, dtype=np.int64) if len(x) else np.zeros(0)
    sums = np.add.reduceat(np.where(known, y, 0.0), starts) if len(x) else np.zeros(0)
    places = np.add.reduceat(x, starts) / np.diff(np.append(starts, len(x))) if len(x) else np.zeros(0)
    means = [rounded(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
    return Series(name, [rounded(place) for place in places], means, style)


def rounded(value: float) -> float:
    """Round to DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")
