"""Confusion matrix of a test for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slowfast.visualization.confusion import count_confusions


def confusion_of(rows: Sequence[Mapping[str, str]], per_class: Sequence[Any]) -> dict[str, Any] | None:
    """Count the predictions of a test with exclusive classes.

    Args:
        rows: Rows of predictions.csv.
        per_class: Content of per_class.json. The confusions in it tell a test with exclusive classes from others.

    Returns:
        Class names, and label, prediction and number of videos of all pairs that occur; None for another task.
    """
    names = [one.get("class_name") for one in per_class if isinstance(one, Mapping) and "confused_with" in one]
    pairs = [(row.get("label", ""), row.get("prediction", "")) for row in rows]
    read = [(int(label), int(best)) for label, best in pairs if label.isdecimal() and best.isdecimal()]
    if not read or max(map(max, read)) >= len(names):
        return None
    found = count_confusions([label for label, _ in read], [best for _, best in read], len(names))
    return {
        "names": [str(name) for name in names],
        "labels": found.labels.tolist(),
        "predictions": found.predictions.tolist(),
        "videos": found.videos.tolist(),
        "unread": len(rows) - len(read),
    }
