"""Average precision of many classes, in memory that grows with the number of positives and not with N x K.

The average precision of a class changes only at the scores of its positive samples, its *thresholds*. They are known
once all samples are processed; a second pass over the scores counts the samples that reach each of them.

N samples, K classes, M thresholds of all classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of a class in percent, None without positives, and the number of its positive samples."""

    positives: int
    average_precision: float | None


@dataclass(frozen=True)
class Thresholds:
    """Distinct scores of the positive samples of each class, ascending within a class.

    Attributes:
        scores: float32 (M,).
        positives: Number of positive samples with each of these scores, int64 (M,).
        ends: End of each class in them, int64 (K,).
    """

    scores: np.ndarray
    positives: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, classes: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], num_classes: int) -> Thresholds:
        """Build from the classes of each sample and its scores for them."""
        flat = np.array([number for sample in classes for number in sample], np.int64)
        values = np.array([score for sample in scores for score in sample], np.float32)
        order = np.lexsort((values, flat))
        flat, values = flat[order], values[order]
        first = np.flatnonzero((np.diff(flat, prepend=-1) != 0) | (np.diff(values, prepend=np.float32(-1)) != 0))
        positives = np.diff(np.append(first, len(flat)))
        return cls(values[first], positives, np.cumsum(np.bincount(flat[first], minlength=num_classes)))

    def of_class(self, number: int) -> slice:
        """Return the thresholds of a class."""
        return slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))

    def count(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Count the samples whose score reaches each threshold.

        Args:
            blocks: Scores of all samples, float32 (rows, K) each.

        Returns:
            int64 (M,).
        """
        counts = np.zeros(len(self.scores), np.int64)
        present = np.flatnonzero(np.diff(self.ends, prepend=0)).tolist()
        for block in blocks:
            columns = np.ascontiguousarray(block.T)
            for number in present:
                chosen = self.of_class(number)
                reached = np.searchsorted(self.scores[chosen], columns[number], side="right")  # thresholds per sample
                tally = np.bincount(reached, minlength=chosen.stop - chosen.start + 1)
                counts[chosen] += np.cumsum(tally[:0:-1])[::-1]
        return counts

    def precisions(self, counts: np.ndarray, lost: np.ndarray, samples: int) -> list[ClassPrecision]:
        """Return the average precision of each class: the sum over thresholds of precision times increase in recall.

        Equal scores share a threshold, as in scikit-learn's ``average_precision_score``.

        Args:
            counts: Number of samples that reach each threshold, int64 (M,).
            lost: Number of positive samples of each class without scores, which rank last together, int64 (K,).
            samples: N, with the samples without scores.
        """
        found = []
        for number, missing in enumerate(lost.tolist()):
            chosen = self.of_class(number)
            positives, reached = self.positives[chosen][::-1], counts[chosen][::-1]
            total = int(positives.sum()) + missing
            area = float(np.sum(np.cumsum(positives) / reached * positives))
            area += missing * total / samples if missing else 0.0
            found.append(ClassPrecision(total, 100.0 * area / total if total else None))
        return found
