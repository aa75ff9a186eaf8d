"""Class scores of many samples: rows in bounded memory, and metrics that are computed from them.

Average precision takes memory that grows with the number of positives and not with N x K: that of a class changes only
at the scores of its positive samples, its *thresholds*. They are known once all samples are processed; a second pass
over the scores counts the samples that reach each of them.

N samples, K classes, M thresholds of all classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.utils.distributed import World
from slowfast.utils.files import disk_error

_IN_MEMORY = 64 * 2**20  # bytes kept in memory; beyond, rows are in a file
_BLOCK = 32 * 2**20  # bytes read at a time
BINS = 15  # as in the tables of the paper


class ScoreRows:
    """Rows of K float32 scores in memory, or in a temporary file without a name once they exceed 64 MiB.

    Args:
        num_classes: K.
        folder: Folder of the file, which takes 4 K bytes per sample; the system's folder of temporary files if it does
            not exist.
    """

    def __init__(self, num_classes: int, folder: Path | None = None) -> None:
        self.num_classes = num_classes
        self._folder = folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def block(self) -> int:
        """Number of rows to read at a time."""
        return max(_BLOCK // (4 * self.num_classes), 1)

    def append(self, rows: np.ndarray) -> None:
        """Add a row (K,) or several (N, K).

        Raises:
            DiskError: If the disk is full.
        """
        data = np.ascontiguousarray(rows, np.float32)
        try:
            self._file.seek(0, 2)
            self._file.write(data.tobytes())
        except OSError as error:
            raise disk_error(error, self._folder / "temporary file of scores", "OUTPUT_DIR") or error from error
        self._count += data.size // self.num_classes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of ascending numbers, float32 (len(rows), K)."""
        found = np.empty((len(rows), self.num_classes), np.float32)
        stretches = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)  # runs of consecutive rows
        for stretch in stretches if len(rows) else []:
            self._file.seek(int(rows[stretch[0]]) * 4 * self.num_classes)
            data = self._file.read(len(stretch) * 4 * self.num_classes)
            found[stretch] = np.frombuffer(data, np.float32).reshape(-1, self.num_classes)
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, in blocks float32 (rows, K)."""
        for first in range(0, len(self), self.block):
            yield self.read(np.arange(first, min(first + self.block, len(self))))


def gather_rows(world: World, own: ScoreRows, indices: np.ndarray, every: np.ndarray, folder: Path | None) -> ScoreRows:
    """Merge the rows of all processes in one order; all processes must call it.

    Args:
        world: Processes of the run.
        own: Rows of this process.
        indices: Index of the sample of each row, int64 (len(own),).
        every: Indices of all samples in the order of the result, ascending, int64 (N,).
        folder: Folder of a temporary file; see `ScoreRows`.

    Returns:
        In the main process the rows of all samples, NaN for samples without a row; no rows in the others.
    """
    order = np.argsort(indices, kind="stable")
    if world.size == 1 and np.array_equal(indices, every):
        return own
    gathered = ScoreRows(own.num_classes, folder)
    for first in range(0, len(every), own.block):
        wanted = every[first : first + own.block]
        start, end = np.searchsorted(indices[order], [wanted[0], wanted[-1] + 1])
        rows = np.sort(order[start:end])
        parts = world.gather([(indices[rows], own.read(rows))])
        if world.is_main:
            block = np.full((len(wanted), own.num_classes), np.nan, np.float32)
            for found, values in parts:
                block[np.searchsorted(wanted, found)] = values
            gathered.append(block)
    return gathered


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


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """Return the expected calibration error in percent; NaN without samples.

    Samples are sorted into bins of equal width by their confidence. The result is the mean over the samples of
    |accuracy - mean confidence| of their bin (Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).

    Args:
        confidences: Score of the predicted class of each sample, in [0, 1].
        correct: Whether each prediction is correct.
        bins: Number of bins; bin b holds the confidences in (b / bins, (b + 1) / bins], the first one also 0.
    """
    if not len(confidences):
        return float("nan")
    scores = np.asarray(confidences, np.float64)
    upper_ends = np.arange(1, bins + 1) / bins
    bin_of = np.searchsorted(upper_ends, scores, side="left").clip(max=bins - 1)
    gaps = np.bincount(bin_of, np.asarray(correct, np.float64) - scores, minlength=bins)
    return float(100.0 * np.abs(gaps).sum() / len(scores))
