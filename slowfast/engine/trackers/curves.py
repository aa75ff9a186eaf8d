"""Tags and values of the curves that trackers show."""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.visualization.metrics_log import Row
from slowfast.visualization.results import LOSS, Metric

# Names that differ from those in metrics.jsonl.
_NAMES = {"top1": "top1_acc", "top5": "top5_acc"}
_WITHOUT_SPLIT = ("lr", "lr_min", "lr_max")
_SYSTEM = {"data_s": "system/data_seconds", "compute_s": "system/compute_seconds", "memory_gib": "system/memory_gib"}


def curve_values(row: Row, metrics: Sequence[Metric]) -> dict[str, float]:
    """Return the points of curves in a row of metrics.jsonl, by tag.

    Losses and metrics get tags such as ``train/loss`` and ``val/top1_acc``, the learning rate is ``lr``, and time and
    memory of a training get tags such as ``system/data_seconds``. Everything else, such as the epoch, the number of
    videos and the remaining time, is bookkeeping and not a curve.

    Args:
        row: Numbers by name, with the split.
        metrics: Metrics of the task, besides the loss.
    """
    known = {LOSS.key, *(metric.key for metric in metrics)}
    values = {}
    for name, value in row.items():
        if not isinstance(value, (int, float)):
            continue
        if name in known:
            values[tag_of(row["split"], name)] = float(value)
        elif name in _WITHOUT_SPLIT:
            values[name] = float(value)
        elif name in _SYSTEM:
            values[_SYSTEM[name]] = float(value)
    return values


def curve_tags(metrics: Sequence[Metric]) -> list[str]:
    """Return the tags used to compare runs: validation and test metrics."""
    return [tag_of("val", LOSS.key), *(tag_of(split, one.key) for split in ("val", "test") for one in metrics)]


def tag_of(split: str, name: str) -> str:
    """Return the tag of a loss or metric, such as ``val/top1_acc``."""
    return f"{split}/{_NAMES.get(name, name)}"
