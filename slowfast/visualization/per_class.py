"""Per-class results of a test: per_class.csv and per_class.json, and the accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.utils.json_files import write_json
from slowfast.utils.text_files import write_csv
from slowfast.visualization.confusion import count_confusions
from slowfast.visualization.results import PERCENT_DIGITS, VideoPrediction

PER_CLASS_CSV, PER_CLASS_JSON = "per_class.csv", "per_class.json"
Row = dict[str, Any]  # by column; numbers, text, and None for what does not exist


def write_per_class(rows: Sequence[Row], class_names: Sequence[str], folder: Path, what: str) -> dict[str, Path]:
    """Write the results of all classes as a table and as a list of JSON objects.

    Args:
        rows: Results of each class, in label order. Percentages are rounded already.
        class_names: Names of all classes; label and name are the first columns.
        folder: OUTPUT_DIR.
        what: Description of the table, such as "accuracy per class".

    Returns:
        Descriptions and paths of the files.
    """
    named = [
        {"class": label, "class_name": name} | row
        for label, (name, row) in enumerate(zip(class_names, rows, strict=True))
    ]
    table = [["" if value is None else value for value in row.values()] for row in named]
    write_csv(folder / PER_CLASS_CSV, list(named[0]), table)
    write_json(folder / PER_CLASS_JSON, named)
    return {what: folder / PER_CLASS_CSV, f"{what} (JSON)": folder / PER_CLASS_JSON}


@dataclass(frozen=True)
class ClassAccuracies:
    """Accuracy of each of K classes; unreadable videos count as wrong, as in the top-1 accuracy.

    Attributes:
        videos: Number of videos, int64 (K,).
        correct: Number of correct predictions, int64 (K,).
        confused_with: Most frequent wrong prediction, the first of several; -1 if there is none, int64 (K,).
        confused_videos: Number of videos with that prediction, int64 (K,).
    """

    videos: np.ndarray
    correct: np.ndarray
    confused_with: np.ndarray
    confused_videos: np.ndarray

    @classmethod
    def of(cls, predictions: Sequence[VideoPrediction], num_classes: int) -> ClassAccuracies:
        """Count the predictions of all videos, in memory that grows with the number of videos and classes."""
        labels = np.array([one.label for one in predictions], np.int64)
        confusions = count_confusions(labels.tolist(), [one.prediction for one in predictions], num_classes)
        _, correct = confusions.per_class()
        confused_with, confused_videos = np.full(num_classes, -1), np.zeros(num_classes, np.int64)
        wrong = np.flatnonzero(confusions.labels != confusions.predictions)
        # The last assignment to a class stays: its most frequent pair, of equal ones that of the lowest prediction.
        order = wrong[np.lexsort((-confusions.predictions[wrong], confusions.videos[wrong]))]
        confused_with[confusions.labels[order]] = confusions.predictions[order]
        confused_videos[confusions.labels[order]] = confusions.videos[order]
        return cls(np.bincount(labels, minlength=num_classes), correct, confused_with, confused_videos)

    def mean(self) -> float:
        """Return the mean over the classes with videos of their accuracy in percent; 0 if there is none."""
        known = self.videos > 0
        shares = 100.0 * self.correct[known] / self.videos[known]
        return round(float(shares.mean()), PERCENT_DIGITS) if len(shares) else 0.0

    def rows(self, class_names: Sequence[str]) -> list[Row]:
        """Return the rows for `write_per_class`: the accuracy (%) of a class without videos is None."""
        rows = []
        columns = (self.videos, self.correct, self.confused_with, self.confused_videos)
        for videos, correct, other, count in zip(*(column.tolist() for column in columns), strict=True):
            confused = other >= 0
            rows.append(
                {
                    "videos": videos,
                    "correct": correct,
                    "accuracy": round(100.0 * correct / videos, PERCENT_DIGITS) if videos else None,
                    "confused_with": other if confused else None,
                    "confused_with_name": class_names[other] if confused else None,
                    "confused_videos": count if confused else None,
                }
            )
        return rows
